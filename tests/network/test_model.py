"""Building a network and loading a checkpoint into it, or a refusal that says why."""

from __future__ import annotations

import re
from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import prune

from batchcam.errors import CheckpointError, ConfigError, ModelError
from batchcam.network import model as model_module
from batchcam.network.model import build_network, format_options, load_network, load_state, parse_options
from tests.helpers import mostly_slow
from tests.helpers.networks import CHANNELS, GapNetwork, random_images, seeded, torchvision_network


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


def same_logits(network: nn.Module, loaded: nn.Module, size: int = 64) -> bool:
    with torch.inference_mode():
        return torch.equal(network(random_images(2, size, size)), loaded.eval()(random_images(2, size, size)))


@pytest.mark.parametrize(
    "name",
    mostly_slow(
        ["resnet18", "squeezenet1_1", "efficientnet_b0", "convnext_tiny", "regnet_y_400mf"],
        *["resnet18", "squeezenet1_1"],
    ),
)
@pytest.mark.parametrize("prefix", ["", "model.", "net.", "backbone.", "encoder.model."])
@pytest.mark.parametrize("order", [list, sorted])
def test_network_is_loaded_whatever_stands_before_its_names_and_in_whatever_order(name, prefix, order):
    network = torchvision_network(name, 5)
    state = network.state_dict()
    given = {prefix + k: state[k] for k in order(state)}
    given |= {"criterion.weight": torch.ones(5, 5), "val_acc.correct": torch.tensor(0)}
    loaded, _, remarks = load_network(name, given, "w.pth")
    assert same_logits(network, loaded)
    assert remarks[-1] == "left out, as parts of the training: criterion.weight, val_acc.correct"
    assert len(remarks) == 1 or repr(prefix) in remarks[0]


@pytest.mark.parametrize(
    "beside", ["head.weight", "projector.0.weight", "temperature", "cbam.conv.weight", "fc2.weight"]
)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_tensors_beside_a_network_that_may_be_part_of_it_are_refused_by_name(prefix, beside):
    state = {prefix + k: v for k, v in torchvision_network("resnet18").state_dict().items()} | {
        beside: torch.ones(4, 4)
    }
    with pytest.raises(CheckpointError, match=f"1 unexpected \\({beside}\\); it is a changed network: .*--model"):
        load_network("resnet18", state, "w.pth")


def test_several_networks_in_one_state_are_refused_with_the_option_that_says_which():
    state = torchvision_network("resnet18").state_dict()
    both = {f"{who}.{k}": v for who in ("student", "teacher") for k, v in state.items()}
    with pytest.raises(
        CheckpointError, match=r"several networks, under student\., teacher\.: .*--weights-key student\."
    ):
        load_network("resnet18", both, "w.pth")


HEADS = {
    "resnet18": ("fc", nn.Sequential(nn.Dropout(), nn.Linear(512, 3))),
    "densenet121": ("classifier", nn.Sequential(nn.Linear(1024, 3))),
    "efficientnet_b0": ("classifier", nn.Linear(1280, 3)),
    "mobilenet_v2": ("classifier", nn.Sequential(nn.Dropout(), nn.Sequential(nn.Linear(1280, 3, bias=False)))),
    "shufflenet_v2_x0_5": ("fc", nn.Linear(1024, 3, bias=False)),
    "regnet_x_400mf": ("fc", nn.Sequential(nn.Identity(), nn.Dropout(), nn.Linear(400, 3))),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_head_in_a_sequential_or_without_bias_is_recognised(name, prefix):
    network = torchvision_network(name)
    setattr(network, *HEADS[name])
    network.eval()
    loaded, _, remarks = load_network(name, {prefix + k: v for k, v in network.state_dict().items()}, "w.pth")
    assert same_logits(network, loaded)
    moved = not network.state_dict().keys() <= loaded.state_dict().keys()
    assert moved == any("is taken for the linear layer" in remark for remark in remarks)


def test_head_beside_its_backbone_is_recognised():
    network = torchvision_network("resnet18")
    state = {("head." if k.startswith("fc.") else "backbone.") + k: v for k, v in network.state_dict().items()}
    loaded, _, remarks = load_network("resnet18", state, "w.pth")
    assert same_logits(network, loaded)
    assert "head: 'head.fc' is taken" in remarks[1]


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 3)),
        nn.Sequential(nn.BatchNorm1d(512), nn.Linear(512, 3)),
        nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 3)),
    ],
)
def test_head_of_more_than_a_linear_layer_is_refused_with_what_to_do(head):
    network = torchvision_network("resnet18")
    network.fc = head
    with pytest.raises(CheckpointError, match=r"fc\.\d\.weight.*it is a changed network: .*--model") as refused:
        load_network("resnet18", network.state_dict(), "w.pth")
    assert "--arch" not in str(refused.value)


def test_weights_of_another_architecture_are_told_to_be_so():
    with pytest.raises(CheckpointError, match=r"not resnet18's: .*; name its own architecture with --arch"):
        load_network("resnet18", torchvision_network("mobilenet_v2").state_dict(), "w.pth")


