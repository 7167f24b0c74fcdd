"""Pure numbers about where the peaks of maps gather: a screen for what always stands in one place, such as a tag.

Objects are where photographers put them, so that peaks of honest networks gather in the middle of the view, each
class's a little elsewhere. Nothing is claimed of the middle, therefore, and elsewhere only what is far beyond both
chance and that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from batchcam.record.evidence import border, corners, peak_cell
from batchcam.record.intervals import (
    LEVEL,
    Interval,
    benjamini_hochberg,
    fewer_by_chance,
    more_by_chance,
    wilson,
)

SMALLEST_GRID: Final = 4
"""Cells of a side below which an object in the middle reaches every other cell."""

FEWEST: Final = 20
"""Peaks of a class, or of all others, below which it is not judged by itself."""

LEAST_EXCESS: Final = 0.5
"""Below this nothing is claimed: what costs half of the accuracy when it changes decides half of the predictions."""

FALSE_SHARE: Final = 0.01
"""Of findings, that chance alone may make (Benjamini, Hochberg)."""

CORNERS, BORDER = "the corner cells", "the outermost ring of cells"


class PeakCounts:
    """How often the map of each class has its peak in each cell, counted part by part.

    Args:
        class_count: K.
        grid_size: (h, w).
    """

    def __init__(self, class_count: int, grid_size: tuple[int, int]) -> None:
        self.cells = np.zeros((class_count, *grid_size), np.int64)

    def add(self, maps: np.ndarray, classes: np.ndarray) -> None:
        """Count maps (n, h, w), each with its class, int64 (n,), -1: none."""
        cells = peak_cell(maps)
        known = (cells >= 0) & (classes >= 0)
        np.add.at(self.cells.reshape(len(self.cells), -1), (classes[known], cells[known]), 1)


@dataclasses.dataclass(frozen=True)
class Gathering:
    """A place where more peaks are than chance explains.

    Attributes:
        class_name: the predicted class, None: all together.
        place: in words.
        cells: that it has, numbered row by row.
        there, peaks: how many peaks are there, of how many.
        expected: share of peaks to expect: that of the cells in the grid, or if larger that of the other classes.
        interval: of the share that is there.
        by_chance: corrected p-value.
    """

    class_name: str | None
    place: str
    cells: tuple[int, ...]
    there: int
    peaks: int
    expected: float
    interval: Interval
    by_chance: float

    @property
    def excess(self) -> float:
        """How many of the samples, at least, have their peak there for another reason, as a share."""
        return (self.interval[0] - self.expected) / (1 - self.expected)


def outer(grid_size: tuple[int, int]) -> np.ndarray:
    """Return which cells have their centre outside of the middle half of height and width, bool (h, w)."""
    away = [np.abs((np.arange(side) + 0.5) / side - 0.5) > 0.25 for side in grid_size]
    return np.asarray(away[0][:, None] | away[1])


def screen(counts: np.ndarray, class_names: Sequence[str], level: float = LEVEL) -> list[Gathering]:
    """Return where peaks gather, of all together and of each class at most one place, that with the largest excess.

    The corner cells and the outermost ring are compared with their share of the grid (exact binomial test), each other
    outer cell of a class also with the other classes (Fisher's exact test).

    Args:
        counts: of `PeakCounts`, (K, h, w).
        class_names: K names.
        level: of confidence of the intervals.
    """
    grid = counts.shape[1:]
    if min(grid) < SMALLEST_GRID:
        return []
    names, masks = _places(grid)
    flat = counts.reshape(len(counts), -1)
    there = np.vstack([flat.sum(0), flat]) @ masks.reshape(len(masks), -1).T
    peaks = np.concatenate([[flat.sum()], flat.sum(1)])
    others, others_there = peaks[0] - peaks, there[0] - there
    expected = np.tile(masks.mean((1, 2)), (len(peaks), 1))
    compared = (others >= FEWEST)[:, None] & (masks.sum((1, 2)) == 1)
    expected = np.where(compared, np.maximum(expected, others_there / np.maximum(1, others)[:, None]), expected)
    judged = peaks >= FEWEST
    far = (there / np.maximum(1, peaks)[:, None] - expected >= LEAST_EXCESS * (1 - expected)) & judged[:, None]
    found: list[Gathering] = []
    for unit, place in np.argwhere(far).tolist():
        part, whole = int(there[unit, place]), int(peaks[unit])
        by_chance = more_by_chance(part, whole, float(masks[place].mean()))
        if compared[unit, place]:
            rest = whole - part, whole, int(peaks[0] - there[0, place]), int(peaks[0])
            by_chance = max(by_chance, fewer_by_chance(*rest))
        interval = wilson(part, whole, level) or (0.0, 1.0)
        cells = tuple(np.flatnonzero(masks[place]).tolist())
        what = names[place], cells, part, whole, float(expected[unit, place]), interval, by_chance
        found.append(Gathering(class_names[unit - 1] if unit else None, *what))
    # whatever is not far enough counts as a test that found nothing
    tested = np.ones(int(judged.sum()) * len(masks))
    tested[: len(found)] = [gathering.by_chance for gathering in found]
    best: dict[str | None, Gathering] = {}
    for gathering, by_chance in zip(found, benjamini_hochberg(tested).tolist(), strict=False):
        known = best.get(gathering.class_name)
        is_further = known is None or gathering.excess > known.excess
        if by_chance <= FALSE_SHARE and gathering.excess >= LEAST_EXCESS and is_further:
            best[gathering.class_name] = dataclasses.replace(gathering, by_chance=by_chance)
    return list(best.values())


def _places(grid_size: tuple[int, int]) -> tuple[list[str], np.ndarray]:
    """Return the places that are judged, in words and as cells, bool (p, h, w)."""
    places = np.argwhere(outer(grid_size)).tolist()
    single = np.zeros((len(places), *grid_size), bool)
    for mask, (y, x) in zip(single, places, strict=True):
        mask[y, x] = True
    names = [CORNERS, BORDER, *(f"the cell in row {y + 1}, column {x + 1}" for y, x in places)]
    return names, np.stack([corners(grid_size), border(grid_size), *single])
