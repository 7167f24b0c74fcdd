"""Pure numbers about two runs of the same samples: what moved, and how much."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from batchcam.record.study import Reason, count_left_out

PIXEL: Final = 1.0
"""Views of the network whose edges differ by no more are one."""


class Flip(enum.IntEnum):
    """What became of a prediction; `CHANGED`: from wrong to another wrong class, or without a label to judge it by."""

    SAME = 0
    FIXED = 1
    BROKEN = 2
    CHANGED = 3


class Pairing(Reason):
    """Whether a compared sample has a pair of maps, and why not."""

    MEASURED = 0
    NO_CLASS = 1
    NOT_STORED = 2
    OTHER_VIEW = 3
    NOT_FINITE = 4
    CONSTANT_IN_BOTH = 5
    CONSTANT_IN_OLD = 6
    CONSTANT_IN_NEW = 7


def judge(label: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return what became of each prediction, uint8 (n,) of `Flip`.

    Args:
        label: class that both runs state, -1 where they do not.
        old, new: predicted classes in the same numbering.
    """
    known = label >= 0
    conditions = [old == new, known & (new == label), known & (old == label)]
    return np.select(conditions, [Flip.SAME, Flip.FIXED, Flip.BROKEN], Flip.CHANGED).astype(np.uint8)


