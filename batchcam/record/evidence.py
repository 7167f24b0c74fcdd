"""Pure numbers about where in a map its evidence sits."""

from __future__ import annotations

import numpy as np

from batchcam.record.similarity import says_nothing


def cell_shares(cams: np.ndarray) -> np.ndarray:
    """Return each cell's share of its map's positive evidence, max(M, 0) / sum of max(M, 0).

    Args:
        cams: raw CAMs, (n, h, w).

    Returns:
        float64 (n, h, w); NaN for a map that is not finite or has no cell above zero.

    Raises:
        ValueError: the maps are not (n, h, w) with at least one cell.
    """
    if cams.ndim != 3 or min(cams.shape[1:]) < 1:
        raise ValueError(f"want maps (n, h, w) of at least one cell, not {cams.shape}")
    positive = np.maximum(cams.astype(np.float64), 0)  # a NaN stays NaN
    totals = positive.sum((1, 2))
    usable = np.isfinite(cams).all((1, 2)) & (totals > 0)
    shares = np.full(cams.shape, np.nan)
    shares[usable] = positive[usable] / totals[usable, None, None]
    return shares


def border(grid_size: tuple[int, int]) -> np.ndarray:
    """Return which cells of a grid (h, w) are its outermost ring, bool (h, w)."""
    height, width = grid_size
    ring = np.ones((height, width), bool)
    ring[1:-1, 1:-1] = False
    return ring


def border_share(shares: np.ndarray) -> np.ndarray:
    """Return the share of positive evidence in the outermost ring of cells, float64 (n,), 0 to 1.

    Exactly 1 where no cell inside of the ring is above zero. Evidence spread evenly gives `border(grid).mean()`.

    Args:
        shares: from `cell_shares`, (n, h, w).
    """
    inside = shares[:, 1:-1, 1:-1].sum((1, 2))
    return np.asarray(np.where(np.isfinite(shares[:, 0, 0]), 1 - np.clip(inside, 0, 1), np.nan))


def corner_share(shares: np.ndarray) -> np.ndarray:
    """Return the share of positive evidence in the four corner cells, float64 (n,), 0 to 1; `shares` likewise."""
    return np.asarray(shares[:, corners(shares.shape[1:])].sum(1))


def entropy(shares: np.ndarray) -> np.ndarray:
    """Return how widely positive evidence is spread: its Shannon entropy over the cells, relative to the largest one.

    H = -sum p log p / log(h w), where p is a cell's share: 0 when one cell holds all, 1 when all cells hold the same.

    Args:
        shares: from `cell_shares`, (n, h, w).

    Returns:
        float64 (n,); NaN where shares are, and for a grid of a single cell.
    """
    cells = shares.shape[1] * shares.shape[2]
    if cells == 1:
        return np.full(len(shares), np.nan)
    logs = np.log(np.where(shares > 0, shares, 1))  # p log p goes to 0 with p
    return np.asarray(np.clip(-(shares * logs).sum((1, 2)) / np.log(cells), 0, 1))


def corners(grid_size: tuple[int, int]) -> np.ndarray:
    """Return which cells of a grid (h, w) are its four corners, bool (h, w)."""
    found = np.zeros(grid_size, bool)
    found[:: max(1, grid_size[0] - 1), :: max(1, grid_size[1] - 1)] = True
    return found


def peak_cell(maps: np.ndarray) -> np.ndarray:
    """Return which cell of each map is largest, of equal ones the first, row by row, int64 (n,).

    -1 for a map that is constant or not finite.

    Args:
        maps: raw CAMs, (n, h, w).
    """
    return np.where(says_nothing(maps), -1, maps.reshape(len(maps), -1).argmax(1))


def peak(maps: np.ndarray) -> np.ndarray:
    """Return where each map is largest, its cell's centre (y, x) as shares of the view from the top left, (n, 2).

    NaN where `peak_cell` finds none.

    Args:
        maps: raw CAMs, (n, h, w).
    """
    cells, (height, width) = peak_cell(maps), maps.shape[1:]
    places = np.stack(np.divmod(cells, width), 1) + 0.5
    return np.where(cells[:, None] < 0, np.nan, places / (height, width))


def in_corner(peaks: np.ndarray, grid_size: tuple[int, int]) -> np.ndarray:
    """Return 1 for each peak in one of the four corner cells, 0 for others, float64 (n,).

    NaN where there is no peak, and for a grid that is all corners.

    Args:
        peaks: from `peak`, (n, 2).
        grid_size: (h, w).
    """
    if max(grid_size) < 3:
        return np.full(len(peaks), np.nan)
    outermost = np.abs(peaks - 0.5) + 0.75 / np.array(grid_size) > 0.5
    return np.where(np.isnan(peaks[:, 0]), np.nan, outermost.all(1))
