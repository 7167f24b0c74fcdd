"""Boxes around the foreground of a score map, at every threshold at once."""

from __future__ import annotations

import dataclasses
from typing import Final

import cv2
import numpy as np

GREYS: Final = 256
LATER_NEIGHBOURS: Final = ((0, 1), (1, 0), (1, 1), (1, -1))
"""(down, right) steps to the four of eight neighbours that follow a pixel row by row; the first two share an edge."""

BLOCK: Final = 8
EIGHT: Final = np.ones((3, 3), np.uint8)
FOUR: Final = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


@dataclasses.dataclass(frozen=True)
class LevelBoxes:
    """Boxes around the contours of a map's foreground, at each of L grey levels: foreground is what is above.

    Attributes:
        starts: first box of each level, int64 (L,); every level has at least one.
        boxes: x0, y0, x1, y1 in pixels, int64 (M, 4).
        largest: of each level the box whose contour encloses the largest area, int64 (L,).
        top: the largest grey, L = max(1, top).
    """

    starts: np.ndarray
    boxes: np.ndarray
    largest: np.ndarray
    top: int

    def at(self, thresholds: np.ndarray) -> np.ndarray:
        """Return the level of each threshold, a share of the largest grey from 0 to below 1."""
        return np.asarray((thresholds * self.top).astype(np.intp))


def greys(scores: np.ndarray) -> np.ndarray:
    """Return scores from 0 to 1 as uint8: 255 times the score, without its fraction."""
    return (scores * (GREYS - 1)).astype(np.uint8)


def level_boxes(scores: np.ndarray) -> LevelBoxes:
    """Return the boxes of the protocol of Choe et al. 2020 (arXiv 2001.07437) at every grey level of a score map.

    A box surrounds one contour, of a part of the foreground (8 neighbours) or of a hole in it, and ends one pixel
    behind it, but not behind the map's last pixel. A map without foreground has the box 0, 0, 0, 0.

    Contours are followed only at levels that may have several; elsewhere the foreground's own extent is the box.

    Args:
        scores: float64 (H, W), from 0 to 1.

    Raises:
        ValueError: a score is out of range, or not a number.
    """
    if scores.ndim != 2 or not scores.size or not (scores.min() >= 0 and scores.max() <= 1):
        raise ValueError("a score map is (H, W), with scores from 0 to 1")
    grey = greys(scores)
    top = int(grey.max())
    if top == 0:
        nothing = np.zeros(1, np.int64)
        return LevelBoxes(nothing, np.zeros((1, 4), np.int64), nothing, 0)
    extents = _extents(grey, top)
    several = np.flatnonzero(~_has_one_contour(scores, grey)[:top])
    found = {level: _contour_boxes(grey, level) for level in several.tolist()}
    counts = np.ones(top, np.int64)
    counts[several] = [len(boxes) for boxes, _ in found.values()]
    starts = np.cumsum(counts) - counts
    boxes = np.repeat(extents, counts, axis=0)
    largest = starts.copy()
    for level, (each, first) in found.items():
        boxes[starts[level] : starts[level] + len(each)] = each
        largest[level] += first
    return LevelBoxes(starts, boxes, largest, top)


