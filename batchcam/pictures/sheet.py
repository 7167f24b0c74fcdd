"""Pictures with words: captions in any script, messages, banners, colour bars, and sheets of captioned tiles."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from batchcam.errors import escaped_code
from batchcam.pictures.heatmap import WHITE, colour_signed, require_image

LETTERBOX: Final = 240
CAPTION_COLOUR: Final = (40, 40, 40)
CHANGED_COLOUR: Final = (170, 20, 30)
REMARK_COLOUR: Final = (110, 110, 110)
FONT: Final = "uni"  # OpenCV's own with Korean, Chinese and Japanese; it borrows Hebrew and Arabic from "sans"
FONT_SIZE: Final = 12
SMALLEST_FONT_SIZE: Final = 10
CAPTION_LINE: Final = 17  # pixels from one line of a caption to the next
BASELINE: Final = 13  # of a caption's line, from its top
UNBOUNDED: Final = 10**6  # pixels of a page on which no text meets an edge
BAR_HEIGHT: Final = 16
BAR_TICK: Final = 3

Colour = tuple[int, int, int]


def fitted_size(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) of a picture of `size` once it is scaled to fit whole within `box`, its shape kept."""
    scale = min(box[0] / size[0], box[1] / size[1])
    height, width = (max(1, min(round(side * scale), most)) for side, most in zip(size, box, strict=True))
    return height, width


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an RGB picture at another (height, width): averaged when it shrinks, interpolated when it grows."""
    require_image(image)
    method = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    # cv2 takes (width, height); every size of ours is (height, width)
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=method))


def colour_bar(limit: float, width: int) -> np.ndarray:
    """Return the signed palette from -limit to limit with these numbers, RGB uint8 (BAR_HEIGHT, width, 3)."""
    strip = np.full((BAR_HEIGHT, width, 3), WHITE, np.uint8)
    low, high = f"{-limit:.2g}", f"+{limit:.2g}"
    start, stop = _text_width(low, SMALLEST_FONT_SIZE) + 4, width - _text_width(high, SMALLEST_FONT_SIZE) - 4
    if stop - start < 2 * BAR_TICK:
        return strip
    ramp = colour_signed(np.linspace(-1, 1, stop - start)[None], 1)
    strip[BAR_TICK:-BAR_TICK, start:stop] = ramp
    strip[:, (start + stop) // 2] = CAPTION_COLOUR
    _draw_text(strip, low, (0, BASELINE - 1), SMALLEST_FONT_SIZE)
    _draw_text(strip, high, (stop + 4, BASELINE - 1), SMALLEST_FONT_SIZE)
    return strip


def message(text: str, size: tuple[int, int]) -> np.ndarray:
    """Return text in lines on light grey, RGB uint8 (height, width, 3): what stands where there is no picture."""
    tile = np.full((*size, 3), LETTERBOX, np.uint8)
    pad = 6
    lines = _wrapped(printable(text), max(1, size[1] - 2 * pad))[: max(1, (size[0] - pad) // CAPTION_LINE)]
    for number, line in enumerate(lines):
        _draw_text(tile, line, (pad, pad + number * CAPTION_LINE + BASELINE), FONT_SIZE)
    return tile


def with_banner(picture: np.ndarray, text: str, background: Colour = REMARK_COLOUR) -> np.ndarray:
    """Return a picture whose top says something in white on a colour."""
    require_image(picture)
    marked = picture.copy()
    marked[: CAPTION_LINE + 1] = background
    line, size = _fitted(printable(text), picture.shape[1] - 4)
    _draw_text(marked, line, (2, BASELINE), size, (WHITE, WHITE, WHITE))
    return marked


def sheet(
    tiles: Sequence[np.ndarray],
    captions: Sequence[str],
    columns: int = 10,
    tile_size: tuple[int, int] = (160, 160),
    margin: int = 6,
    colours: Sequence[Colour] | None = None,
) -> np.ndarray:
    """Return pictures set in a grid on white, a caption beneath each.

    Args:
        tiles: RGB uint8 pictures of any sizes; each is scaled to fit its tile whole.
        captions: one for each tile; a newline starts a new line, lines that don't fit are cut in the middle, and
            characters that the font lacks are shown as escapes (see `printable`).
        columns: tiles in a row, fewer where there are fewer tiles.
        tile_size: (height, width) of a tile in pixels.
        margin: pixels around each tile.
        colours: RGB of each caption; default: CAPTION_COLOUR.

    Returns:
        RGB uint8 (H, W, 3).

    Raises:
        ValueError: there are no tiles, not one caption each, or a size is not positive.
    """
    colours = [CAPTION_COLOUR] * len(tiles) if colours is None else colours
    if not tiles or len(tiles) != len(captions) or len(tiles) != len(colours):
        raise ValueError(f"a sheet wants one caption a tile: {len(tiles)} tiles, {len(captions)} captions")
    if columns < 1 or margin < 0 or min(tile_size) < 1:
        raise ValueError(f"a sheet wants positive sizes: columns {columns}, tile size {tile_size}, margin {margin}")
    height, width = tile_size
    lines = [[printable(line) for line in caption.split("\n")] if caption else [] for caption in captions]
    caption_height = CAPTION_LINE * max(map(len, lines))
    step_y, step_x = height + caption_height + margin, width + margin
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    page = np.full((rows * step_y + margin, columns * step_x + margin, 3), WHITE, np.uint8)
    for index, (tile, caption, text_colour) in enumerate(zip(tiles, lines, colours, strict=True)):
        y, x = index // columns * step_y + margin, index % columns * step_x + margin
        page[y : y + height, x : x + width] = _letterboxed(tile, tile_size)
        room = max(1, width - (margin if columns > 1 else 0))  # so that neighbours don't run together
        strip = _caption(caption, (caption_height, room), text_colour)
        page[y + height : y + height + caption_height, x : x + room] = strip
    return page


def _letterboxed(tile: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the picture scaled to fit within (height, width), centred on light grey."""
    require_image(tile)
    height, width = fitted_size(tile.shape[:2], size)
    box = np.full((*size, 3), LETTERBOX, np.uint8)
    y, x = (size[0] - height) // 2, (size[1] - width) // 2
    box[y : y + height, x : x + width] = resized(tile, (height, width))
    return box


