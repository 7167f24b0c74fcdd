"""How far people agree in what they say of the same samples, beyond what would be by chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

import numpy as np

from batchcam.record.clusters import GROUPS, dealt, jackknife_error, share_interval
from batchcam.record.intervals import LEVEL, Interval, wilson

COHEN: Final = "Cohen's kappa"
FLEISS: Final = "Fleiss' kappa"
KRIPPENDORFF: Final = "Krippendorff's alpha"


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far people agree.

    Attributes:
        samples: of which two or more people say something.
        agreed: of these, all of them the same.
        share: of these.
        share_interval: of that.
        statistic: which one `kappa` is: Cohen's of two people, Fleiss' of more if all of them say something of each of
            these samples, else Krippendorff's alpha.
        kappa: agreement beyond chance, 1: all of it; None where all say one and the same, as chance would.
        interval: of that, by a jackknife over samples and Wilson's of the agreement; None of less than two samples.
    """

    samples: int
    agreed: int
    share: float
    share_interval: Interval | None
    statistic: str
    kappa: float | None
    interval: Interval | None


def agreement(ratings: np.ndarray, level: float = LEVEL) -> Agreement | None:
    """Return how far people agree, None where no sample has two verdicts.

    Args:
        ratings: number of the word that each person says of each sample, -1: none, int64 (n, R).
    """
    ratings = ratings[(ratings >= 0).sum(1) > 1]
    count = len(ratings)
    if not count:
        return None
    statistic, measure = KRIPPENDORFF, _krippendorff
    if (ratings >= 0).all():
        statistic, measure = (COHEN, _cohen) if ratings.shape[1] == 2 else (FLEISS, _fleiss)
    said = np.where(ratings < 0, ratings.max(1, keepdims=True), ratings)
    agreed = int(((said == said[:, :1]).all(1)).sum())
    found, chance = measure(ratings)
    kappa = interval = None
    if chance < 1:
        kappa = (found - chance) / (1 - chance)
        interval = _interval(ratings, measure, found, chance, level)
    return Agreement(count, agreed, agreed / count, wilson(agreed, count, level), statistic, kappa, interval)


def _interval(
    ratings: np.ndarray,
    measure: Callable[[np.ndarray], tuple[float, float]],
    found: float,
    chance: float,
    level: float,
) -> Interval | None:
    """Return that of a kappa: of the agreement with the kappa's own error, less the chance found."""
    if len(ratings) < 2:
        return None
    group = dealt(np.arange(len(ratings)))
    without = [_corrected(*measure(ratings[group != each])) for each in range(min(GROUPS, len(ratings)))]
    error = float(jackknife_error(np.array(without))) * (1 - chance)
    ends = share_interval(found, error, len(ratings), level)
    return ends and (max(-1.0, (ends[0] - chance) / (1 - chance)), (ends[1] - chance) / (1 - chance))


def _corrected(found: float, chance: float) -> float:
    return (found - chance) / (1 - chance) if chance < 1 else 1.0


def _cohen(ratings: np.ndarray) -> tuple[float, float]:
    """Return the agreement of two people, and that by chance, https://doi.org/10.1177/001316446002000104."""
    first, second = (np.bincount(of, minlength=int(ratings.max()) + 1) / len(ratings) for of in ratings.T)
    return float((ratings[:, 0] == ratings[:, 1]).mean()), float(first @ second)


def _fleiss(ratings: np.ndarray) -> tuple[float, float]:
    """Return the agreement of so many people on each sample, and by chance, https://doi.org/10.1037/h0031619."""
    counts, people = _counts(ratings), ratings.shape[1]
    shares = counts.sum(0) / counts.sum()
    return float((counts * (counts - 1)).sum(1).mean() / (people * (people - 1))), float(shares @ shares)


def _krippendorff(ratings: np.ndarray) -> tuple[float, float]:
    """Return the agreement of two or more people on each sample, and by chance: nominal alpha's.

    Krippendorff 2011, https://repository.upenn.edu/asc_papers/43
    """
    counts = _counts(ratings)
    people, words = counts.sum(1, keepdims=True), counts.sum(0)
    total = words.sum()
    found = float((counts * (counts - 1) / (people - 1)).sum() / total)
    return found, float((words * (words - 1)).sum() / (total * (total - 1)))


def _counts(ratings: np.ndarray) -> np.ndarray:
    """Return how many people say each word of each sample, (n, K)."""
    return np.stack([(ratings == word).sum(1) for word in range(int(ratings.max()) + 1)], 1)
