"""Networks as people have them: all of torchvision's classifiers and families of timm's are as the page says."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from batchcam.errors import ModelError
from batchcam.maps.exact import ExactMaps
from batchcam.maps.gradients import GradientMaps, with_gradients
from batchcam.network.proof import ExactNetwork, prove, require_identity
from docs.make.architectures import (
    CLASS_COUNT,
    MOST_ACCURATE,
    TIMM,
    TOP,
    Row,
    read_page,
    timm_network,
    torchvision_names,
)
from tests.helpers import mostly_slow
from tests.helpers.networks import hook_count, random_images, torchvision_network

TORCHVISION_PAGE, TIMM_PAGE = read_page("torchvision"), read_page("timm")

SMALLEST = {
    "resnet18": "layer4",
    "resnext50_32x4d": "layer4",
    "wide_resnet50_2": "layer4",
    "regnet_x_400mf": "trunk_output",
    "regnet_y_400mf": "trunk_output",
    "densenet121": "relu(features)",
    "googlenet": "inception5b",
    "inception_v3": "Mixed_7c",
    "mnasnet0_5": "layers",
    "shufflenet_v2_x0_5": "conv5",
    "mobilenet_v2": "features",
    "efficientnet_b0": "features",
    "efficientnet_v2_s": "features",
    "squeezenet1_1": "classifier.2",
    "swin_t": "permute",
    "convnext_tiny": "layer_norm(features)",
    "mobilenet_v3_small": "gains(features)",
}
"""The smallest network of every family that has exact CAMs, with its layer."""

KINDS = ("resnet18", "densenet121", "squeezenet1_1", "swin_t", "convnext_tiny", "mobilenet_v3_small")
"""One for each way in which a layer is found."""

FIXED_SIZE = ("vit_", "maxvit_")  # 224 px
LARGEST_DOUBLED = 100_000_000  # parameters; float64 takes eight bytes for each


def image_size(name: str) -> tuple[int, int]:
    """Return height and width of a small image: not square, so that a map with its axes exchanged has another shape."""
    if name.startswith(FIXED_SIZE):
        return 224, 224
    return (128, 160) if name == "inception_v3" else (96, 128)


def reference(network: nn.Module, proved: ExactNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return all CAMs (N, K, h, w) and logits (N, K) in float64: Zhou et al. 2016, eq. 2, by this file's own hook.

    The network is in float64 afterwards.
    """
    kind, _, name = proved.target_layer.rpartition("(")
    kept: list[Tensor] = []
    handle = network.get_submodule(name.rstrip(")")).register_forward_hook(lambda m, i, o: kept.append(o.clone()))
    with torch.no_grad():
        logits = network.double()(images.double())
    handle.remove()
    activations = kept[0].permute(0, 3, 1, 2) if "channels_last" in kind else kept[0]
    if "relu" in kind:
        activations = activations.clamp(min=0)
    if "layer_norm" in kind:
        pooled = activations.mean((2, 3))
        centred = pooled - pooled.mean(1, keepdim=True)
        activations = activations / ((centred**2).mean(1) + proved.norm.eps).sqrt()[:, None, None, None]
    weight = proved.weight.double()
    return torch.stack([(activations * row[:, None, None]).sum(1) for row in weight], 1), logits


def gradient_cam(network: nn.Module, name: str, images: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """Return cells * sum_c gradient * output, and the bias that it leaves: a linear head's CAM, without its weights."""
    kept: list[Tensor] = []

    def cut(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output.detach().clone().requires_grad_())
        return kept[-1].clone()

    handle = network.get_submodule(name).register_forward_hook(cut)
    logits = network(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, label].sum(), kept[0])
    cam = (gradient * kept[0].detach()).sum(1) * kept[0][0, 0].numel()
    return cam, logits[:, label].detach() - cam.mean((1, 2))


def require_exact(network: nn.Module, row: Row, images: Tensor) -> ExactNetwork:
    """Find the row's layer, and hold its maps against ones of another making."""
    proved = prove(network, images)
    require_identity(proved, "fp32")
    assert (proved.target_layer, hook_count(network)) == (row.layer, 0)
    assert proved.residual < 1e-5
    with ExactMaps(proved) as maps, torch.inference_mode():
        maps.forward(images)
        cams, offset, _ = maps.all_cams()
        cams = cams.double()
    # tokens have references of their own, in test_ledger.py
    if offset is not None or "tokens(" in row.layer or sum(p.numel() for p in network.parameters()) > LARGEST_DOUBLED:
        return proved
    expected, logits = reference(network, proved, images)
    size = logits.abs().max().item()
    torch.testing.assert_close(expected.mean((2, 3)) + proved.bias.double(), logits, rtol=0, atol=1e-5 * size)
    torch.testing.assert_close(cams, expected, rtol=0, atol=1e-3 * expected.abs().max().item())
    if "(" not in proved.target_layer:
        cam, bias = gradient_cam(network, proved.target_layer, images.double(), 1)
        torch.testing.assert_close(cam, expected[:, 1], rtol=0, atol=1e-5 * expected.abs().max().item())
        torch.testing.assert_close(bias, proved.bias[1].double().expand(len(images)), rtol=0, atol=1e-5 * size)
    return proved


