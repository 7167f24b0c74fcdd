"""Which sample looks most like each other one to the classifier: cosine similarity of features, exact, in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from batchcam.errors import RunError
from batchcam.store.run import Run

MOST_COMPARED: Final = 100_000
"""Samples of a run; each is compared with each."""

BLOCK_ROWS: Final = 2048  # of both sides: 16 MiB of similarities


def stored_features(run: Run) -> np.ndarray:
    """Return a run's features as they are stored, (n, C).

    Raises:
        RunError: it has none, or too many.
    """
    if not run.plan.features:
        raise RunError(f"{run.path}: has no features; explain with --features float16")
    if len(run) > MOST_COMPARED:
        raise RunError(f"{run.path}: {len(run)} samples; each is compared with each of {MOST_COMPARED} at most")
    values: np.ndarray = run.features[:]
    return values


def nearest(features: np.ndarray, others: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the most similar row of `others` for each row, int64 (n,), and how similar it is, float32 (n,).

    -1 and NaN for rows that are not finite or all zero, and where there is no other.

    Args:
        features: (n, C).
        others: (m, C); None: the rows themselves, of which none is its own neighbour.
    """
    rows = np.full(len(features), -1)
    best = np.full(len(features), np.nan, np.float32)
    theirs = features if others is None else others
    for first, mine in _unit_blocks(features):
        here = slice(first, first + len(mine))
        for start, block in _unit_blocks(theirs):
            similar = mine @ block.T
            if others is None and start == first:
                np.fill_diagonal(similar, np.nan)
            similar[np.isnan(similar)] = -np.inf
            at = similar.argmax(1)
            found = similar[np.arange(len(mine)), at]
            better = np.isfinite(found) & ~(found <= best[here])
            rows[here][better], best[here][better] = start + at[better], found[better]
    return rows, best


def _unit_blocks(features: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for first in range(0, len(features), BLOCK_ROWS):
        block = features[first : first + BLOCK_ROWS].astype(np.float32)
        norm = np.linalg.norm(block, axis=1, keepdims=True)
        yield first, block / np.where(np.isfinite(norm) & (norm > 0), norm, np.nan)
