"""Preprocessing equals torchvision's transforms, pixel for pixel, and says where on the image it looked."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import get_model_weights, get_weight, list_models
from torchvision.transforms import v2

from batchcam.config.shared import INTERPOLATIONS, PIXELS, Classifier
from batchcam.data.preprocessing import PRESETS, Preprocessing, chosen_preprocessing
from batchcam.errors import ConfigError
from batchcam.images.decoding import UnreadableImageError

torch.set_num_threads(1)

HALF = (0.5, 0.5, 0.5)
SIZES = [(40, 64), (64, 40), (33, 47), (20, 20), (97, 31), (15, 200)]


def photo(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8))


def reference(image: Image.Image, preprocessing: Preprocessing) -> transforms.Compose:
    steps: list[object] = []
    if preprocessing.resize is not None:
        size = preprocessing.resize[0] if len(preprocessing.resize) == 1 else preprocessing.resize
        steps.append(transforms.Resize(size, transforms.InterpolationMode(preprocessing.interpolation)))
    return transforms.Compose([*steps, transforms.CenterCrop(preprocessing.image_size), transforms.PILToTensor()])(
        image
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("resize", "image_size"), [((32,), (32, 32)), ((33,), (20, 28)), ((24, 48), (24, 48)), ((30, 31), (13, 18))]
)
def test_apply_gives_torchvisions_pixels(
    size: tuple[int, int], interpolation: str, resize: tuple[int, ...], image_size: tuple[int, int]
) -> None:
    preprocessing = Preprocessing(resize, image_size, HALF, HALF, interpolation)
    pixels, _ = preprocessing.apply(photo(*size))
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    assert torch.equal(pixels, reference(photo(*size), preprocessing))


def of_tensors(planes: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Do what `preprocessing` says by the classes of torchvision.transforms.v2, on a tensor."""
    steps: list[object] = []
    if preprocessing.resize is not None:
        size = preprocessing.resize[0] if len(preprocessing.resize) == 1 else preprocessing.resize
        steps.append(v2.Resize(size, transforms.InterpolationMode(preprocessing.interpolation), antialias=True))
    tensor: torch.Tensor = v2.Compose([*steps, v2.CenterCrop(preprocessing.image_size)])(planes)
    return tensor


TENSORS = pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])


@pytest.mark.parametrize("size", [*SIZES, (32, 32), (375, 500), (512, 512)])
@TENSORS
@pytest.mark.parametrize(
    ("resize", "image_size"),
    [((32,), (32, 32)), ((33,), (20, 28)), ((24, 48), (24, 48)), ((30, 31), (13, 18)), ((256,), (224, 224))],
)
def test_pixels_of_tensors_are_those_of_torchvisions_tensor_transforms(
    size: tuple[int, int], interpolation: str, resize: tuple[int, ...], image_size: tuple[int, int]
) -> None:
    asked = Preprocessing(resize, image_size, HALF, HALF, interpolation, pixels="tensor")
    pixels, box = asked.apply(photo(*size))
    assert pixels.is_contiguous()
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, of_tensors(transforms.functional.pil_to_tensor(photo(*size)), asked))
    assert box == asked.by("pillow").apply(photo(*size))[1]


def test_pixels_of_tensors_are_cut_alone_where_nothing_is_resized() -> None:
    asked = Preprocessing(None, (20, 17), HALF, HALF)
    assert torch.equal(asked.by("tensor").apply(photo(21, 32))[0], asked.apply(photo(21, 32))[0])


@TENSORS
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_planes_are_resized_as_torchvision_resizes_a_tensor_of_so_many_channels(
    interpolation: str, kind: type, count: int
) -> None:
    values = np.random.default_rng(count).integers(0, 256, (count, 50, 70)).astype(np.uint8)
    array = values if kind is np.uint8 else values.astype(np.float32) / 255
    asked = Preprocessing((30,), (28, 24), HALF[:1] * count, HALF[:1] * count, interpolation, pixels="tensor")
    pixels, _ = asked.apply(tuple(Image.fromarray(plane) for plane in array))
    assert torch.equal(pixels, of_tensors(torch.from_numpy(array), asked).clamp(0, 255 if kind is np.uint8 else 1))


