"""A transform of the user's own: traced against boxes by hand, refused where it depends on chance."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from batchcam.data.own_transform import OwnTransform
from batchcam.data.preprocessing import Preprocessing
from batchcam.errors import ConfigError
from batchcam.images.decoding import UnreadableImageError, UnsupportedImageError

FLOATS = (v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def brightest_half(image: Image.Image) -> Image.Image:
    """Cut the half whose grey is the lighter one: what is shown depends on what the image is of."""
    half = image.width // 2
    left, right = image.crop((0, 0, half, image.height)), image.crop((half, 0, 2 * half, image.height))
    return max(left, right, key=lambda each: np.asarray(each).mean())


RESIZE, CROP = v2.Resize(48, antialias=True), v2.CenterCrop((40, 32))
cut = v2.Compose([RESIZE, CROP, *FLOATS])
stretched = v2.Compose([v2.Resize((40, 32)), *FLOATS])
corner = v2.Compose([v2.Lambda(lambda image: image.crop((10, 5, 50, 65))), *FLOATS])
grey = v2.Compose([v2.Resize((40, 32)), v2.Grayscale(1), v2.ToImage(), v2.ToDtype(torch.float32)])
mirrored = v2.Compose([v2.Resize((40, 32)), v2.functional.hflip, *FLOATS])
turned = v2.Compose([v2.Lambda(lambda image: image.rotate(20)), v2.Resize((40, 32)), *FLOATS])
padded = v2.Compose([v2.Pad(20), v2.Resize((40, 32)), *FLOATS])
chosen = v2.Compose([brightest_half, v2.Resize((40, 32)), *FLOATS])
flipped_by_chance = v2.Compose([v2.Resize((40, 32)), v2.RandomHorizontalFlip(0.01), *FLOATS])


def plain(image: Image.Image) -> np.ndarray:
    """Return the middle of an image as a function by hand would."""
    return np.asarray(image.resize((32, 40)), np.float32).transpose(2, 0, 1) / 255


def by_chance(image: Image.Image) -> np.ndarray:
    return plain(image) + random.random()


class Counting:
    """Gives something else each time, and draws no number."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, image: Image.Image) -> np.ndarray:
        self.count += 1
        return plain(image) + self.count


counting = Counting()


def in_bytes(image: Image.Image) -> torch.Tensor:
    return v2.functional.pil_to_tensor(image)


def failing(image: Image.Image) -> torch.Tensor:
    raise KeyError("lungs")


def made(name: str) -> OwnTransform:
    return OwnTransform(f"tests.data.test_own_transform:{name}")


@pytest.mark.parametrize("size", [(60, 80), (97, 61), (300, 200)])
def test_the_box_of_a_resize_and_a_crop_is_the_one_that_preprocessing_has(size: tuple[int, int]) -> None:
    image, own = picture(*size), made("cut")
    own.try_on([image])
    assert own.traced
    pixels, box = own.apply(image)
    torch.testing.assert_close(pixels, cut(image).as_subclass(torch.Tensor), rtol=0, atol=0)
    _, expected = Preprocessing((48,), (40, 32), (0.5,), (0.5,)).apply(image)
    np.testing.assert_allclose(box, expected, atol=0.01 * max(size))


@pytest.mark.parametrize(
    ("name", "expected"), [("stretched", (0, 0, 80, 70)), ("corner", (10, 5, 50, 65)), ("grey", (0, 0, 80, 70))]
)
def test_other_boxes_are_traced_too(name: str, expected: tuple[int, ...]) -> None:
    image, own = picture(70, 80), made(name)
    own.try_on([image])
    assert own.traced
    np.testing.assert_allclose(own.apply(image)[1], expected, atol=0.5)


@pytest.mark.parametrize("name", ["mirrored", "turned", "padded", "chosen"])
def test_what_is_no_upright_part_of_an_image_or_chosen_by_its_content_is_not_traced(name: str) -> None:
    images, own = [picture(70, 80, seed) for seed in range(4)], made(name)
    own.try_on(images)
    assert not own.traced
    pixels, box = own.apply(images[0])
    assert box == (0, 0, pixels.shape[2], pixels.shape[1])