def require_refusal(network: nn.Module, row: Row, images: Tensor) -> None:
    """Find no exact CAM and say so in one line; Grad-CAM looks at the row's layer, or refuses too."""
    with pytest.raises(ModelError, match="--method gradcam") as refused:
        prove(network, images)
    assert "\n" not in str(refused.value)
    if not row.layer:
        with pytest.raises(ModelError, match="transformers of tokens, such as ViT, have none"):
            with_gradients(network, images, "gradcam")
        return
    found = with_gradients(network, images, "gradcam")
    assert found.target_layer == row.layer
    with GradientMaps(found) as maps:
        classes = maps.forward(images).argmax(1, keepdim=True)
        cams = maps.cams(classes).cams
    assert cams.shape == (len(images), 1, *found.grid_size)
    assert torch.isfinite(cams).all()
    assert (cams.amax((2, 3)) > cams.amin((2, 3))).all()


@pytest.mark.parametrize("shape", [[4, 8, 8], [8, 8]], ids=["all axes", "cells"])
def test_layer_norm_of_more_than_channels_does_not_put_them_last(shape):
    network = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.LayerNorm(shape), nn.Flatten(), nn.Linear(256, CLASS_COUNT))
    found = with_gradients(network.eval(), random_images(1, 32, 32), "gradcam")
    assert (found.target_layer, found.grid_size) == ("1", (8, 8))


class TableNetwork(nn.Module):
    """A grid of 8 by 8 cells, then a table of all pairs of cells, channels last, as attention has."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = nn.Conv2d(3, 5, 4, 4)
        self.pairs = nn.Linear(5, 6)
        self.head = nn.Linear(6, CLASS_COUNT)

    def forward(self, images: Tensor) -> Tensor:
        cells = self.grid(images).flatten(2).transpose(1, 2)
        return self.head(self.pairs(cells[:, :, None] * cells[:, None]).amax((1, 2)))


def test_gradient_methods_take_no_table_of_pairs_of_cells_for_a_grid():
    torch.manual_seed(0)
    found = with_gradients(TableNetwork().eval(), random_images(1, 32, 32), "gradcam")
    assert (found.target_layer, found.grid_size) == ("grid", (8, 8))


@pytest.mark.parametrize("name", mostly_slow(SMALLEST, *KINDS))
def test_smallest_of_each_family_has_maps_that_another_making_of_them_gives_too(name):
    assert TORCHVISION_PAGE[name].layer == SMALLEST[name]
    require_exact(torchvision_network(name, CLASS_COUNT), TORCHVISION_PAGE[name], random_images(1, *image_size(name)))


def test_network_whose_cells_are_flattened_is_refused_and_explained_by_gradients():
    require_refusal(
        torchvision_network("alexnet", CLASS_COUNT), TORCHVISION_PAGE["alexnet"], random_images(1, 224, 224)
    )


def test_gradient_methods_know_that_swins_channels_come_last():
    network, images = torchvision_network("swin_t", CLASS_COUNT), random_images(2, 96, 128)
    classes = torch.tensor([[1], [3]])
    with ExactMaps(prove(network, images)) as maps, torch.inference_mode():
        maps.forward(images)
        cams = maps.cams(classes).cams
    found = with_gradients(network, images, "hirescam")
    assert (found.target_layer, found.grid_size) == ("channels_last(norm)", (3, 4))
    assert with_gradients(network, images, "hirescam", "norm").target_layer == "channels_last(norm)"
    assert with_gradients(network, images, "hirescam", found.target_layer).target_layer == found.target_layer
    with GradientMaps(found) as maps:
        maps.forward(images)
        torch.testing.assert_close(maps.cams(classes).cams * 12, cams, rtol=1e-3, atol=1e-4)  # HiResCAM is CAM by cells


def test_vision_transformers_patch_embedding_is_no_layer_to_look_at_unless_named():
    network = torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=CLASS_COUNT).eval()
    nn.init.normal_(network.heads.head.weight)
    found = with_gradients(network, random_images(1, 32, 32), "gradcam")
    assert found.target_layer == "tokens(encoder.layers.encoder_layer_1.ln_1, 2x2+1)"
    assert with_gradients(network, random_images(1, 32, 32), "gradcam", "conv_proj").grid_size == (2, 2)


def test_page_has_a_row_for_every_classifier_of_torchvision_and_for_what_is_tried_of_timm():
    assert list(TORCHVISION_PAGE) == torchvision_names()
    assert list(TIMM_PAGE) == list(TIMM)
    top = read_page(TOP)
    assert list(top) == list(MOST_ACCURATE)
    assert sum(MOST_ACCURATE.values()) == 100
    assert sum(count for name, count in MOST_ACCURATE.items() if not top[name].reason) >= 80
    for row in (*TORCHVISION_PAGE.values(), *TIMM_PAGE.values(), *top.values()):
        assert bool(row.reason) != bool(row.residual), row
        assert not row.residual or float(row.residual) < 1e-5, row


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*torchvision_names()} - {*SMALLEST, "alexnet"}))
def test_every_other_classifier_of_torchvision_is_as_the_page_says(name):
    network, row = torchvision_network(name, CLASS_COUNT), TORCHVISION_PAGE[name]
    images = random_images(2, *image_size(name))
    if row.reason:
        require_refusal(network, row, images)
    else:
        require_exact(network, row, images)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_grid_of_the_smallest_of_each_family_is_as_the_page_says(name):
    proved = prove(torchvision_network(name, CLASS_COUNT), random_images(1, 224, 224))
    assert "×".join(map(str, proved.grid_size)) == TORCHVISION_PAGE[name].grid


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_network_of_timm_is_as_the_page_says(name):
    pytest.importorskip("timm")
    network, size = timm_network(name)
    images, row = random_images(2, size, size), TIMM_PAGE[name]
    if row.reason:
        require_refusal(network, row, images)
        return
    proved = require_exact(network, row, images)
    assert "×".join(map(str, proved.grid_size)) == row.grid
