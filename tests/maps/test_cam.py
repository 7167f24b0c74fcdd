"""The maps' mathematics: against plain loops in float64, against torchcam, against the formula it all began from."""

from __future__ import annotations

import copy
import math

import cv2
import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from batchcam.maps import cam
from batchcam.maps.capture import ActivationCapture
from batchcam.maps.explainer import Explainer, Request
from batchcam.network.proof import prove
from batchcam.rules import CamSelection
from tests.helpers import mostly_slow
from tests.helpers.networks import random_images, randomised

CLASS_COUNT = 5
DEPTHS = ("resnet18", "resnet34", "resnet50")


@pytest.fixture(scope="module", params=mostly_slow(DEPTHS, "resnet18", "resnet50"))
def resnet(request) -> nn.Module:
    return build(request.param)


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    return build("resnet18")


def build(name: str) -> nn.Module:
    torch.manual_seed(7)
    return randomised(torchvision.models.get_model(name, weights=None, num_classes=CLASS_COUNT))


@torch.no_grad()
def layer4_by_hand(network: nn.Module, images: Tensor) -> np.ndarray:
    """Activations of layer4 in float64, by running the children one after the other; no hook."""
    features = images.double()
    for name, child in copy.deepcopy(network).double().named_children():
        features = child(features)
        if name == "layer4":
            return features.numpy()
    raise AssertionError("no layer4")


