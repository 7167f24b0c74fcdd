"""Which classifiers have exact CAMs: `python -m docs.make.architectures` writes the tables of docs/architectures.md.

All of torchvision's, and some of timm's if it is installed; `python -m docs.make.architectures timm` only those. Random
weights, with batch normalisation as if it had learned; two images of the network's own size; minutes in all.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
import torchvision
from torch import nn

from batchcam.errors import ModelError
from batchcam.maps.gradients import with_gradients
from batchcam.maps.preparation import ExplainableNetwork
from batchcam.network.proof import prove, require_identity
from tests.helpers.networks import random_images, randomised, torchvision_network

PAGE = Path(__file__).parents[1] / "architectures.md"
CLASS_COUNT = 10
BETWEEN = "an activation lies between two linear layers"
FLATTENED = "cells are flattened, not averaged; activations lie between linear layers"
WHOLE_GRID = "a convolution takes the whole grid to one cell; activations lie between linear layers"
TWO = "its logits are the mean of two classifiers, each of a token of its own"
CLASS_TOKEN = "a norm lies between what attention adds to its class token and the classifier's"
TOKENS = (
    "where there first are as many tokens as it averages, they do not follow their own cells; `--tokens 4x4` is exact"
)

REASONS = {
    "mobilenet_v3": BETWEEN,
    "maxvit": BETWEEN,
    "vgg": FLATTENED,
    "alexnet": FLATTENED,
}
"""Why a family of torchvision's has none, by how its names start."""

TIMM_EXACT = """
resnet18 resnet50d resnext50_32x4d seresnet50 ecaresnet26t gcresnet50t skresnet18 resnest14d res2net50d
botnet26t_256 resnetv2_50 nfnet_l0 tresnet_m regnety_002 gernet_s repvgg_a0 mobileone_s0 rexnet_100
densenet121 rdnet_tiny dla34 dpn68 hrnet_w18_small cspresnet50 darknet53 cs3darknet_s vovnet39a
ese_vovnet19b_dw selecsls42b inception_v3 inception_v4 inception_resnet_v2 xception41 legacy_xception
efficientnet_b0 tf_efficientnetv2_b0 mixnet_s mobilenetv2_100 mnasnet_100 fbnetc_100 starnet_s1 fastvit_t8
mobilevit_xxs edgenext_xx_small convnext_atto convnextv2_atto convmixer_768_32 poolformer_s12
focalnet_tiny_srf swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 nest_tiny gcvit_xxtiny davit_tiny
coatnet_pico_rw_224 maxvit_pico_rw_256 tiny_vit_5m_224 pvt_v2_b0 visformer_tiny nextvit_small shvit_s1
efficientvit_m0 resnet50_clip twins_svt_small mixer_s32_224 resmlp_12_224 vit_tiny_patch16_224
deit_tiny_patch16_224 beit_base_patch16_224 convit_tiny pit_ti_224 hiera_tiny_224 mvitv2_tiny
cait_xxs24_224 repvit_m0_9 efficientformer_l1
"""

TIMM = {
    **dict.fromkeys(TIMM_EXACT.split(), ""),
    "mobilenetv3_small_100": BETWEEN,
    "mobilenetv4_conv_small": BETWEEN,
    "lcnet_050": BETWEEN,
    "ghostnet_100": BETWEEN,
    "hgnetv2_b0": BETWEEN,
    "fasternet_t0": BETWEEN,
    "efficientvit_b0": BETWEEN,
    "inception_next_atto": BETWEEN,
    "convformer_s18": BETWEEN,
    "mambaout_femto": BETWEEN,
    "maxvit_tiny_tf_224": BETWEEN,
    "vgg11": WHOLE_GRID,
    "levit_128s": TOKENS,
    "deit_tiny_distilled_patch16_224": TWO,
    "volo_d1_224": "logits of the cells, at their largest, are part of the logits",
    "xcit_nano_12_p16_224": CLASS_TOKEN,
}
"""Networks of timm's, with why they have none."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What the page says of one network.

    Attributes:
        name: torchvision's or timm's.
        reason: why it has no exact CAM, "" if it has.
        layer: of exact CAMs, or else the one that Grad-CAM looks at; "" where neither finds one.
        grid: "7×7", "" where there is no layer.
        residual: as printed, "" where no identity holds.
    """

    name: str
    reason: str
    layer: str
    grid: str
    residual: str

    def __str__(self) -> str:
        exact = f"no: {self.reason}" if self.reason else "yes"
        layer = f"`{self.layer}`" if self.layer else ""
        layer = f"gradcam: {layer}" if layer and self.reason else layer
        return f"| {self.name} | {exact} | {layer} | {self.grid} | {self.residual} |"


