"""Decode one stored image, upright, by one rule for each kind of file: to 8-bit RGB, or what else a network takes.

| stored image | decoded as |
|---|---|
| RGB, YCbCr, LAB | RGB; 16 bits a channel: the high byte |
| grey, 1-bit | three equal channels |
| grey of 9 to 16 bits (PNG, TIFF, PGM, JPEG 2000) | the 8 high bits, never clipped; white-is-zero TIFF inverted |
| 16 bits that need 14 or fewer, unless file or user say how many are used | unreadable: dark, or of fewer bits |
| alpha, palette with transparency, transparent colour | composited on white |
| further channels that the file says are no alpha | left out |
| a channel that may be alpha, for all that TIFF or JPEG 2000 say | left out if opaque throughout, else unreadable |
| CMYK, also Adobe's inverted JPEG | Pillow's conversion, without colour profile |
| animated or several pages | the first frame |
| EXIF orientation | applied; a corrupt one ignored, and JPEG XL's, which has another |
| float, 32-bit integer, signed 16-bit | unreadable unless `--range` says which values are black and white |
| grey of more than 8 bits, with `--range` | all bits, by this range |
| DICOM | one frame, by its first window or `--range` |
| JPEG, with `Decoding.least` | at a half, quarter or eighth of its size, as libjpeg scales it |
| HEIF, JPEG XL | what the plugin gives, if it is installed |
| .npy, and TIFF of other channels than 1 and 3 | for a network that takes so many channels |
| truncated, empty, unknown format, more pixels than `PIL.Image.MAX_IMAGE_PIXELS` | unreadable |

Of what becomes of other channels than three, see `planes`. Formats with an interpreter behind them (EPS runs
Ghostscript) are unknown formats here, whatever the file's name.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Final

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from batchcam.errors import one_line
from batchcam.images.arrays import NPY_START, npy_values, tiff_values
from batchcam.images.depth import SIXTEEN_BIT_MODES, USUAL_BITS, WIDTH, Depth, depth_of, tiff_tags
from batchcam.images.dicom import DICOM_ENDINGS, dicom_values, is_dicom
from batchcam.images.planes import OF_PILLOW, Decoded, Decoding, Values, ValuesError, keep_original_size, made
from batchcam.images.plugins import PLUGINS, is_registered, plugin_for

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

IMAGE_ENDINGS: Final = tuple(
    sorted(itertools.chain(DICOM_ENDINGS, *_FORMATS.values(), *(plugin.endings for plugin in PLUGINS)))
)
"""Of the files that count as images in a folder, whether or not this Pillow reads their format."""

_SIXTEEN_BIT_FORMATS: Final = ("PNG", "PPM")
"""Formats for which mode I means 0…65535: Pillow scales PPM to it, and PNG before Pillow 11 opens as I."""

_GREY_STEP: Final = {"L;2": 85, "L;4": 17}
"""Pillow spreads the grey levels of shallow PNGs over 0…255 but leaves their transparent level as stored."""

_TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0

_TIFF_EXTRA_SAMPLES: Final = 338

_TIFF_STARTS: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

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

_ON_SIDE: Final = (5, 6, 7, 8)
"""Orientations of which the height is stored as the width."""

LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"

_MESSAGE_LIMIT: Final = 200

RGB: Final = Decoding()

_before_pixels: ContextVar[Callable[[int], None]] = ContextVar("before_pixels", default=lambda pixels: None)


class UnreadableImageError(Exception):
    """An image that can't be read; the message is one line, the same on every machine and in every run.

    Attributes:
        sha256: digest of the stored bytes (32), or None when they could not be read either.
    """

    def __init__(self, message: str, sha256: bytes | None = None) -> None:
        """Keep the reason and, where known, the digest of the bytes that could not be decoded."""
        super().__init__(message)
        self.sha256 = sha256


class UnsupportedImageError(UnreadableImageError):
    """A whole image of a kind that is refused: whoever reads it again finds the same."""


def decode_image(data: bytes, decoding: Decoding = RGB) -> Decoded:
    """Return the image stored in `data`, upright, by the table above.

    Raises:
        UnreadableImageError: the bytes are no image, a damaged one, one whose values have no defined range, or one of
            other channels than are wanted.
    """
    if not data:
        raise UnreadableImageError("empty file")
    if data.startswith(LFS_POINTER):
        raise UnreadableImageError("a Git LFS pointer in the image's place: git lfs pull brings the image")
    with _libraries_at_work():
        if is_dicom(data):
            return made(dicom_values(data, _require_room), decoding)
        if data.startswith(NPY_START):
            return made(npy_values(data, decoding.channels, _require_room), decoding)
        if _is_tiff_of_arrays(data, decoding):
            values, turn = tiff_values(data, decoding.channels, _require_room)
            return _upright(made(values, decoding), turn)
        image = _opened(data)
        _require_few_pixels(image.width * image.height)  # Pillow only warns of the first few too many
        width, height = image.size
        if decoding.least:  # of JPEGs only, and never less than asked for
            image.draft(None, (decoding.least, decoding.least))
        is_smaller = image.size != (width, height)
        _rescale_transparent_colour(image)
        depth = depth_of(image, data)
        decoded = _loaded(image, depth, decoding, data)
        # TIFF turns upright while loading, so the orientation counts only from here on
        decoded = _upright(decoded, turn := _orientation(image))
        if is_smaller:
            keep_original_size(decoded, (width, height) if turn in _ON_SIDE else (height, width))
        return decoded


def load_image(image: Image.Image, decoding: Decoding = RGB) -> Decoded:
    """Return an image opened elsewhere, by the table above except for EXIF: it stays turned as it is.

    Args:
        image: as Pillow opened it; what only its file says is not known.
        decoding: as for `decode_image`.

    Raises:
        UnreadableImageError: its pixels can't be loaded, or are none for this network.
    """
    with _libraries_at_work():
        return _loaded(image, depth_of(image), decoding)


def image_of(array: np.ndarray, decoding: Decoding) -> Decoded:
    """Return the image of values (H, W, C) that no file holds.

    Raises:
        UnreadableImageError: they are none for this network.
    """
    with _libraries_at_work():
        return made(Values(array), decoding)


@contextlib.contextmanager
def calling_before_pixels(call: Callable[[int], None]) -> Iterator[None]:
    """Call `call` with an image's number of pixels before these take any memory, for images that the block decodes."""
    token = _before_pixels.set(call)
    try:
        yield
    finally:
        _before_pixels.reset(token)