def cams_by_loops(activations: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """M[n, k] = sum over c of W[k, c] A[n, c], one image, one class, one channel at a time, in float64."""
    maps = np.zeros((len(activations), len(weight), *activations.shape[2:]))
    for n, image in enumerate(activations):
        for k, row in enumerate(weight.astype(np.float64)):
            for c, channel in enumerate(image):
                maps[n, k] += row[c] * channel
    return maps


def explained(network: nn.Module, images: Tensor, cams: str = "all", maps: str = "none"):
    proved = prove(network, images[:2])
    size = (images.shape[2], images.shape[3])
    with Explainer(
        proved, None, Request(CamSelection.parse(cams), maps, size, "fp32", True), torch.device("cpu")
    ) as explainer:
        return explainer(images, np.full(len(images), -1), np.zeros(len(images), bool))


@pytest.mark.parametrize(("count", "height", "width"), [(1, 96, 64), (7, 64, 96), (64, 32, 48)])
def test_all_class_cams_of_resnets_equal_plain_float64_loops_over_channels(resnet, count, height, width):
    images = random_images(count, height, width, seed=count)
    activations = layer4_by_hand(resnet, images)
    expected = cams_by_loops(activations, resnet.fc.weight.detach().numpy())
    cams = explained(resnet, images).cams
    assert cams.shape == (count, CLASS_COUNT, math.ceil(height / 32), math.ceil(width / 32))
    assert cams.dtype == np.float32
    assert (activations > 0).mean() > 0.1  # not degenerate
    spread = np.ptp(expected)
    assert spread > 0.1
    assert np.abs(cams - expected).max() <= 1e-4 * spread


def test_mean_of_every_cam_plus_bias_is_the_logit_that_the_network_gives(resnet):
    images = random_images(7, 64, 96)
    with torch.no_grad():
        logits = copy.deepcopy(resnet).double()(images.double()).numpy()
    batch = explained(resnet, images)
    sums = batch.cams.astype(np.float64).mean((2, 3)) + resnet.fc.bias.detach().numpy()
    scale = np.abs(logits).max()
    assert np.abs(sums - logits).max() <= 1e-5 * scale
    assert np.abs(batch.logits - logits).max() <= 1e-5 * scale
    assert batch.identity_residual.max() <= 1e-5 * scale


def test_raw_cams_equal_those_of_torchcam(resnet):
    CAM = pytest.importorskip("torchcam.methods", reason="torchcam needs Python 3.11 beside NumPy 2").CAM
    images = random_images(3, 64, 96)
    ours = explained(resnet, images).cams
    with CAM(resnet, "layer4", fc_layer="fc") as extractor, torch.no_grad():
        resnet(images)
        for k in range(CLASS_COUNT):
            theirs = extractor([k] * 3, normalized=False)[0].numpy()
            np.testing.assert_allclose(ours[:, k], theirs, rtol=0, atol=1e-5 * np.ptp(ours))


def cam_of_the_seed(network: nn.Module, images: Tensor, row: int) -> np.ndarray:
    """The tutorial's loop over channels for one image's predicted class, on the layer that is pooled, not scaled."""
    activation = {}
    handle = network.layer4.register_forward_hook(lambda m, i, o: activation.update(final=o.detach()))
    with torch.no_grad():
        output = network(images[row : row + 1])
    handle.remove()
    _, prediction = torch.max(output, 1)
    act, w = activation["final"].squeeze(), network.fc.weight.detach()
    for idx in range(act.size(0)):
        if idx == 0:
            tmp = act[idx] * w[prediction.item()][idx]
        else:
            tmp += act[idx] * w[prediction.item()][idx]
    return tmp.numpy()


def min_max(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


@pytest.fixture(scope="module")
def seed_comparison(resnet18) -> list[tuple[np.ndarray, np.ndarray]]:
    images = random_images(8, 128, 192, seed=3)
    maps = explained(resnet18, images, maps="uint8").maps
    return [(cam_of_the_seed(resnet18, images, row), maps[row]) for row in range(len(images))]


def test_map_is_the_seeds_map_within_one_grey_level_when_it_is_scaled_after_resizing(seed_comparison):
    for raw, ours in seed_comparison:
        seeds = min_max(cv2.resize(raw, dsize=(192, 128))) * 255
        assert np.abs(ours - seeds).max() <= 1


def test_map_is_the_seeds_map_within_two_grey_levels_but_for_the_range_that_is_stretched(seed_comparison):
    for raw, ours in seed_comparison:
        quantised = cv2.resize(np.uint8(min_max(raw) * 255), dsize=(192, 128)).astype(float)
        resized = cv2.resize(raw, dsize=(192, 128))
        # the seed calls 0 and 255 the extremes of the grid, we those of the map that is seen
        low, high = resized.min() - raw.min(), resized.max() - raw.min()
        restored = ours / 255 * (high - low) / np.ptp(raw) * 255 + low / np.ptp(raw) * 255
        assert np.abs(restored - quantised).max() <= 2


def test_selected_cams_equal_a_gather_from_all_and_are_nan_for_class_minus_one():
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn((4, 6, 2, 3), generator=generator)
    weight = torch.randn((5, 6), generator=generator)
    classes = torch.tensor([[0, 4], [3, -1], [2, 2], [-1, 1]])
    every = cam.class_activation_maps(activations, weight)
    chosen = cam.selected_class_activation_maps(activations, weight, classes)
    assert chosen.shape == (4, 2, 2, 3)
    for n in range(4):
        for m in range(2):
            if classes[n, m] < 0:
                assert chosen[n, m].isnan().all()
            else:
                torch.testing.assert_close(chosen[n, m], every[n, classes[n, m]])


@pytest.mark.parametrize("function", ["class_activation_maps", "selected_class_activation_maps"])
def test_channels_that_are_not_the_classifiers_are_refused(function):
    extra = [] if function == "class_activation_maps" else [torch.zeros((1, 1), dtype=torch.int64)]
    with pytest.raises(ValueError, match="target layer has 6 channels, classifier expects 7"):
        getattr(cam, function)(torch.zeros(1, 6, 2, 2), torch.zeros(3, 7), *extra)


def test_identity_residual_is_the_largest_deviation_over_the_maps_that_there_are():
    cams = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]], [[[5.0, 5.0]], [[9.0, 9.0]]]])
    classes = torch.tensor([[0, 2], [1, -1]])
    bias = torch.tensor([0.5, 1.0, 0.25])
    logits = torch.tensor([[2.5, 0.0, 1.0], [0.0, 5.0, 0.0]])
    # row 0: |2 + 0.5 - 2.5| = 0, |0 + 0.25 - 1| = 0.75; row 1: |5 + 1 - 5| = 1, the other map does not count
    assert cam.identity_residual(cams, classes, bias, logits).tolist() == [0.75, 1.0]


def test_identity_residual_is_nan_when_a_logit_is():
    cams = torch.zeros(1, 2, 1, 1)
    residual = cam.identity_residual(cams, torch.tensor([[0, 1]]), torch.zeros(2), torch.tensor([[0.0, float("nan")]]))
    assert residual.isnan().all()


