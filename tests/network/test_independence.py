"""A network whose answer for an image depends on more than the image is refused, with what it depends on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchcam.errors import ModelError
from batchcam.network.independence import independent_logits
from tests.helpers.networks import CHANNELS, GapNetwork, random_images, seeded, torchvision_network


class Changed(GapNetwork):
    """Its pooled features go through something else before the last layer."""

    def __init__(self, change: nn.Module) -> None:
        super().__init__()
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.change(self.pool(self.body(self.stem(images))).flatten(1)))


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


class AlwaysTraining(nn.BatchNorm1d):
    """A batch norm that nobody can put into evaluation mode."""

    def train(self, mode: bool = True) -> AlwaysTraining:
        return super().train(True)


class Remembering(nn.Module):
    """Takes off a running mean that it goes on to update."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(CHANNELS))

    def forward(self, values: Tensor) -> Tensor:
        self.mean = 0.5 * self.mean + 0.5 * values.mean(0)
        return values - self.mean


class Counting(nn.Module):
    """Gives another answer at every second call, and has nothing to show for it."""

    calls = 0

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        return values * (1 + self.calls % 2)


BATCH = "depends on the other images of its batch: .*"
STATISTICS = BATCH + "'change' .* normalises by the statistics of the batch, as it "
REFUSED = {
    "no running statistics": (lambda: nn.BatchNorm1d(CHANNELS, track_running_stats=False), STATISTICS + "has no"),
    "in training": (lambda: AlwaysTraining(CHANNELS), STATISTICS + "is training"),
    "softmax over the batch": (lambda: nn.Softmax(0), BATCH + "first by layer 'change' .Softmax"),
    "mean of the batch": (lambda: Function(lambda v: v - v.mean(0)), BATCH + "first by layer 'change' .Func"),
    "attention over the batch": (lambda: Function(lambda v: (v @ v.T).softmax(1) @ v), BATCH),
    "scale by the batch": (lambda: Function(lambda v: v / v.abs().amax()), BATCH),
    "dropout": (lambda: Function(lambda v: F.dropout(v, 0.5, training=True)), "depend on chance: .*layer 'change'"),
    "noise": (lambda: Function(lambda v: v + torch.randn_like(v)), "depend on chance"),
    "random choice": (lambda: Function(lambda v: v[:, torch.randperm(CHANNELS)]), "depend on chance"),
    "running mean": (Remembering, "depend on what it saw before, which changes its 'change.mean'"),
    "counter": (Counting, "depend on chance: .*first by layer 'change' .Counting"),
}  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("kind", REFUSED)
def test_network_whose_answer_depends_on_more_than_the_image_is_refused_by_its_reason(kind, count):
    change, reason = REFUSED[kind]
    torch.manual_seed(1)
    with pytest.raises(ModelError, match=reason):
        independent_logits(Changed(change()).eval(), random_images(count, 32, 32))


@pytest.mark.parametrize("change", [nn.Identity, lambda: nn.BatchNorm1d(CHANNELS), nn.Dropout, lambda: nn.Softmax(1)])
@pytest.mark.parametrize("count", [1, 3])
def test_network_that_looks_at_each_image_alone_passes(change, count):
    network = Changed(change()).eval()
    logits = independent_logits(network, random_images(count, 32, 32))
    assert logits.shape == (2, 3)


def test_networks_of_torchvision_pass_and_stay_as_they_are():
    for name in ("resnet18", "densenet121", "efficientnet_b0", "convnext_tiny", "swin_t"):
        network = torchvision_network(name)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        independent_logits(network, random_images(2, 64, 64))
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_image_whose_logits_are_not_finite_is_passed_over():
    images = random_images(2, 16, 16)
    images[0] = float("nan")
    assert not torch.isfinite(independent_logits(seeded(GapNetwork), images)[0]).any()
