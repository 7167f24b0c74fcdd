"""Pure numbers about probabilities: does of what a classifier says with 0.9 nine in ten come true?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from batchcam.record.clusters import INDEPENDENT, ClusterMeans, Design
from batchcam.record.intervals import LEVEL, Interval, root, student
from batchcam.record.metrics import deviation

BINS = 15
STEPS = 32  # of the search for an end of an interval: far more digits than anybody reads


@dataclasses.dataclass(frozen=True)
class Bin:
    """Statements whose probability lies above `low` and at most at `high`.

    Attributes:
        low, high: edges.
        count: statements.
        confidence: their mean probability, None without any.
        true: share of them that are true, None without any.
        deviation: of their probabilities, over count - 1; 0 of less than two.
        designs: of their mean probability, and of the share that is true.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    true: float | None
    deviation: float
    designs: tuple[Design, Design] = (INDEPENDENT, INDEPENDENT)

    def intervals(self, level: float = LEVEL) -> tuple[Interval | None, Interval | None]:
        """Return those of the mean probability and of the share that is true."""
        if self.confidence is None or self.true is None:
            return None, None
        of_mean, of_true = self.designs
        mean = of_mean.mean(self.confidence, self.deviation, self.count, level)
        return mean, of_true.wilson(round(self.true * self.count), self.count, level)


class Reliability:
    """Counts statements in bins of equal width from 0 to 1 by their probability, part by part.

    Args:
        bins: how many.
    """

    def __init__(self, bins: int = BINS) -> None:
        self._counts, self._true = np.zeros((2, bins), np.int64)
        self._sums, self._squares = np.zeros((2, bins))
        self._clustered, self._gaps = (ClusterMeans(), ClusterMeans()), ClusterMeans()

    def add(self, confidence: np.ndarray, true: np.ndarray, clusters: np.ndarray | None = None) -> None:
        """Count some statements.

        Args:
            confidence: probability of each, such as of the predicted class, (n,), from 0 to 1.
            true: bool (n,).
            clusters: number of each one's, int64 (n,).

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
        np.add.at(self._squares, place, values * values)
        for means, of in zip(self._clustered, (values, true), strict=True):
            means.add(of, clusters, place)
        self._gaps.add(true - values, clusters, place)

    @property
    def design(self) -> Design:
        """That of the expected calibration error, as far as its bins stay on the side of truth where they are."""
        return self._gaps.design_of_distances()

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
                deviation=deviation(float(self._sums[i]), float(self._squares[i]), int(count)) or 0.0,
                designs=(self._clustered[0].design_of(i), self._clustered[1].design_of(i)),
            )
            for i, count in enumerate(self._counts)
        ]


def expected_calibration_error(bins: Sequence[Bin]) -> float | None:
    """Return the mean distance of what is true from the probability over bins, by their counts; None without any.

    ECE = sum_b n_b / n * abs(true_b - confidence_b), Naeini et al. 2015, Guo et al. 2017,
    https://arxiv.org/abs/1706.04599
    """
    total = sum(b.count for b in bins)
    if not total:
        return None
    filled = ((b.count, b.true, b.confidence) for b in bins if b.true is not None and b.confidence is not None)
    return sum(count * abs(true - confidence) for count, true, confidence in filled) / total


def calibration_interval(bins: Sequence[Bin], level: float = LEVEL, design: Design = INDEPENDENT) -> Interval | None:
    """Return the interval of the expected calibration error of what the statements are drawn from; None without any.

    Of statements in clusters the effective number counts, and Student's t is taken for the normal.

    Chance adds to the error: where truth is calibrated it is above 0 all the same, and a bootstrap adds as much again.
    So the distances of the bins are scaled, all by one factor, and the interval holds those errors under which the one
    found is neither among the largest nor among the smallest. The distance of a bin is then a folded normal variable
    (Leone et al. 1961, https://doi.org/10.2307/1266560), and their sum is taken for normal.
    """
    total = sum(b.count for b in bins)
    if not total or (design.clusters is not None and design.clusters < 2):
        return None
    z = NormalDist().inv_cdf((1 + level) / 2) if design.clusters is None else student(level, design.clusters - 1)
    filled = [
        (b.count / total, b.confidence, b.true - b.confidence)
        for b in bins
        if b.confidence is not None and b.true is not None
    ]
    found, each = sum(share * abs(gap) for share, _, gap in filled), max(1.0, design.effect) / total

    def beyond(factor: float) -> float:
        """Return how many standard deviations the error found is above the one expected of scaled distances."""
        expected = variance = 0.0
        for share, confidence, gap in filled:
            rate = min(1.0, max(0.0, confidence + factor * gap))
            centre, spread = share * factor * abs(gap), math.sqrt(share * rate * (1 - rate) * each)
            ratio = centre / spread if spread else math.inf
            mean = centre * math.erf(ratio / math.sqrt(2)) + spread * math.sqrt(2 / math.pi) * math.exp(
                -ratio * ratio / 2
            )
            expected += mean
            variance += centre * centre + spread * spread - mean * mean + share * (factor * gap) ** 2 * each
        variance -= (factor * found) ** 2 * each  # how many fall into each bin varies, too
        return (found - expected) / math.sqrt(variance) if variance > 0 else math.inf * (found - expected)

    at_least = z * z * each / (1 + z * z * each)  # Wilson's upper end where none of so many fails
    if not found:
        return 0.0, max(at_least, z * math.sqrt(each * sum(w * rate * (1 - rate) for w, rate, _ in filled)))
    low = root(lambda factor: beyond(factor) - z, 0, 1, STEPS) if beyond(0) > z else 0.0
    return low * found, max(at_least, found * root(lambda factor: beyond(factor) + z, 0, 1 / found, STEPS))
