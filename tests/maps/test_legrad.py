"""LeGrad's maps are torchcam's, and none of networks that it is not made for."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from batchcam.errors import ModelError
from batchcam.maps.gradients import gradient_maps_of, with_gradients
from tests.helpers.networks import GapNetwork, hook_count, random_images, seeded
from tests.network.test_ledger import CLASSES, stirred, vision_transformer


def test_maps_of_a_vision_transformer_are_those_of_torchcam():
    methods = pytest.importorskip("torchcam.methods")
    if not hasattr(methods, "LeGrad"):
        pytest.skip("an older torchcam")
    network, images = vision_transformer(), random_images(3, 32, 32)
    found = with_gradients(network, images, "legrad")
    assert (found.target_layer, found.grid_size) == ("tokens(encoder.layers.encoder_layer_2, 4x4+1)", (4, 4))
    classes = torch.tensor([[0, 2], [1, -1], [2, 2]])
    with gradient_maps_of(found) as maps:
        logits = maps.forward(images)
        cams = maps.cams(classes).cams
    assert hook_count(network) == 0
    with torch.no_grad():
        torch.testing.assert_close(logits, network(images), rtol=1e-4, atol=1e-5)
    assert cams[1, 1].isnan().all()
    for n, m in ((0, 0), (0, 1), (1, 0), (2, 1)):
        with methods.LeGrad(network, list(network.encoder.layers)) as extractor:
            network(images[n : n + 1])
            expected = extractor(int(classes[n, m]), normalized=False)[0][0]
        torch.testing.assert_close(cams[n, m], expected, rtol=1e-3, atol=1e-3 * expected.max().item())
        assert expected.max() > expected.min()


def test_attention_that_is_a_product_of_matrices_gives_the_maps_of_the_fused_one():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    options = {"img_size": 64, "depth": 2, "embed_dim": 32, "num_heads": 2, "num_classes": CLASSES}
    network, images = stirred(timm.create_model("vit_tiny_patch16_224", **options)), random_images(2, 64, 64)
    given = []
    for fused in (True, False):
        for block in network.blocks:
            block.attn.fused_attn = fused
        with gradient_maps_of(with_gradients(network, images, "legrad")) as maps:
            maps.forward(images)
            given.append(maps.all_cams().cams)
    assert given[0].shape == (2, CLASSES, 4, 4)
    torch.testing.assert_close(*given, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    "network",
    [lambda: seeded(GapNetwork), lambda: torchvision.models.SwinTransformer([2, 2], 8, [1, 1], [1, 1], [2, 2]).eval()],
    ids=["convolutions", "windows"],
)
def test_networks_without_attention_to_all_tokens_are_refused(network):
    built: nn.Module = network()
    with pytest.raises(ModelError, match="--method legrad: needs layers side by side"):
        with_gradients(built, random_images(2, 32, 32), "legrad")
    assert hook_count(built) == 0
