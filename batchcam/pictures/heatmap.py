"""Pure pictures of maps: upsample, normalise, colour, lay over the original image."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Final

import cv2
import numpy as np

from batchcam.rules import CONSTANT_RELATIVE_RANGE, PALETTES

_COLOUR_MAPS: Final = {name: getattr(cv2, f"COLORMAP_{name.upper()}") for name in PALETTES}
"""OpenCV's numbers for them."""

STRENGTH: Final = 0.5  # share of the heatmap in an overlay
OUTSIDE_BRIGHTNESS: Final = 0.45  # of the grey that stands for what the network did not see
GRID_LINE_SHARE: Final = 200  # of the shorter side of the network's view is a grid line's width
SMALLEST_GRID_CELL: Final = 4  # pixels below which lines would hide the cells

SIGNED_STEPS: Final = 127
"""Colours on either side of zero."""

SIGNED_STOPS: Final = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
"""RGB at -1, -1/2, 0, 1/2 and 1 of the limit: also people who confuse red and green can tell the sides apart."""

WHITE: Final = 255
JPEG_QUALITY: Final = 80

PNG_HEAD_BYTES: Final = 33  # signature and IHDR, which comes first
SOFTWARE: Final = b"tEXtSoftware\0batchcam"
SOFTWARE_CHUNK: Final = struct.pack(">I", len(SOFTWARE) - 4) + SOFTWARE + struct.pack(">I", zlib.crc32(SOFTWARE))
"""What a PNG of ours says of its maker: only such ones are replaced."""


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
        MemoryError: OpenCV, which has no type of its own for it, lacks memory.
    """
    if cams.ndim != 3 or min(cams.shape[1:]) < 1 or min(size) < 1:
        raise ValueError(f"maps of shape {cams.shape} can't be upsampled to {size}: want (n, h, w) and positive sides")
    height, width = size
    upsampled = np.empty((len(cams), height, width), np.float32)
    for index, cam in enumerate(np.asarray(cams, np.float32)):
        # cv2 takes (width, height); every size of ours is (height, width)
        try:
            upsampled[index] = cv2.resize(cam, (width, height), interpolation=cv2.INTER_LINEAR)
        except cv2.error as error:
            if error.code == cv2.Error.StsNoMem:
                raise MemoryError(str(error)) from error
            raise
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
        palette: one of `rules.PALETTES`.

    Raises:
        ValueError: the palette is unknown, or the map is not uint8 (H, W).
    """
    if palette not in PALETTES:
        raise ValueError(f"unknown palette {palette!r}: choose from {', '.join(PALETTES)}")
    _require_map(normalised_map)
    return np.ascontiguousarray(cv2.applyColorMap(normalised_map, _COLOUR_MAPS[palette])[..., ::-1])


def colour_signed(values: np.ndarray, limit: float) -> np.ndarray:
    """Return the heatmap of raw values, RGB uint8 (H, W, 3): red above zero, blue below, near white at zero.

    Args:
        values: finite numbers (H, W).
        limit: the value that has the darkest red, and as a negative one the darkest blue.

    Raises:
        ValueError: a value or the limit is not finite, or the limit is negative.
    """
    if not np.isfinite(values).all() or not 0 <= limit < np.inf:
        raise ValueError(f"a signed palette wants finite values and a limit from 0, not {limit}")
    steps = np.rint(np.asarray(values, np.float64) / (limit or 1) * SIGNED_STEPS).clip(-SIGNED_STEPS, SIGNED_STEPS)
    return _signed_table()[steps.astype(np.intp) + SIGNED_STEPS]


@functools.cache
def _signed_table() -> np.ndarray:
    stops = np.linspace(-SIGNED_STEPS, SIGNED_STEPS, len(SIGNED_STOPS))
    steps = np.arange(-SIGNED_STEPS, SIGNED_STEPS + 1)
    channels = [np.interp(steps, stops, channel) for channel in zip(*SIGNED_STOPS, strict=True)]
    return np.rint(np.stack(channels, 1)).astype(np.uint8)


def overlay(
    image: np.ndarray,
    normalised_map: np.ndarray,
    crop_box: Sequence[float] | np.ndarray,
    palette: str = "viridis",
    alpha: float = STRENGTH,
    cells: bool = False,
) -> np.ndarray:
    """Return the original image with the heatmap over what the network saw, and the rest dimmed and grey.

    Args:
        image: the original, RGB uint8 (H0, W0, 3).
        normalised_map: uint8 (H, W), over the network's input.
        crop_box: x0, y0, x1, y1 of the network's view in pixels of the original, measured from the outer edge of its
            first pixel; what lies outside the image is left out.
        palette: one of `rules.PALETTES`.
        alpha: share of the heatmap in the blend, 0 to 1.
        cells: show the map's cells as they are, with lines between them, instead of interpolating.

    Returns:
        RGB uint8 (H0, W0, 3).

    Raises:
        ValueError: an argument has the wrong type or shape, or the box misses the image.
    """
    _require_map(normalised_map)

    def paint(values: np.ndarray) -> np.ndarray:
        return colour(np.rint(values).astype(np.uint8), palette)

    return _lay(image, normalised_map, crop_box, paint, alpha, cells)


