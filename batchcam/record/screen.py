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


def outer_cells(grid_size: tuple[int, int]) -> np.ndarray:
    """Return which cells have their centre outside of the middle half of height and width, bool (h, w)."""
    away = [np.abs((np.arange(side) + 0.5) / side - 0.5) > 0.25 for side in grid_size]
    return np.asarray(away[0][:, None] | away[1])


def screen(counts: np.ndarray, class_names: Sequence[str], level: float = LEVEL) -> list[Gathering]:
    """Return where peaks gather: of all together, and of each class, the smallest place that is far beyond chance.

    The corner cells and the outermost ring are compared with their share of the grid (exact binomial test), each other
    outer cell of a class also with the other classes (Fisher's exact test).

    Args:
        counts: of `PeakCounts`, (K, h, w).
        class_names: K names.
        level: of confidence of the intervals.
    """
    if min(counts.shape[1:]) < SMALLEST_GRID:
        return []
    names, masks = _places(counts.shape[1:])
    sizes = masks.sum(1)
    cells = counts.reshape(len(counts), -1)
    there = np.vstack([cells.sum(0), cells]) @ masks.T
    peaks = np.concatenate([[cells.sum()], cells.sum(1)])
    others, there_of_others = peaks[0] - peaks, there[0] - there
    chance = sizes / masks.shape[1]
    compared = (others >= FEWEST)[:, None] & (sizes == 1)
    expected = np.where(compared, np.maximum(chance, there_of_others / np.maximum(1, others)[:, None]), chance)
    judged = peaks >= FEWEST
    more = there / np.maximum(1, peaks)[:, None] - expected
    candidates = np.argwhere(judged[:, None] & (more > 0) & (more >= LEAST_EXCESS * (1 - expected)))
    found: list[Gathering] = []
    for unit, place in candidates.tolist():
        part, whole = int(there[unit, place]), int(peaks[unit])
        by_chance = more_by_chance(part, whole, float(chance[place]))
        if compared[unit, place]:
            by_chance = max(
                by_chance, fewer_by_chance(whole - part, whole, int(peaks[0] - there[0, place]), int(peaks[0]))
            )
        found.append(
            Gathering(
                class_names[unit - 1] if unit else None,
                names[place],
                tuple(np.flatnonzero(masks[place]).tolist()),
                part,
                whole,
                float(expected[unit, place]),
                wilson(part, whole, level) or (0.0, 1.0),
                by_chance,
            )
        )
    # whatever is no candidate counts as a test that found nothing
    tested = np.ones(int(judged.sum()) * len(masks))
    tested[: len(found)] = [gathering.by_chance for gathering in found]
    corrected = benjamini_hochberg(tested).tolist()
    told = [dataclasses.replace(g, by_chance=p) for g, p in zip(found, corrected, strict=False)]
    far = [g for g in told if g.by_chance <= FALSE_SHARE and g.excess >= LEAST_EXCESS]
    smallest = {g.class_name: g for g in sorted(far, key=lambda g: (-len(g.cells), g.excess))}
    return sorted(smallest.values(), key=lambda g: (g.class_name is not None, -g.excess))


def _places(grid_size: tuple[int, int]) -> tuple[list[str], np.ndarray]:
    """Return the places that are judged, in words and as cells, bool (p, h w)."""
    outer = np.flatnonzero(outer_cells(grid_size))
    cells = [f"the cell in row {y + 1}, column {x + 1}" for y, x in np.argwhere(outer_cells(grid_size)).tolist()]
    single = np.arange(grid_size[0] * grid_size[1]) == outer[:, None]
    return [CORNERS, BORDER, *cells], np.vstack([corners(grid_size).ravel(), border(grid_size).ravel(), single])
