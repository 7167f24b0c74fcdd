"""Which classifiers have exact CAMs: `python -m docs.make.architectures` writes the tables of docs/architectures.md.

All of torchvision's, and some of timm's if it is installed; `python -m docs.make.architectures timm` only those, `top`
the most accurate of timm's. Random weights, with batch normalisation as if it had learned; two images of the network's
own size; minutes in all. The page is written row by row: `missing` behind the titles measures only what it lacks.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
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
TOP = "timm's most accurate"
CLASS_COUNT = 10
FLATTENED = "cells are flattened, not averaged; activations lie between linear layers"
WHOLE_GRID = "a convolution takes the whole grid to one cell; activations lie between linear layers"
TWO = "its logits are the mean of two classifiers, each of a token of its own"
AT_LARGEST = "logits of the cells, at their largest, are part of the logits"
CLASS_TOKEN = "a norm lies between what attention adds to its class token and the classifier's"
TOKENS = (
    "where there first are as many tokens as it averages, they do not follow their own cells; `--tokens 4x4` is exact"
)

REASONS = {
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
cait_xxs24_224 repvit_m0_9 efficientformer_l1 mobilenetv3_small_100 mobilenetv4_conv_small lcnet_050 ghostnet_100
hgnetv2_b0 fasternet_t0 efficientvit_b0 inception_next_atto convformer_s18 mambaout_femto maxvit_tiny_tf_224
halonet26t eca_resnet33ts bat_resnext26ts lambda_resnet26t cpubone_b0_bfrobust csatv2 cspnext_tiny cs3edgenet_x
densenetblur121d dla46x_c efficientformerv2_s0 efficientvim_m1 efficientnet_lite0 eca_nfnet_l0 eva02_tiny_patch14_224
fastvit_mci0 ghostnetv2_100 ghostnetv3_100 hardcorenas_a hgnet_tiny iformer_t lcnetv2_small lowformer_b0 gmixer_12_224
gmlp_ti16_224 fbnetv3_b mobilenetv4_hybrid_medium mobilevitv2_050 nasnetalarge pnasnet5large repghostnet_050 resnet50_gn
resnetaa50 resnetblur50 resnetrs50 legacy_seresnet18 sequencer2d_s swiftformer_xs swinv2_cr_tiny_224 swin_s3_tiny_224
tnt_s_patch16_224 twins_pcpvt_small vit_srelpos_small_patch16_224 vitamin_small_224 deit3_small_patch16_224
caformer_s18 poolformerv2_s12 coatnext_nano_rw_224 maxxvit_rmlp_nano_rw_256 regnetx_002 regnetz_005
regnetv_040 repvgg_b0 resnetv2_50x1_bit rexnetr_200 semnasnet_075 spnasnet_100 tinynet_e tf_mixnet_s convnext_atto_rms
convnextv2_pico mobilenet_edgetpu_v2_xs mobilenetv1_100 efficientvit_l1 vit_medium_patch16_gap_240
vit_little_patch16_reg1_gap_256 flexivit_small
"""

TIMM = {
    **dict.fromkeys(TIMM_EXACT.split(), ""),
    "vgg11": WHOLE_GRID,
    "levit_128s": TOKENS,
    "deit_tiny_distilled_patch16_224": TWO,
    "pit_ti_distilled_224": TWO,
    "volo_d1_224": AT_LARGEST,
    "xcit_nano_12_p16_224": CLASS_TOKEN,
    "coat_lite_tiny": "its attention has no weight for each token",
    "crossvit_9_240": "its logits are the mean of two branches' classifiers",
}
"""Networks of timm's, with why they have none."""

_MOST_ACCURATE = """
eva02_large_patch14_448:4 eva_giant_patch14_560:1 eva_giant_patch14_336:2 eva_giant_patch14_224:1
eva_large_patch14_336:2 eva_large_patch14_196:2 eva02_base_patch14_448:2 convnextv2_huge:3 convnextv2_large:2
convnextv2_base:2 convnext_xxlarge:1 convnext_xlarge:2 convnext_large:2 convnext_base:2 convnext_large_mlp:4
vit_huge_patch14_clip_336:1 vit_huge_patch14_clip_224:2 vit_large_patch14_clip_336:3 vit_large_patch14_clip_224:4
vit_base_patch16_clip_384:3 vit_large_patch16_384:1 vit_mediumd_patch16_reg4_gap_384:1
vit_mediumd_patch16_reg4_gap_256:1 vit_betwixt_patch16_reg4_gap_384:1 beit_large_patch16_512:1
beit_large_patch16_384:1 beit_large_patch16_224:1 beit_base_patch16_384:1 beitv2_large_patch16_224:2
deit3_huge_patch14_224:1 deit3_large_patch16_384:1 deit3_large_patch16_224:1 deit3_base_patch16_384:1 hiera_huge_224:1
maxvit_xlarge_tf_512:1 maxvit_xlarge_tf_384:1 maxvit_large_tf_512:2 maxvit_large_tf_384:1 maxvit_base_tf_512:2
maxvit_base_tf_384:1 maxvit_rmlp_base_rw_384:1 maxvit_rmlp_base_rw_224:1 maxxvitv2_rmlp_base_rw_384:1
maxxvitv2_rmlp_base_rw_224:1 coatnet_rmlp_2_rw_384:1 coatnet_rmlp_2_rw_224:1 coatnet_2_rw_224:1 caformer_b36:2
caformer_m36:2 caformer_s36:1 convformer_b36:2 convformer_m36:1 swinv2_large_window12to24_192to384:1
swinv2_large_window12to16_192to256:1 swinv2_base_window12to24_192to384:1 swin_large_patch4_window12_384:1
tf_efficientnet_l2:2 tf_efficientnet_b7:1 tf_efficientnetv2_xl:1 tf_efficientnetv2_l:1 regnety_1280:1 regnety_320:1
seresnextaa201d_32x8d:1 seresnextaa101d_32x8d:1 nextvit_large:1 volo_d5_512:1 volo_d5_448:1 volo_d4_448:1
"""

