"""Gradient maps: each equal to its paper's formula, written out in loops, and to two other implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from batchcam.maps.gradient_maps import METHODS, eigen_cam, grad_cam, hires_cam

COUNT, CHANNELS, HEIGHT, WIDTH = 3, 5, 4, 6


def random(seed: int, positive: bool) -> Tensor:
    values = torch.randn(COUNT, CHANNELS, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)).double()
    return values.relu() if positive else values


def paper(name: str, a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The formula as its paper has it, for one image and one class, cell by cell."""
    channels, height, width = a.shape
    cells = [(y, x) for y in range(height) for x in range(width)]
    m = np.zeros((height, width))
    for c in range(channels):
        total = sum(a[c][p] for p in cells)
        if name == "gradcam":
            weight = sum(g[c][p] for p in cells) / len(cells)
        elif name == "gradcam++":
            weight = 0.0
            for p in cells:
                if g[c][p] != 0:
                    alpha = g[c][p] ** 2 / (2 * g[c][p] ** 2 + total * g[c][p] ** 3)
                    weight += alpha * max(g[c][p], 0)
        elif name == "xgradcam":
            weight = sum(g[c][p] * a[c][p] for p in cells) / total if total else 0
        for p in cells:
            if name == "layercam":
                m[p] += max(g[c][p], 0) * a[c][p]
            elif name == "hirescam":
                m[p] += g[c][p] * a[c][p]
            else:
                m[p] += weight * a[c][p]
    return m


@pytest.mark.parametrize("positive", [True, False], ids=["rectified activations", "signed activations"])
@pytest.mark.parametrize("name", sorted(set(METHODS) - {"eigencam"}))
def test_maps_of_a_batch_are_the_papers_image_by_image(name, positive):
    activations, gradients = random(1, positive), random(2, False)
    activations[0, 2] = 0  # a dead channel
    gradients[1, 3] = 0
    maps = METHODS[name](activations, gradients)
    for n in range(COUNT):
        expected = paper(name, activations[n].numpy(), gradients[n].numpy())
        np.testing.assert_allclose(maps[n].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_eigen_cam_is_the_first_principal_component_found_by_power_iteration():
    activations = random(3, True)
    maps = eigen_cam(activations, torch.empty(0))
    for n in range(COUNT):
        cells = activations[n].reshape(CHANNELS, -1).T.numpy()
        centred = cells - cells.mean(0)
        direction = np.ones(CHANNELS)
        for _ in range(5000):
            direction = centred.T @ (centred @ direction)
            direction /= math.sqrt((direction**2).sum())
        component = centred @ direction
        component *= np.sign((component * centred.sum(1)).sum())
        np.testing.assert_allclose(maps[n].numpy().ravel(), component, atol=1e-6)


def test_no_map_of_dead_activations_is_nan():
    zeros = torch.zeros(2, CHANNELS, HEIGHT, WIDTH)
    for method in METHODS.values():
        assert torch.equal(method(zeros, zeros), torch.zeros(2, HEIGHT, WIDTH))


@pytest.mark.parametrize("name", METHODS)
def test_image_that_is_not_finite_spoils_no_other(name):
    activations, gradients = random(6, True), random(7, False)
    expected = METHODS[name](activations, gradients)
    activations[1, 0, 0, 0] = math.nan
    maps = METHODS[name](activations, gradients)
    assert not torch.isfinite(maps[1]).all()
    torch.testing.assert_close(maps[[0, 2]], expected[[0, 2]])


def test_hires_cam_behind_average_pooling_is_the_cam_divided_by_the_number_of_cells():
    activations = random(4, True).requires_grad_()
    weight = random(5, False)[0, :, 0, 0]
    (gradient,) = torch.autograd.grad((activations.mean((2, 3)) @ weight).sum(), activations)
    cam = torch.einsum("nchw,c->nhw", activations, weight)
    torch.testing.assert_close(hires_cam(activations, gradient), cam / (HEIGHT * WIDTH))
    torch.testing.assert_close(grad_cam(activations, gradient), cam / (HEIGHT * WIDTH))


class SmallVgg(nn.Module):
    """Convolutions, flattened cells, two linear layers: no exact CAM."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, CHANNELS, 3, 2, 1), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(CHANNELS * 64, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).flatten(1)) * 300  # far above the others' epsilons


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return SmallVgg().eval()


IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(8))
CLASSES = [0, 3, 1, 2]


def ours(network: nn.Module, name: str) -> np.ndarray:
    """Normalised positive part, as the other implementations return."""
    activations = network.features(IMAGES)
    logits = network.classifier(activations.flatten(1)) * 300
    (gradients,) = torch.autograd.grad(logits[range(4), CLASSES].sum(), activations)
    return normalised(METHODS[name](activations, gradients).detach().relu().numpy())


def normalised(maps: np.ndarray) -> np.ndarray:
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / (high - low)


@pytest.mark.parametrize(
    ("name", "peer"),
    [("gradcam", "GradCAM"), ("gradcam++", "GradCAMPlusPlus"), ("layercam", "LayerCAM"), ("hirescam", "HiResCAM"),
     ("xgradcam", "XGradCAM"), ("eigencam", "EigenCAM")],
)  # fmt: skip
def test_maps_are_those_of_pytorch_grad_cam(network, name, peer):
    peers = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    with getattr(peers, peer)(network, [network.features]) as method:
        wanted = [targets.ClassifierOutputTarget(k) for k in CLASSES]
        method(IMAGES, wanted)
        # before its upsampling to the image
        activations, gradients = method.activations_and_grads.activations[0], None
        if method.activations_and_grads.gradients:
            gradients = method.activations_and_grads.gradients[0].numpy()
        raw = method.get_cam_image(IMAGES, network.features, wanted, activations.numpy(), gradients, False)
    expected = normalised(np.maximum(raw, 0))
    if name == "eigencam":  # its sign is whatever LAPACK gives
        other = normalised(np.maximum(-raw, 0))
        expected = np.where((np.abs(expected - ours(network, name)).max((1, 2)) < 1e-3)[:, None, None], expected, other)
    np.testing.assert_allclose(ours(network, name), expected, atol=1e-3)


@pytest.mark.parametrize(("name", "peer"), [("gradcam", "GradCAM"), ("xgradcam", "XGradCAM")])
def test_maps_are_those_of_torchcam(network, name, peer):
    methods = pytest.importorskip("torchcam.methods")
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    with getattr(methods, peer)(network, "features") as extractor:
        maps = extractor(CLASSES, network(IMAGES), normalized=True)[0]
    np.testing.assert_allclose(ours(network, name), maps.detach().numpy(), atol=1e-3)
