"""Pure pictures of maps: upsample, normalise, colour, lay over the original image, set in a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from batchcam.rules import CONSTANT_RELATIVE_RANGE

PALETTES: Final = {"viridis": cv2.COLORMAP_VIRIDIS, "jet": cv2.COLORMAP_JET}
"""Palette names and OpenCV's numbers for them; viridis is perceptually even, jet is the best known."""

OUTSIDE_BRIGHTNESS: Final = 0.45  # of the grey that stands for what the network did not see
WHITE: Final = 255
LETTERBOX: Final = 240
CAPTION_COLOUR: Final = (40, 40, 40)
CAPTION_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
CAPTION_SCALE: Final = 0.4
SMALLEST_CAPTION_SCALE: Final = 0.3
CAPTION_LINE: Final = 15  # pixels from one line of a caption to the next


def upsample(cams: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return raw maps interpolated to a picture's size: bilinear between cell centres, edges extended.

    The same function as the worker's (`align_corners=False`, no antialiasing), without torch.

    Args:
        cams: raw maps, float32 (n, h, w); a NaN stays NaN and reaches the cells around it.
        size: (H, W).

    Returns:
        float32 (n, H, W), in the units of the raw maps.

    Raises:
        ValueError: the maps are not (n, h, w), or a side is not positive.
    """
    if cams.ndim != 3 or min(cams.shape[1:]) < 1 or min(size) < 1:
        raise ValueError(f"maps of shape {cams.shape} can't be upsampled to {size}: want (n, h, w) and positive sides")
    height, width = size
    upsampled = np.empty((len(cams), height, width), np.float32)
    for index, cam in enumerate(np.asarray(cams, np.float32)):
        # cv2 takes (width, height); every size of ours is (height, width)
        upsampled[index] = cv2.resize(cam, (width, height), interpolation=cv2.INTER_LINEAR)
    return upsampled


def normalise(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return maps scaled by their own smallest and largest value to 0…255, rounded, and these two values.

    Args:
        maps: raw maps, float32 (n, H, W).

    Returns:
        uint8 (n, H, W), zero where a map is constant or not finite; and float32 (n, 2), NaN where it is not finite.
    """
    maps = np.asarray(maps, np.float32)
    ranges = np.stack([maps.min((1, 2)), maps.max((1, 2))], 1)
    finite = np.isfinite(ranges).all(1)
    ranges[~finite] = np.nan
    normalised = np.zeros(maps.shape, np.uint8)
    for index in np.flatnonzero(finite):
        low, high = ranges[index].tolist()
        if high - low > CONSTANT_RELATIVE_RANGE * max(abs(low), abs(high)):
            normalised[index] = _scale(maps[index], low, high)
    return normalised, ranges


def _scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    # in halves, which is exact: float32 may hold both ends and not the way between them
    lowest, highest = np.float32(low / 2), np.float32(high / 2)
    return np.asarray(np.rint((values / 2 - lowest) / (highest - lowest) * np.float32(255)))


def colour(normalised_map: np.ndarray, palette: str = "viridis") -> np.ndarray:
    """Return the heatmap of a normalised map, RGB uint8 (H, W, 3).

    Args:
        normalised_map: uint8 (H, W).
        palette: one of `PALETTES`.

    Raises:
        ValueError: the palette is unknown, or the map is not uint8 (H, W).
    """
    if palette not in PALETTES:
        raise ValueError(f"unknown palette {palette!r}: choose from {', '.join(PALETTES)}")
    _require_map(normalised_map)
    return np.ascontiguousarray(cv2.applyColorMap(normalised_map, PALETTES[palette])[..., ::-1])


def overlay(
    image: np.ndarray,
    normalised_map: np.ndarray,
    crop_box: Sequence[float] | np.ndarray,
    palette: str = "viridis",
    alpha: float = 0.5,
) -> np.ndarray:
    """Return the original image with the heatmap over what the network saw, and the rest dimmed and grey.

    Args:
        image: the original, RGB uint8 (H0, W0, 3).
        normalised_map: uint8 (H, W), over the network's input.
        crop_box: x0, y0, x1, y1 of the network's view in pixels of the original, measured from the outer edge of its
            first pixel; what lies outside the image is left out.
        palette: one of `PALETTES`.
        alpha: share of the heatmap in the blend, 0 to 1.

    Returns:
        RGB uint8 (H0, W0, 3).

    Raises:
        ValueError: an argument has the wrong type or shape, or the box misses the image.
    """
    _require_image(image)
    _require_map(normalised_map)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}: want a share from 0 to 1")
    x0, y0, x1, y1 = (float(edge) for edge in crop_box)
    rows, columns = _pixels_between(y0, y1, image.shape[0]), _pixels_between(x0, x1, image.shape[1])
    if rows.size == 0 or columns.size == 0:
        height, width = image.shape[:2]
        raise ValueError(f"crop box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) misses the {width}×{height} image")
    values = _interpolate(normalised_map.astype(np.float32), (rows + 0.5 - y0) / (y1 - y0))
    values = _interpolate(values.T, (columns + 0.5 - x0) / (x1 - x0)).T
    heatmap = colour(np.rint(values).astype(np.uint8), palette)
    result = _dimmed(image)
    view = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    result[view] = np.rint(image[view] * (1 - alpha) + heatmap * alpha)
    return result


