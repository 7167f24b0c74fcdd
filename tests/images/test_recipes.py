"""Preprocessing as timm and transformers write it down gives their pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from timm.data import create_transform, resolve_data_config

from batchcam.config.shared import View
from batchcam.data.preprocessing import Preprocessing, chosen_preprocessing
from batchcam.errors import ConfigError
from batchcam.images.recipes import UnknownRecipeError, timm_recipe, transformers_recipe

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Smooth images, upright and lying, with sides that leave an odd rest around a crop."""
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)) for _ in range(4)]
    sizes = ((500, 375), (300, 401), (257, 258), (640, 231))
    return [image.resize(size, Image.Resampling.BICUBIC) for image, size in zip(coarse, sizes, strict=True)]


def of_transformers(processor: Any, folder: Path) -> dict[str, Any]:
    processor.save_pretrained(folder)
    return json.loads((folder / "preprocessor_config.json").read_bytes())


PROCESSORS = {
    "convnext": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875),
    "convnext 384": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 384}, resample=2),
    "vit": transformers.ViTImageProcessor,
    "deit": transformers.DeiTImageProcessor,
    "bit": transformers.BitImageProcessor,
    "clip": transformers.CLIPImageProcessor,
    "mobilenet v1": transformers.MobileNetV1ImageProcessor,
    "mobilenet v2": transformers.MobileNetV2ImageProcessor,
    "efficientnet": lambda: transformers.EfficientNetImageProcessor(resample=2, size={"height": 64, "width": 80}),
    "efficientnet offset": lambda: transformers.EfficientNetImageProcessor(
        resample=3, rescale_offset=True, rescale_factor=1 / 127.5, include_top=False
    ),
    "not normalised": lambda: transformers.ViTImageProcessor(do_normalize=False),
    "not resized": lambda: transformers.BitImageProcessor(do_resize=False),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_transformers_but_for_its_rounding(name, photos, tmp_path):
    processor = PROCESSORS[name]()
    ours = Preprocessing.from_dict(transformers_recipe(of_transformers(processor, tmp_path)))
    for photo in photos:
        theirs = processor(photo, return_tensors="pt")["pixel_values"][0]
        got = ours.normalise(ours.apply(photo)[0][None])[0]
        levels = (got - theirs).abs() * torch.tensor(ours.std).view(3, 1, 1) * 255
        assert got.shape == theirs.shape
        assert levels.max() < 2.01  # it rounds bicubic sums otherwise than Pillow does
        assert levels.mean() < 0.25


@pytest.mark.parametrize(
    "said",
    [
        {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bilinear"},
        {"input_size": (3, 160, 160), "crop_pct": 0.95, "interpolation": "bicubic", "crop_mode": "center"},
        {"input_size": (3, 128, 160), "crop_pct": 0.9, "interpolation": "lanczos", "crop_mode": "squash"},
        {"input_size": (3, 64, 96), "crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "border"},
        {"input_size": (3, 224, 224), "interpolation": "bicubic"},
    ],
    ids=["bilinear", "bicubic", "squash", "border", "default share"],
)
def test_pixels_are_those_of_timm_to_the_bit(said, photos):
    config = resolve_data_config({}, pretrained_cfg={**IMAGENET, **said}, verbose=False)
    theirs = create_transform(**config, is_training=False, normalize=False)
    ours = Preprocessing.from_dict(timm_recipe({**IMAGENET, **said}))
    for photo in photos:
        assert torch.equal(ours.apply(photo)[0], theirs(photo))


def test_preset_of_timms_weights_is_what_timm_says_of_them():
    said = timm.get_pretrained_cfg("resnet50.a1_in1k")
    found = chosen_preprocessing(View(preprocess="timm:resnet50.a1_in1k"))
    assert found == Preprocessing((235,), (224, 224), said.mean, said.std, "bicubic")


def test_preset_that_timm_does_not_know_is_refused():
    with pytest.raises(ConfigError, match=r"timm:resnet50.nobodys: timm has no weights of this name"):
        chosen_preprocessing(View(preprocess="timm:resnet50.nobodys"))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"image_processor_type": "MobileViTImageProcessor"}, "a MobileViTImageProcessor, which is not known here"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order of a ViTImageProcessor, which is not known here"),
        ({"size": None}, "no size"),
        ({"resample": 9}, "resample 9"),
        ({"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 9}, "do_center_crop": False}, "sizes"),
    ],
)
def test_recipe_that_asks_for_more_than_is_done_here_is_refused(said, reason):
    usual = {"image_processor_type": "ViTImageProcessor", "size": 8, "resample": 2, "image_mean": 0.5, "image_std": 0.5}
    assert transformers_recipe(usual)["image_size"] == [8, 8]
    with pytest.raises(UnknownRecipeError, match=reason):
        transformers_recipe({**usual, **said})


def test_recipe_of_timm_that_no_crop_does_is_refused():
    with pytest.raises(UnknownRecipeError, match=r"crop_mode center at crop_pct 0.9 of 32x64"):
        timm_recipe({**IMAGENET, "input_size": (3, 32, 64), "crop_pct": 0.9, "interpolation": "bilinear"})