@pytest.mark.parametrize("name", ["flipped_by_chance", "by_chance", "counting"])
def test_chance_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="draws random numbers, or gives something else another time"):
        made(name).try_on([picture(70, 80)])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("in_bytes", r"--transform gave torch.uint8 \(3, 70, 80\): expected a tensor \(C, H, W\) of floats"),
        ("failing", "--transform raised KeyError: 'lungs'"),
        ("brightest_half", "--transform gave Image: expected"),
    ],
)
def test_what_gives_no_tensor_makes_the_image_unreadable(name: str, message: str) -> None:
    with pytest.raises(UnreadableImageError, match=message):
        made(name).apply(picture(70, 80))


@pytest.mark.parametrize("name", ["Counting", "FLOATS"])
def test_what_takes_no_image_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name what takes an image"):
        made(name)


def test_it_says_its_source_and_goes_to_other_processes() -> None:
    own = made("cut")
    own.try_on([picture(70, 80)])
    said: dict[str, Any] = own.to_dict()
    assert "CenterCrop(size=(40, 32))" in said["transform_repr"]
    assert len(said["transform_sha256"]) == 64
    again = pickle.loads(pickle.dumps(own))
    assert again.to_dict() == said
    assert torch.equal(again.apply(picture(70, 80))[0], own.apply(picture(70, 80))[0])


class Albumentation:
    """Is called as albumentations' are."""

    def __call__(self, *, image: np.ndarray) -> dict[str, Any]:
        return {"image": torch.from_numpy(plain(Image.fromarray(image)))}


Albumentation.__module__ = "albumentations.core.composition"
as_albumentations = Albumentation()


def test_transforms_of_albumentations_take_arrays_by_name() -> None:
    np.testing.assert_array_equal(made("as_albumentations").apply(picture(70, 80))[0], plain(picture(70, 80)))


def test_processors_of_transformers_give_their_pixels() -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.ViTImageProcessor(size={"height": 40, "width": 32})
    globals()["processor"] = processor
    expected = processor(images=picture(70, 80), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(made("processor").apply(picture(70, 80))[0], expected)


def mirrored_where_blue(image: Image.Image) -> torch.Tensor:
    mirror = np.asarray(image)[..., 2].mean() > 200
    return cut(v2.functional.hflip(image) if mirror else image)


def by_chance_where_wide(image: Image.Image) -> torch.Tensor:
    return cut(image) + (random.random() if image.width > image.height else 0)


def infinite(image: Image.Image) -> torch.Tensor:
    return cut(image) * float("inf")


def test_an_image_that_shows_another_part_than_the_first_ones_is_not_taken() -> None:
    own = made("mirrored_where_blue")
    own.try_on([picture(60, 60), picture(60, 80, 1)])
    assert own.traced
    blue = np.asarray(picture(60, 60, 2)).copy()
    blue[..., 2] = 201
    with pytest.raises(UnsupportedImageError, match="shows another part of this image than of others of its size"):
        own.apply(Image.fromarray(blue))
    own.apply(picture(60, 60, 3))
    own.apply(Image.new("RGB", (60, 60), (10, 20, 255)))  # in one colour every part is alike


def test_chance_that_only_some_images_meet_ends_the_work() -> None:
    own = made("by_chance_where_wide")
    own.try_on([picture(60, 60)])
    with pytest.raises(ConfigError, match="draws random numbers"):
        own.apply(picture(60, 80))


def test_what_a_transform_raises_or_gives_is_its_own_fault_and_not_the_storages() -> None:
    for name, message in (("failing", "it is given a Pillow image"), ("infinite", "NaN or infinite pixels")):
        own = made(name)
        with pytest.raises(UnsupportedImageError, match=message):
            own.apply(picture(60, 60))
