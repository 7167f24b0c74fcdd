"""From an upright image to the network's input: resize, centre crop or pad, scale, normalise."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode

from batchcam.config.shared import INTERPOLATIONS, PIXELS, View
from batchcam.errors import ConfigError, one_line
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.planes import Decoded, original_size, planes
from batchcam.images.recipes import UnknownRecipeError, timm_recipe

_MOST_CHANNELS: Final = 1000

_OF_TENSORS: Final = ("nearest", "bilinear", "bicubic")
"""Interpolations that torchvision has for tensors."""

_SHOWN: Final = 100
"""Characters of a wrong value that a message shows."""

_MOST_PIXELS: Final = 2**25
"""Largest resized image: about 5800x5800, 100 MB; a checkpoint could ask for any number."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input; sizes are (height, width) in pixels.

    Attributes:
        resize: None for no resizing, (n,) to bring the shorter side to n and keep the aspect as torchvision's
            `Resize(n)` does, or exactly (height, width).
        image_size: the network's input, cut from the centre as torchvision's `CenterCrop` does.
        mean: subtracted per channel after scaling to [0, 1]; as many as the network takes channels.
        std: divided by per channel afterwards.
        interpolation: one of `INTERPOLATIONS`, as Pillow computes it, or torchvision by `pixels`.
        pad: of each channel, 0 to 255, of what surrounds an image that lies whole in the middle of the input, its
            aspect kept, as timm's crop mode `border` does; None: the input is cut from it.
        cut_floor: whether the input is cut at the whole pixel before its place, as transformers does, and not at the
            nearest.
        pixels: one of `PIXELS`: pillow; tensor, as `torchvision.transforms.v2` resizes bytes in tensors; draft, as
            Pillow resizes JPEGs that were decoded at a fraction of their size.
    """

    resize: tuple[int, ...] | None
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    pad: tuple[int, ...] | None = None
    cut_floor: bool = False
    pixels: str = "pillow"

    def __post_init__(self) -> None:
        """Refuse what can't be meant.

        Raises:
            ConfigError: a field has the wrong length, type or range, or the crop is larger than the resized image.
        """
        _check_lengths("image_size", self.image_size, (2,))
        _check_pixels("image_size", self.image_size)
        if self.resize is not None:
            _check_lengths("resize", self.resize, (1, 2))
            _check_pixels("resize", self.resize)
            guaranteed = self.resize * 2 if len(self.resize) == 1 else self.resize
            if any(crop > side for crop, side in zip(self.image_size, guaranteed, strict=True)):
                raise ConfigError(
                    f"image_size: {_by(self.image_size)} is larger than what resize {_by(self.resize)} guarantees: "
                    "crop less or resize to more"
                )
        _check_numbers("mean", self.mean)
        _check_numbers("std", self.std)
        if len(self.std) != self.channels:
            raise ConfigError(f"std: {list(self.std)}: expected {self.channels} numbers, as mean {list(self.mean)} has")
        if any(value <= 0 for value in self.std):
            raise ConfigError(f"std: {list(self.std)}: every value must be above 0")
        if self.interpolation not in INTERPOLATIONS:
            raise ConfigError(f"interpolation: {_shown(self.interpolation)!r}: choose from {', '.join(INTERPOLATIONS)}")
        if type(self.cut_floor) is not bool:
            raise ConfigError(f"cut_floor: {_shown(self.cut_floor)}: expected true or false")
        if self.pixels not in PIXELS:
            raise ConfigError(f"pixels: {_shown(self.pixels)!r}: choose from {', '.join(PIXELS)}")
        if self.pixels == "tensor" and self.interpolation not in _OF_TENSORS:
            raise ConfigError(
                f"pixels tensor: torchvision's tensors have no interpolation {self.interpolation}: choose from "
                f"{', '.join(_OF_TENSORS)}, or pixels pillow"
            )
        if self.pixels == "draft" and self.resize is None:
            raise ConfigError("pixels draft: images are not resized, so none can be decoded smaller: pixels pillow")
        if self.pad is not None:
            _check_colour("pad", self.pad, self.channels)
            if self.resize != self.image_size:
                raise ConfigError(f"resize: a padded image lies whole in the input: say {_by(self.image_size)}")

    @property
    def channels(self) -> int:
        """C of the network's input."""
        return len(self.mean)

    @property
    def least(self) -> int | None:
        """Pixels that the shorter side of a decoded image needs; None: images are decoded whole."""
        return max(self.resize) if self.resize and self.pixels == "draft" else None

    def by(self, pixels: str | None) -> Preprocessing:
        """Return the same with other `pixels`; None leaves them."""
        return dataclasses.replace(self, pixels=pixels or self.pixels)

    def of_channels(self, count: int) -> Preprocessing:
        """Return the same for so many channels: a number that is each channel's is one's of any count.

        Raises:
            ConfigError: channels have different numbers, and they are others than so many.
        """
        if count == self.channels:
            return self
        if any(len(set(values)) > 1 for values in (self.mean, self.std)):
            raise ConfigError(
                f"--mean and --std are of {self.channels} channels, the network takes {count}: give {count} each"
            )
        pad = None if self.pad is None else self.pad[:1] * count
        return dataclasses.replace(self, mean=self.mean[:1] * count, std=self.std[:1] * count, pad=pad)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types, without those that say nothing; `from_dict` reads them back."""
        padding = {} if self.pad is None else {"pad": list(self.pad)}
        cut = {"cut_floor": True} if self.cut_floor else {}
        pixels = {} if self.pixels == "pillow" else {"pixels": self.pixels}
        return {
            "resize": None if self.resize is None else list(self.resize),
            "image_size": list(self.image_size),
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
            "interpolation": self.interpolation,
            **padding,
            **cut,
            **pixels,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing that `to_dict` wrote.

        Raises:
            ConfigError: a key is unknown or missing, or a value can't be meant.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        required = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
        unknown = [_shown(key) for key in values if key not in known]
        if unknown:
            raise ConfigError(f"preprocessing: unknown key {_shown(', '.join(unknown))}: known are {', '.join(known)}")
        missing = [key for key in required if key not in values]
        if missing:
            raise ConfigError(f"preprocessing: missing key {', '.join(missing)}")
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**fields)

    def apply(self, image: Decoded) -> tuple[Tensor, tuple[float, float, float, float]]:
        """Resize and crop one image exactly as torchvision's `Resize` and `CenterCrop` do, or pad it.

        Args:
            image: upright original.

        Returns:
            The network's view, (C, H, W), uint8, or float32 of an image with such values, and its box x0, y0, x1, y1 in
            pixels of the original; padding lies outside of the original.

        Raises:
            UnreadableImageError: the image is too small to crop, or too elongated to resize.
        """
        whole, original = planes(image), original_size(image)
        height, width = size = self._resized(*original)
        view_height, view_width = self.image_size
        if self.pad is not None:
            top, left = -((view_height - height) // 2), -((view_width - width) // 2)
            pixels = self._padded(self._part(whole, size, (0, 0, height, width)), -top, -left)
        elif view_height > height or view_width > width:
            raise UnreadableImageError(
                f"image of {height}x{width} pixels is smaller than the network's input of {view_height}x{view_width}"
            )
        else:
            # torchvision's CenterCrop rounds halves to even, as Python does
            place = math.floor if self.cut_floor else round
            top, left = place((height - view_height) / 2.0), place((width - view_width) / 2.0)
            pixels = self._part(whole, size, (top, left, top + view_height, left + view_width))
        scale_y, scale_x = original[0] / height, original[1] / width
        box = (left * scale_x, top * scale_y, (left + view_width) * scale_x, (top + view_height) * scale_y)
        return pixels, box

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return `pixels` as the network takes them: torchvision's `ToTensor` and `Normalize`, on any device.

        Args:
            pixels: (N, C, H, W), uint8, or float32 from 0 to 1.

        Returns:
            float32 (N, C, H, W) on the same device.

        Raises:
            ValueError: another type or shape.
        """
        if pixels.dtype not in (torch.uint8, torch.float32) or pixels.ndim != 4 or pixels.shape[1] != self.channels:
            kinds = f"uint8 or float32 (N, {self.channels}, H, W)"
            raise ValueError(f"expected {kinds}, got {pixels.dtype} {tuple(pixels.shape)}")
        largest, mean, std = _constants(self.mean, self.std, pixels.device)
        values = pixels.to(torch.float32).div_(largest) if pixels.dtype == torch.uint8 else pixels.clone()
        return values.sub_(mean).div_(std)

    def _padded(self, part: Tensor, top: int, left: int) -> Tensor:
        """Return a view in which `part` lies at this place."""
        colour = torch.tensor(self.pad or (), dtype=torch.float64)
        colour = (colour / 255 if part.is_floating_point() else colour).to(part.dtype)
        view = colour[:, None, None].repeat(1, *self.image_size)
        view[:, top : top + part.shape[1], left : left + part.shape[2]] = part
        return view

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of an image once it is resized."""
        if self.resize is None:
            return height, width
        if self.pad is not None:
            ratio = max(height / self.image_size[0], width / self.image_size[1])
            return max(1, round(height / ratio)), max(1, round(width / ratio))
        if len(self.resize) == 2:
            return self.resize[0], self.resize[1]
        (shorter, longer), side = sorted((height, width)), self.resize[0]
        pixels = side**2 * longer // shorter
        if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
            raise UnreadableImageError(
                f"image of {height}x{width} pixels is too elongated: {pixels} pixels once its shorter side is {side}"
            )
        other = int(side * longer / shorter)  # as torchvision rounds
        return (side, other) if height <= width else (other, side)

    def _part(self, whole: Sequence[Image.Image], size: tuple[int, int], cut: tuple[int, int, int, int]) -> Tensor:
        """Return of an image, resized to `size`, what lies within top, left, bottom, right."""
        (height, width), (top, left, bottom, right) = size, cut
        if self.pixels == "tensor":
            from torchvision.transforms import v2  # which imports torch's compiler, a second

            mode = InterpolationMode(self.interpolation)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch tells that the array must not be written to
                resized = v2.functional.resize(torch.from_numpy(_array(whole)), [height, width], mode)
            part = resized.numpy()[:, top:bottom, left:right]
        else:
            # resized whole: of a part alone, Pillow may take the columns and rows in another order, and round otherwise
            resample = Image.Resampling[self.interpolation.upper()]
            if whole[0].size != (width, height):
                whole = [plane.resize((width, height), resample) for plane in whole]
            part = _array([plane.crop((left, top, right, bottom)) for plane in whole])
        channels = sum(len(plane.getbands()) for plane in whole)
        pixels = torch.from_numpy(np.ascontiguousarray(part[:channels]))
        if pixels.is_floating_point():
            pixels.clamp_(0, 1)  # as bytes are: bicubic and lanczos overshoot
        return pixels


def _array(whole: Sequence[Image.Image]) -> NDArray[Any]:
    """Return an image as (C, H, W), of RGB with Pillow's fourth channel: it takes longer to leave it out."""
    first = whole[0]
    if first.mode != "RGB":
        return np.stack([np.asarray(plane) for plane in whole])
    pixels = np.frombuffer(first.tobytes("raw", "RGBX"), np.uint8)
    return pixels.reshape(first.height, first.width, 4).transpose(2, 0, 1)