def test_first_argmax_is_numpys_also_for_ties():
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 3, (200, 7)).astype(np.float32)
    np.testing.assert_array_equal(cam.first_argmax(torch.from_numpy(logits)).numpy(), logits.argmax(1))


def test_first_argmax_takes_minus_infinity_for_a_value_like_others():
    logits = torch.tensor([[-torch.inf, -torch.inf], [-torch.inf, 0.0]])
    assert cam.first_argmax(logits).tolist() == [0, 1]


def test_first_argmax_of_nan_stays_a_valid_class():
    assert 0 <= cam.first_argmax(torch.full((1, 3), torch.nan)).item() < 3


def bilinear_by_loops(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolation between cell centres, one pixel at a time, in float64."""
    rows, columns = grid.shape
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = grid[top, left] * (1 - (u - left)) + grid[top, right] * (u - left)
            lower = grid[bottom, left] * (1 - (u - left)) + grid[bottom, right] * (u - left)
            result[y, x] = upper * (1 - (v - top)) + lower * (v - top)
    return result


@pytest.mark.parametrize(("grid", "size"), [((2, 3), (17, 40)), ((1, 1), (5, 7)), ((4, 4), (4, 4)), ((7, 2), (3, 9))])
def test_upsampled_map_equals_bilinear_interpolation_by_plain_loops(grid, size):
    values = np.random.default_rng(1).normal(size=grid).astype(np.float32)
    ours = cam.upsample(torch.from_numpy(values)[None], size)
    assert ours.shape == (1, *size)
    np.testing.assert_allclose(ours[0].numpy(), bilinear_by_loops(values, *size), rtol=0, atol=1e-6)


def test_normalised_map_runs_from_0_to_255_and_its_range_restores_the_raw_values():
    raw = torch.from_numpy(np.random.default_rng(2).normal(0, 10, (6, 9, 5)).astype(np.float32))
    maps, ranges = cam.normalise(raw)
    assert maps.dtype == torch.uint8
    assert ranges.shape == (6, 2)
    for n in range(6):
        low, high = float(raw[n].min()), float(raw[n].max())
        assert ranges[n].tolist() == [low, high]
        assert (int(maps[n].min()), int(maps[n].max())) == (0, 255)
        restored = maps[n].numpy() / 255 * (high - low) + low
        assert np.abs(restored - raw[n].numpy()).max() <= 0.501 / 255 * (high - low)


def test_normalising_a_constant_or_a_nan_map_raises_no_error_and_disturbs_no_other_map():
    good = torch.tensor([[0.0, 1.0], [2.0, 4.0]])
    maps, _ = cam.normalise(torch.stack([torch.full((2, 2), 3.0), good, torch.full((2, 2), torch.nan)]))
    assert maps[1].tolist() == [[0, 64], [128, 255]]


@pytest.mark.parametrize(
    ("values", "constant"),
    [([0.0, 0.0], True), ([5.0, 5.0], True), ([-3.0, -3.0], True), ([1e6, 1e6 + 0.0625], True), ([0.0, 1e-30], False),
     ([1.0, 1.00001], False), ([-1.0, 1.0], False)],
)  # fmt: skip
def test_a_map_is_constant_when_its_range_is_rounding(values, constant):
    assert cam.is_constant(torch.tensor([[values]])).tolist() == [constant]


def test_cams_need_no_gradient_and_leave_no_trace_on_the_network(resnet18):
    training, weights = resnet18.training, copy.deepcopy(resnet18.state_dict())
    explained(resnet18, random_images(2, 64, 64))
    assert resnet18.training == training
    assert all(torch.equal(v, weights[k]) for k, v in resnet18.state_dict().items())
    assert all(p.grad is None for p in resnet18.parameters())


def test_capture_is_the_layer_that_is_run_by_hand(resnet18):
    images = random_images(2, 64, 96)
    with ActivationCapture(resnet18.layer4) as capture, torch.no_grad():
        resnet18(images)
        activations = capture.take()
    np.testing.assert_allclose(activations.numpy(), layer4_by_hand(resnet18, images), rtol=1e-4, atol=1e-4)