def boxes_at(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return the boxes of a score map at one threshold, a share of its largest grey; int64 (n, 4)."""
    grey = greys(scores)
    level = int(threshold * int(grey.max()))
    return _contour_boxes(grey, level)[0]


def _contour_boxes(grey: np.ndarray, level: int) -> tuple[np.ndarray, int]:
    """Return the boxes around all contours at a level, and which of them encloses the largest area."""
    _, foreground = cv2.threshold(grey, level, 255, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(foreground, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return np.zeros((1, 4), np.int64), 0
    boxes = np.array([cv2.boundingRect(c) for c in contours], np.int64)
    boxes[:, 2:] = np.minimum(boxes[:, :2] + boxes[:, 2:], (grey.shape[1] - 1, grey.shape[0] - 1))
    areas = [cv2.contourArea(c) for c in contours] if len(contours) > 1 else [0.0]
    return boxes, areas.index(max(areas))


def _extents(grey: np.ndarray, top: int) -> np.ndarray:
    """Return the box around the whole foreground at each level below `top`, int64 (top, 4)."""
    levels = np.arange(top)
    sides = []
    for axis in (0, 1):
        highest = grey.max(axis)
        last = len(highest) - 1
        low = np.searchsorted(np.maximum.accumulate(highest), levels, "right")
        high = last - np.searchsorted(np.maximum.accumulate(highest[::-1]), levels, "right")
        sides += [low, np.minimum(high + 1, last)]
    x0, x1, y0, y1 = sides
    return np.stack([x0, y0, x1, y1], 1).astype(np.int64)


def _has_one_contour(scores: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Return the levels at which the foreground is certainly one part without a hole, bool (256,).

    A part has a peak and a hole has a pit: pixels that no neighbour exceeds or undercuts, where of equal scores the
    later pixel counts as the larger one. So the foreground is one part where every peak above the level is joined to
    the highest one, and has no hole where every pit up to the level is joined to the outside; either of the two
    settles both numbers by the Euler characteristic. Joints are looked for in blocks of pixels: one that is missed
    costs time and nothing else.
    """
    # np.nonzero takes 30 times as long
    peaks, pits = (np.unravel_index(np.flatnonzero(each), grey.shape) for each in _peaks_and_pits(scores))
    highest = int(scores[peaks].argmax())
    joined = _joined(grey, (int(peaks[0][highest]), int(peaks[1][highest])))[_block_of(peaks)]
    apart = _covered(np.delete(joined, highest), np.delete(grey[peaks], highest))
    held = _covered(grey[pits], _opened(grey)[_block_of(pits)])
    return np.asarray(((apart == 0) | (held == 0)) & (_euler_characteristic(grey) == 1))


def _block_of(pixels: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(each // BLOCK for each in pixels)


def _joined(grey: np.ndarray, pixel: tuple[int, int]) -> np.ndarray:
    """Return for each block a level below which all of its pixels are joined to `pixel`, as 8 neighbours; uint8."""
    floor = _blocks(grey, np.minimum, 255)
    joined = np.zeros_like(floor)
    joined[pixel[0] // BLOCK, pixel[1] // BLOCK] = floor[pixel[0] // BLOCK, pixel[1] // BLOCK]
    while True:
        grown = np.maximum(np.minimum(cv2.dilate(joined, EIGHT), floor), joined)
        if np.array_equal(grown, joined):
            return joined
        joined = grown


def _opened(grey: np.ndarray) -> np.ndarray:
    """Return for each block a level from which all of its pixels are joined to the outside, as 4 neighbours; uint8."""
    ceiling = _blocks(grey, np.maximum, 0)
    opened = np.full_like(ceiling, 255)
    while True:
        lowered = np.maximum(cv2.erode(opened, FOUR, borderType=cv2.BORDER_CONSTANT, borderValue=0), ceiling)
        if np.array_equal(lowered, opened):
            return opened
        opened = lowered


def _blocks(grey: np.ndarray, pick: np.ufunc, neutral: int) -> np.ndarray:
    """Return the smallest or the largest value of each block of BLOCK x BLOCK pixels; the last blocks may be cut."""
    height, width = (-n % BLOCK for n in grey.shape)
    padded = np.pad(grey, ((0, height), (0, width)), constant_values=neutral)
    cut = padded.reshape(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
    return np.asarray(pick.reduce(pick.reduce(cut, axis=1), axis=2))


def _covered(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return how many of the ranges from `low` to below `high`, uint8, hold each level, int64 (256,)."""
    ends = (np.bincount(each, minlength=GREYS) for each in (low, high))
    return np.asarray(np.cumsum(np.subtract(*ends)))


def _peaks_and_pits(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    peaks, pits = np.ones(scores.shape, bool), np.zeros(scores.shape, bool)
    pits[1:-1, 1:-1] = True  # what touches the edge is no hole
    height, width = scores.shape
    for down, right in LATER_NEIGHBOURS:
        rows, later_rows = slice(0, height - down), slice(down, height)
        columns = slice(max(0, -right), width - max(0, right))
        later_columns = slice(max(0, right), width + min(0, right))
        here, later = (rows, columns), (later_rows, later_columns)
        rises = scores[later] >= scores[here]
        peaks[here] &= ~rises
        peaks[later] &= rises
        if down + abs(right) == 1:
            pits[here] &= rises
            pits[later] &= ~rises
    return peaks, pits


def _euler_characteristic(grey: np.ndarray) -> np.ndarray:
    """Return parts minus holes of the foreground at each level, int64 (256,): its corners - edges + pixels."""
    pixels = np.pad(grey, 1)
    upright = np.maximum(pixels[:, 1:], pixels[:, :-1])
    level = np.maximum(pixels[1:], pixels[:-1])
    corners = np.maximum(upright[1:], upright[:-1])
    return np.asarray(_above(corners) - _above(upright) - _above(level) + _above(grey))


def _above(values: np.ndarray) -> np.ndarray:
    """Return how many of uint8 values are above each level, int64 (256,)."""
    if not values.size:
        return np.zeros(GREYS, np.int64)
    # float32 counts are exact up to 2**24; larger maps are counted in whole numbers
    if values.ndim == 2 and values.size < 2**24:
        counts = cv2.calcHist([values], [0], None, [GREYS], [0, GREYS]).ravel().astype(np.int64)
    else:
        counts = np.bincount(values.ravel(), minlength=GREYS)
    return np.asarray(values.size - np.cumsum(counts))
