"""Pure statistics: intervals for rates, means and their differences, exact tests, a correction for many tests."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Final, TypeAlias

import numpy as np

Interval: TypeAlias = tuple[float, float]

LEVEL: Final = 0.95
"""Of an interval: in so many of many samples it holds the rate."""

MANY: Final = 10_000
"""Degrees of freedom from which Student's t is taken for normal: to 1e-4 of its quantile."""

METHODS: Final = {
    "rates": "Wilson",
    "means": "Student's t",
    "AUROC": "DeLong on the logit scale",
    "average precision": "Boyd on the logit scale",
    "F1": "Wilson of TP / (TP + FP + FN)",
    "calibration error": "an inverted test",
}
"""How the interval of each kind of number is made, for people."""

_gauss = functools.cache(np.polynomial.legendre.leggauss)
_SMALL: Final = np.array([math.lgamma(n + 1) for n in range(16)])


def wilson(successes: float, trials: float, level: float = LEVEL) -> tuple[float, float] | None:
    """Return Wilson's score interval of a rate (1927), None without trials; it stays within 0 and 1.

    Args:
        successes: of the trials.
        trials: how many.
        level: of confidence.
    """
    if not trials:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate, spread = successes / trials, z * z / trials
    centre = rate + spread / 2
    half = z * math.sqrt(rate * (1 - rate) / trials + spread / (4 * trials))
    low = 0.0 if successes == 0 else (centre - half) / (1 + spread)
    high = 1.0 if successes == trials else (centre + half) / (1 + spread)
    return low, high


def needed(rate: float, half: float = 0.01, level: float = LEVEL) -> int:
    """Return how many trials make Wilson's interval of a rate so wide to either side of its middle, or less."""
    # with u = z² / n it is half² (1 + u)² = u rate (1 - rate) + u² / 4
    z, a, b = NormalDist().inv_cdf((1 + level) / 2), 0.25 - half * half, rate * (1 - rate) - 2 * half * half
    u = (math.sqrt(b * b + 4 * a * half * half) - b) / (2 * a)
    return math.ceil(z * z / u)


def paired(lost: float, won: float, trials: float, level: float = LEVEL) -> tuple[float, float] | None:
    """Return the score interval of the rate lost from one trial of a pair to the other, None without any.

    Tango 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B, eq. 13 to 17.

    Args:
        lost: pairs of which the first alone succeeds.
        won: pairs of which the second alone does.
        trials: pairs.
        level: of confidence.
    """
    if not trials:
        return None
    z, rate = NormalDist().inv_cdf((1 + level) / 2), (lost - won) / trials

    def score(drop: float) -> float:
        """Return how many standard deviations the rate found is above `drop`, were that true."""
        b, c = -lost - won + (2 * trials - lost + won) * drop, -won * drop * (1 - drop)
        wins = (math.sqrt(max(0.0, b * b - 8 * trials * c)) - b) / (4 * trials)
        variance = trials * (2 * wins + drop * (1 - drop))
        return (lost - won - trials * drop) / math.sqrt(variance) if variance > 0 else math.inf * (rate - drop)

    low = -1.0 if won == trials else root(lambda drop: score(drop) - z, -1, rate)
    high = 1.0 if lost == trials else root(lambda drop: score(drop) + z, rate, 1)
    return low, high


def root(falling: Callable[[float], float], low: float, high: float, steps: int = 64) -> float:
    """Return where a function falls through 0, by halving the span so often."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def mcnemar(lost: int, won: int) -> float:
    """Return the exact two-sided p-value of so unequal counts if both were as likely (McNemar 1947)."""
    trials = lost + won
    logs = _log_choose(trials, np.arange(min(lost, won) + 1)) - trials * math.log(2)
    return min(1.0, 2 * float(np.exp(logs).sum()))


def mean_interval(mean: float, deviation: float, count: int, level: float = LEVEL) -> tuple[float, float] | None:
    """Return the interval of a mean by Student's t (1908), None of less than two values.

    Args:
        mean: of the values.
        deviation: their standard deviation, over count - 1.
        count: of the values.
        level: of confidence.
    """
    if count < 2:
        return None
    half = student(level, count - 1) * deviation / math.sqrt(count)
    return mean - half, mean + half


@functools.lru_cache
def student(level: float, freedom: int) -> float:
    """Return between which quantiles of Student's t, this and its negative, lies `level` of it."""
    if freedom > MANY:
        return NormalDist().inv_cdf((1 + level) / 2)
    return math.sqrt(freedom) * math.tan(root(lambda angle: level - _within(angle, freedom), 0, math.pi / 2))


def student_limit(tail: float, freedom: int) -> float:
    """Return above what lies so much, less than a half, of Student's t."""
    return student(1 - 2 * tail, freedom)


def student_tail(t: float, freedom: int) -> float:
    """Return how much of Student's t, of at most MANY degrees of freedom, lies above `t`."""
    return (1 - math.copysign(_within(math.atan(abs(t) / math.sqrt(freedom)), freedom), t)) / 2


def _within(angle: float, freedom: int) -> float:
    """Return how much of Student's t lies between sqrt(freedom) * tan(angle) and its negative."""
    nodes, weights = _gauss(64)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return scale * angle * float(weights @ np.cos(angle * (nodes + 1) / 2) ** (freedom - 1))


