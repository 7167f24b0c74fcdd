"""Folding batch normalisations: the same logits and maps, or the network as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from batchcam.errors import ModelError
from batchcam.network.folding import fold_batch_norms
from batchcam.network.proof import prove
from tests.helpers import mostly_slow
from tests.helpers.networks import (
    CHANNELS,
    CLASSES,
    FailingNetwork,
    hook_count,
    random_images,
    seeded,
    torchvision_network,
)


def norms(network: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


@pytest.mark.parametrize(
    ("name", "left"),
    mostly_slow(
        [("resnet18", 0), ("mobilenet_v2", 0), ("efficientnet_b0", 0), ("densenet121", 62), ("convnext_tiny", 0)],
        *[("resnet18", 0), ("densenet121", 62)],
    ),
)
def test_folded_network_gives_the_same_logits_layer_and_maps(name, left):
    network, images = torchvision_network(name), random_images(2, 64, 96)
    original, count = copy.deepcopy(network), norms(network)
    assert fold_batch_norms(network, random_images(1, 64, 64, seed=3)) == count - left
    assert norms(network) == left  # DenseNet normalises before it convolves
    with torch.inference_mode():
        torch.testing.assert_close(network(images), original(images), rtol=1e-4, atol=1e-5)
    before, after = prove(original, images), prove(network, images)
    assert (before.target_layer, before.grid_size) == (after.target_layer, after.grid_size)
    assert after.residual < 1e-5
    assert hook_count(network) == 0


class SharedConvolution(nn.Module):
    """The normalisation is not the only one to use what the convolution gives."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, CHANNELS, 3)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        raw = self.convolution(images)
        return self.head((self.norm(raw) + raw).mean((2, 3)))


class RepeatedConvolution(SharedConvolution):
    """The convolution runs twice."""

    def forward(self, images: Tensor) -> Tensor:
        once = self.norm(self.convolution(images))
        return self.head(once.mean((2, 3)) + self.convolution(images).mean((2, 3)))


@pytest.mark.parametrize("factory", [SharedConvolution, RepeatedConvolution])
def test_network_that_folding_would_change_is_left_as_it_is(factory):
    network, images = seeded(factory), random_images(2, 16, 16)
    with torch.inference_mode():
        before = network(images)
        assert fold_batch_norms(network, images) == 0
        assert torch.equal(network(images), before)
    assert norms(network) == 1


def test_no_hook_is_left_when_the_network_raises():
    network = seeded(FailingNetwork)
    with pytest.raises(ModelError, match=r"raised RuntimeError: out of memory, say; it was given images of shape"):
        fold_batch_norms(network, random_images(1, 16, 16))
    assert hook_count(network) == 0


class NormalisedNetwork(nn.Module):
    """A convolution, its normalisation, pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, CHANNELS, 3, bias=False)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.convolution(images)).relu().mean((2, 3)))


class InspectingNetwork(NormalisedNetwork):
    """Looks at its own modules, which folding would take away."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.norm.num_features


class MaskedNorm(nn.BatchNorm2d):
    """Does more than its base class."""

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values).abs()


def with_hook(network: NormalisedNetwork) -> None:
    network.convolution.register_forward_hook(lambda module, inputs, output: output * 2)


def with_pre_hook(network: NormalisedNetwork) -> None:
    network.norm.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))


def with_own_forward(network: NormalisedNetwork) -> None:
    original = network.convolution.forward
    network.convolution.forward = lambda values: original(values) + 1


def with_masked_norm(network: NormalisedNetwork) -> None:
    network.norm = MaskedNorm(CHANNELS).eval()


def with_spectral_norm(network: NormalisedNetwork) -> None:
    nn.utils.spectral_norm(network.convolution)


CHANGES = {
    "pruned convolution": lambda n: prune.l1_unstructured(n.convolution, "weight", amount=0.3),
    "pruned normalisation": lambda n: prune.l1_unstructured(n.norm, "weight", amount=0.3),
    "pruned channels": lambda n: prune.ln_structured(n.convolution, "weight", amount=0.3, n=2, dim=0),
    "spectral norm by a hook": with_spectral_norm,
    "spectral norm": lambda n: nn.utils.parametrizations.spectral_norm(n.convolution),
    "weight norm": lambda n: nn.utils.parametrizations.weight_norm(n.convolution),
    "hook": with_hook,
    "pre-hook": with_pre_hook,
    "forward of its own": with_own_forward,
    "subclass": with_masked_norm,
    "no weights of its own": lambda n: setattr(n, "norm", nn.BatchNorm2d(CHANNELS, affine=False).eval()),
    "compiled by a wrapper": lambda n: setattr(n, "convolution", nn.Sequential(n.convolution)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("factory", [NormalisedNetwork, InspectingNetwork])
def test_folding_gives_way_where_weights_are_computed_or_modules_are_not_plain(factory, change):
    network, images = seeded(factory), random_images(2, 16, 16)
    CHANGES[change](network)
    network.eval()
    with torch.no_grad():
        before = network(images)
        fold_batch_norms(network, random_images(2, 16, 16, seed=1))
        torch.testing.assert_close(network(images), before, rtol=1e-5, atol=1e-6)
    assert factory is NormalisedNetwork or norms(network) == 1
