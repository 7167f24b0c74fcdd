"""Decode one stored image to upright 8-bit RGB, by one rule for each kind of file.

| stored image | decoded as |
|---|---|
| RGB, YCbCr, LAB | RGB; 16 bits a channel: the high byte |
| grey, 1-bit | three equal channels |
| grey of 9 to 16 bits (PNG, TIFF, PGM, JPEG 2000) | the 8 high bits, never clipped; white-is-zero TIFF inverted |
| alpha, palette with transparency, transparent colour | composited on white |
| CMYK, also Adobe's inverted JPEG | Pillow's conversion, without colour profile |
| animated or several pages | the first frame |
| EXIF orientation | applied; a corrupt one ignored |
| float, 32-bit integer, signed 16-bit | unreadable: no range is defined |
| truncated, empty, unknown format, more pixels than `PIL.Image.MAX_IMAGE_PIXELS` | unreadable |

Formats with an interpreter behind them (EPS runs Ghostscript) are unknown formats here, whatever the file's name.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import warnings
from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from batchcam.errors import one_line

_FORMATS: Final = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "JPEG2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
    "MPO": (".mpo",),
    "PNG": (".apng", ".png"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""Endings of each format's files, in lower case; not .pfm, whose floats have no defined range."""

IMAGE_ENDINGS: Final = tuple(sorted(ending for endings in _FORMATS.values() for ending in endings))
"""Of the files that count as images in a folder, whether or not this Pillow was built with their format."""

_SIXTEEN_BIT_MODES: Final = ("I;16", "I;16B", "I;16L", "I;16N")

_SIXTEEN_BIT_FORMATS: Final = ("PNG", "PPM")
"""Formats for which mode I means 0…65535: Pillow scales PPM to it, and PNG before Pillow 11 opens as I."""

_GREY_STEP: Final = {"L;2": 85, "L;4": 17}
"""Pillow spreads the grey levels of shallow PNGs over 0…255 but leaves their transparent level as stored."""

_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0

_EXIF_ORIENTATION: Final = 0x0112

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"

_MESSAGE_LIMIT: Final = 200


class UnreadableImageError(Exception):
    """An image that can't be read; the message is one line, the same on every machine and in every run.

    Attributes:
        sha256: digest of the stored bytes (32), or None when they could not be read either.
    """

    def __init__(self, message: str, sha256: bytes | None = None) -> None:
        """Keep the reason and, where known, the digest of the bytes that could not be decoded."""
        super().__init__(message)
        self.sha256 = sha256


def decode_image(data: bytes) -> Image.Image:
    """Return the image stored in `data`, upright, mode RGB, by the table above.

    Raises:
        UnreadableImageError: the bytes are no image, a damaged one, or one whose values have no defined range.
    """
    if not data:
        raise UnreadableImageError("empty file")
    if data.startswith(LFS_POINTER):
        raise UnreadableImageError("a Git LFS pointer in the image's place: git lfs pull brings the image")
    with _pillow_at_work():
        image = Image.open(io.BytesIO(data), formats=_known_formats())
        # Pillow only warns of the first few too many
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise UnreadableImageError(_too_many_pixels())
        _rescale_transparent_colour(image)
        image.load()
        # TIFF turns upright while loading, so the orientation counts only from here on
        turn = _UPRIGHT.get(_orientation(image))
        rgb = _to_rgb(image)
        return rgb if turn is None else rgb.transpose(turn)


def load_rgb(image: Image.Image) -> Image.Image:
    """Return an image opened elsewhere in mode RGB, by the table above except for EXIF: it stays turned as it is.

    Raises:
        UnreadableImageError: its pixels can't be loaded, or have no defined range of values.
    """
    with _pillow_at_work():
        image.load()
        return _to_rgb(image)


def describe(error: BaseException) -> str:
    """Return what `error` says on one line, without paths of system errors and without object addresses."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    # a repr such as <_io.BytesIO object at 0x7f…> differs in every run
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", one_line(error))
    return text[:_MESSAGE_LIMIT] or type(error).__name__


@contextlib.contextmanager
def _pillow_at_work() -> Iterator[None]:
    """Keep Pillow's warnings to ourselves and turn its errors into `UnreadableImageError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except UnreadableImageError:
            raise
        except UnidentifiedImageError as error:
            raise UnreadableImageError("not an image of a known format") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise UnreadableImageError(_too_many_pixels()) from error
        except MemoryError as error:
            raise UnreadableImageError("not enough memory to decode it") from error
        except Exception as error:  # Pillow's plugins meet damaged data with whatever error comes up
            raise UnreadableImageError(f"cannot decode: {describe(error)}") from error


@functools.cache
def _known_formats() -> tuple[str, ...]:
    """Return the formats that this Pillow was built with, in a fixed order."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _too_many_pixels() -> str:
    return f"more than {Image.MAX_IMAGE_PIXELS} pixels: could be a decompression bomb"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # corrupt EXIF says nothing about the pixels
        return 1


def _rescale_transparent_colour(image: Image.Image) -> None:
    """Bring a PNG's transparent colour to the 8 bits to which Pillow brings its pixels."""
    transparent = image.info.get("transparency")
    if image.format != "PNG" or transparent is None or not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return
    raw_mode = image.tile[0][3]
    if raw_mode in _GREY_STEP:
        image.info["transparency"] = transparent * _GREY_STEP[raw_mode]
    elif raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode in _SIXTEEN_BIT_MODES or (mode == "I" and image.format in _SIXTEEN_BIT_FORMATS):
        return _high_bits(image)
    if mode in ("I", "F"):
        kind = "float" if mode == "F" else "integer"
        raise UnreadableImageError(f"pixels are {kind} numbers without a defined range: store 8 or 16 bits")
    if image.has_transparency_data:
        return _on_white(image)
    return image if mode == "RGB" else image.convert("RGB")


def _high_bits(image: Image.Image) -> Image.Image:
    """Return a deep grey image as RGB of its 8 high bits."""
    values = np.asarray(image).astype(np.int32)
    bits, white_is_zero = 16, False
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits = int(tags.get(_TIFF_BITS, (16,))[0])
        # Pillow inverts white-is-zero for 8 bits and fewer only
        white_is_zero = tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
    if white_is_zero:
        values = (1 << bits) - 1 - values
    grey = (values >> (bits - 8)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    with_alpha = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(with_alpha, mask=with_alpha.getchannel("A"))
    return white