@functools.lru_cache(maxsize=16)
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return 255, mean and std on `device`, to be copied there once and not once a batch."""
    # CUDA multiplies by the reciprocal of a plain number, which is not what the CPU computes
    largest = torch.tensor(255.0, device=device)
    return largest, _per_channel(mean, device), _per_channel(std, device)


def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


def _by(size: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in size)


def _shown(value: object) -> str:
    text = one_line(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _check_lengths(field: str, sides: object, allowed: tuple[int, ...]) -> None:
    names = " or ".join({1: "(shorter side,)", 2: "(height, width)"}[count] for count in allowed)
    if not isinstance(sides, tuple) or len(sides) not in allowed:
        raise ConfigError(f"{field}: {_shown(sides)}: expected {names}")
    if not all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in sides):
        raise ConfigError(f"{field}: {_shown(list(sides))}: sides are whole numbers of pixels from 1")


def _check_pixels(field: str, sides: tuple[int, ...]) -> None:
    if sides[0] * sides[-1] > _MOST_PIXELS:
        raise ConfigError(f"{field}: {_by(sides)}: more than {_MOST_PIXELS} pixels")


def _check_numbers(field: str, values: object) -> None:
    if not isinstance(values, tuple) or not 1 <= len(values) <= _MOST_CHANNELS:
        raise ConfigError(f"{field}: {_shown(values)}: expected numbers, one for each channel")
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        raise ConfigError(f"{field}: {list(values)}: expected numbers")
    if not all(math.isfinite(value) for value in values):
        raise ConfigError(f"{field}: {list(values)}: expected finite numbers")


def _check_colour(field: str, values: tuple[object, ...], count: int) -> None:
    _check_numbers(field, values)
    if len(values) != count or not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise ConfigError(f"{field}: {_shown(values)}: expected {count} whole numbers from 0 to 255")


PRESETS: Final = {
    "imagenet": Preprocessing((256,), (224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "stl10": Preprocessing((128,), (128, 128), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
}
"""Preprocessing by name: torchvision's ImageNet evaluation, and the STL10 recipe with 128 pixels."""

