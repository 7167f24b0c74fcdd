"""A softmax or the like at a network's end is taken off: the logits are what enters it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from batchcam.maps.preparation import prepare
from batchcam.network.tail import ending, without_tail
from tests.helpers.networks import CHANNELS, CLASSES, GapNetwork, random_images, seeded, torchvision_network


class EndingNetwork(GapNetwork):
    """Ends in a function."""

    def __init__(self, end) -> None:
        super().__init__()
        self.end = end

    def forward(self, images: Tensor) -> Tensor:
        return self.end(super().forward(images))


ENDS = {
    "softmax": [nn.Softmax(1), nn.Softmax(-1), lambda x: x.softmax(1), lambda x: torch.softmax(x.double(), 1).float()],
    "log-softmax": [nn.LogSoftmax(1), lambda x: x.log_softmax(-1), lambda x: x - x.logsumexp(1, keepdim=True)],
    "sigmoid": [nn.Sigmoid(), torch.sigmoid, lambda x: 1 / (1 + (-x).exp())],
    "log-sigmoid": [nn.LogSigmoid()],
}
CASES = [(kind, end) for kind, ends in ENDS.items() for end in ends]


@pytest.mark.parametrize(("kind", "end"), CASES)
def test_tail_is_taken_off_and_told(kind, end):
    network, images = seeded(lambda: EndingNetwork(end)), random_images(4, 32, 32)
    with torch.no_grad():
        returned, logits = network(images), GapNetwork.forward(network, images)
        told = without_tail(network, returned, images)
        assert torch.equal(network(images), logits)
        assert torch.equal(network(images[:1] + 1), GapNetwork.forward(network, images[:1] + 1))
    assert told == f"the network ends in a {kind}: the logits are what enters it, from 'head'"


@pytest.mark.parametrize("method", ["cam", "gradcam"])
@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_network_with_a_tail_is_explained_as_the_one_without(end, method):
    plain, ended = torchvision_network("resnet18", 3), torchvision_network("resnet18", 3)
    ended.fc = nn.Sequential(ended.fc, end)
    images, told = random_images(2, 64, 64), []
    one, other = (prepare(n, images, method, "none", None, told.append) for n in (plain, ended))
    assert (one.target_layer, one.grid_size) == (other.target_layer, other.grid_size)
    assert method != "cam" or torch.equal(one.weight, other.weight)
    assert len(told) == 1
    with torch.no_grad():
        assert torch.equal(one.network(images), other.network(images))


@pytest.mark.parametrize(
    "end", [nn.Identity(), lambda x: x / 3, nn.Softplus(), lambda x: x.softmax(1) * 2, lambda x: x.relu(), torch.tanh]
)
def test_what_is_no_tail_of_these_stays(end):
    network, images = seeded(lambda: EndingNetwork(end)), random_images(4, 32, 32)
    with torch.no_grad():
        before = network(images)
        assert without_tail(network, before, images) == ""
        assert torch.equal(network(images), before)


@pytest.mark.parametrize("tail", [nn.Softmax(1), nn.Sigmoid()])
def test_temperature_before_a_tail_that_says_0_or_1_of_every_image_is_not_taken_off_with_it(tail):
    network, images = seeded(lambda: EndingNetwork(lambda x: tail(x / 3))), random_images(4, 32, 32)
    with torch.no_grad():
        network.head.weight *= 1e6
        before = network(images)
        assert set(before.unique().tolist()) <= {0.0, 1.0}
        assert without_tail(network, before, images) == ""
        assert torch.equal(network(images), before)


def test_attention_by_the_same_kind_of_layer_inside_is_left_alone():
    network = nn.Sequential(seeded(GapNetwork), nn.Linear(CLASSES, CHANNELS), nn.Softmax(1), nn.Linear(CHANNELS, 2))
    images = random_images(2, 32, 32)
    with torch.no_grad():
        before = network.eval()(images)
        assert without_tail(network, before, images) == ""
        assert torch.equal(network(images), before)


def test_ending_of_logits_is_none():
    assert ending(torch.randn(4, 3)) == ""
    assert ending(torch.full((2, 3), torch.nan)) == ""
