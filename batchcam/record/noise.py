"""What retraining alone moves: honest retrainings as the null of a difference from OLD, and limits taken from them.

The runs of one recipe from other seeds are independent and alike. Their differences from one and the same OLD are then,
given OLD, independent and alike again, and so is NEW's if it is honest: the k differences d(OLD, noise) and d(OLD, NEW)
are exchangeable. Differences between two noise runs are left out: those that share a run depend on each other, and to
use them takes a model of how (Griffing 1956, https://doi.org/10.1071/BI9560463, method 4), and k times the reading.

A rank among k + 1 can't be rarer than 1 / (k + 1): a third, or a quarter, of the few retrainings that anybody has.
Student's t says more: a further value of a normal distribution lies above mean + t * s * sqrt(1 + 1 / k) with the
probability of t's tail, k - 1 degrees of freedom (Hahn 1970, https://doi.org/10.2307/2284349). Means over samples are
near enough to normal on a scale where their spread does not depend on where they lie: arcsin(sqrt(share)), artanh of a
correlation (Fisher 1921), else the square root (Bartlett 1947, https://doi.org/10.2307/3001536).

Few samples may agree by chance: no spread is taken to be smaller than 1 / (2 sqrt(n)), that of a share of n independent
samples on its scale.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Final

from batchcam.record.intervals import holm, student_limit, student_tail

LARGEST: Final = 1 - 1e-6  # correlation that is told from 1


@dataclasses.dataclass(frozen=True)
class Measure:
    """A mean over samples.

    Attributes:
        worse: 1 if larger values are, -1 if smaller ones are, 0 if both are.
        whole: what a share is a share of; None of correlations, inf of what has no end.
    """

    worse: int
    whole: float | None

    def scaled(self, value: float) -> float:
        """Return a value on the scale where spreads are alike."""
        if self.whole is None:
            return math.atanh(min(LARGEST, max(-LARGEST, value)))
        return math.sqrt(value) if math.isinf(self.whole) else math.asin(math.sqrt(min(1.0, value / self.whole)))

    def unscaled(self, scaled: float) -> float:
        """Return the value at a place of that scale, or at its end."""
        if self.whole is None:
            return math.tanh(scaled)
        root = max(0.0, scaled)
        return root**2 if math.isinf(self.whole) else self.whole * math.sin(min(math.pi / 2, root)) ** 2


MEASURES: Final[Mapping[str, Measure]] = {
    "flips_percent": Measure(1, 100),
    "accuracy": Measure(0, 1),
    "auroc": Measure(0, 1),
    "spearman": Measure(-1, None),
    "cosine": Measure(-1, None),
    "top_iou": Measure(-1, 1),
    "peak_shift": Measure(1, math.inf),
    "worst_class_spearman": Measure(-1, None),
}


@dataclasses.dataclass(frozen=True)
class Value:
    """A mean, and over how many samples it is."""

    value: float
    count: int


@dataclasses.dataclass(frozen=True)
class Spread:
    """What retraining alone makes of a measure, and what NEW does.

    Attributes:
        measure: of MEASURES.
        class_name: of which class, None of all samples.
        retrained: of each noise run against OLD.
        new: of NEW against OLD.
        p: how seldom a further honest retraining is as far out, or farther.
        corrected_p: the same for the measure's worst class of all, by Holm; of all samples it is p.
    """

    measure: str
    class_name: str | None
    retrained: tuple[float, ...]
    new: float
    p: float
    corrected_p: float


def spread(measure: str, class_name: str | None, retrained: Sequence[Value], new: Value) -> Spread:
    """Return what at least two retrainings make of a measure, and how far NEW is out."""
    kind = MEASURES[measure]
    mean, deviation = _predicted(kind, retrained)
    t = (kind.scaled(new.value) - mean) / deviation
    p = student_tail(kind.worse * t, len(retrained) - 1) if kind.worse else 2 * student_tail(abs(t), len(retrained) - 1)
    return Spread(measure, class_name, tuple(each.value for each in retrained), new.value, p, p)


def limit(measure: str, retrained: Sequence[Value], level: float) -> float:
    """Return beyond which value a further honest retraining is with probability 1 - level; of what has a worse side."""
    kind = MEASURES[measure]
    mean, deviation = _predicted(kind, retrained)
    return kind.unscaled(mean + kind.worse * student_limit(1 - level, len(retrained) - 1) * deviation)


def _predicted(kind: Measure, retrained: Sequence[Value]) -> tuple[float, float]:
    """Return mean, and standard deviation, of how far from it one further value is, on the measure's scale."""
    values, count = [kind.scaled(each.value) for each in retrained], min(each.count for each in retrained)
    return fmean(values), max(stdev(values), 1 / (2 * math.sqrt(count))) * math.sqrt(1 + 1 / len(values))


def corrected(spreads: Sequence[Spread]) -> list[Spread]:
    """Return spreads of classes with p corrected, by Holm, for how many classes a measure has."""
    found = list[Spread]()
    for measure in dict.fromkeys(each.measure for each in spreads):
        some = [each for each in spreads if each.measure == measure]
        pairs = zip(some, holm([each.p for each in some]), strict=True)
        found += (dataclasses.replace(each, corrected_p=p) for each, p in pairs)
    return found
