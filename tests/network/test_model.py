"""Building a network and loading a checkpoint into it, or a refusal that says why."""

from __future__ import annotations

import pytest
import torch

from batchcam.errors import CheckpointError, ModelError
from batchcam.network.model import build_network, load_state
from tests.helpers.networks import CHANNELS, GapNetwork, seeded


def test_architecture_that_torchvision_does_not_know_is_answered_with_close_names():
    with pytest.raises(ModelError, match=r"resnet19.*did you mean: resnet1"):
        build_network("resnet19", 3)


@pytest.mark.parametrize("name", ["fcn_resnet50", "raft_small", "maskrcnn_resnet50_fpn", "quantized_resnet18"])
def test_torchvisions_networks_for_other_tasks_are_no_classifiers(name):
    with pytest.raises(ModelError, match="no such classifier"):
        build_network(name, 3)


def test_state_that_fits_is_loaded():
    source, target = seeded(GapNetwork, 1), seeded(GapNetwork, 2)
    load_state(target, source.state_dict(), "a.pth")
    assert all(torch.equal(v, target.state_dict()[k]) for k, v in source.state_dict().items())


def test_state_that_does_not_fit_is_refused_with_all_kinds_of_keys_and_loads_nothing():
    network = seeded(GapNetwork)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = {k: v + 1 for k, v in network.state_dict().items()}
    state["extra.weight"] = state.pop("head.bias")
    state["head.weight"] = torch.zeros(7, CHANNELS)
    with pytest.raises(CheckpointError) as error:
        load_state(network, state, "a.pth")
    message = str(error.value)
    for part in ("a.pth", "1 missing (head.bias)", "1 unexpected (extra.weight)", f"head.weight (7, {CHANNELS}) for"):
        assert part in message
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_only_the_first_of_many_wrong_keys_are_listed():
    state = {f"layer{i}": torch.zeros(1) for i in range(50)}
    with pytest.raises(CheckpointError, match=r"50 unexpected \(layer0, layer1, layer2, …\)"):
        load_state(seeded(GapNetwork), state, "a.pth")


def test_tensors_that_can_not_be_copied_into_the_network_are_refused():
    network = seeded(GapNetwork)
    state = {k: torch.empty_like(v, device="meta") for k, v in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        load_state(network, state, "a.pth")
