"""How many bits of a deep image's values are used: its file says it, the user does, or it is not known.

Cameras and scanners of 10, 12 and 14 bits store their values in 16, mostly in the lower ones. Such a file and a dark
image of 16 bits look alike, unless the file says more than how wide its values are: PNG's `sBIT`, TIFF's
`MaxSampleValue`, the largest value of PGM and PPM, the precision of JPEG 2000.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from PIL import Image, ImageFile

SIXTEEN_BIT_MODES: Final = ("I;16", "I;16B", "I;16L", "I;16N")

WIDTH: Final = 16
"""Bits of a deep value, as Pillow gives it."""

USUAL_BITS: Final = (8, 10, 12, 14)
"""Of content that is narrower."""

_TIFF_BITS, _TIFF_LARGEST = 258, 281

_CODESTREAM, _PRECISION = b"\xff\x4f\xff\x51", 42
"""How a JPEG 2000 codestream starts, and where in it the first channel's bits stand."""


@dataclasses.dataclass(frozen=True)
class Depth:
    """What a file says of its deep values.

    Attributes:
        bits: that are used: white is 2**bits - 1.
        doubtful_below: where all values are below, fewer may be used; 0: the file leaves no doubt.
    """

    bits: int = WIDTH
    doubtful_below: int = 2 ** USUAL_BITS[-1]

    def settled(self, largest: int, asked: int | None) -> Depth:
        """Return the depth of values up to `largest`, of which `asked` bits are used where the file does not say it."""
        is_open = self == Depth() or largest < self.doubtful_below
        return Depth(asked, doubtful_below=0) if asked and is_open else self


def depth_of(image: Image.Image, data: bytes = b"") -> Depth | None:
    """Return what is said of the values of an image, None for 8 bits and fewer.

    Args:
        image: as Pillow opened it, not yet loaded.
        data: the file; b"": only what Pillow knows.
    """
    if image.format == "TIFF":
        return _depth_of_tiff(image)
    if image.format == "JPEG2000" and data:
        precision = (data[data.find(_CODESTREAM) + _PRECISION] & 0x7F) + 1
        return None if precision <= 8 else _scaled(precision == WIDTH)
    decoder, mode = _decoder(image)
    if decoder in ("ppm", "ppm_plain") and isinstance(mode, tuple):
        return None if mode[-1] < 256 else _scaled(mode[-1] == 2**WIDTH - 1)
    if image.mode not in SIXTEEN_BIT_MODES and "16" not in str(mode):
        return None
    used = _png_bits(data)
    if used == WIDTH:
        return Depth(doubtful_below=0)
    # of fewer significant bits, PNG wants values that are spread over all 16; some writers leave them as they are
    return Depth() if used is None else Depth(doubtful_below=min(2**used, Depth.doubtful_below))


def _scaled(open: bool) -> Depth:
    """Return the depth of values that Pillow has brought to 16 bits; open: they were that before."""
    return Depth() if open else Depth(doubtful_below=0)


def _decoder(image: Image.Image) -> tuple[str, Any]:
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return "", ""
    return image.tile[0][0], image.tile[0][3]


def tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    """Return the tags of a TIFF by their numbers; none of an image of another format."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return tags


def _depth_of_tiff(image: Image.Image) -> Depth | None:
    tags = tiff_tags(image)
    width = int(tags.get(_TIFF_BITS, (8,))[0])
    if width <= 8:
        return None
    # the tag may also hold the largest value of this image: it tells bits only where it is all of them
    largest = tags.get(_TIFF_LARGEST)
    stated = next((bits for bits in range(9, width + 1) if largest in (2**bits - 1, (2**bits - 1,))), None)
    if stated is None and width == WIDTH:
        return Depth()
    return Depth(stated or width, doubtful_below=0)


def _png_bits(data: bytes) -> int | None:
    """Return how many bits of a channel are significant by PNG's chunk sBIT, None where there is none."""
    place = 8
    while (kind := data[place + 4 : place + 8]) and kind != b"IDAT":
        length = int.from_bytes(data[place : place + 4], "big")
        if kind == b"sBIT" and length:
            return max(data[place + 8 : place + 8 + length])
        place += 12 + length
    return None