def same_view(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return which crop boxes (n, 4) agree to a pixel on all edges, bool (n,)."""
    return np.asarray((np.abs(old.astype(np.float64) - new) <= PIXEL).all(1))


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The compared samples, one row each; classes in the common numbering, -1: none or not known.

    Attributes:
        label: class that both runs state, (n,).
        old_prediction, new_prediction: predicted classes, (n,).
        flip: `Flip`, (n,).
        old_confidence, new_confidence: softmax at the class that the run itself predicts, (n,).
        map_class: class whose logits and maps are compared, (n,).
        old_logit, new_logit: of that class, (n,); NaN where a run does not have the class.
        pairing: `Pairing`, (n,).
        spearman, cosine, top_iou, peak_shift: of the maps, (n,); NaN where `pairing` is not `MEASURED`.
    """

    label: np.ndarray
    old_prediction: np.ndarray
    new_prediction: np.ndarray
    flip: np.ndarray
    old_confidence: np.ndarray
    new_confidence: np.ndarray
    map_class: np.ndarray
    old_logit: np.ndarray
    new_logit: np.ndarray
    pairing: np.ndarray
    spearman: np.ndarray
    cosine: np.ndarray
    top_iou: np.ndarray
    peak_shift: np.ndarray

    @property
    def confidence_change(self) -> np.ndarray:
        """New confidence minus old confidence, float64 (n,)."""
        return np.asarray(self.new_confidence.astype(np.float64) - self.old_confidence)

    @property
    def logit_change(self) -> np.ndarray:
        """New logit minus old logit of the class whose maps are compared, float64 (n,)."""
        return np.asarray(self.new_logit.astype(np.float64) - self.old_logit)


@dataclasses.dataclass(frozen=True)
class Totals:
    """What moved over all compared samples; means are None without any sample.

    Attributes:
        compared: samples.
        labelled: of those, how many have one label in both runs.
        flips, flips_percent: predictions that are another class.
        fixed, broken, changed: flips by kind.
        old_accuracy, new_accuracy: share of the labelled samples predicted right.
        accuracy_drop: old minus new, in percentage points.
        old_confidence, new_confidence: means.
        logit_change: mean, of the class whose maps are compared.
        maps: samples with a pair of maps.
        spearman, cosine, top_iou, peak_shift: means over these.
        spearman_median, spearman_p10: half, and a tenth, of them lie below.
        without_maps: the other samples, by reason.
    """

    compared: int
    labelled: int
    flips: int
    flips_percent: float | None
    fixed: int
    broken: int
    changed: int
    old_accuracy: float | None
    new_accuracy: float | None
    accuracy_drop: float | None
    old_confidence: float | None
    new_confidence: float | None
    logit_change: float | None
    maps: int
    spearman: float | None
    spearman_median: float | None
    spearman_p10: float | None
    cosine: float | None
    top_iou: float | None
    peak_shift: float | None
    without_maps: dict[str, int]


def total(pairs: Pairs) -> Totals:
    """Return what moved over all compared samples."""
    compared, known = len(pairs.label), pairs.label >= 0
    kinds = np.bincount(pairs.flip, minlength=len(Flip)).tolist()
    flips, labelled = compared - kinds[Flip.SAME], int(known.sum())
    old, new = (
        int((predictions == pairs.label)[known].sum()) for predictions in (pairs.old_prediction, pairs.new_prediction)
    )
    measured = pairs.pairing == Pairing.MEASURED
    order = pairs.spearman[measured]
    order = order[np.isfinite(order)]
    median, tenth = np.quantile(order, [0.5, 0.1]).tolist() if len(order) else (None, None)
    return Totals(
        compared=compared,
        labelled=labelled,
        flips=flips,
        flips_percent=100 * flips / compared if compared else None,
        fixed=kinds[Flip.FIXED],
        broken=kinds[Flip.BROKEN],
        changed=kinds[Flip.CHANGED],
        old_accuracy=old / labelled if labelled else None,
        new_accuracy=new / labelled if labelled else None,
        accuracy_drop=100 * (old - new) / labelled if labelled else None,
        old_confidence=mean(pairs.old_confidence),
        new_confidence=mean(pairs.new_confidence),
        logit_change=mean(pairs.logit_change),
        maps=int(measured.sum()),
        spearman=mean(pairs.spearman),
        spearman_median=median,
        spearman_p10=tenth,
        cosine=mean(pairs.cosine),
        top_iou=mean(pairs.top_iou),
        peak_shift=mean(pairs.peak_shift),
        without_maps=count_left_out(Pairing, pairs.pairing),
    )


def mean(values: np.ndarray) -> float | None:
    """Return the mean of the finite values in float64, None without any."""
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(finite.mean()) if len(finite) else None


@dataclasses.dataclass(frozen=True)
class ClassMovement:
    """What moved for one class.

    Attributes:
        name: of the class.
        labelled: samples that both runs label as it.
        old_correct, new_correct: of those, predicted right.
        fixed, broken: of those, by kind of flip.
        old_predicted, new_predicted: samples predicted as it.
        left: of the old ones, how many the new run predicts as another class.
        maps: pairs of its maps.
        logit_change, spearman, cosine, top_iou, peak_shift: means where its logits and maps are compared, or None.
    """

    name: str
    labelled: int
    old_correct: int
    new_correct: int
    fixed: int
    broken: int
    old_predicted: int
    new_predicted: int
    left: int
    maps: int
    logit_change: float | None
    spearman: float | None
    cosine: float | None
    top_iou: float | None
    peak_shift: float | None

    @property
    def accuracy_drop(self) -> float | None:
        """Accuracy lost, in percentage points, None without labels."""
        return 100 * (self.old_correct - self.new_correct) / self.labelled if self.labelled else None


def by_class(pairs: Pairs, names: tuple[str, ...]) -> list[ClassMovement]:
    """Return what moved for each class, by the common numbering.

    Args:
        pairs: the compared samples.
        names: of the classes.
    """

    def count(classes: np.ndarray, chosen: np.ndarray) -> list[int]:
        counts: list[int] = np.bincount(classes[chosen & (classes >= 0)], minlength=len(names)).tolist()
        return counts

    label, old, new, kind = pairs.label, pairs.old_prediction, pairs.new_prediction, pairs.flip
    everything = np.ones(len(label), bool)
    counts = (
        count(label, everything),
        count(label, old == label),
        count(label, new == label),
        count(label, kind == Flip.FIXED),
        count(label, kind == Flip.BROKEN),
        count(old, everything),
        count(new, everything),
        count(old, old != new),
        count(pairs.map_class, pairs.pairing == Pairing.MEASURED),
    )
    columns = (pairs.logit_change, pairs.spearman, pairs.cosine, pairs.top_iou, pairs.peak_shift)
    means = (_class_means(values, pairs.map_class, len(names)) for values in columns)
    return [ClassMovement(*row) for row in zip(names, *counts, *means, strict=True)]


def ranked_classes(classes: list[ClassMovement]) -> list[ClassMovement]:
    """Return classes, the largest loss of accuracy first, then the least alike maps."""
    return sorted(
        classes, key=lambda c: (-(c.accuracy_drop or 0), math.inf if c.spearman is None else c.spearman, c.name)
    )


def _class_means(values: np.ndarray, classes: np.ndarray, class_count: int) -> list[float | None]:
    """Return the mean of the finite values of each class, None without any."""
    chosen = np.isfinite(values) & (classes >= 0)
    sums = np.bincount(classes[chosen], values[chosen], class_count)
    counts = np.bincount(classes[chosen], minlength=class_count)
    return [s / c if c else None for s, c in zip(sums.tolist(), counts.tolist(), strict=True)]


@dataclasses.dataclass(frozen=True)
class Transition:
    """How many samples went from one predicted class to another."""

    old: str
    new: str
    count: int


def transitions(pairs: Pairs, names: tuple[str, ...], most: int) -> list[Transition]:
    """Return the most frequent flips, equal ones by class.

    Args:
        pairs: the compared samples.
        names: of the classes.
        most: how many to return.
    """
    flipped = pairs.flip != Flip.SAME
    # pairs, not a matrix: that of 20,000 classes would take gigabytes
    codes, counts = np.unique(
        pairs.old_prediction[flipped] * len(names) + pairs.new_prediction[flipped], return_counts=True
    )
    order = np.lexsort((codes, -counts))[:most]
    return [
        Transition(names[code // len(names)], names[code % len(names)], count)
        for code, count in zip(codes[order].tolist(), counts[order].tolist(), strict=True)
    ]


def movers(pairs: Pairs, most: int) -> Iterator[tuple[int, str]]:
    """Yield the samples that moved most, each once under its first reason: row and reason.

    Broken ones first, the most confident mistake first; then those whose maps are least alike; then those that lost
    most confidence.

    Args:
        pairs: the compared samples.
        most: samples of each reason.
    """
    reasons = (
        ("broken", -pairs.new_confidence.astype(np.float64), pairs.flip == Flip.BROKEN),
        ("similarity", pairs.spearman, pairs.spearman < 1),  # a NaN is not below 1
        ("confidence", pairs.confidence_change, pairs.confidence_change < 0),
    )
    taken = np.zeros(len(pairs.flip), bool)
    for reason, values, chosen in reasons:
        rows = np.flatnonzero(chosen & ~taken)
        rows = rows[np.argsort(values[rows], kind="stable")[:most]]
        taken[rows] = True
        yield from ((row, reason) for row in rows.tolist())


@dataclasses.dataclass(frozen=True)
class Mover:
    """A sample that moved far.

    Attributes:
        reason: broken, similarity or confidence.
        sample_id: of the sample.
        label: class that both runs state, None where they do not.
        old_prediction, new_prediction: predicted classes.
        flip: what became of the prediction.
        old_confidence, new_confidence, confidence_change: at the class that each run predicts.
        map_class: class whose logits and maps are compared, None without one.
        logit_change, spearman, cosine, top_iou, peak_shift: None where there is nothing to compare.
    """

    reason: str
    sample_id: str
    label: str | None
    old_prediction: str
    new_prediction: str
    flip: str
    old_confidence: float | None
    new_confidence: float | None
    confidence_change: float | None
    map_class: str | None
    logit_change: float | None
    spearman: float | None
    cosine: float | None
    top_iou: float | None
    peak_shift: float | None
