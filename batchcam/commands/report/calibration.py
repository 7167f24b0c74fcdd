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


class Reliability:
    """Counts predictions in bins of equal width from 0 to 1 by confidence, part by part.

    Args:
        bins: how many.
    """

    def __init__(self, bins: int = BINS) -> None:
        self._counts, self._sums, self._rights = np.zeros(bins, np.int64), np.zeros(bins), np.zeros(bins, np.int64)

    def add(self, confidence: np.ndarray, correct: np.ndarray) -> None:
        """Count some predictions.

        Args:
            confidence: probability of the predicted class, (n,), each from 0 to 1.
            correct: bool (n,).

        Raises:
            ValueError: a confidence is not a number from 0 to 1.
        """
        values, bins = np.asarray(confidence, np.float64), len(self._counts)
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError("want confidences from 0 to 1")
        place = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
        self._counts += np.bincount(place, minlength=bins)
        self._rights += np.bincount(place[correct], minlength=bins)
        np.add.at(self._sums, place, values)

    def bins(self) -> list[Bin]:
        """Return the bins, each with its mean confidence and its accuracy."""
        edges = np.arange(len(self._counts) + 1) / len(self._counts)
        return [
            Bin(
                low=float(edges[i]),
                high=float(edges[i + 1]),
                count=int(count),
                confidence=float(self._sums[i] / count) if count else None,
                accuracy=float(self._rights[i] / count) if count else None,
            )
            for i, count in enumerate(self._counts)
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
