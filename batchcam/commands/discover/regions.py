"""Regions of maps: the window around a peak, others to compare it with, and what of the picture they cover.

A window is a rectangle of cells, told by its first row and column.
"""

from __future__ import annotations

from typing import Final

import numpy as np

SHARE: Final = 4
"""Of each side of the grid a window takes a quarter, and at least one cell."""

Pair = tuple[int, int]


def window_size(grid: Pair) -> Pair:
    """Return how many cells (rows, columns) a window has."""
    return (max(1, round(grid[0] / SHARE)), max(1, round(grid[1] / SHARE)))


def peak_windows(cams: np.ndarray, size: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each map's largest value, and the window around it that holds the most evidence.

    Args:
        cams: raw maps, (n, h, w).
        size: of the window.

    Returns:
        Two arrays, int64 (n, 2).
    """
    peaks = np.stack(np.unravel_index(cams.reshape(len(cams), -1).argmax(1), cams.shape[1:]), 1)
    sums = np.lib.stride_tricks.sliding_window_view(np.maximum(cams, 0), size, (1, 2)).sum((3, 4))
    rows, columns = (np.arange(n) for n in sums.shape[1:])
    around = _within(rows, peaks[:, :1], size[0])[:, :, None] & _within(columns, peaks[:, 1:], size[1])[:, None]
    best = np.where(around, sums, -np.inf).reshape(len(sums), -1).argmax(1)
    return peaks, np.stack(np.unravel_index(best, sums.shape[1:]), 1)


def _within(starts: np.ndarray, cell: np.ndarray, length: int) -> np.ndarray:
    return np.asarray((starts <= cell) & (cell < starts + length))


def centre_window(grid: Pair, size: Pair) -> Pair:
    """Return the window in the middle."""
    return ((grid[0] - size[0]) // 2, (grid[1] - size[1]) // 2)


def overlap(one: np.ndarray, other: np.ndarray, size: Pair) -> np.ndarray:
    """Return whether windows (…, 2) share a cell with others, bool (…)."""
    return np.asarray((np.abs(one - other) < size).all(-1))


def window_apart(rng: np.random.Generator, window: np.ndarray, grid: Pair, size: Pair) -> np.ndarray:
    """Return a random one of the windows that share no cell with `window`; there are some (`require_room`)."""
    every = np.stack(np.meshgrid(*(np.arange(n - s + 1) for n, s in zip(grid, size, strict=True)), indexing="ij"), -1)
    apart = every[~overlap(every, window, size)]
    return np.asarray(apart[rng.integers(len(apart))])


def has_room(grid: Pair, size: Pair) -> bool:
    """Whether windows are small enough for maps to tell one place from others."""
    return SHARE * size[0] * size[1] <= grid[0] * grid[1]


def pixels(window: np.ndarray, grid: Pair, view: Pair) -> tuple[slice, slice]:
    """Return which rows and columns of the network's input (H, W) a window's cells cover."""
    rows, columns = (
        slice(round(int(start) * side / cells), round((int(start) + length) * side / cells))
        for start, length, cells, side in zip(window, window_size(grid), grid, view, strict=True)
    )
    return rows, columns
