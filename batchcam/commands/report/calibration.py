"""Pure numbers about confidence: does a classifier that says 0.9 get nine of ten right?"""

from __future__ import annotations

import dataclasses

import numpy as np

BINS = 15


@dataclasses.dataclass(frozen=True)
class Bin:
    """Predictions whose confidence lies above `low` and at most at `high`.

    Attributes:
        low, high: edges.
        count: predictions.
        confidence: their mean confidence, None without any.
        accuracy: share of them that are right, None without any.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Return predictions counted in bins of equal width from 0 to 1, each with its mean confidence and its accuracy.

    Args:
        confidence: probability of the predicted class, (n,), each from 0 to 1.
        correct: bool (n,).
        bins: how many.

    Raises:
        ValueError: a confidence is not a number from 0 to 1, or there are no bins.
    """
    values = np.asarray(confidence, np.float64)
    if bins < 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"want confidences from 0 to 1 and at least one bin, not {bins}")
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, values, bins)
    rights = np.bincount(place, np.asarray(correct, np.float64), bins)
    return [
        Bin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            count=int(counts[i]),
            confidence=float(sums[i] / counts[i]) if counts[i] else None,
            accuracy=float(rights[i] / counts[i]) if counts[i] else None,
        )
        for i in range(bins)
    ]


def expected_calibration_error(bins: list[Bin]) -> float | None:
    """Return the mean distance of accuracy from confidence over bins, weighted by their counts; None without any.

    ECE = sum_b n_b / n * abs(accuracy_b - confidence_b), Naeini et al. 2015, Guo et al. 2017,
    https://arxiv.org/abs/1706.04599
    """
    total = sum(b.count for b in bins)
    if not total:
        return None
    return (
        sum(
            b.count * abs(b.accuracy - b.confidence)
            for b in bins
            if b.accuracy is not None and b.confidence is not None
        )
        / total
    )