@pytest.mark.parametrize(("channels", "word"), [(1, "1 channel (grey images)"), (4, "4 channels")])
def test_first_layer_of_other_channels_is_named_as_the_cause(channels, word):
    network = torchvision_network("resnet18")
    network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    with pytest.raises(CheckpointError, match=f"takes {re.escape(word)}: build it by --model module:callable"):
        load_network("resnet18", network.state_dict(), "w.pth")


def test_old_names_of_torchvisions_own_files_are_read():
    network = torchvision_network("densenet121")
    old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))([12]\.)")
    state = {old.sub(r"\1.\2", k): v for k, v in network.state_dict().items() if "num_batches_tracked" not in k}
    assert any(".norm.1." in k for k in state)
    assert same_logits(network, load_network("densenet121", state, "w.pth")[0])
    vit = torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32)
    names = {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}
    state = {re.sub(r"\.mlp\.[03]\.", lambda m: names[m[0]], k): v for k, v in vit.state_dict().items()}
    assert any("linear_2" in k for k in state)
    with pytest.raises(CheckpointError) as refused:
        load_network("vit_b_16", state, "w.pth")  # a smaller one; but its names are known
    assert "linear" not in str(refused.value)


@pytest.mark.parametrize("side_exits", ["as many classes", "other classes", "none"])
@pytest.mark.parametrize("name", mostly_slow(["googlenet", "inception_v3"], "googlenet"))
@pytest.mark.parametrize("transformed", [False, True])
def test_side_exits_do_not_matter_and_the_transformed_input_is_an_option(name, side_exits, transformed):
    torch.manual_seed(0)
    extra = {"init_weights": False, "aux_logits": side_exits != "none", "transform_input": transformed}
    network = torchvision.models.get_model(name, weights=None, num_classes=3, **extra).eval()
    state: dict[str, Tensor] = network.state_dict()
    if side_exits == "other classes":
        state = {k: torch.ones(1000, *v.shape[1:]) if k in ("aux1.fc2.weight", "AuxLogits.fc.weight") else v
                 for k, v in state.items()}  # fmt: skip
    loaded, _, _ = load_network(name, state, "w.pth", {"transform_input": transformed})
    assert same_logits(network, loaded, 96)
    assert not same_logits(network, load_network(name, state, "w.pth", {"transform_input": not transformed})[0], 96)


def test_first_version_of_mnasnet_is_built_as_it_was():
    network, first = build_network("mnasnet0_5", 3), OrderedDict()
    first._metadata = {"": {"version": 1}}  # what torchvision looks for
    with pytest.warns(UserWarning, match="previous version"):
        network.load_state_dict(first, strict=False)
    network.eval()
    assert network.state_dict()["layers.0.weight"].shape[0] == 32
    assert same_logits(network, load_network("mnasnet0_5", network.state_dict(), "w.pth")[0])
    second = torchvision_network("mnasnet0_5")
    assert same_logits(second, load_network("mnasnet0_5", dict(second.state_dict()), "w.pth")[0])


def test_vision_transformer_for_larger_images_is_built_for_them():
    state = build_network("vit_b_32", 3, {"image_size": 96}).state_dict()
    assert load_network("vit_b_32", state, "w.pth")[0].image_size == 96


def test_options_of_an_architecture_are_read_and_written():
    texts = ("aux_logits=false", "dropout=0.5", "mode=fast", "transform_input=true")
    options = parse_options(texts)
    assert options == {"aux_logits": False, "dropout": 0.5, "mode": "fast", "transform_input": True}
    assert format_options(options) == texts


@pytest.mark.parametrize("text", ["transform_input", "=true", "num_classes=3", "weights=DEFAULT", "a b=1"])
def test_option_that_can_not_be_meant_is_refused(text):
    with pytest.raises(ConfigError, match="expected NAME=VALUE"):
        parse_options([text])


def test_option_that_the_architecture_does_not_have_is_refused():
    with pytest.raises(ConfigError, match=r"--arch-option transform_input=true: resnet18 can't be built so"):
        build_network("resnet18", 3, {"transform_input": True})


def test_random_numbers_are_left_out_of_outlines_only_as_torch_draws_some_until_they_suit():
    with model_module._Unfilled():
        drawn = nn.init.trunc_normal_(torch.zeros(8), std=0.02)
        outline = nn.init.uniform_(torch.zeros(8, device="meta"))
    assert (drawn != 0).all()
    assert outline.is_meta


def test_a_pruned_network_is_named_as_such_with_the_line_that_makes_its_weights() -> None:
    network = torchvision_network("squeezenet1_1")
    prune.l1_unstructured(network.features[3].squeeze, "weight", amount=0.3)
    with pytest.raises(CheckpointError, match=r"it is pruned, features\.3\.squeeze and maybe others") as caught:
        load_network("squeezenet1_1", network.state_dict(), "model.pth", {})
    line = re.search(r"made it (torch\.nn\.utils\.prune\.remove\(.*?\)) of each", str(caught.value))
    assert line
    eval(line[1], {"torch": torch, "network": network})
    load_network("squeezenet1_1", network.state_dict(), "model.pth", {})