def read_page(title: str) -> dict[str, Row]:
    """Return the rows of one table of the page, by name."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\S+) \| (?:yes|no: (.+?)) \| (?:gradcam: )?`?(.*?)`? \| (\S*) \| (\S*) \|$", section, re.M)
    return {row[0]: Row(*row) for row in rows}


def measured(name: str, network: nn.Module, size: int, reason: str) -> Row:
    """Return one network's row; it has to have exact CAMs, unless there is a reason why not.

    Raises:
        ModelError: it has none, and should.
        AssertionError: it has some, and should not.
    """
    images = random_images(2, size, size)
    if not reason:
        proved = prove(network, images)
        require_identity(proved, "fp32")
        return Row(name, "", proved.target_layer, _grid(proved), f"{proved.residual:.1e}")
    try:
        prove(network, images)
    except ModelError:
        try:
            looked_at = with_gradients(network, images, "gradcam")
        except ModelError:
            return Row(name, reason, "", "", "")
        return Row(name, reason, looked_at.target_layer, _grid(looked_at), "")
    raise AssertionError(f"{name} has exact CAMs after all")


def torchvision_names() -> list[str]:
    return sorted(torchvision.models.list_models(module=torchvision.models))


def torchvision_reason(name: str) -> str:
    return next((reason for family, reason in REASONS.items() if name.startswith(family)), "")


def timm_network(name: str) -> tuple[nn.Module, int]:
    """Return timm's network of that name with random weights, in evaluation mode, and the size of its images."""
    torch.manual_seed(1)
    network: nn.Module = importlib.import_module("timm").create_model(name, pretrained=False, num_classes=CLASS_COUNT)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.LayerNorm, nn.GroupNorm)) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)  # some start with zeros, so that blocks add nothing
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean)
    return randomised(network), network.default_cfg["input_size"][-1]


def _grid(explainable: ExplainableNetwork) -> str:
    return "×".join(map(str, explainable.grid_size))


def _torchvision_rows() -> Iterator[Row]:
    for name in torchvision_names():
        yield measured(name, torchvision_network(name, CLASS_COUNT), 224, torchvision_reason(name))


def _timm_rows() -> Iterator[Row]:
    for name, reason in TIMM.items():
        yield measured(name, *timm_network(name), reason)


def _written(title: str, rows: Iterator[Row], *packages: str) -> None:
    """Write new rows and versions into the section of that title."""
    table = ""
    for row in rows:
        table += f"{row}\n"
        print(row, flush=True)
        gc.collect()
    before, heading, rest = PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")
    section, *after = re.split(r"(?=^## )", rest, maxsplit=1, flags=re.M)
    versions = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in packages)
    section = re.sub(r"Measured with .*", f"Measured with {versions}.", section)
    section = re.sub(r"(?<=\|---\|\n)(\|.*\n)*", lambda _: table, section)
    PAGE.write_text("".join([before, heading, section, *after]), encoding="utf-8")


def main() -> None:
    torch.set_num_threads(1)
    sections = sys.argv[1:] or ["torchvision", "timm"]
    if "torchvision" in sections:
        _written("torchvision", _torchvision_rows(), "torchvision", "torch")
    if "timm" in sections and find_spec("timm"):
        _written("timm", _timm_rows(), "timm", "torch")


if __name__ == "__main__":
    main()
