"""Networks of tokens: their maps add up to the logits, and are those of plain loops in float64."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from batchcam.errors import ModelError
from batchcam.maps.exact import ExactMaps
from batchcam.network.proof import ExactNetwork, prove, require_identity
from batchcam.network.target_layer import TargetLayer
from batchcam.rules import Tokens
from tests.helpers.networks import hook_count, random_images

CLASSES = 3


def stirred(network: nn.Module) -> nn.Module:
    """The network with all parameters moved: some start with zeros, and add nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.05
    return network.eval()


def vision_transformer() -> nn.Module:
    torch.manual_seed(0)
    return stirred(torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=CLASSES))


def explained(network: nn.Module, images: Tensor, tokens: Tokens | None = None) -> tuple[ExactNetwork, Tensor, Tensor]:
    """The proof, all CAMs and offsets of `images`, whose sums are held against the logits."""
    proved = prove(network, random_images(2, *images.shape[2:], seed=7), tokens=tokens)
    require_identity(proved, "fp32")
    with ExactMaps(proved) as maps, torch.inference_mode():
        logits = maps.forward(images)
        cams, offset, _ = maps.all_cams()
        assert maps.forward(images).equal(logits)
        picked = maps.cams(torch.tensor([[1, -1]]).expand(len(images), -1))
    assert hook_count(network) == 0
    offset = torch.zeros_like(logits) if offset is None else offset
    sums = cams.mean((2, 3)) + proved.bias + offset
    assert ((sums - logits).abs().amax(1) <= 1e-5 * logits.abs().amax(1).clamp(min=1)).all()
    torch.testing.assert_close(picked.cams[:, 0], cams[:, 1])
    assert picked.cams[:, 1].isnan().all()
    assert proved.has_offset == (picked.offset is not None)
    return proved, cams, offset


def loops(network: nn.Module, images: Tensor) -> Tensor:
    """What each patch brings into torchvision's class token, head by head and layer by layer, in float64."""
    network = network.double()
    values = network._process_input(images.double())
    values = torch.cat([network.class_token.expand(len(images), -1, -1), values], 1)
    values = values + network.encoder.pos_embedding
    added = torch.zeros(len(images), values.shape[1], values.shape[2], dtype=torch.float64)
    for block in network.encoder.layers:
        attention, given = block.self_attention, block.ln_1(values)
        width = values.shape[2] // attention.num_heads
        whole = torch.zeros_like(values)
        for head in range(attention.num_heads):
            part = slice(head * width, (head + 1) * width)
            query, key, value = (
                given @ w[part].T + b[part]
                for w, b in zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
            )
            weights = (query @ key.transpose(1, 2) / width**0.5).softmax(2)
            projection = attention.out_proj.weight[:, part]
            for token in range(values.shape[1]):
                added[:, token] += weights[:, 0, token, None] * value[:, token] @ projection.T
            whole += weights @ value @ projection.T
        values = values + whole + attention.out_proj.bias
        values = values + block.mlp(block.ln_2(values))
    norm, head = network.encoder.ln, network.heads.head
    deviation = (values[:, 0].var(1, unbiased=False) + norm.eps).sqrt()
    centred = (added - added.mean(2, keepdim=True)) * norm.weight / deviation[:, None, None]
    maps = (centred @ head.weight.T)[:, 1:].transpose(1, 2)
    return maps.unflatten(2, (4, 4)) * 16