@pytest.mark.parametrize("size", [*SIZES, (1, 90), (32, 32)])
@TENSORS
def test_a_padded_tensor_is_what_torchvision_resizes_and_pads(size: tuple[int, int], interpolation: str) -> None:
    asked = Preprocessing((33, 40), (33, 40), HALF, HALF, interpolation, (124, 0, 255), pixels="tensor")
    pixels, box = asked.apply(photo(*size))
    ratio = max(size[0] / 33, size[1] / 40)
    height, width = (max(1, round(side / ratio)) for side in size)
    whole = transforms.functional.pil_to_tensor(photo(*size))
    mode = transforms.InterpolationMode(interpolation)
    resized = v2.functional.resize(whole, [height, width], mode, antialias=True)
    top, left = (33 - height) // 2, (40 - width) // 2
    edges = [left, top, 40 - width - left, 33 - height - top]
    assert torch.equal(pixels, v2.functional.pad(resized, edges, fill=[124, 0, 255]))
    assert box == asked.by("pillow").apply(photo(*size))[1]


def test_pixels_of_tensors_give_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    for pad, size in ((None, (32,)), ((1, 2, 3), (32, 32))):
        Preprocessing(size, (32, 32), HALF, HALF, pad=pad, pixels="tensor").apply(photo(40, 64))
    assert not recwarn.list


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_give_torchvisions_pixels(name: str) -> None:
    image = photo(300, 201)
    assert torch.equal(PRESETS[name].apply(image)[0], reference(image, PRESETS[name]))


@pytest.mark.parametrize("size", [(20, 20), (21, 32), (33, 20)])
def test_without_resize_the_box_cuts_exactly_these_pixels(size: tuple[int, int]) -> None:
    image = photo(*size)
    pixels, box = Preprocessing(None, (20, 17), HALF, HALF).apply(image)
    assert torch.equal(pixels, reference(image, Preprocessing(None, (20, 17), HALF, HALF)))
    x0, y0, x1, y1 = (int(edge) for edge in box)
    np.testing.assert_array_equal(np.asarray(image)[y0:y1, x0:x1], pixels.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("size", [(240, 400), (400, 240), (301, 299)])
@pytest.mark.parametrize(("resize", "image_size"), [((128,), (100, 60)), ((90, 180), (80, 30))])
def test_crop_box_finds_the_view_on_the_original(
    size: tuple[int, int], resize: tuple[int, ...], image_size: tuple[int, int]
) -> None:
    height, width = size
    # red tells the column and green the row, so that the view's corners tell where they came from
    red = np.broadcast_to(np.linspace(0, 255, width)[None], size)
    green = np.broadcast_to(np.linspace(0, 255, height)[:, None], size)
    image = Image.fromarray(np.rint(np.stack([red, green, red], axis=2)).astype(np.uint8))
    pixels, (x0, y0, x1, y1) = Preprocessing(resize, image_size, HALF, HALF).apply(image)
    columns = pixels[0].double().mean(dim=0) / 255 * (width - 1)
    rows = pixels[1].double().mean(dim=1) / 255 * (height - 1)
    step_x, step_y = (x1 - x0) / image_size[1], (y1 - y0) / image_size[0]
    expected_columns = x0 + (torch.arange(image_size[1]) + 0.5) * step_x - 0.5
    expected_rows = y0 + (torch.arange(image_size[0]) + 0.5) * step_y - 0.5
    # one grey level is about 1.6 pixels
    assert (columns - expected_columns).abs().max() < 2
    assert (rows - expected_rows).abs().max() < 2
    assert (columns - expected_columns).mean().abs() < 0.3
    assert (rows - expected_rows).mean().abs() < 0.3


def test_crop_box_of_a_stretched_image_is_the_whole_image() -> None:
    _, box = Preprocessing((32, 48), (32, 48), HALF, HALF).apply(photo(77, 50))
    assert box == (0.0, 0.0, 50.0, 77.0)


def padded(image: Image.Image, size: tuple[int, int], colour: tuple[int, int, int], how: str) -> np.ndarray:
    """Pad by Pillow and NumPy alone: the longer side decides, halves of a pixel go to the right and below."""
    (height, width), (tall, wide) = size, (image.height, image.width)
    if tall * width > wide * height:
        inner = (height, max(1, round(wide * height / tall)))
    else:
        inner = (max(1, round(tall * width / wide)), width)
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = colour
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    resized = image.resize(inner[::-1], Image.Resampling[how.upper()])
    canvas[top : top + inner[0], left : left + inner[1]] = np.asarray(resized)
    return canvas


@pytest.mark.parametrize("size", [*SIZES, (1, 90), (32, 32), (64, 64)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("image_size", [(32, 32), (33, 20), (20, 47)])
def test_a_padded_image_lies_whole_in_the_middle_as_plain_pillow_puts_it(
    size: tuple[int, int], interpolation: str, image_size: tuple[int, int]
) -> None:
    preprocessing = Preprocessing(image_size, image_size, HALF, HALF, interpolation, (124, 0, 255))
    pixels, _ = preprocessing.apply(photo(*size))
    assert pixels.is_contiguous()
    np.testing.assert_array_equal(
        pixels.permute(1, 2, 0).numpy(), padded(photo(*size), image_size, (124, 0, 255), interpolation)
    )


@pytest.mark.parametrize("size", [*SIZES, (1, 90), (32, 32)])
def test_the_box_of_a_padded_image_puts_the_image_s_edges_on_the_first_and_the_last_pixel_that_is_no_padding(
    size: tuple[int, int],
) -> None:
    height, width = size
    pixels, (x0, y0, x1, y1) = Preprocessing((30, 40), (30, 40), HALF, HALF, pad=(0, 0, 255)).apply(
        Image.new("RGB", (width, height), (255, 0, 0))
    )
    rows, columns = np.nonzero(pixels[0].numpy() == 255)
    ends = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    step_x, step_y = (x1 - x0) / 40, (y1 - y0) / 30
    np.testing.assert_allclose(
        [x0 + ends[0] * step_x, y0 + ends[1] * step_y, x0 + ends[2] * step_x, y0 + ends[3] * step_y],
        [0, 0, width, height],
        atol=1e-9,
    )
    assert min(x0, y0) <= 0


def test_too_small_an_image_is_unreadable_without_resize() -> None:
    with pytest.raises(UnreadableImageError, match=r"19x30 pixels is smaller than the network's input of 20x20"):
        Preprocessing(None, (20, 20), HALF, HALF).apply(photo(19, 30))


def test_a_needle_is_refused_before_it_is_enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "resize", lambda *_: pytest.fail("resized"))
    monkeypatch.setattr(v2.functional, "resize", lambda *_, **__: pytest.fail("resized"))
    for pixels in PIXELS:
        with pytest.raises(UnreadableImageError, match="too elongated: 327680000 pixels"):
            PRESETS["imagenet"].by(pixels).apply(Image.new("RGB", (1, 5000)))


def test_normalise_equals_totensor_and_normalize_bit_for_bit() -> None:
    images = [photo(12, 16) for _ in range(2)] + [Image.fromarray(np.arange(576, dtype=np.uint8).reshape(12, 16, 3))]
    for preprocessing in (PRESETS["imagenet"], PRESETS["stl10"], Preprocessing(None, (1, 1), (0.1, 0.2, 0.3), HALF)):
        chain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(preprocessing.mean, preprocessing.std)])
        expected = torch.stack([chain(image) for image in images])
        batch = torch.stack([transforms.functional.pil_to_tensor(image) for image in images])
        normalised = preprocessing.normalise(batch)
        assert normalised.dtype == torch.float32
        assert torch.equal(normalised, expected)


