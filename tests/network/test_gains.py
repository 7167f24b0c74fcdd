"""Activations and norms between pooling and classifier: maps are those of plain loops, and add up to the logits."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn

from batchcam.errors import ModelError
from batchcam.maps.exact import ExactMaps
from batchcam.network.proof import prove
from batchcam.network.target_layer import TargetLayer
from tests.helpers.networks import CHANNELS, CLASSES, GapNetwork, hook_count, random_images, seeded
from tests.network.test_ledger import explained, stirred

HIDDEN = 5


class Behind(GapNetwork):
    """Layers of any kind behind pooling; `grid` where they take (N, C, 1, 1)."""

    def __init__(self, *head: nn.Module, grid: bool = False) -> None:
        super().__init__()
        self.head, self.grid = nn.Sequential(*head), grid

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.pool(self.body(self.stem(images)))
        return self.head(pooled if self.grid else pooled.flatten(1))


def two(*between: nn.Module) -> nn.Module:
    return Behind(nn.Linear(CHANNELS, HIDDEN), *between, nn.Linear(HIDDEN, CLASSES))


HEADS = {
    "relu": lambda: two(nn.ReLU(inplace=True)),
    "tanh": lambda: two(nn.Tanh()),
    "sigmoid, which is not 0 at 0": lambda: two(nn.Sigmoid()),
    "gelu and norm": lambda: two(nn.GELU(), nn.LayerNorm(HIDDEN, eps=1e-2)),
    "norm": lambda: two(nn.LayerNorm(HIDDEN, eps=1e-2)),
    "norm and relu": lambda: two(nn.LayerNorm(HIDDEN, eps=1e-2), nn.ReLU()),
    "rms norm": lambda: two(nn.RMSNorm(HIDDEN, eps=1e-2)),
    "two activations": lambda: two(nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()),
    "convolution": lambda: Behind(
        nn.Conv2d(CHANNELS, HIDDEN, 1), nn.Hardswish(inplace=True), nn.Flatten(), nn.Linear(HIDDEN, CLASSES), grid=True
    ),
}


def loops(network: Behind, images: Tensor) -> tuple[Tensor, Tensor]:
    """Maps and logits: all cells go through the head one by one, at the gains of their mean, in float64."""
    network = copy.deepcopy(network).double()
    cells = network.body(network.stem(images.double()))
    maps = torch.empty(len(images), CLASSES, *cells.shape[2:], dtype=torch.float64)
    logits = torch.empty(len(images), CLASSES, dtype=torch.float64)
    for n, sample in enumerate(cells):
        parts = [sample[:, y, x] for y in range(sample.shape[1]) for x in range(sample.shape[2])]
        vector = sum(parts) / len(parts)
        for layer in network.head:
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                weight = layer.weight.flatten(1)
                vector, parts = weight @ vector + layer.bias, [weight @ part for part in parts]
            elif isinstance(layer, nn.LayerNorm):
                deviation = ((vector - vector.mean()).square().mean() + layer.eps).sqrt()
                parts = [(part - part.mean()) / deviation * layer.weight for part in parts]
                vector = (vector - vector.mean()) / deviation * layer.weight + layer.bias
            elif isinstance(layer, nn.RMSNorm):
                size = (vector.square().mean() + layer.eps).sqrt()
                vector, *parts = (each / size * layer.weight for each in (vector, *parts))
            elif not isinstance(layer, nn.Flatten):
                start, end = layer(torch.zeros_like(vector)), layer(vector.clone())
                vector, parts = end, [(end - start) / vector * part for part in parts]
        logits[n] = vector
        maps[n] = torch.stack(parts, 1).view_as(maps[n])
    return maps.detach(), logits.detach()


@pytest.mark.parametrize("head", HEADS)
def test_maps_behind_activations_and_norms_are_those_of_plain_loops(head):
    torch.manual_seed(3)
    network, images = stirred(HEADS[head]()), random_images(3, 24, 32)
    proved, cams, offset = explained(network, images)
    assert proved.target_layer == "gains(body)"
    expected, logits = loops(network, images)
    torch.testing.assert_close(cams.double(), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    rest = logits - proved.bias.double() - expected.mean((2, 3))
    torch.testing.assert_close(offset.double(), rest, rtol=1e-4, atol=1e-5)
    assert prove(network, images, "gains(body)").target_layer == str(TargetLayer.parse("gains(body)"))
    with ExactMaps(proved, with_features=True) as maps, torch.inference_mode():
        given = maps.forward(images)
        features = maps.all_cams().features
    torch.testing.assert_close(features @ proved.weight.T + proved.bias, given, rtol=1e-5, atol=1e-5)


def test_rms_norm_right_behind_pooling_divides_the_activations():
    torch.manual_seed(3)
    network = stirred(Behind(nn.RMSNorm(CHANNELS, eps=1e-2), nn.Linear(CHANNELS, CLASSES)))
    images = random_images(3, 24, 32)
    proved, cams, _ = explained(network, images)
    assert (proved.target_layer, proved.has_offset) == ("rms_norm(body)", False)
    torch.testing.assert_close(cams.double(), loops(network, images)[0], rtol=1e-4, atol=1e-5)


def test_class_token_that_an_activation_follows_is_a_ledger_at_its_gains():
    torch.manual_seed(0)
    vit = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES, representation_size=6)
    nn.init.normal_(vit.heads.head.weight)
    proved, _, _ = explained(stirred(vit), random_images(3, 32, 32))
    assert proved.target_layer == "gains(layer_norm(attention(encoder.ln, 4x4+1, 2)))"
    assert "activations or norms" in proved.told
    assert "4x4+1" in proved.told


def test_functions_of_more_than_one_number_are_no_activations():
    network = seeded(lambda: two(nn.Softmax(1)))
    with pytest.raises(ModelError, match="--method gradcam"):
        prove(network, random_images(2, 24, 32))
    assert hook_count(network) == 0
