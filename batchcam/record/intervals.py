"""Pure statistics of counts: an interval for a rate, an exact test of two rates, a correction for many tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np

LEVEL: Final = 0.95
"""Of an interval: in so many of many samples it holds the rate."""

_SMALL: Final = np.array([math.lgamma(n + 1) for n in range(16)])


def wilson(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float] | None:
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


def holm(probabilities: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm (1979): any at all is below a level by chance only that seldom."""
    order = np.argsort(probabilities, kind="stable")
    factors = np.arange(len(order), 0, -1)
    stepped = np.maximum.accumulate(np.minimum(1, np.asarray(probabilities, float)[order] * factors))
    corrected = np.empty(len(order))
    corrected[order] = stepped
    return [float(p) for p in corrected]


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