def test_normalise_covers_every_grey_level_and_leaves_its_input() -> None:
    batch = torch.arange(256, dtype=torch.uint8).repeat(3, 1).reshape(1, 3, 16, 16)
    kept = batch.clone()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PRESETS["imagenet"].mean, PRESETS["imagenet"].std))
    assert torch.equal(PRESETS["imagenet"].normalise(batch), (batch.float() / 255 - mean) / std)
    assert torch.equal(batch, kept)


def test_normalise_in_inference_mode_does_not_spoil_training() -> None:
    preprocessing = Preprocessing(None, (1, 1), (0.11, 0.22, 0.33), HALF)
    batch = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    with torch.inference_mode():
        preprocessing.normalise(batch)
    weight = torch.ones(1, requires_grad=True)
    (preprocessing.normalise(batch) * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.gpu
def test_normalise_on_a_gpu_equals_the_cpu() -> None:
    batch = torch.arange(256, dtype=torch.uint8).repeat(3, 1).reshape(1, 3, 16, 16)
    assert torch.equal(PRESETS["imagenet"].normalise(batch.cuda()).cpu(), PRESETS["imagenet"].normalise(batch))


@pytest.mark.parametrize("batch", [torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(1, 1, 4, 4)])
def test_normalise_refuses_what_is_no_batch_of_its_channels(batch: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        PRESETS["stl10"].normalise(batch)


@pytest.mark.parametrize(
    "preprocessing",
    [
        *PRESETS.values(),
        Preprocessing(None, (7, 9), (0, 0, 0), (1, 1, 1), "bicubic"),
        Preprocessing((7, 9), (7, 9), (0, 0, 0), (1, 1, 1), pad=(0, 7, 255)),
        PRESETS["imagenet"].by("tensor"),
        PRESETS["imagenet"].by("draft"),
    ],
)
def test_dict_survives_json(preprocessing: Preprocessing) -> None:
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resize": [200]}, "image_size: 224x224 is larger than what resize 200"),
        ({"resize": [224, 223]}, "larger than what resize 224x223"),
        ({"resize": [1, 2, 3]}, "^resize:"),
        ({"resize": [0]}, "^resize:"),
        ({"resize": 256}, "^resize:"),
        ({"resize": [256.0]}, "^resize:"),
        ({"image_size": [224]}, "^image_size:"),
        ({"image_size": [True, 224]}, "^image_size:"),
        ({"std": [0.5, 0, 0.5]}, "^std: .* above 0"),
        ({"std": [0.5, 0.5]}, "^std: .* expected 3"),
        ({"mean": [0.5, float("nan"), 0.5]}, "^mean: .* finite"),
        ({"mean": ["a", "b", "c"]}, "^mean: .* numbers"),
        ({"interpolation": "cubic"}, "^interpolation: 'cubic': choose from .*bicubic"),
        ({"size": 1}, "unknown key size: known are resize, image_size, mean, std, interpolation, pad"),
        ({"pad": [0, 0, 0]}, "^resize: a padded image lies whole in the input: say 224x224"),
        ({"resize": [224, 224], "pad": [0, 0, 256]}, "^pad: .* from 0 to 255"),
        ({"resize": [224, 224], "pad": [0, 0.5, 1]}, "^pad: .* whole numbers"),
        ({"resize": [224, 224], "pad": "black"}, "^pad: black: expected numbers"),
        ({"pixels": "fast"}, "^pixels: 'fast': choose from pillow, tensor, draft"),
        *(
            (
                {"pixels": "tensor", "interpolation": each},
                f"^pixels tensor: .* no interpolation {each}: choose from near",
            )
            for each in ("lanczos", "box", "hamming")
        ),
        ({"pixels": "draft", "resize": None}, "^pixels draft: images are not resized"),
    ],
)
def test_from_dict_refuses_what_cannot_be_meant(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocessing.from_dict(PRESETS["imagenet"].to_dict() | change)


def test_pixels_by_pillow_are_not_said_as_in_all_earlier_runs() -> None:
    said = PRESETS["imagenet"].by("pillow").to_dict()
    assert list(said) == ["resize", "image_size", "mean", "std", "interpolation"]
    assert PRESETS["imagenet"].by("draft").to_dict() == said | {"pixels": "draft"}
    assert PRESETS["imagenet"].by("tensor").by(None).pixels == "tensor"


def test_from_dict_names_missing_keys() -> None:
    with pytest.raises(ConfigError, match="missing key resize, image_size, mean, std"):
        Preprocessing.from_dict({})


def asked(**options: Any) -> Preprocessing | None:
    return chosen_preprocessing(Classifier("a.pth", **options))


@pytest.mark.parametrize(
    "name",
    [
        "ResNet50_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V2",
        "EfficientNet_B0_Weights.IMAGENET1K_V1",  # bicubic
        "Inception_V3_Weights.IMAGENET1K_V1",  # 299
        "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1",  # nothing to crop
        "Swin_T_Weights.DEFAULT",
    ],
)
@pytest.mark.parametrize("size", [(500, 375), (333, 400)])
def test_named_weights_are_preprocessed_as_torchvision_does_it_for_them(name: str, size: tuple[int, int]) -> None:
    preprocessing = asked(preprocess=name)
    assert preprocessing
    ours = preprocessing.normalise(preprocessing.apply(photo(*size))[0][None])[0]
    assert torch.equal(ours, get_weight(name).transforms()(photo(*size)))


def test_the_preprocessing_of_all_of_torchvisions_classifiers_can_be_named() -> None:
    classifiers = [name for name in list_models() if "/" not in name and not name.startswith("quantized")]
    names = [str(weights) for name in classifiers for weights in get_model_weights(name)]
    names = [name for name in names if hasattr(get_weight(name).transforms(), "crop_size") and "Video" not in name]
    assert len(names) > 100
    for name in names:
        said, found = get_weight(name).transforms(), asked(preprocess=name)
        assert found
        sizes = (tuple(said.resize_size), (said.crop_size[0], said.crop_size[-1]))
        numbers = (tuple(said.mean), tuple(said.std), said.interpolation.value)
        assert (found.resize, found.image_size, found.mean, found.std, found.interpolation) == (*sizes, *numbers)


@pytest.mark.parametrize(
    "name",
    ["ResNet50_Weights.IMAGENET1K_V9", "ResNet51_Weights.DEFAULT", "DeepLabV3_ResNet50_Weights.DEFAULT"],
)
def test_weights_that_torchvision_has_not_or_that_classify_no_images_are_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--preprocess {re.escape(name)}: torchvision has no classifier's weights"):
        asked(preprocess=name)


@pytest.mark.parametrize(
    ("size", "share", "resized"), [(224, 0.875, 256), (224, 0.9, 248), (299, 0.95, 314), (224, 1, 224)]
)
def test_crop_pct_resizes_as_timm_does_it(size: int, share: float, resized: int) -> None:
    found = asked(preprocess="imagenet", image_size=size, crop_pct=share)
    assert found
    assert (found.resize, found.image_size) == ((resized,), (size, size))


def test_an_option_counts_more_than_what_is_named() -> None:
    found = asked(preprocess="ResNet50_Weights.IMAGENET1K_V2", interpolation="bicubic", mean=0.5)
    assert found
    assert (found.resize, found.interpolation, found.mean) == ((232,), "bicubic", HALF)
    stretched = asked(preprocess="imagenet", fit="stretch")
    assert stretched
    assert (stretched.resize, stretched.image_size, stretched.pad) == ((224, 224), (224, 224), None)


def test_pixels_alone_ask_for_no_preprocessing_and_go_with_any() -> None:
    assert asked(pixels="tensor") is None
    assert asked(preprocess="imagenet", pixels="tensor") == PRESETS["imagenet"].by("tensor")


def test_padding_has_the_colour_that_normalises_to_nothing() -> None:
    found = asked(preprocess="imagenet", fit="pad", image_size="48x64")
    assert found
    assert (found.resize, found.image_size, found.pad) == ((48, 64), (48, 64), (124, 116, 104))
    pixels, _ = found.apply(photo(64, 10))
    assert found.normalise(pixels[None])[0, :, :, :20].abs().max() < 0.5 / 255 / min(found.std)
    beyond = asked(image_size=8, mean="1.5,-1,0.5", std=1, fit="pad")
    assert beyond
    assert beyond.pad == (255, 0, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_pct": 0.9, "fit": "stretch"}, "--crop-pct and --fit stretch exclude each other"),
        ({"resize": 256, "fit": "stretch"}, "--resize and --fit stretch exclude each other"),
        ({"crop_pct": 1.1}, "--crop-pct 1.1: must be "),
        ({"crop_pct": 0.9, "image_size": "224x256"}, "--crop-pct 0.9: the input, 224x256, is no square"),
        ({"interpolation": "cubic"}, "--interpolation cubic: choose one of nearest, bilinear, bicubic"),
        ({"crop_pct": 0.9, "fit": "pad"}, "--crop-pct and --fit pad exclude each other"),
        ({"resize": 256, "fit": "pad"}, "--resize and --fit pad exclude each other"),
        ({"fit": "squash"}, "--fit squash: choose one of crop, pad, stretch"),
        ({"preprocess": "seed"}, "--preprocess seed: choose one of imagenet, stl10"),
    ],
)
def test_preprocessing_with_two_readings_or_none_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked(**{"preprocess": "imagenet", **options})