def test_ledger_of_a_class_token_is_that_of_plain_loops():
    network, images = vision_transformer(), random_images(3, 32, 32)
    proved, cams, offset = explained(network, images)
    assert proved.target_layer == "layer_norm(attention(encoder.ln, 4x4+1, 3))"
    assert (proved.grid_size, proved.has_offset) == ((4, 4), True)
    with torch.no_grad():
        expected = loops(network, images)
        logits = network(images.double())
    torch.testing.assert_close(cams.double(), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    rest = logits - proved.bias.double() - expected.mean((2, 3))
    torch.testing.assert_close(offset.double(), rest, rtol=1e-4, atol=1e-5 * logits.abs().max().item())


def test_ledger_is_found_again_by_the_name_that_a_plan_holds():
    network, images = vision_transformer(), random_images(2, 32, 32)
    name = prove(network, images).target_layer
    assert str(TargetLayer.parse(name)) == name
    assert prove(network, images, name).target_layer == name
    with pytest.raises(ModelError, match="none of this kind"):
        prove(network, images, name.replace(", 3)", ", 2)"))


class Averaged(nn.Module):
    """Patches, and register tokens before them, through one layer; what is pooled of them goes into a classifier."""

    def __init__(self, pooled: str, prefix: int = 2) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.pooled, self.patches = pooled, nn.Conv2d(3, 8, 8, 8)
        self.registers = nn.Parameter(torch.randn(1, prefix, 8))
        self.body = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU())
        self.norm = nn.LayerNorm(8) if pooled == "normed" else nn.Identity()
        self.head = nn.Linear(16 if pooled == "class_and_tokens" else 8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        cells = self.patches(images).flatten(2).transpose(1, 2)
        values = self.body(torch.cat([self.registers.expand(len(images), -1, -1), cells], 1))
        before = self.registers.shape[1]
        if self.pooled == "all_tokens":
            return self.head(values.mean(1))
        mean = values[:, before:].mean(1)
        if self.pooled == "class_and_tokens":
            return self.head(torch.cat([values[:, 0], mean], 1))
        return self.head(self.norm(mean))


@pytest.mark.parametrize(
    ("pooled", "layer"),
    [
        ("tokens", "tokens(body, 3x4+2)"),
        ("normed", "layer_norm(tokens(body, 3x4+2))"),
        ("all_tokens", "all_tokens(body, 3x4+2)"),
        ("class_and_tokens", "class_and_tokens(body, 3x4+2)"),
    ],
)
def test_mean_of_tokens_is_explained_at_their_grid(pooled, layer):
    network, images = Averaged(pooled).eval(), random_images(3, 24, 32)
    proved, cams, _ = explained(network, images)
    assert proved.target_layer == layer == prove(network, images, layer).target_layer
    with torch.no_grad():
        values = network.body(
            torch.cat([network.registers.expand(3, -1, -1), network.patches(images).flatten(2).transpose(1, 2)], 1)
        )
        weight = network.head.weight[:, -8:]
        if pooled == "normed":
            weight = weight * network.norm.weight
            deviation = (values[:, 2:].mean(1).var(1, unbiased=False) + network.norm.eps).sqrt()
            values = (values - values.mean(2, keepdim=True)) / deviation[:, None, None]
        if pooled == "all_tokens":
            values = values * 12 / 14
        expected = (values[:, 2:] @ weight.T).transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(cams, expected, rtol=1e-4, atol=1e-5)


def test_mean_of_two_classifiers_of_one_vector_is_explained_as_one():
    class Distilled(Averaged):
        def __init__(self) -> None:
            super().__init__("tokens")
            self.norms = nn.ModuleList(nn.BatchNorm1d(8) for _ in range(2))
            self.heads = nn.ModuleList(nn.Linear(8, CLASSES) for _ in range(2))

        def forward(self, images: Tensor) -> Tensor:
            mean = self.body(self.patches(images).flatten(2).transpose(1, 2)).mean(1)
            one, other = (head(norm(mean)) for norm, head in zip(self.norms, self.heads, strict=True))
            return (one + other) / 2

    network, images = stirred(Distilled()), random_images(3, 24, 32)
    proved, cams, _ = explained(network, images)
    assert proved.target_layer == "tokens(body, 3x4)"
    with torch.no_grad():
        tokens = network.body(network.patches(images).flatten(2).transpose(1, 2))
        classifiers = [
            (h.weight / 2) * (n.weight / (n.running_var + n.eps).sqrt())
            for n, h in zip(network.norms, network.heads, strict=True)
        ]
        expected = (tokens @ sum(classifiers).T).transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(cams, expected, rtol=1e-4, atol=1e-5)


def test_tokens_that_are_centred_at_their_cells_corners_are_a_grid():
    class Corners(Averaged):
        def forward(self, images: Tensor) -> Tensor:
            at_corners = nn.functional.pad(images, (4, 0, 4, 0))[..., : images.shape[2], : images.shape[3]]
            return self.head(self.body(self.patches(at_corners).flatten(2).transpose(1, 2)).mean(1))

    network, images = Corners("tokens", 0).eval(), random_images(2, 48, 64)
    assert explained(network, images)[0].target_layer == "tokens(body, 6x8)"


class Shuffled(Averaged):
    """Its tokens are in no order of rows."""

    def forward(self, images: Tensor) -> Tensor:
        cells = self.patches(images).flatten(2).transpose(1, 2)
        return self.head(self.body(cells.flip(1)).mean(1))


def test_tokens_in_another_order_are_refused_unless_the_user_says_what_they_are():
    network, images = Shuffled("tokens", 0).eval(), random_images(2, 24, 32)
    with pytest.raises(ModelError, match=r"the mean of 12 tokens of 'body.2'.*--tokens"):
        prove(network, images)
    assert explained(network, images, Tokens(3, 4))[0].target_layer == "tokens(body, 3x4)"


def test_class_token_that_no_attention_is_added_to_is_refused():
    class Alone(Averaged):
        def forward(self, images: Tensor) -> Tensor:
            cells = self.patches(images).flatten(2).transpose(1, 2)
            values = torch.cat([cells.mean(1, keepdim=True).tanh(), cells], 1)
            return self.head(self.body(values)[:, 0])

    with pytest.raises(ModelError, match="no module's output, averaged over space"):
        prove(Alone("tokens").eval(), random_images(2, 24, 32))


def test_attention_that_gives_its_weights_is_heard_as_well():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.patches, self.query = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.randn(1, 1, 8))
            self.pool, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, CLASSES)

        def forward(self, images: Tensor) -> Tensor:
            cells = self.patches(images).flatten(2).transpose(1, 2)
            pooled, _ = self.pool(self.query.expand(len(images), -1, -1), cells, nn.Identity()(cells))
            return self.head(pooled[:, 0])

    assert explained(Own().eval(), random_images(3, 32, 32), Tokens(4, 4))[0].grid_size == (4, 4)


