"""Control charts: whether one of many series moves from night to night by more than chance.

A night's value x has a known sampling variance s², of that night's samples, and nights differ by a variance τ² besides.
The reference of a series are its first nights, and later ones that were no part of an alarm: they give its level and,
with the other series of its family, τ². Judged is the exponentially weighted mean of the last `WINDOW` nights, against
the level; p-values are corrected for the series that are judged in a night (Benjamini–Hochberg). The rule was frozen by
simulation, see the tests.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np

from batchcam.record.intervals import benjamini_hochberg
from batchcam.rules import BASELINE_NIGHTS

WINDOW: Final = 3
WEIGHT: Final = 0.1
"""Of a night against those before it."""

ALARM_LEVEL: Final = 0.003
"""Corrected p-value of an alarm: in at most three of a thousand nights in which nothing changed."""

LEAST_ERROR: Final = 5e-4
"""Standard error that a night has at least: what moves by less is of no concern, whatever its p-value."""

LEAST_SCATTER: Final = 0.1
"""As a share of s², below which a series, such as one that stays 0, does not tell how much others scatter."""

_erfc: Final = np.vectorize(math.erfc, [np.float64])


@dataclasses.dataclass(frozen=True)
class Charts:
    """Series as they were judged night by night, float64 (series, nights) each; NaN where one was not judged.

    Attributes:
        level: weighted mean of the last nights.
        centre: the level of the reference.
        half_width: of the limits: farther from the centre is an alarm however the other series fare.
        p: corrected p-value.
    """

    level: np.ndarray
    centre: np.ndarray
    half_width: np.ndarray
    p: np.ndarray

    @property
    def alarms(self) -> np.ndarray:
        """Which series are in alarm in which night, bool (series, nights)."""
        return np.asarray(self.p <= ALARM_LEVEL)


def arcsine(count: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rates on a scale on which their sampling variance does not depend on them, and that variance.

    Anscombe 1948, https://doi.org/10.1093/biomet/35.3-4.246: asin(sqrt((k + 3/8) / (n + 3/4))), 1 / (4 n + 2).
    """
    return np.arcsin(np.sqrt((count + 0.375) / (total + 0.75))), 1 / (4 * total + 2)


