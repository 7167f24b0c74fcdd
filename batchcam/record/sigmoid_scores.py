"""How well a multi-label run tells each class, which is true or not by itself, and which of them come together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from batchcam.record.calibration import Bin, Reliability, calibration_interval, expected_calibration_error
from batchcam.record.intervals import Interval, average_precision_interval, delong, f1_interval, wilson
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
        paired = count if together and count <= MOST_PAIRED else 0
        self._together = np.zeros((2, paired, paired))

    def add(self, labels: np.ndarray, logits: np.ndarray) -> None:
        """Add samples.

        Args:
            labels: 1, 0, or -1 where not known, int8 (n, K).
            logits: float32 (n, K); rows with one that is not finite have no prediction.
        """
        rows = np.where(np.isfinite(logits).all(1)[:, None], logits, np.nan).astype(np.float32)
        self._labels.append(labels)
        self._logits.append(rows)
        for counts, true in zip(self._together, (labels == 1, rows >= self._above), strict=True):
            if len(counts):
                counts += true.T.astype(np.float64) @ true.astype(np.float64)

    def scores(self, rows: np.ndarray | slice = slice(None)) -> list[SigmoidScore]:
        """Return the score of each class, over all samples or those at some of the rows in which they were added."""
        labels, logits = self.stated(rows)
        return [self._score(k, labels[:, k], logits[:, k]) for k in range(len(self._names))]

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

    def _score(self, k: int, labels: np.ndarray, logits: np.ndarray) -> SigmoidScore:
        known = (labels >= 0) & ~np.isnan(logits)
        scores, true = logits[known].astype(np.float64), labels[known] == 1
        above = logits[known] >= self._above[k]
        yes, no = int(true.sum()), int((~true).sum())
        hits, right_no = int((true & above).sum()), int((~true & ~above).sum())
        errors, bins = (yes - hits) + (no - right_no), sigmoid_bins(scores, true)
        precision = average_precision(scores, true)
        intervals: dict[str, Interval | None] = {}
        if self._level is not None:
            intervals = {
                "prevalence": wilson(yes, len(true), self._level),
                "auroc": delong(scores, true, self._level),
                "average_precision": None
                if precision is None
                else average_precision_interval(precision, yes, self._level),
                "f1": f1_interval(hits, errors, self._level),
                "sensitivity": wilson(hits, yes, self._level),
                "specificity": wilson(right_no, no, self._level),
                "calibration_error": calibration_interval(bins, self._level),
            }
        return SigmoidScore(
            name=self._names[k],
            threshold=self._thresholds[k],
            known=len(true),
            yes=yes,
            predicted=int((logits >= self._above[k]).sum()),
            left_out=int(((labels >= 0) & np.isnan(logits)).sum()),
            prevalence=_rate(yes, len(true)),
            auroc=auroc(scores, true),
            average_precision=precision,
            f1=_rate(2 * hits, 2 * hits + errors),
            sensitivity=_rate(hits, yes),
            specificity=_rate(right_no, no),
            calibration_error=expected_calibration_error(bins),
            intervals=intervals,
        )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Return parts after each other, which they then are once and for all."""
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0]


def scores_of(run: Run, level: float) -> tuple[list[SigmoidScore], list[Pair]]:
    """Return the scores of an open multi-label run's classes, and which of them come together."""
    counted = SigmoidScores(run.class_names, run.plan.thresholds, level=level)
    for _, block in run.blocks(("labels", "logits")):
        counted.add(block["labels"], block["logits"])
    return counted.scores(), counted.pairs()


def auroc(scores: np.ndarray, true: np.ndarray) -> float | None:
    """Return the area under the ROC curve; None without a yes or a no.

    It is Mann and Whitney's U / (yes · no), from the ranks of the yes, the same for equal scores.
    """
    yes, no = int(true.sum()), int((~true).sum())
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return _rate(float(ranks[place][true].sum()) - yes * (yes + 1) / 2, yes * no)


def average_precision(scores: np.ndarray, true: np.ndarray) -> float | None:
    """Return sum_n (R_n - R_n-1) P_n over the distinct scores, from the highest; None without a yes."""
    _, place, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    gained = np.bincount(place, true, len(counts))
    precision = np.cumsum(gained) / np.cumsum(counts)
    return _rate(float((gained * precision).sum()), int(true.sum()))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, float64."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -700, 700))))


def sigmoid_bins(logits: np.ndarray, true: np.ndarray) -> list[Bin]:
    """Return the share of yes by the sigmoid."""
    counted = Reliability()
    counted.add(sigmoid(logits), true)
    return counted.bins()


def _rate(part: float, whole: int) -> float | None:
    return part / whole if whole else None