@pytest.mark.parametrize("text", ["14", "14x", "0x4", "4x4+", "4x4+-1", "a"])
def test_tokens_that_are_not_so_written_are_refused(text):
    with pytest.raises(ValueError, match="expected HxW"):
        Tokens.parse(text)


SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 2}
TIMM = [
    *("vit_tiny_patch16_224", "deit_tiny_patch16_224", "deit3_small_patch16_224", "vit_base_patch16_clip_224"),
    *("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3", "beit_base_patch16_224"),
    *("beitv2_base_patch16_224", "eva02_tiny_patch14_224", "eva_large_patch14_196", "vit_medium_patch16_gap_240"),
    *("vit_base_patch16_siglip_224", "vit_base_patch16_siglip_gap_224", "vit_base_mci_224", "vit_tiny_r_s16_p8_224"),
    *("vit_medium_patch16_reg4_gap_256", "vit_little_patch16_reg1_gap_256", "vit_base_patch16_rope_reg1_gap_256"),
    *("vit_betwixt_patch16_rope_reg4_gap_256", "vit_pe_core_tiny_patch16_384"),
    *(
        "vit_pe_spatial_tiny_patch16_512",
        "aimv2_large_patch14_224",
        "samvit_base_patch16_224",
        "vit_relpos_small_patch16_224",
    ),
    *("vit_relpos_base_patch16_clsgap_224", "vit_srelpos_small_patch16_224", "vit_base_patch16_rpn_224"),
    *(
        "cait_xxs24_224",
        "mixer_s32_224",
        "mixer_b16_224",
        "gmixer_12_224",
        "resmlp_12_224",
        "gmlp_ti16_224",
        "vit_base_patch16_rope_224",
    ),
    *("flexivit_small", "convit_tiny", "twins_svt_small"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_maps_of_a_network_of_timm_add_up_to_the_logits(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    side = 64
    for options in ({**SMALL, "img_size": side}, {"img_size": side}, {}):
        try:
            network = timm.create_model(name, num_classes=CLASSES, **options)
            side = options.get("img_size", network.default_cfg["input_size"][-1])
            images = random_images(2, side, side)
            network.eval()(images)
            break
        except (TypeError, RuntimeError, AssertionError):
            continue
    explained(stirred(network), images)
