"""How well a multi-label run tells each class, which is true or not by itself, and which of them come together."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from batchcam.record.calibration import Reliability, calibration_interval, expected_calibration_error
from batchcam.record.clusters import INDEPENDENT, ClusterColumn, Design, auroc_influence_of_clusters, design_of
from batchcam.record.intervals import (
    Interval,
    auroc_influence,
    average_precision_interval,
    delong,
    f1_interval,
    placements,
)
from batchcam.record.metrics import brackets
from batchcam.rules import threshold_logit
from batchcam.store.run import Run

SCORES: Final = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
"""Rates of `SigmoidScore` that are better the higher they are, in words."""

COLUMNS: Final = {
    "known": "known",
    "yes": "yes",
    "prevalence": "prevalence",
    "threshold": "threshold",
    "predicted": "predicted",
    "AUROC": "auroc",
    "avg precision": "average_precision",
    "F1": "f1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "calibration error": "calibration_error",
    "left out": "left_out",
}
"""Of a table of `SigmoidScore`, with what each says."""

METHOD_OF: Final = {
    "prevalence": "rates",
    "sensitivity": "rates",
    "specificity": "rates",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "f1": "F1",
    "calibration_error": "calibration error",
}
"""By which of `METHODS` the interval of each rate is made."""

PAIRS: Final = 10
MOST_PAIRED: Final = 1024
"""Classes of which all pairs are counted, in 16 MB."""


@dataclasses.dataclass(frozen=True)
class SigmoidScore:
    """How one class fares, over the samples whose label is known and that have logits; a rate of none is None.

    Attributes:
        threshold: probability from which it counts.
        known: samples whose label is known.
        yes: of those, labelled with it.
        predicted: samples at or above the threshold, labelled or not.
        left_out: samples whose label is known and that have no logits: unreadable, or not finite.
        prevalence: share of yes among the known.
        auroc: chance that a yes has a higher logit than a no, ties counted half.
        average_precision: sum over falling logits of the precision, weighted by the gain in recall.
        f1: 2 TP / (2 TP + FP + FN) at the threshold.
        sensitivity: share of yes that are predicted.
        specificity: share of no that are not.
        calibration_error: mean distance of the sigmoid from the share of yes, over 15 bins of equal width.
        intervals: of each of these rates by its name; none where nobody asked for a level of confidence.
        designs: of sensitivity and specificity.
    """

    name: str
    threshold: float
    known: int
    yes: int
    predicted: int
    left_out: int
    prevalence: float | None
    auroc: float | None
    average_precision: float | None
    f1: float | None
    sensitivity: float | None
    specificity: float | None
    calibration_error: float | None
    intervals: dict[str, Interval | None]
    designs: tuple[Design, Design] = (INDEPENDENT, INDEPENDENT)

    @property
    def hits(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Of the yes how many are predicted, of the no how many are not; each with the yes, and the no, there are."""
        sides = ((self.sensitivity, self.yes), (self.specificity, self.known - self.yes))
        told, spared = ((round((rate or 0) * count), count) for rate, count in sides)
        return told, spared

    @property
    def rank(self) -> tuple[bool, float, int]:
        """What tables of classes are sorted by: the least AUROC first, without one the most often predicted."""
        return self.auroc is None, self.auroc or 0, -self.predicted

    @property
    def cells(self) -> dict[str, float | None]:
        """What tables say of the class, by the name of the column; counts are int."""
        return {name: getattr(self, field) for name, field in COLUMNS.items()}

    @property
    def brackets(self) -> dict[str, str]:
        """The intervals beside that, "" where there is none."""
        return {name: brackets(self.intervals.get(field)) for name, field in COLUMNS.items()}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two classes, and how many samples are labelled with both, and predicted as both."""

    first: str
    second: str
    labelled: int
    predicted: int


class SigmoidScores:
    """Scores of classes, from samples that are added part by part: 5 bytes are kept of each label.

    Args:
        class_names: K names.
        thresholds: of each the probability from which it counts.
        together: count which classes come together, too.
        level: of confidence of the rates' intervals; None: without.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        thresholds: Sequence[float],
        together: bool = True,
        level: float | None = None,
    ) -> None:
        count = len(class_names)
        self._names, self._thresholds, self._level = class_names, thresholds, level
        self._above = np.array([*map(threshold_logit, thresholds)], np.float32)
        self._labels = [np.empty((0, count), np.int8)]
        self._logits = [np.empty((0, count), np.float32)]
        self._clusters: list[np.ndarray] = []
        paired = count if together and count <= MOST_PAIRED else 0
        self._together = np.zeros((2, paired, paired))

    def add(self, labels: np.ndarray, logits: np.ndarray, clusters: np.ndarray | None = None) -> None:
        """Add samples.

        Args:
            labels: 1, 0, or -1 where not known, int8 (n, K).
            logits: float32 (n, K); rows with one that is not finite have no prediction.
            clusters: number of each one's, int64 (n,); of all samples or of none.
        """
        self._clusters += [] if clusters is None else [clusters]
        rows = np.where(np.isfinite(logits).all(1)[:, None], logits, np.nan).astype(np.float32)
        self._labels.append(labels)
        self._logits.append(rows)
        for counts, true in zip(self._together, (labels == 1, rows >= self._above), strict=True):
            if len(counts):
                counts += true.T.astype(np.float64) @ true.astype(np.float64)

    def scores(self, rows: np.ndarray | slice | None = None) -> list[SigmoidScore]:
        """Return the score of each class, over all samples or those at some of the rows in which they were added.

        Of a part of the samples the calibration error has no interval: that takes a search of each.
        """
        labels, logits = self.stated(slice(None) if rows is None else rows)
        clusters = _joined(self._clusters)[slice(None) if rows is None else rows] if self._clusters else None
        names = [name for name in METHOD_OF if rows is None or name != "calibration_error"]
        return [self._score(k, labels[:, k], logits[:, k], clusters, names) for k in range(len(self._names))]

    @property
    def design(self) -> Design:
        """That of the share of all known labels that are told."""
        labels, logits = self.stated(slice(None))
        if not self._clusters:
            return INDEPENDENT
        known = (labels >= 0) & ~np.isnan(logits)
        right = (labels == 1) == (logits >= self._above)
        return design_of(right[known], np.repeat(_joined(self._clusters), known.sum(1)))

    def stated(self, rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Return labels, and logits, NaN where there is no prediction, (n, K), of some of the rows that were added."""
        return _joined(self._labels)[rows], _joined(self._logits)[rows]

    def pairs(self) -> list[Pair]:
        """Return the pairs of classes that stand together most often, by labels, then predictions; none of too many."""
        first, second = np.triu_indices(self._together.shape[1], 1)
        labelled, predicted = (counts[first, second].astype(np.int64) for counts in self._together)
        most = np.lexsort((-predicted, -labelled))[:PAIRS]
        return [
            Pair(self._names[first[i]], self._names[second[i]], int(labelled[i]), int(predicted[i]))
            for i in most
            if labelled[i] or predicted[i]
        ]

    def _score(
        self, k: int, labels: np.ndarray, logits: np.ndarray, clusters: np.ndarray | None, names: Sequence[str]
    ) -> SigmoidScore:
        known = (labels >= 0) & ~np.isnan(logits)
        of = Known(logits[known].astype(np.float64), labels[known] == 1, logits[known] >= self._above[k])
        of = of if clusters is None else dataclasses.replace(of, clusters=clusters[known])
        yes, no, hits, right_no = (int(each.sum()) for each in (of.true, ~of.true, of.hits, ~of.true & ~of.above))
        errors = (yes - hits) + (no - right_no)
        return SigmoidScore(
            name=self._names[k],
            threshold=self._thresholds[k],
            known=len(of.true),
            yes=yes,
            predicted=int((logits >= self._above[k]).sum()),
            left_out=int(((labels >= 0) & np.isnan(logits)).sum()),
            prevalence=_rate(yes, len(of.true)),
            auroc=of.auroc,
            average_precision=of.average_precision,
            f1=_rate(2 * hits, 2 * hits + errors),
            sensitivity=_rate(hits, yes),
            specificity=_rate(right_no, no),
            calibration_error=expected_calibration_error(of.reliability.bins()),
            intervals={} if self._level is None else {name: INTERVALS[name](of, self._level) for name in names},
            designs=(of.design(of.above, of.true), of.design(of.above, ~of.true)),
        )


@dataclasses.dataclass(frozen=True)
class Known:
    """What is said of a class by the samples whose label is known and that have logits.

    Attributes:
        logits: float64 (n,).
        true: whether they are labelled with it, bool (n,).
        above: whether they are at or above its threshold, bool (n,).
        clusters: number of each one's, int64 (n,); None: they are independent.
    """

    logits: np.ndarray
    true: np.ndarray
    above: np.ndarray
    clusters: np.ndarray | None = None

    @property
    def hits(self) -> np.ndarray:
        return np.asarray(self.true & self.above)

    @functools.cached_property
    def placed(self) -> np.ndarray | None:
        """Their `placements`, None without a yes or a no."""
        return placements(self.logits, self.true) if 0 < self.true.sum() < len(self.true) else None

    @property
    def auroc(self) -> float | None:
        return None if self.placed is None else float(self.placed[self.true].mean())

    @functools.cached_property
    def precisions(self) -> np.ndarray:
        """The precision at the logit of each yes, (yes,)."""
        return precisions(self.logits, self.true)

    @property
    def average_precision(self) -> float | None:
        return float(self.precisions.mean()) if len(self.precisions) else None

    @functools.cached_property
    def reliability(self) -> Reliability:
        found = Reliability()
        found.add(sigmoid(self.logits), self.true, self.clusters)
        return found

    def design(self, values: np.ndarray, side: np.ndarray | slice = slice(None)) -> Design:
        """Return that of the mean of values, of the samples of a side."""
        return INDEPENDENT if self.clusters is None else design_of(values[side], self.clusters[side])

    def rate(self, right: np.ndarray, side: np.ndarray | slice, level: float) -> Interval | None:
        """Return the interval of how many of a side are right."""
        told = right[side]
        return self.design(right, side).wilson(int(told.sum()), len(told), level)

    def auroc_interval(self, level: float) -> Interval | None:
        if self.placed is None or self.auroc is None:
            return None
        influence, fewest = auroc_influence(self.placed, self.true), min(np.bincount(self.true).tolist())
        if self.clusters is not None:
            influence = auroc_influence_of_clusters(influence, self.true, self.clusters)
            fewest = min(len(np.unique(self.clusters[side])) for side in (self.true, ~self.true))
        return delong(self.auroc, influence, fewest, level)

    def average_precision_interval(self, level: float) -> Interval | None:
        """Return that of Boyd, of the effective number of yes, as far as their precisions go."""
        clusters = None if self.clusters is None else self.clusters[self.true]
        share = design_of(self.precisions, clusters).share(level)
        if self.average_precision is None or share is None:
            return None
        return average_precision_interval(self.average_precision, share * len(self.precisions), level)

    def calibration_interval(self, level: float) -> Interval | None:
        return calibration_interval(self.reliability.bins(), level, self.reliability.design)


INTERVALS: Final[dict[str, Callable[[Known, float], Interval | None]]] = {
    "prevalence": lambda of, level: of.rate(of.true, slice(None), level),
    "auroc": Known.auroc_interval,
    "average_precision": Known.average_precision_interval,
    "f1": lambda of, level: f1_interval(of.rate(of.hits, of.true | of.above, level)),
    "sensitivity": lambda of, level: of.rate(of.above, of.true, level),
    "specificity": lambda of, level: of.rate(~of.above, ~of.true, level),
    "calibration_error": Known.calibration_interval,
}
"""How the interval of each of `METHOD_OF` is found."""


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Return parts after each other, which they then are once and for all."""
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0]


def counted_of(
    run: Run, level: float, cluster: str | None = None, together: bool = True
) -> tuple[SigmoidScores, ClusterColumn]:
    """Return what scores of an open multi-label run's classes are made of, and the clusters of its samples."""
    counted = SigmoidScores(run.class_names, run.plan.thresholds, together, level)
    clusters = ClusterColumn(run, cluster)
    for _, block in run.blocks((*clusters.arrays, "labels", "logits")):
        counted.add(block["labels"], block["logits"], clusters.of(block))
    return counted, clusters


def auroc(scores: np.ndarray, true: np.ndarray) -> float | None:
    """Return the area under the ROC curve, of which equal scores count half; None without a yes or a no."""
    return Known(scores, true, true).auroc


def precisions(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the precision at each yes, of all at or above its score, (yes,): the mean is the average precision."""
    _, place = np.unique(-scores, return_inverse=True)
    gained, counts = np.bincount(place, true), np.bincount(place)
    return np.asarray((np.cumsum(gained) / np.cumsum(counts))[place[true]])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, float64."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -700, 700))))


def _rate(part: float, whole: int) -> float | None:
    return part / whole if whole else None
