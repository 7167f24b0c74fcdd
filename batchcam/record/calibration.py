"""Pure numbers about probabilities: does of what a classifier says with 0.9 nine in ten come true?"""

from __future__ import annotations

import dataclasses

import numpy as np

BINS = 15


@dataclasses.dataclass(frozen=True)
class Bin:
    """Statements whose probability lies above `low` and at most at `high`.

    Attributes:
        low, high: edges.
        count: statements.
        confidence: their mean probability, None without any.
        true: share of them that are true, None without any.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    true: float | None


class Reliability:
    """Counts statements in bins of equal width from 0 to 1 by their probability, part by part.

    Args:
        bins: how many.
    """

    def __init__(self, bins: int = BINS) -> None:
        self._counts, self._sums, self._true = np.zeros(bins, np.int64), np.zeros(bins), np.zeros(bins, np.int64)

    def add(self, confidence: np.ndarray, true: np.ndarray) -> None:
        """Count some statements.

        Args:
            confidence: probability of each, such as of the predicted class, (n,), from 0 to 1.
            true: bool (n,).

        Raises:
            ValueError: a confidence is not a number from 0 to 1.
        """
        values, bins = np.asarray(confidence, np.float64), len(self._counts)
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError("want confidences from 0 to 1")
        place = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
        self._counts += np.bincount(place, minlength=bins)
        self._true += np.bincount(place[true], minlength=bins)
        np.add.at(self._sums, place, values)

    def bins(self) -> list[Bin]:
        """Return the bins, each with its mean probability and what of it is true."""
        edges = np.arange(len(self._counts) + 1) / len(self._counts)
        return [
            Bin(
                low=float(edges[i]),
                high=float(edges[i + 1]),
                count=int(count),
                confidence=float(self._sums[i] / count) if count else None,
                true=float(self._true[i] / count) if count else None,
            )
            for i, count in enumerate(self._counts)
        ]


def expected_calibration_error(bins: list[Bin]) -> float | None:
    """Return the mean distance of what is true from the probability over bins, by their counts; None without any.

    ECE = sum_b n_b / n * abs(true_b - confidence_b), Naeini et al. 2015, Guo et al. 2017,
    https://arxiv.org/abs/1706.04599
    """
    total = sum(b.count for b in bins)
    if not total:
        return None
    filled = ((b.count, b.true, b.confidence) for b in bins if b.true is not None and b.confidence is not None)
    return sum(count * abs(true - confidence) for count, true, confidence in filled) / total