def signed_overlay(
    image: np.ndarray,
    cam: np.ndarray,
    crop_box: Sequence[float] | np.ndarray,
    limit: float,
    alpha: float = STRENGTH,
    cells: bool = False,
) -> np.ndarray:
    """Return the original image in grey with a raw map's evidence over it: red for the class, blue against it.

    Args:
        image: the original, RGB uint8 (H0, W0, 3).
        cam: raw map, finite, float32 (h, w).
        crop_box: as for `overlay`.
        limit: the value that has the darkest red, and as a negative one the darkest blue.
        alpha: as for `overlay`.
        cells: as for `overlay`.

    Returns:
        RGB uint8 (H0, W0, 3).

    Raises:
        ValueError: an argument has the wrong type or shape, the map is not finite, or the box misses the image.
    """
    require_image(image)
    if cam.ndim != 2 or cam.size == 0:
        raise ValueError(f"want a raw map (h, w), not {cam.shape}")
    # colours of the image would be taken for evidence
    grey = _grey(image)
    return _lay(grey, cam, crop_box, lambda values: colour_signed(values, limit), alpha, cells)


def _lay(
    image: np.ndarray,
    values: np.ndarray,
    crop_box: Sequence[float] | np.ndarray,
    paint: Callable[[np.ndarray], np.ndarray],
    alpha: float,
    cells: bool,
) -> np.ndarray:
    require_image(image)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}: want a share from 0 to 1")
    x0, y0, x1, y1 = (float(edge) for edge in crop_box)
    rows, columns = _pixels_between(y0, y1, image.shape[0]), _pixels_between(x0, x1, image.shape[1])
    if rows.size == 0 or columns.size == 0:
        height, width = image.shape[:2]
        raise ValueError(f"crop box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) misses the {width}×{height} image")
    down, across = (rows + 0.5 - y0) / (y1 - y0), (columns + 0.5 - x0) / (x1 - x0)
    sampled = _nearest if cells else _interpolate
    heatmap = paint(sampled(sampled(values.astype(np.float32), down).T, across).T)
    result = _dimmed(image)
    view = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    result[view] = np.rint(image[view] * (1 - alpha) + heatmap * alpha)
    if cells:
        _draw_grid(result[view], down * values.shape[0], across * values.shape[1])
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


def _nearest(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return rows of `values` (h, w) at relative positions (0 to 1 from edge to edge), each as it is."""
    cells = np.clip(np.floor(positions * len(values)), 0, len(values) - 1)
    return np.asarray(values[cells.astype(np.intp)])


def _draw_grid(view: np.ndarray, down: np.ndarray, across: np.ndarray) -> None:
    """Whiten the pixels where a cell begins, given the position of each row and column of pixels in cells."""
    width = max(1, round(min(view.shape[:2]) / GRID_LINE_SHARE))
    for axis, positions in enumerate((down, across)):
        begins = np.flatnonzero(np.diff(np.floor(positions))) + 1
        if len(positions) < SMALLEST_GRID_CELL * (len(begins) + 1):
            continue
        for begin in begins.tolist():
            line = slice(max(0, begin - width // 2), begin - width // 2 + width)
            np.moveaxis(view, axis, 0)[line] = WHITE


def _grey(image: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return np.repeat(grey[..., None], 3, axis=2)


def _dimmed(image: np.ndarray) -> np.ndarray:
    return np.rint(_grey(image) * OUTSIDE_BRIGHTNESS).astype(np.uint8)


def write_png(image: np.ndarray) -> bytes:
    """Return an RGB or a grey picture, uint8 (H, W, 3) or (H, W), as the bytes of a PNG file that says who made it.

    Raises:
        ValueError: the picture has another type or shape.
    """
    if image.ndim == 2:
        _require_map(image)
    else:
        require_image(image)
        image = image[..., ::-1]
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(image))
    if not done:
        raise ValueError(f"a picture of shape {image.shape} can't be written as PNG")
    content = bytes(encoded)
    return content[:PNG_HEAD_BYTES] + SOFTWARE_CHUNK + content[PNG_HEAD_BYTES:]


def write_jpeg(image: np.ndarray) -> bytes:
    """Return an RGB picture, uint8 (H, W, 3), as the bytes of a small JPEG file.

    Raises:
        ValueError: the picture has another type or shape, or is too large for a JPEG.
    """
    require_image(image)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    done, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise ValueError(f"a picture of shape {image.shape} can't be written as JPEG")
    return bytes(encoded)


def require_image(image: np.ndarray) -> None:
    """Raise ValueError unless `image` is a picture: RGB uint8 (H, W, 3)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"want an RGB picture, uint8 (H, W, 3), not {image.dtype} {image.shape}")


def _require_map(normalised_map: np.ndarray) -> None:
    if normalised_map.dtype != np.uint8 or normalised_map.ndim != 2 or normalised_map.size == 0:
        raise ValueError(f"want a normalised map, uint8 (H, W), not {normalised_map.dtype} {normalised_map.shape}")