def _caption(lines: list[str], size: tuple[int, int], text_colour: Colour) -> np.ndarray:
    """Return lines of text on white, uint8 (height, width, 3)."""
    strip = np.full((*size, 3), WHITE, np.uint8)
    for number, line in enumerate(lines):
        text, font_size = _fitted(line, size[1])
        _draw_text(strip, text, (0, number * CAPTION_LINE + BASELINE), font_size, text_colour)
    return strip


def printable(text: str) -> str:
    """Return `text` as `sheet` can write it: what the font lacks, and what is no printed character, as an escape.

    The font has Latin, Greek, Cyrillic, Hangul, kana and the usual Chinese characters; Hebrew and Arabic letters are
    set from left to right and not joined. A character without a glyph shows as its \\uXXXX or \\UXXXXXXXX escape.
    """
    composed = unicodedata.normalize("NFC", text)  # file names from macOS hold letters and accents apart
    return "".join(c if " " <= c <= "~" or _has_glyph(c) else escaped_code(c) for c in composed)


@functools.lru_cache(maxsize=65536)
def _has_glyph(character: str) -> bool:
    # OpenCV draws "?" for what the font lacks; a lone surrogate, which is not printable, would end the process
    return character.isprintable() and _pixels_of(character) not in (_pixels_of("?"), _pixels_of(" "))


def _pixels_of(character: str) -> bytes:
    canvas = np.zeros((2 * FONT_SIZE, 3 * FONT_SIZE), np.uint8)
    cv2.putText(canvas, character, (FONT_SIZE, BASELINE), (WHITE,), _font(), FONT_SIZE)
    return canvas.tobytes()


@functools.cache
def _font() -> cv2.FontFace:
    return cv2.FontFace(FONT)


def _draw_text(
    picture: np.ndarray, text: str, start: tuple[int, int], size: int, text_colour: Colour = CAPTION_COLOUR
) -> None:
    """Write printable text into a picture; `start` is (x, y) of the first letter's left end on the baseline."""
    cv2.putText(picture, text, start, text_colour, _font(), size)


def _text_width(text: str, size: int) -> int:
    return int(cv2.getTextSize((UNBOUNDED, UNBOUNDED), text, (0, 0), _font(), size)[2])


def _fitted(line: str, width: int) -> tuple[str, int]:
    """Return a line that fits `width` pixels and the size to write it at: smaller first, then cut in the middle."""
    size = FONT_SIZE
    while size > SMALLEST_FONT_SIZE and _text_width(line, size) > width:
        size -= 1
    kept, text = min(len(line), width), line  # no letter is narrower than a pixel
    while kept > 0 and _text_width(text, size) > width:
        kept -= 1
        text = line[: (kept + 1) // 2] + "…" + line[len(line) - kept // 2 :]
    return text, size


def _wrapped(text: str, width: int) -> list[str]:
    """Return text in lines of at most `width` pixels, broken between words, or within a word that is too long."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if _text_width(joined, FONT_SIZE) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and _text_width(lines[-1] + character, FONT_SIZE) > width:
                lines.append("")
            lines[-1] += character
    return lines
