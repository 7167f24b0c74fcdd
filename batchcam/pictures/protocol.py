"""Maps in the frame of the protocol for weakly supervised localisation (Choe et al. 2020, arXiv 2001.07437)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np

PROTOCOL_SIZE: Final = (224, 224)
CUBIC: Final = -0.75  # the coefficient of OpenCV's INTER_CUBIC, which the protocol's code uses


def score_map(cam: np.ndarray, box: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """Return one score map: bicubic (OpenCV's), then min-max to [0, 1] over what the network saw, 0 elsewhere.

    Args:
        cam: raw CAM, finite (h, w).
        box: x0, y0, x1, y1 of the network's view, as shares of the image.
        size: (H, W).

    Returns:
        float64 (H, W); zeros where no pixel lies in the view, or all that do are equal.
    """
    values, window = view_values(cam, box, size)
    scores = np.zeros(size)
    if values.size and values.max() > values.min():
        low, high = values.min(), values.max()
        scores[window] = np.clip((values - low) / (high - low), 0, 1)
    return scores


def view_values(
    cam: np.ndarray, box: Sequence[float], size: tuple[int, int]
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return raw values at the pixels of a whole image's frame that the network saw, and the index of these pixels.

    Args:
        cam: raw CAM, finite (h, w).
        box: x0, y0, x1, y1 of the network's view, as shares of the image.
        size: (H, W) of the frame.

    Returns:
        float64, OpenCV's bicubic; and what indexes an array (H, W).
    """
    x0, y0, x1, y1 = (float(edge) for edge in box)
    rows, row_weights = _weights(size[0], y0, y1, cam.shape[0])
    columns, column_weights = _weights(size[1], x0, x1, cam.shape[1])
    return row_weights @ cam.astype(np.float64) @ column_weights.T, np.ix_(rows, columns)


@functools.lru_cache(maxsize=256)
def _weights(count: int, low: float, high: float, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of `count` pixels lie in a view, and how much each cell weighs in each: (n,), float64 (n, cells).

    Args:
        count: pixels of the frame's side.
        low: where the view starts, as a share of the side.
        high: where it ends.
        cells: cells of the map over the view.
    """
    centres = (np.arange(count) + 0.5) / count
    pixels = np.flatnonzero((centres >= low) & (centres < high))
    place = (centres[pixels] - low) / (high - low) * cells - 0.5
    first = np.floor(place)
    share = place - first
    weights = np.zeros((len(pixels), cells))
    for tap in (-1, 0, 1, 2):
        cell = np.clip(first + tap, 0, cells - 1).astype(np.intp)  # edges extended
        np.add.at(weights, (np.arange(len(pixels)), cell), _keys(share - tap))
    return pixels, weights


def _keys(distance: np.ndarray) -> np.ndarray:
    """Return the weight of a sample at a distance in cells: Keys 1981, eq. 12."""
    x, a = np.abs(distance), CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def relative_boxes(boxes: np.ndarray, image_sizes: np.ndarray) -> np.ndarray:
    """Return crop boxes as shares of their image, float64 (n, 4); the whole image where a box is none."""
    scale = image_sizes[:, [1, 0, 1, 0]].astype(np.float64)
    with np.errstate(all="ignore"):
        # float32 holds the edges of a large image to a hundredth of a pixel
        shares = np.round(boxes.astype(np.float64) / scale, 6)
        sound = np.isfinite(shares).all(1) & (shares[:, :2] < shares[:, 2:]).all(1)
    shares[~sound] = (0, 0, 1, 1)
    return shares
