"""Pure numbers about two runs of the same samples, counted block by block: what moved, and how much."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from batchcam.record.distribution import Distribution
from batchcam.record.intervals import Interval, mcnemar
from batchcam.record.metrics import Means, PairCounts
from batchcam.record.study import Reason, named_counts

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
        old, new: predicted classes in the same numbering; -1 where NEW has none, which is broken whatever OLD said.
    """
    known = label >= 0
    conditions = [old == new, known & (new == label), (known & (old == label)) | (new < 0)]
    return np.select(conditions, [Flip.SAME, Flip.FIXED, Flip.BROKEN], Flip.CHANGED).astype(np.uint8)


def same_view(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return which crop boxes (n, 4) agree to a pixel on all edges, bool (n,)."""
    return np.asarray((np.abs(old.astype(np.float64) - new) <= PIXEL).all(1))


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Compared samples, one row each; classes in the common numbering, -1: none or not known.

    Attributes:
        old_row, new_row: rows of the runs, (n,).
        label: class that both runs state, (n,).
        old_prediction, new_prediction: predicted classes, (n,); -1 where NEW is not finite.
        flip: `Flip`, (n,); of multi-label runs the worst of `flips`: broken, else fixed, else changed.
        old_confidence, new_confidence: softmax at the class that the run itself predicts, (n,).
        map_class: class whose logits and maps are compared, (n,).
        old_logit, new_logit: of that class, (n,); NaN where a run does not have the class.
        pairing: `Pairing`, (n,).
        spearman, cosine, top_iou, peak_shift: of the maps, (n,); NaN where `pairing` is not `MEASURED`.
        labels: of multi-label runs, 1 or 0 for each class where both runs state it, else -1, (n, K); else (n, 0).
        flips: of multi-label runs, `Flip` of each class, `NOT_SHARED` where one run lacks it, (n, K); else (n, 0).
        mistake: how sure NEW is of what it broke, (n,): its confidence, in multi-label runs the logits from the
            threshold.
    """

    old_row: np.ndarray
    new_row: np.ndarray
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
    labels: np.ndarray
    flips: np.ndarray
    mistake: np.ndarray

    @property
    def confidence_change(self) -> np.ndarray:
        """New confidence minus old confidence, float64 (n,)."""
        return np.asarray(self.new_confidence.astype(np.float64) - self.old_confidence)

    @property
    def logit_change(self) -> np.ndarray:
        """New logit minus old logit of the class whose maps are compared, float64 (n,)."""
        return np.asarray(self.new_logit.astype(np.float64) - self.old_logit)

    @property
    def any_moved(self) -> bool:
        """Whether there is another prediction, confidence, logit or map."""
        changes = (self.flip, self.confidence_change, np.nan_to_num(self.logit_change))
        return any(c.any() for c in changes) or bool((self.spearman < 1).any() or (self.cosine < 1).any())

    def take(self, rows: np.ndarray) -> Pairs:
        """Return some of them, in the order of `rows`."""
        return Pairs(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


def joined(parts: Sequence[Pairs]) -> Pairs:
    """Return the samples of all parts, at least one, after each other."""
    names = [field.name for field in dataclasses.fields(Pairs)]
    return Pairs(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


NOT_SHARED: Final = 255


@dataclasses.dataclass(frozen=True)
class SampleTotals:
    """What moved over all compared samples of whatever runs; means are None without any sample.

    Attributes:
        compared: samples.
        not_finite: of these, in NEW alone: broken flips, and wrong.
        flips, flips_percent: predictions that are another class; in multi-label runs samples with a class that is at or
            above its threshold in one run alone.
        fixed, broken, changed: flips by kind.
        old_confidence, new_confidence: means, None of multi-label runs, where thresholds make them of unequal meaning.
        logit_change: mean, of the class whose maps are compared.
        maps: samples with a pair of maps.
        spearman, cosine, top_iou, peak_shift: means over these.
        spearman_deviation: their standard deviation.
        spearman_median, spearman_p10: half, and a tenth, of them lie below; of many maps to within 4e-5.
        without_maps: the other samples, by reason.
    """

    compared: int
    not_finite: int
    flips: int
    flips_percent: float | None
    fixed: int
    broken: int
    changed: int
    old_confidence: float | None
    new_confidence: float | None
    logit_change: float | None
    maps: int
    spearman: float | None
    spearman_deviation: float | None
    spearman_median: float | None
    spearman_p10: float | None
    cosine: float | None
    top_iou: float | None
    peak_shift: float | None
    without_maps: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Totals(SampleTotals):
    """What moved over all compared samples of single-label runs.

    Attributes:
        labelled: samples that have one label in both runs.
        old_accuracy, new_accuracy: share of these predicted right.
        accuracy_drop: old minus new, in percentage points.
        lost: right in OLD, wrong in NEW; the other way round they are `fixed`.
        p: of that, by McNemar's exact test, or where samples have clusters by exchange of whole ones; None without any.
    """

    labelled: int
    old_accuracy: float | None
    new_accuracy: float | None
    accuracy_drop: float | None
    lost: int
    p: float | None


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
        spearman_deviation: standard deviation of the similarity, None of less than two pairs.
        intervals: of the drop of accuracy and of the similarity, by name, where there are any.
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
    spearman_deviation: float | None
    intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)

    @property
    def accuracy_drop(self) -> float | None:
        """Accuracy lost, in percentage points, None without labels."""
        return 100 * (self.old_correct - self.new_correct) / self.labelled if self.labelled else None

    @property
    def rank(self) -> tuple[object, ...]:
        """What tables are sorted by: the largest loss of accuracy first, then the least alike maps."""
        return -(self.accuracy_drop or 0), math.inf if self.spearman is None else self.spearman, self.name


@dataclasses.dataclass(frozen=True)
class Transition:
    """How many samples went from one predicted class to another."""

    old: str
    new: str
    count: int


CLASS_MEANS: Final = ("logit_change", "spearman", "cosine", "top_iou", "peak_shift")
MEANS: Final = ("old_confidence", "new_confidence", *CLASS_MEANS)
"""Columns of `Pairs` whose means are told, by class and of all."""


class Movement:
    """What moved over all compared samples, counted block by block.

    Args:
        names: of the classes, by the common numbering.
        most: samples of each reason to keep as movers.

    Attributes:
        similarity, confidence_change: how they are spread among samples that kept their predicted class, and among
            those that did not.
        moved: whether any sample has another prediction, confidence, logit or map.
    """

    def __init__(self, names: tuple[str, ...], most: int = 0) -> None:
        self._names, self._most = names, most
        self._compared = self._not_finite = 0
        self._flips, self._pairings = np.zeros(len(Flip), np.int64), np.zeros(len(Pairing), np.int64)
        self._counts = np.zeros((9, len(names)), np.int64)
        self._means = {name: Means(len(names)) for name in MEANS}
        self.predicted = PairCounts(len(names))
        self.similarity, self.confidence_change = (tuple(Distribution(-1, 1) for _ in range(2)) for _ in range(2))
        self.moved = False
        self._movers: Pairs | None = None

    def add(self, pairs: Pairs) -> None:
        """Count the compared samples that come next."""
        finite = pairs.new_prediction >= 0
        self._compared += len(finite)
        self._not_finite += int((~finite).sum())
        self._flips += np.bincount(pairs.flip, minlength=len(Flip))
        self._pairings += np.bincount(pairs.pairing, minlength=len(Pairing))
        self._counts += self._by_class(pairs)
        self.predicted.add(pairs.old_prediction[finite], pairs.new_prediction[finite])
        self.moved = self.moved or pairs.any_moved
        for name, means in self._means.items():
            means.add(getattr(pairs, name), pairs.map_class)
        for flipped in (False, True):
            rows = (pairs.flip != Flip.SAME) == flipped
            self.similarity[flipped].add(pairs.spearman[rows])
            self.confidence_change[flipped].add(pairs.confidence_change[rows])
        some = pairs if self._movers is None else joined((self._movers, pairs))
        self._movers = some.take(_candidates(some, self._most))

    def _by_class(self, pairs: Pairs) -> list[np.ndarray]:
        """Return the counts of `ClassMovement` in its order, (K,) each."""
        label, old, new, flip = pairs.label, pairs.old_prediction, pairs.new_prediction, pairs.flip
        chosen = (
            label,
            label[old == label],
            label[new == label],
            label[flip == Flip.FIXED],
            label[flip == Flip.BROKEN],
            old,
            new,
            old[old != new],
            pairs.map_class[pairs.pairing == Pairing.MEASURED],
        )
        return [np.bincount(classes[classes >= 0], minlength=len(self._names)) for classes in chosen]

    def of_samples(self) -> dict[str, Any]:
        """Return what `SampleTotals` says."""
        kinds, alike = self._flips.tolist(), self.similarity[0].joined(self.similarity[1])
        flips = self._compared - kinds[Flip.SAME]
        return {
            "compared": self._compared,
            "not_finite": self._not_finite,
            "flips": flips,
            "flips_percent": 100 * flips / self._compared if self._compared else None,
            **{kind.name.lower(): kinds[kind] for kind in (Flip.FIXED, Flip.BROKEN, Flip.CHANGED)},
            "maps": int(self._pairings[Pairing.MEASURED]),
            "spearman_deviation": self._means["spearman"].deviation,
            "spearman_median": alike.quantile(0.5),
            "spearman_p10": alike.quantile(0.1),
            "without_maps": named_counts(Pairing, self._pairings),
            **{name: means.of_all for name, means in self._means.items()},
        }

    def totals(self) -> Totals:
        """Return what moved over all samples of single-label runs."""
        labelled, old, new = self._counts[:3].sum(1).tolist()
        fixed = int(self._flips[Flip.FIXED])
        lost = old - new + fixed
        return Totals(
            labelled=labelled,
            old_accuracy=old / labelled if labelled else None,
            new_accuracy=new / labelled if labelled else None,
            accuracy_drop=100 * (old - new) / labelled if labelled else None,
            lost=lost,
            p=mcnemar(lost, fixed) if labelled else None,
            **self.of_samples(),
        )

    def classes(self) -> list[ClassMovement]:
        """Return what moved for each class."""
        means = (self._means[name].of_classes for name in CLASS_MEANS)
        columns = (self._names, *self._counts.tolist(), *means, self._means["spearman"].deviations)
        return [ClassMovement(*row) for row in zip(*columns, strict=True)]

    def transitions(self, most: int) -> list[Transition]:
        """Return the most frequent flips, equal ones by class."""
        flips = ((old, new, count) for old, new, count in self.predicted.most_frequent() if old != new)
        return [
            Transition(self._names[old], self._names[new], count) for old, new, count in itertools.islice(flips, most)
        ]

    def movers(self) -> Iterator[tuple[Pairs, int, str]]:
        """Yield the samples that moved most, as `movers` chooses them: some pairs, the row among them, the reason."""
        if self._movers is not None:
            yield from ((self._movers, row, reason) for row, reason in movers(self._movers, self._most))


def movers(pairs: Pairs, most: int) -> Iterator[tuple[int, str]]:
    """Yield the samples that moved most, each once under its first reason: row and reason.

    Broken ones first, the most confident mistake first; then those whose maps are least alike; then those that lost
    most confidence.

    Args:
        pairs: the compared samples.
        most: samples of each reason.
    """
    taken = np.zeros(len(pairs.flip), bool)
    for reason, values, chosen in _reasons(pairs):
        rows = np.flatnonzero(chosen & ~taken)
        rows = rows[np.argsort(values[rows], kind="stable")[:most]]
        taken[rows] = True
        yield from ((row, reason) for row in rows.tolist())


def _reasons(pairs: Pairs) -> tuple[tuple[str, np.ndarray, np.ndarray], ...]:
    """Return each reason with the values by which it ranks, the smallest first, and the samples that it holds for."""
    return (
        ("broken", -pairs.mistake, pairs.flip == Flip.BROKEN),
        ("similarity", pairs.spearman, pairs.spearman < 1),  # a NaN is not below 1
        ("confidence", pairs.confidence_change, pairs.confidence_change < 0),
    )


def _candidates(pairs: Pairs, most: int) -> np.ndarray:
    """Return the rows that `movers` can choose whatever other samples there are: earlier reasons take some of each."""
    found = []
    for place, (_, values, chosen) in enumerate(_reasons(pairs), start=1):
        rows = np.flatnonzero(chosen)
        found.append(rows[np.argsort(values[rows], kind="stable")[: place * most]])
    return np.unique(np.concatenate(found))


@dataclasses.dataclass(frozen=True)
class Mover:
    """A sample that moved far.

    Attributes:
        reason: broken, similarity or confidence.
        sample_id: of the sample.
        label: class that both runs state, None where they do not; of multi-label runs all such, as `a|b`.
        old_prediction, new_prediction: predicted classes, None where NEW is not finite.
        flip: what became of the prediction; of multi-label runs of which classes, as `broken a|b; fixed c`.
        old_confidence, new_confidence, confidence_change: at the class that each run predicts.
        map_class: class whose logits and maps are compared, None without one.
        logit_change, spearman, cosine, top_iou, peak_shift: None where there is nothing to compare.
        new_sample_id: its id in the new run, None where that is the same.
    """

    reason: str
    sample_id: str
    label: str | None
    old_prediction: str
    new_prediction: str | None
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
    new_sample_id: str | None