def describe(error: BaseException) -> str:
    """Return what `error` says on one line, without paths of system errors and without object addresses."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    # a repr such as <_io.BytesIO object at 0x7f…> differs in every run
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", one_line(error))
    return text[:_MESSAGE_LIMIT] or type(error).__name__


@contextlib.contextmanager
def _libraries_at_work() -> Iterator[None]:
    """Keep the warnings of Pillow and its like to ourselves and turn their errors into `UnreadableImageError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except UnreadableImageError:
            raise
        except ValuesError as error:
            raise UnsupportedImageError(str(error)) from error
        except UnidentifiedImageError as error:
            raise UnreadableImageError("not an image of a known format") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise UnsupportedImageError(_too_many_pixels()) from error
        except MemoryError as error:
            raise UnreadableImageError("not enough memory to decode it") from error
        except Exception as error:  # they meet damaged data with whatever error comes up
            raise UnreadableImageError(f"cannot decode: {describe(error)}") from error


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_known_formats())
    except UnidentifiedImageError as error:
        if data.startswith(_TIFF_STARTS):
            raise UnsupportedImageError("a TIFF whose kind of channels or compression Pillow does not read") from error
        if (plugin := plugin_for(data)) is None:
            raise
        if not is_registered(plugin):
            told = f"{plugin.format}, which Pillow reads by a plugin: pip install {plugin.package}"
            raise UnsupportedImageError(told) from error
        return Image.open(io.BytesIO(data), formats=(plugin.format,))


@functools.cache
def _known_formats() -> tuple[str, ...]:
    """Return the formats that this Pillow was built with, in a fixed order."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _require_few_pixels(pixels: int) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit:
        raise UnsupportedImageError(_too_many_pixels())


def _require_room(values: int) -> None:
    _require_few_pixels(values)
    _before_pixels.get()(2 * values)  # of eight bytes while they are scaled


def _too_many_pixels() -> str:
    return f"more than {Image.MAX_IMAGE_PIXELS} pixels: could be a decompression bomb"


def _orientation(image: Image.Image) -> int:
    if image.format == "JXL":  # its own, which the decoder has followed, goes before EXIF's (ISO/IEC 18181-2)
        return 1
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


def _require_stated_alpha(image: Image.Image, data: bytes | None = None) -> None:
    """Refuse transparency that Pillow sees in a channel of which the file does not say that it is any.

    Such a channel may as well be infrared; one that is opaque throughout changes nothing.
    """
    if image.format == "TIFF":
        stated = _TIFF_EXTRA_SAMPLES in tiff_tags(image)
    else:
        stated = image.format != "JPEG2000" or data is None or b"cdef" in data[: data.find(b"jp2c")]
    if stated or image.mode not in ("RGBA", "LA") or image.getchannel("A").getextrema()[0] == 255:
        return
    last = len(image.getbands())
    raise UnsupportedImageError(
        f"the file does not say whether channel {last} is transparency: store it as such, or not at all"
    )


def _is_tiff_of_arrays(data: bytes, decoding: Decoding) -> bool:
    """Return whether a file is a TIFF whose values Pillow does not give: of other channels, or deep colours."""
    if not data.startswith(_TIFF_STARTS) or (decoding.channels in OF_PILLOW and decoding.range is None):
        return False
    try:
        return decoding.channels not in OF_PILLOW or len(_opened(data).getbands()) > 1
    except UnsupportedImageError:
        return True


def _loaded(image: Image.Image, depth: Depth | None, decoding: Decoding, data: bytes | None = None) -> Decoded:
    """Return what the network takes of an image that Pillow opened."""
    _before_pixels.get()(image.width * image.height * (1 if decoding.range is None else decoding.channels))
    image.load()
    if decoding.channels not in OF_PILLOW and image.mode in ("LA", "RGBA") and depth is None:
        return made(Values(np.asarray(image)), decoding)
    _require_stated_alpha(image, data)
    if decoding.range is not None and (depth is not None or image.mode in ("I", "F")):
        return made(_deep_values(image, depth), decoding)
    eight = _to_8_bits(image, depth, decoding.bits)
    if decoding.range is not None or decoding.channels not in OF_PILLOW:
        return made(Values(np.asarray(eight)), decoding)
    mode = OF_PILLOW[decoding.channels]
    return eight if eight.mode == mode else eight.convert(mode)


def _deep_values(image: Image.Image, depth: Depth | None) -> Values:
    """Return the values of an image of more than 8 bits as they are stored."""
    if len(image.getbands()) > 1 or image.has_transparency_data:
        raise ValuesError("16-bit colours or transparency, of which Pillow gives the high bits: no range of them")
    if image.format in ("PPM", "JPEG2000") and depth != Depth():
        raise ValuesError(f"a {image.format} of fewer than 16 bits, which Pillow scales: no range of the stored ones")
    return Values(np.asarray(image), tiff_tags(image).get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO)


def _upright(image: Decoded, orientation: int) -> Decoded:
    turn = _UPRIGHT.get(orientation)
    if turn is None:
        return image
    return image.transpose(turn) if isinstance(image, Image.Image) else tuple(plane.transpose(turn) for plane in image)


def _to_8_bits(image: Image.Image, depth: Depth | None, bits: int | None) -> Image.Image:
    """Return an image of mode L or RGB."""
    mode = image.mode
    if mode in SIXTEEN_BIT_MODES or (mode == "I" and image.format in _SIXTEEN_BIT_FORMATS):
        return _high_bits(image, depth or Depth(), bits)
    if mode in ("I", "F"):
        kind = "float" if mode == "F" else "integer"
        raise UnsupportedImageError(
            f"pixels are {kind} numbers without a defined range: say --range LOW,HIGH, or store 8 or 16 bits"
        )
    if depth is not None:
        _require_sixteen_bits(image, depth, bits)
    if image.has_transparency_data:
        return _on_white(image)
    return image if mode in ("L", "RGB") else image.convert("L" if mode == "1" else "RGB")


def _require_sixteen_bits(image: Image.Image, depth: Depth, asked: int | None) -> None:
    """Refuse colours of 16 bits unless all of them are used: Pillow gives only their high bytes, rounded for PPM."""
    bands = image.getbands()
    high = int(np.asarray(image)[..., : len(bands) - ("A" in bands)].max())
    largest = 257 * high - 128 if image.format == "PPM" else 256 * high  # or up to 255 more
    depth = depth.settled(largest, asked)
    if depth.bits < WIDTH:
        raise UnsupportedImageError(f"16-bit colours of which {depth.bits} bits are used: store 8 bits a channel")
    if largest < depth.doubtful_below:
        raise UnsupportedImageError(
            "16-bit colours, none bright: a dark image, or one of fewer bits? Say --bits 16, or store 8 bits a channel"
        )


def _high_bits(image: Image.Image, depth: Depth, asked: int | None) -> Image.Image:
    """Return a deep grey image as the 8 high ones of the bits that are used."""
    values = np.asarray(image).astype(np.int32)
    largest = int(values.max())
    depth = depth.settled(largest, asked)
    bits = depth.bits
    if 0 < largest < depth.doubtful_below:
        fewer = next(bits for bits in USUAL_BITS if largest < 2**bits)
        raise UnsupportedImageError(
            f"16-bit values of at most {largest}: a dark image, or one of fewer bits? Say --bits 16, or how many are "
            f"used, such as --bits {fewer}"
        )
    if largest >= 2**bits:
        raise UnsupportedImageError(f"16-bit values of up to {largest}, of which {bits} bits are said to be used")
    # Pillow inverts white-is-zero for 8 bits and fewer only
    if tiff_tags(image).get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = (1 << bits) - 1 - values
    grey = (values >> (bits - 8)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _on_white(image: Image.Image) -> Image.Image:
    with_alpha = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(with_alpha, mask=with_alpha.getchannel("A"))
    return white