UNSAID: Final = (
    "say --preprocess imagenet, stl10 or torchvision's name of the weights, or all of --image-size, --mean and --std"
)


def chosen_preprocessing(asked: View) -> Preprocessing | None:
    """Return the preprocessing that the options ask for, None when they say nothing, or `pixels` only.

    Where one number is said for all channels, it is one channel's.

    Raises:
        ConfigError: more has to be said, or it does not fit together.
    """
    if all(getattr(asked, field.name) is None for field in dataclasses.fields(View) if field.name != "pixels"):
        return None
    base = _preset(asked.preprocess) if asked.preprocess else None
    if base is None and not (asked.image_size and asked.mean and asked.std):
        raise ConfigError(UNSAID)
    size, mean = asked.image_size, asked.mean or (base.mean if base else (0,))
    std = asked.std or (base.std if base else (1,))
    count = max(len(mean), len(std))
    mean, std = (values * count if len(values) == 1 else values for values in (mean, std))
    return Preprocessing(
        resize=_resize(asked) or (base.resize if base and size is None else size),
        image_size=(size[0], size[-1]) if size else base.image_size if base else (0, 0),
        mean=mean,
        std=std,
        interpolation=asked.interpolation or (base.interpolation if base else "bilinear"),
        pad=_nearest_colour(mean) if asked.fit == "pad" else None,
        pixels=asked.pixels or "pillow",
    )


