"""From stored values to the image that a network takes: how many channels it has, and which values are black and white.

| stored | the network takes | image |
|---|---|---|
| grey | 3 channels | three equal ones |
| three channels | 1 channel | grey: 0.299 R + 0.587 G + 0.114 B |
| as many channels as the network takes | any other number | as stored |
| other values than those from 0 to 255 | | by `--range`, or a DICOM file's window; else refused |
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane: TypeAlias = Image.Image

Decoded: TypeAlias = "Image.Image | tuple[Image.Image, ...]"
"""An image of mode RGB or L; or a plane for each channel, of mode L, or of mode F with values from 0 to 1."""

OF_PILLOW: Final = {1: "L", 3: "RGB"}
"""Mode of 8-bit images with so many channels."""

MOSTLY_BEYOND: Final = 0.99
"""Share of an image's values outside of the range from which it shows nothing: another range is meant."""

TOLD: Final = (-1, -1)
"""Where `info` of a Pillow image says what was chosen to read it: not a text, which a file may have as well."""

_ORIGINAL: Final = (-2, -2)
"""Likewise, the (height, width) of an image that was decoded smaller."""

_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


class ValuesError(Exception):
    """Values that are no image's by what is known of them; whoever reads them again finds the same."""


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What the network takes, and what the user says of stored values.

    Attributes:
        bits: how many are used of 16-bit values of which the file does not say it; None: that is not known either.
        channels: of the image.
        range: which stored values become 0 and 1; what lies outside counts as these. None: 8 bits are made of all.
        least: pixels that the shorter side of a JPEG needs, which is decoded smaller down to there; None: it is not.
    """

    bits: int | None = None
    channels: int = 3
    range: tuple[float, float] | None = None
    least: int | None = None


@dataclasses.dataclass(frozen=True)
class Values:
    """What a file holds.

    Attributes:
        array: of any numbers, (height, width) or (height, width, channels).
        white_is_zero: whether the largest value is black.
        window: which values are black and white, where nobody says `--range`; None: 0 and 255.
        told: what was chosen to read it, "" for nothing.
    """

    array: NDArray[np.generic]
    white_is_zero: bool = False
    window: tuple[float, float] | None = None
    told: str = ""


def made(values: Values, decoding: Decoding) -> Decoded:
    """Return the image of these values.

    Raises:
        ValuesError: it has other channels, or it is not said which values are black and white.
    """
    array: NDArray[Any] = values.array if values.array.ndim == 3 else values.array[..., None]
    limits = decoding.range or values.window
    if limits is not None:
        array = _scaled(array, limits)
    elif array.dtype != np.uint8:
        raise ValuesError(f"{array.dtype} values without a defined range: say --range LOW,HIGH")
    if values.white_is_zero:
        array = array.dtype.type(255 if limits is None else 1) - array
    if limits is not None and decoding.range is None:
        array = np.rint(255 * array).astype(np.uint8)
    image = _image(_with_channels(array, decoding.channels))
    if values.told and decoding.range is None:
        planes(image)[0].info[TOLD] = values.told
    return image


def planes(image: Decoded) -> tuple[Image.Image, ...]:
    """Return an image as Pillow's images, which are resized and cut alike."""
    return image if isinstance(image, tuple) else (image,)


def original_size(image: Decoded) -> tuple[int, int]:
    """Return (height, width) of an image, whole where it was decoded smaller."""
    first = planes(image)[0]
    size: tuple[int, int] = first.info.get(_ORIGINAL, (first.height, first.width))
    return size


def keep_original_size(image: Decoded, size: tuple[int, int]) -> None:
    """Say the (height, width) of an image that was decoded smaller."""
    planes(image)[0].info[_ORIGINAL] = size


def shown(image: Decoded) -> NDArray[np.uint8]:
    """Return what pictures show of an image, RGB uint8 (H, W, 3): its first three channels, of fewer the first."""
    if isinstance(image, Image.Image):
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    first = [np.asarray(plane) for plane in (image[:3] if len(image) >= 3 else image[:1] * 3)]
    array = np.stack(first, axis=-1)
    return array if array.dtype == np.uint8 else np.rint(255 * array).astype(np.uint8)


def stored_bytes(image: Decoded) -> bytes:
    """Return the bytes that the digest of an image without a file is of, in order height, width, channel."""
    return np.stack([np.asarray(plane) for plane in planes(image)], axis=-1).tobytes()


def _scaled(array: NDArray[np.generic], limits: tuple[float, float]) -> NDArray[np.float32]:
    low, high = limits
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValuesError("NaN or infinity among its values")
    beyond = np.count_nonzero((numbers < low) | (numbers > high)) / numbers.size
    if beyond >= MOSTLY_BEYOND:
        raise ValuesError(
            f"{beyond:.0%} of its values, {numbers.min():g} to {numbers.max():g}, lie outside of {low:g} to {high:g}, "
            "which --range or its window says: of images of several depths explain each by itself"
        )
    numbers -= low
    numbers /= high - low
    return np.clip(numbers, 0, 1, out=numbers).astype(np.float32)


def _with_channels(array: NDArray[np.generic], wanted: int) -> NDArray[np.generic]:
    has = array.shape[2]
    if (has, wanted) == (1, 3):
        return np.repeat(array, 3, axis=2)
    if (has, wanted) == (3, 1):
        if array.dtype == np.uint8:
            return np.asarray(Image.fromarray(array).convert("L"))[..., None]
        return (array.astype(np.float32) @ _LUMA)[..., None]
    if has != wanted:
        raise ValuesError(f"an image of {has} channel{'' if has == 1 else 's'}: the network takes {wanted}")
    return array


def _image(array: NDArray[np.generic]) -> Decoded:
    channels = array.shape[2]
    if array.dtype == np.uint8 and channels in OF_PILLOW:
        return Image.fromarray(np.ascontiguousarray(array[..., 0] if channels == 1 else array))
    return tuple(Image.fromarray(np.ascontiguousarray(array[..., each])) for each in range(channels))