def placements(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return for each yes which share of the no is below it, for each no which share of the yes is above, (n,).

    Equal scores count half: the mean over either is the AUROC. DeLong et al. 1988, https://doi.org/10.2307/2531595

    Args:
        scores: (n,).
        true: yes or no, bool (n,), some of each.
    """
    _, place = np.unique(scores, return_inverse=True)
    yes, no = (np.bincount(place[side], minlength=int(place.max()) + 1) for side in (true, ~true))
    no_below, yes_above = np.cumsum(no) - no / 2, yes.sum() - np.cumsum(yes) + yes / 2
    return np.asarray(np.where(true, (no_below / no.sum())[place], (yes_above / yes.sum())[place]))


def delong(area: float, influence: np.ndarray, fewest: int, level: float = LEVEL) -> Interval | None:
    """Return the interval of an AUROC by DeLong's variance; None of less than two yes or two no.

    Args:
        area: the AUROC.
        influence: what each sample, or cluster of them, adds to it.
        fewest: yes or no, or clusters that have one, whichever are fewer.
        level: of confidence.
    """
    error = math.sqrt(influence @ influence)
    return None if fewest < 2 else _on_logits(area, error, fewest, student(level, fewest - 1))


def average_precision_interval(value: float, yes: float, level: float = LEVEL) -> Interval:
    """Return the interval of an average precision over so many yes.

    Boyd, Eng, Page 2013, https://doi.org/10.1007/978-3-642-40994-3_29
    """
    return _on_logits(value, math.sqrt(value * (1 - value) / yes), yes, NormalDist().inv_cdf((1 + level) / 2))


def f1_interval(ends: Interval | None) -> Interval | None:
    """Return the interval of F1 = 2 J / (1 + J) from that of J = TP / (TP + FP + FN), which is a rate.

    Lam 2023, https://arxiv.org/abs/2309.14621
    """
    return ends and (2 * ends[0] / (1 + ends[0]), 2 * ends[1] / (1 + ends[1]))


def _on_logits(value: float, error: float, fewest: float, quantile: float) -> Interval:
    """Return `value` with so many standard errors to either side, on the logit scale; with none as Wilson has it."""
    if not 0 < value < 1 or not error:
        half = quantile**2 / (fewest + quantile**2)
        return max(0.0, value - half), min(1.0, value + half)
    centre, half = math.log(value / (1 - value)), quantile * error / (value * (1 - value))
    return (1 + math.tanh((centre - half) / 2)) / 2, (1 + math.tanh((centre + half) / 2)) / 2


def auroc_influence(placed: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return what each sample adds to an AUROC beyond the mean, (n,): the sum of squares is DeLong's variance.

    Args:
        placed: `placements`, or how they differ between two scores of the same samples: then of the difference, (n,).
        true: yes or no, bool (n,), some of each.
    """
    found = np.empty(len(placed))
    for side in (true, ~true):
        count = int(side.sum())
        found[side] = (placed[side] - placed[side].mean()) / math.sqrt(count * max(1, count - 1))
    return found


def auroc_interval(drop: float, error: float, fewest: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of a drop of AUROC, not narrower than `paired` has it of so many pairs that all agree.

    Args:
        drop: found.
        error: its standard error.
        fewest: yes or no, whichever are fewer.
        level: of confidence.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    half = max(z * error, z * z / (fewest + z * z))
    return drop - half, drop + half


def fewer_by_chance(successes: int, trials: int, all_successes: int, all_trials: int) -> float:
    """Return the probability that a part has so few successes, or fewer, if it is drawn from the whole at random.

    Fisher's exact test (1922), one-sided: the tail of the hypergeometric distribution.

    Args:
        successes: of the part.
        trials: of the part.
        all_successes: of the whole, the part included.
        all_trials: of the whole.
    """
    fewest = max(0, trials - (all_trials - all_successes))
    drawn = np.arange(fewest, successes + 1)
    logs = (
        _log_choose(all_successes, drawn)
        + _log_choose(all_trials - all_successes, trials - drawn)
        - _log_choose(all_trials, np.array(trials))
    )
    return min(1.0, float(np.exp(logs).sum()))


def more_by_chance(successes: int, trials: int, rate: float) -> float:
    """Return the probability of so many successes, or more, if each trial succeeds at a rate, above 0 and below 1."""
    drawn = np.arange(successes, trials + 1)
    logs = _log_choose(trials, drawn) + drawn * math.log(rate) + (trials - drawn) * math.log1p(-rate)
    return min(1.0, float(np.exp(logs).sum()))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm (1979): any at all is below a level by chance only that seldom."""
    order = np.argsort(probabilities, kind="stable")
    factors = np.arange(len(order), 0, -1)
    stepped = np.maximum.accumulate(np.minimum(1, np.asarray(probabilities, float)[order] * factors))
    corrected = np.empty(len(order))
    corrected[order] = stepped
    return [float(p) for p in corrected]


def benjamini_hochberg(probabilities: np.ndarray) -> np.ndarray:
    """Return p-values corrected by Benjamini and Hochberg (1995): of those below a level that share is by chance.

    Args:
        probabilities: (n,).
    """
    order = np.argsort(probabilities)[::-1]
    factors = len(order) / np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum.accumulate(np.minimum(1, probabilities[order] * factors))
    return corrected


def _log_choose(count: int, taken: np.ndarray) -> np.ndarray:
    logs: np.ndarray = _log_factorial(np.array(count)) - _log_factorial(taken) - _log_factorial(count - taken)
    return logs


def _log_factorial(counts: np.ndarray) -> np.ndarray:
    """Return log(n!) by Stirling's series, by a table where n is small; its error is below 1e-11 of the value."""
    n = np.maximum(counts, 1).astype(float)
    series = 1 / (12 * n) - 1 / (360 * n**3) + 1 / (1260 * n**5) - 1 / (1680 * n**7)
    stirling = n * np.log(n) - n + np.log(2 * np.pi * n) / 2 + series
    logs: np.ndarray = np.where(counts < len(_SMALL), _SMALL[np.minimum(counts, len(_SMALL) - 1)], stirling)
    return logs