@pytest.mark.parametrize("pad", [None, (9, 99, 199)], ids=["cropped", "padded"])
def test_planes_become_what_the_channels_of_one_image_do(pad: tuple[int, int, int] | None) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8))
    size = (40, 32)
    asked = Preprocessing(size if pad else (44,), size, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), pad=pad)
    pixels, box = asked.apply(image)
    planes, plane_box = asked.apply(image.split())
    assert torch.equal(planes, pixels)
    assert plane_box == box
    floats = tuple(Image.fromarray(np.asarray(plane, np.float32) / 255) for plane in image.split())
    values, _ = asked.apply(floats)
    assert values.dtype == torch.float32
    sharp, _ = dataclasses.replace(asked, interpolation="bicubic").apply(floats)  # overshoots
    assert (sharp.min() >= 0) & (sharp.max() <= 1)
    assert (values * 255 - pixels).abs().max() <= 1.51  # bytes are rounded after each of two directions
    torch.testing.assert_close(asked.normalise(pixels[None]), asked.normalise(pixels[None] / 255))


def test_one_number_is_any_channels_and_several_are_only_theirs() -> None:
    asked = Preprocessing((8,), (8, 8), (0.5,), (0.25,))
    assert asked.of_channels(4) == dataclasses.replace(asked, mean=(0.5,) * 4, std=(0.25,) * 4)
    assert PRESETS["stl10"].of_channels(1).mean == (0.5,)
    with pytest.raises(ConfigError, match="of 3 channels, the network takes 1: give 1 each"):
        PRESETS["imagenet"].of_channels(1)