MOST_ACCURATE = {name: int(count) for name, count in (each.split(":") for each in _MOST_ACCURATE.split())}
"""Of how many of timm's 100 most accurate classifiers an architecture is.

By results/results-imagenet.csv of huggingface/pytorch-image-models at 7479d451; the same weights with images of another
size count once.
"""

ONE_EACH = (1, 1, 1, 1)
SMALLER: tuple[dict[str, object], ...] = (
    {"depth": 2},
    {"depths": ONE_EACH, "img_size": 224},
    {"depths": ONE_EACH},
    {"layers": ONE_EACH},
    {"stages": ONE_EACH},
    {"img_size": 224},
    {},
)
"""Fewer blocks, as a family of timm's says it; the end of the network is the same."""

SMALLER_SIDE = 192
"""Images of networks of fewer blocks, where these take any size."""


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
    return read_rows(PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0])


def read_rows(section: str) -> dict[str, Row]:
    rows = re.findall(r"^\| (\S+) \| (?:yes|no: (.+?)) \| (?:gradcam: )?`?(.*?)`? \| (\S*) \| (\S*) \|$", section, re.M)
    return {row[0]: Row(*row) for row in rows}


def share(rows: dict[str, Row]) -> str:
    """Return how many of the most accurate classifiers are exact, explained and refused."""
    counts = Counter(
        "refused" if not row.layer else "explained" if row.reason else "gained" if "gains(" in row.layer else "exact"
        for name, row in rows.items()
        for _ in range(MOST_ACCURATE[name])
    )
    return (
        f"Of the 100 {counts['exact'] + counts['gained']} are exact, {counts['gained']} of these at gains; "
        f"{counts['explained']} are explained without an identity; {counts['refused']} are refused."
    )


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


def top_reason(name: str) -> str:
    return AT_LARGEST if name.startswith("volo") else ""


def torchvision_reason(name: str) -> str:
    return next((reason for family, reason in REASONS.items() if name.startswith(family)), "")


def timm_network(name: str, **options: object) -> tuple[nn.Module, int]:
    """Return timm's network of that name with random weights, in evaluation mode, and the size of its images."""
    torch.manual_seed(1)
    create = importlib.import_module("timm").create_model
    network: nn.Module = create(name, pretrained=False, num_classes=CLASS_COUNT, **options)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.LayerNorm, nn.GroupNorm)) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)  # some start with zeros, so that blocks add nothing
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean)
    size = options.get("img_size", network.default_cfg["input_size"][-1])
    assert isinstance(size, int)
    return randomised(network), size


def smaller_network(name: str) -> tuple[nn.Module, int]:
    """Return timm's network of that name, of fewer blocks where it can be, and the size of its images."""
    for options in SMALLER:
        try:
            network, size = timm_network(name, **options)
        except (AssertionError, KeyError, IndexError, RuntimeError, TypeError, ValueError):
            continue  # another family's word
        return network, size if network.default_cfg.get("fixed_input_size") else SMALLER_SIDE
    raise AssertionError(f"{name} can not be built")


def _grid(explainable: ExplainableNetwork) -> str:
    return "×".join(map(str, explainable.grid_size))


def _written(title: str, names: Iterable[str], measure: Callable[[str], Row], *packages: str) -> None:
    """Write rows and versions into the section of that title."""
    rows = read_page(title) if "missing" in sys.argv else {}
    wanted = list(names)
    for name in wanted:
        if name not in rows:
            rows[name] = measure(name)
            print(rows[name], flush=True)
            gc.collect()
            _write(title, "".join(f"{rows[each]}\n" for each in wanted if each in rows), *packages)


def _write(title: str, table: str, *packages: str) -> None:
    before, heading, rest = PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")
    section, *after = re.split(r"(?=^## )", rest, maxsplit=1, flags=re.M)
    versions = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in packages)
    section = re.sub(r"Measured with .*", f"Measured with {versions}.", section)
    if title == TOP:
        section = re.sub(r"Of the 100 .*", share(read_rows(table)), section)
    section = re.sub(r"(?<=\|---\|\n)(\|.*\n)*", lambda _: table, section)
    PAGE.write_text("".join([before, heading, section, *after]), encoding="utf-8")


def main() -> None:
    torch.set_num_threads(1)
    titles = [each for each in sys.argv[1:] if each != "missing"] or ["torchvision", "timm", "top"]
    if "torchvision" in titles:

        def of_torchvision(name: str) -> Row:
            return measured(name, torchvision_network(name, CLASS_COUNT), 224, torchvision_reason(name))

        _written("torchvision", torchvision_names(), of_torchvision, "torchvision", "torch")
    if not find_spec("timm"):
        return
    if "timm" in titles:
        _written("timm", TIMM, lambda name: measured(name, *timm_network(name), TIMM[name]), "timm", "torch")
    if "top" in titles:

        def of_top(name: str) -> Row:
            return measured(name, *smaller_network(name), top_reason(name))

        _written(TOP, MOST_ACCURATE, of_top, "timm", "torch")


if __name__ == "__main__":
    main()
