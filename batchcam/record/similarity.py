"""Pure numbers about how alike two class activation maps are: order, direction, strongest cells, peak."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from batchcam.rules import CONSTANT_RELATIVE_RANGE

TOP_ONE_IN: Final = 5
"""The strongest cells of a map are one in so many, rounded up: a fifth."""

BLOCK_CELLS: Final = 2**18  # worked on at once: the arrays in between stay in the processor's cache


@dataclasses.dataclass(frozen=True)
class Similarity:
    """How alike the maps of n pairs are, float64 (n,) each, NaN where `measured` is False.

    Attributes:
        measured: which pairs have two maps that are finite and not constant, bool (n,).
        spearman: rank correlation over cells, -1 to 1.
        cosine: of the angle between the signed maps, -1 to 1.
        top_iou: intersection over union of the strongest fifth of the cells, 0 to 1.
        peak_shift: distance between the largest cells, in cells.
    """

    measured: np.ndarray
    spearman: np.ndarray
    cosine: np.ndarray
    top_iou: np.ndarray
    peak_shift: np.ndarray


def compare_maps(first: np.ndarray, second: np.ndarray) -> Similarity:
    """Return how alike pairs of raw CAMs are, cell by cell of the finer grid.

    Where the grids differ, both are resampled (see `resample`) to the larger height and the larger width, so that a
    cell is a share of the network's view. A map that is constant or not finite says nothing about where: NaN.

    Args:
        first: raw CAMs, (n, h, w).
        second: raw CAMs of the same samples and classes, (n, h', w').

    Raises:
        ValueError: the maps are not (n, h, w) with at least one cell, or not as many on either side.
    """
    if first.ndim != 3 or second.ndim != 3 or len(first) != len(second) or 0 in first.shape[1:] + second.shape[1:]:
        raise ValueError(f"maps of shapes {first.shape} and {second.shape} are no pairs (n, h, w)")
    measured = ~(says_nothing(first) | says_nothing(second))
    values = {name: np.full(len(first), np.nan) for name in FUNCTIONS}
    size = common_grid(first.shape[1:], second.shape[1:])
    rows, step = np.flatnonzero(measured), max(1, BLOCK_CELLS // (size[0] * size[1]))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        pair = resample(first[part], size), resample(second[part], size)
        for name, function in FUNCTIONS.items():
            values[name][part] = function(*pair)
    return Similarity(measured, **values)


def common_grid(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, int]:
    """Return the grid (h, w) on which maps of two grids are compared: the finer one on each axis."""
    return max(first[0], second[0]), max(first[1], second[1])


def is_constant(maps: np.ndarray) -> np.ndarray:
    """Return which maps (n, h, w) differ over their cells by rounding only, bool (n,); those with a NaN do not."""
    low, high = maps.min((1, 2)).astype(np.float64), maps.max((1, 2)).astype(np.float64)
    with np.errstate(invalid="ignore"):  # NaN and infinities are data here
        constant: np.ndarray = high - low <= CONSTANT_RELATIVE_RANGE * np.maximum(np.abs(low), np.abs(high))
    finite: np.ndarray = np.isfinite(low) & np.isfinite(high)
    return np.asarray(constant & finite)


def says_nothing(maps: np.ndarray) -> np.ndarray:
    """Return which maps (n, h, w) are constant or not finite, bool (n,)."""
    return np.asarray(is_constant(maps) | ~np.isfinite(maps).all((1, 2)))


def resample(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return maps on a grid that is as fine or finer: bilinear, half-pixel centres, edges extended; float64.

    Cell i of s covers the share [i / s, (i + 1) / s) of an axis on either grid.

    Args:
        maps: (n, h, w).
        size: (H, W).
    """
    if maps.shape[1:] == size:
        return maps.astype(np.float64)
    rows, columns = _weights(maps.shape[1], size[0]), _weights(maps.shape[2], size[1])
    return np.asarray(rows @ maps.astype(np.float64) @ columns.T)


def _weights(cells: int, length: int) -> np.ndarray:
    """Return the weight of each of `cells` for each of `length` places, (length, cells)."""
    if cells == length:
        return np.eye(cells)
    place = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0, cells - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells))))


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value in its row, smallest 1; equal values share the mean of their ranks.

    Args:
        values: finite, (n, c).

    Returns:
        float64 (n, c).
    """
    order = np.argsort(values, 1, kind="stable")
    ordered = np.take_along_axis(values, order, 1)
    place = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    new = np.ones(values.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    ends = np.ones(values.shape, bool)
    ends[:, :-1] = new[:, 1:]
    first = np.maximum.accumulate(np.where(new, place, 0), 1)
    last = np.minimum.accumulate(np.where(ends, place, values.shape[1])[:, ::-1], 1)[:, ::-1]
    ranked = np.empty(values.shape)
    np.put_along_axis(ranked, order, (first + last) / 2 + 1, 1)
    return ranked


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation over the cells of each pair of maps, -1 to 1; exactly 1 for equal maps.

    Args:
        first, second: finite maps on one grid, (n, h, w).

    Returns:
        float64 (n,); NaN where all cells of a map are equal.
    """
    cells = first.shape[1] * first.shape[2]
    a, b = (ranks(maps.reshape(len(maps), cells)) - (cells + 1) / 2 for maps in (first, second))
    return _cosine(a, b)


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of the angle between each pair of signed maps, -1 to 1; exactly 1 for equal maps.

    Args:
        first, second: finite maps on one grid, (n, h, w).

    Returns:
        float64 (n,); NaN where a map is zero.
    """
    a, b = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (first, second))
    return _cosine(a, b)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a * a).sum(1) * (b * b).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # of equal rows: sqrt(x * x) is x, without rounding
        return np.asarray(np.clip(np.where(squares > 0, (a * b).sum(1) / np.sqrt(squares), np.nan), -1, 1))


def top_cells(maps: np.ndarray) -> np.ndarray:
    """Return the strongest cells of each map, bool (n, h·w): a fifth, rounded up, and all that equal the last of them.

    Args:
        maps: finite, (n, h, w).
    """
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
    place = flat.shape[1] + -flat.shape[1] // TOP_ONE_IN  # of the weakest of them, in ascending order
    return np.asarray(flat >= np.partition(flat, place, 1)[:, place, None])


def top_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return intersection over union of the strongest cells of each pair of maps (see `top_cells`), float64 (n,).

    Args:
        first, second: finite maps on one grid, (n, h, w).
    """
    a, b = top_cells(first), top_cells(second)
    return np.asarray((a & b).sum(1) / (a | b).sum(1))


def peak_shift(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance between the largest cells of each pair of maps, in cells, float64 (n,).

    Of equal cells the first counts, row by row from the top left.

    Args:
        first, second: finite maps on one grid, (n, h, w).
    """
    width = first.shape[2]
    (ay, ax), (by, bx) = (np.divmod(maps.reshape(len(maps), -1).argmax(1), width) for maps in (first, second))
    return np.asarray(np.hypot(ay - by, ax - bx))


FUNCTIONS: Final = {"spearman": spearman, "cosine": cosine, "top_iou": top_iou, "peak_shift": peak_shift}
"""Measure of `Similarity` to its function of two maps on one grid."""
