"""Networks of tokens as transformers builds them: which are exact, and at which layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from batchcam.maps.gradients import with_gradients
from batchcam.network.libraries import transformers_network
from tests.helpers.networks import random_images
from tests.network.test_ledger import explained, stirred

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 8,
}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
NETWORKS = [
    ("ViT", SMALL, "layer_norm(attention(vit.layernorm, 4x4+1, 2))"),
    ("ViTMSN", SMALL, "layer_norm(attention(vit.layernorm, 4x4+1, 2))"),
    ("DeiT", SMALL, "layer_norm(attention(deit.layernorm, 4x4+2, 2))"),
    ("Dinov2", SMALL, "class_and_tokens(dinov2.layernorm, 4x4+1)"),
    (
        "Dinov2WithRegisters",
        {**SMALL, "num_register_tokens": 4},
        "class_and_tokens(dinov2_with_registers.layernorm, 4x4+5)",
    ),
    ("Beit", SMALL, "layer_norm(tokens(beit.layernorm, 4x4+1))"),
    ("Beit", {**SMALL, "use_mean_pooling": False}, "layer_norm(attention(beit.layernorm, 4x4+1, 2))"),
    ("Data2VecVision", SMALL, "layer_norm(tokens(data2vec_vision.layernorm, 4x4+1))"),
    ("IJepa", SMALL, "tokens(ijepa.layernorm, 4x4)"),
    ("Siglip", {"vision_config": SMALL}, "tokens(vision_model.post_layernorm, 4x4)"),
    ("CLIP", {"vision_config": SMALL}, "tokens(vision_model.encoder.layers.1, 4x4+1)"),
    ("Swin", SWIN, "tokens(swin.layernorm, 8x8)"),
]


def built(kind: str, options: dict[str, object]) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(**options, num_labels=3)
    torch.manual_seed(0)
    network = getattr(transformers, f"{kind}ForImageClassification")(config)
    return stirred(transformers_network(config.to_dict(), network.state_dict(), "here")[0])


@pytest.mark.parametrize(("kind", "options", "layer"), NETWORKS, ids=lambda value: value if type(value) is str else "")
def test_maps_of_a_network_of_transformers_add_up_to_the_logits(kind, options, layer):
    assert explained(built(kind, options), random_images(2, 32, 32))[0].target_layer == layer


def test_gradients_are_those_of_the_last_tokens_that_more_than_the_class_token_is_made_of():
    network, images = built("ViT", SMALL), random_images(2, 32, 32)
    assert with_gradients(network, images, "gradcam").target_layer == "tokens(vit.layers.1.layernorm_before, 4x4+1)"
    asked = with_gradients(network, images, "gradcam", "vit.layers.0")
    assert (asked.target_layer, asked.grid_size) == ("tokens(vit.layers.0, 4x4+1)", (4, 4))