def rate_of(angle: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Return the rates of values on the scale of `arcsine`, as of samples whose number gives the middle variance."""
    total = (1 / np.nanmedian(variances) - 2) / 4
    count = (total + 0.75) * np.sin(np.clip(angle, 0, math.pi / 2)) ** 2 - 0.375
    return np.asarray(np.clip(count / total, 0, 1))


def mann_whitney(counts: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Return the probability that a value of one sample is above one of another, equal ones half; and its variance.

    The variance is that of the first sample alone, if both are of one population: the other one stays the same.

    Args:
        counts: of the first sample by bin, (b,).
        others: of the second, in the same bins.
    """
    n, m = counts.sum(), others.sum()
    if not n or not m:
        return math.nan, math.nan
    below = (np.cumsum(others) - others / 2) / m
    return float(counts @ below / n), float((others / m) @ (below - 0.5) ** 2 / n)


def judge(
    values: np.ndarray,
    variances: np.ndarray,
    families: np.ndarray,
    restarts: Sequence[int],
    baseline: int = BASELINE_NIGHTS,
) -> Charts:
    """Return how each series fares in each night, as could be told in that night.

    Args:
        values: of each series in each night, (series, nights), NaN where it has none.
        variances: sampling variance of each.
        families: number of the family of each series, int64 (series,): p-values are corrected, τ² is told, within each.
        restarts: nights with which a new baseline begins.
        baseline: nights with a value that begin a series, which are not judged.
    """
    known = np.isfinite(values) & np.isfinite(variances)
    place, errors = np.cumsum(known, 1), np.maximum(variances, LEAST_ERROR**2)
    charts = Charts(*(np.full(values.shape, np.nan) for _ in range(4)))
    touched, start = np.zeros(values.shape, bool), 0
    for night in range(values.shape[1]):
        start = night if night in restarts else start
        seen = slice(start, night + 1)
        rank = place[:, seen] - (place[:, start] - known[:, start])[:, None]
        rows = np.flatnonzero(known[:, night] & (rank[:, -1] > baseline))
        if not len(rows):
            continue
        there, first, age = known[rows, seen], rank[rows] <= baseline, rank[rows, -1:] - rank[rows]
        window = there & ~first & (age < WINDOW)
        reference = there & (first | ((age >= WINDOW) & ~touched[rows, seen]))
        x, s2 = (np.where(there, each[rows, seen], none) for each, none in ((values, 0), (errors, 1)))
        weights = WEIGHT * (1 - WEIGHT) ** age * window
        level, centre, error, freedom = _against_reference(x, s2, weights, reference, families[rows])
        z = _normal_of(np.abs(level - centre) / error, freedom)
        p, limit = _erfc(z / math.sqrt(2)), np.empty(len(rows))
        for family in np.unique(families[rows]):
            of = families[rows] == family
            limit[of] = NormalDist().inv_cdf(1 - ALARM_LEVEL / of.sum() / 2)
            p[of] = benjamini_hochberg(p[of])
        charts.level[rows, night], charts.centre[rows, night], charts.p[rows, night] = level, centre, p
        charts.half_width[rows, night] = error * _student_of(limit, freedom)
        touched[rows, seen] |= window & (p <= ALARM_LEVEL)[:, None]
    return charts


def _against_reference(
    x: np.ndarray, s2: np.ndarray, weights: np.ndarray, reference: np.ndarray, families: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the level of the window and of the reference, the standard error of their difference and its freedom."""
    count = reference.sum(1)
    mean = (x * reference).sum(1) / count
    sampled = (s2 * reference).sum(1) / count
    scatter = ((x - mean[:, None]) ** 2 * reference).sum(1) / (count - 1) / sampled
    scatter, freedom = shrunken(scatter, count - 1, families)
    scatter *= 1 + np.sqrt(2 / freedom)  # its standard deviation: too small a τ² would raise alarms for months
    excess = np.maximum(0, scatter - 1)
    of_night = s2 + (excess * sampled)[:, None]
    precision = reference / of_night
    weights = weights / weights.sum(1, keepdims=True)
    level, centre = (weights * x).sum(1), (precision * x).sum(1) / precision.sum(1)
    error = np.sqrt((weights**2 * of_night).sum(1) + 1 / precision.sum(1))
    return level, centre, error, freedom * ((1 + excess) / np.maximum(excess, 1e-3)) ** 2  # s² is known, τ² is not


def shrunken(variances: np.ndarray, freedom: np.ndarray, families: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return variances drawn towards what their families have in common, and the freedom that they have then.

    The more they are alike, the more: Smyth 2004, https://doi.org/10.2202/1544-6115.1027, section 6.2, with the
    beginnings of the asymptotic series of digamma and trigamma.

    Args:
        variances: each as a share of what sampling explains, (n,).
        freedom: of each.
        families: number of the family of each.
    """
    _, family = np.unique(families, return_inverse=True)
    telling = variances > LEAST_SCATTER
    count = np.maximum(1, np.bincount(family, telling))[family]

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.bincount(family, values * telling)[family] / count)

    logs = np.log(np.maximum(variances, LEAST_SCATTER)) + 1 / freedom + 1 / (3 * freedom**2)
    centre = mean(logs)
    spread = mean((logs - centre) ** 2) * count / np.maximum(1, count - 1) - mean(2 / freedom + 2 / freedom**2)
    spread = np.maximum(spread, 1e-3)
    prior = np.minimum((1 + np.sqrt(1 + 2 * spread)) / spread, (count - 1) * freedom)  # no more than the others tell
    common = np.exp(centre - 1 / np.maximum(prior, 0.1) - 1 / (3 * np.maximum(prior, 0.1) ** 2))
    return (prior * common + freedom * variances) / (prior + freedom), prior + freedom


def _normal_of(t: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return the normal deviate that is as rare as Student's t, by Wallace 1959, https://doi.org/10.1214/aoms/1177706093."""
    return np.asarray((8 * freedom + 1) / (8 * freedom + 3) * np.sqrt(freedom * np.log1p(t * t / freedom)))


def _student_of(z: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return the inverse of `_normal_of`."""
    return np.asarray(np.sqrt(freedom * np.expm1((z * (8 * freedom + 3) / (8 * freedom + 1)) ** 2 / freedom)))


def change_point(values: np.ndarray, variances: np.ndarray) -> int:
    """Return the first night after the likeliest change of the mean.

    Args:
        values: of at least two nights, (n,), finite.
        variances: of each.
    """
    precision = 1 / np.maximum(variances, LEAST_ERROR**2)
    before, sums = np.cumsum(precision)[:-1], np.cumsum(precision * values)
    after, total = precision.sum() - before, sums[-1]
    gap = sums[:-1] / before - (total - sums[:-1]) / after
    return 1 + int((gap**2 * before * after).argmax())