def _nearest_colour(mean: tuple[float, ...]) -> tuple[int, ...]:
    """Return the colour that normalises to almost zero, as timm pads."""
    return tuple(min(255, max(0, round(255 * value))) for value in mean)


def _resize(asked: View) -> tuple[int, ...] | None:
    """Return the size before the crop that an option says, None where none does."""
    if asked.crop_pct is None and asked.fit not in ("pad", "stretch"):
        return asked.resize
    size = asked.image_size or (_preset(asked.preprocess).image_size if asked.preprocess else (0, 0))
    height, width = size[0], size[-1]
    if asked.crop_pct is None:
        return (height, width)
    if height != width:
        raise ConfigError(f"--crop-pct {asked.crop_pct}: the input, {height}x{width}, is no square; say --resize HxW")
    return (math.floor(height / asked.crop_pct),)  # as timm.data.create_transform


def _preset(name: str) -> Preprocessing:
    """Return the preprocessing of this name: ours, or what torchvision or timm says of its weights.

    Raises:
        ConfigError: it has no such weights, or they are no image classifier's, or timm is not installed.
    """
    if name in PRESETS:
        return PRESETS[name]
    if name.startswith("timm:"):
        return _of_timm(name)
    try:
        said: Any = torchvision.models.get_weight(name).transforms()
        return Preprocessing(
            tuple(said.resize_size),
            (said.crop_size[0], said.crop_size[-1]),
            tuple(said.mean),
            tuple(said.std),
            InterpolationMode(said.interpolation).value,
        )
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"--preprocess {name}: torchvision has no classifier's weights of this name") from error


def _of_timm(name: str) -> Preprocessing:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(f"--preprocess {name}: timm is not installed: pip install 'batchcam[timm]'") from error
    try:
        said = timm.get_pretrained_cfg(name.removeprefix("timm:"))
    except RuntimeError:  # a tag that the architecture does not have
        said = None
    if said is None:
        raise ConfigError(f"--preprocess {name}: timm has no weights of this name")
    try:
        return Preprocessing.from_dict(timm_recipe(said.to_dict()))
    except UnknownRecipeError as error:
        raise ConfigError(f"--preprocess {name}: asks for {error}, which is not known here") from error