def _pixels_between(low: float, high: float, count: int) -> np.ndarray:
    """Return the indices of the pixels, of `count`, whose centres lie between two edges."""
    centres = np.arange(count) + 0.5
    return np.flatnonzero((centres >= low) & (centres < high))


def _interpolate(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return rows of `values` (h, w) at relative positions (0 to 1 from edge to edge), linear between row centres."""
    last = len(values) - 1
    place = np.clip(positions * len(values) - 0.5, 0, last)
    above = np.floor(place).astype(np.intp)
    share = (place - above).astype(np.float32)[:, None]
    return np.asarray(values[above] * (1 - share) + values[np.minimum(above + 1, last)] * share)


def _dimmed(image: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return np.repeat(np.rint(grey[..., None] * OUTSIDE_BRIGHTNESS).astype(np.uint8), 3, axis=2)


def sheet(
    tiles: Sequence[np.ndarray],
    captions: Sequence[str],
    columns: int = 10,
    tile_size: tuple[int, int] = (160, 160),
    margin: int = 6,
) -> np.ndarray:
    """Return pictures set in a grid on white, a caption beneath each.

    Args:
        tiles: RGB uint8 pictures of any sizes; each is scaled to fit its tile whole.
        captions: one for each tile; a newline starts a new line, lines that don't fit are cut in the middle, and
            characters beyond ASCII are shown as escapes such as \\u00e9.
        columns: tiles in a row, fewer where there are fewer tiles.
        tile_size: (height, width) of a tile in pixels.
        margin: pixels around each tile.

    Returns:
        RGB uint8 (H, W, 3).

    Raises:
        ValueError: there are no tiles, not one caption each, or a size is not positive.
    """
    if not tiles or len(tiles) != len(captions):
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
    for index, (tile, caption) in enumerate(zip(tiles, lines, strict=True)):
        y, x = index // columns * step_y + margin, index % columns * step_x + margin
        page[y : y + height, x : x + width] = _letterboxed(tile, tile_size)
        page[y + height : y + height + caption_height, x : x + width] = _caption(caption, (caption_height, width))
    return page


def printable(text: str) -> str:
    """Return `text` in printable ASCII: every other character as its \\uXXXX or \\UXXXXXXXX escape."""
    return "".join(c if " " <= c <= "~" else _escape(ord(c)) for c in text)


def _escape(code: int) -> str:
    return rf"\u{code:04x}" if code < 0x10000 else rf"\U{code:08x}"


def _letterboxed(tile: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the picture scaled to fit within (height, width), centred on light grey."""
    _require_image(tile)
    scale = min(size[0] / tile.shape[0], size[1] / tile.shape[1])
    height, width = (max(1, round(side * scale)) for side in tile.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    box = np.full((*size, 3), LETTERBOX, np.uint8)
    y, x = (size[0] - height) // 2, (size[1] - width) // 2
    box[y : y + height, x : x + width] = cv2.resize(tile, (width, height), interpolation=method)
    return box


def _caption(lines: list[str], size: tuple[int, int]) -> np.ndarray:
    """Return lines of text on white, uint8 (height, width, 3)."""
    strip = np.full((*size, 3), WHITE, np.uint8)
    for number, line in enumerate(lines):
        text, scale = _fitted(line, size[1])
        baseline = number * CAPTION_LINE + CAPTION_LINE - 4
        cv2.putText(strip, text, (0, baseline), CAPTION_FONT, scale, CAPTION_COLOUR, 1, cv2.LINE_AA)
    return strip


def _fitted(line: str, width: int) -> tuple[str, float]:
    """Return a line that fits `width` pixels and the scale to write it at: smaller first, then cut in the middle."""
    wanted = _text_width(line, CAPTION_SCALE)
    if wanted <= width:
        return line, CAPTION_SCALE
    scale = max(SMALLEST_CAPTION_SCALE, CAPTION_SCALE * width / wanted)
    kept, text = len(line), line
    while kept > 0 and _text_width(text, scale) > width:
        kept -= 1
        text = line[: (kept + 1) // 2] + "..." + line[len(line) - kept // 2 :]
    return text, scale


def _text_width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, CAPTION_FONT, scale, 1)[0][0])


def write_png(image: np.ndarray) -> bytes:
    """Return an RGB or a grey picture, uint8 (H, W, 3) or (H, W), as the bytes of a PNG file.

    Raises:
        ValueError: the picture has another type or shape.
    """
    if image.ndim == 2:
        _require_map(image)
    else:
        _require_image(image)
        image = image[..., ::-1]
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(image))
    if not done:
        raise ValueError(f"a picture of shape {image.shape} can't be written as PNG")
    return bytes(encoded)


def _require_image(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"want an RGB picture, uint8 (H, W, 3), not {image.dtype} {image.shape}")


def _require_map(normalised_map: np.ndarray) -> None:
    if normalised_map.dtype != np.uint8 or normalised_map.ndim != 2 or normalised_map.size == 0:
        raise ValueError(f"want a normalised map, uint8 (H, W), not {normalised_map.dtype} {normalised_map.shape}")
