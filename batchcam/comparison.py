"""Pure numbers about two runs of the same samples: who is whom, what moved, how much, and whether that is too much."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from batchcam.errors import ConfigError, one_line
from batchcam.rules import Status

NAMED_CLASSES: Final = 10  # that an error lists
PIXEL: Final = 1.0
"""Views of the network whose edges differ by no more are one."""


class Apart(enum.IntEnum):
    """Why a sample id of either run is not compared."""

    COMPARED = 0
    ADDED = 1
    REMOVED = 2
    CHANGED_INPUT = 3
    UNREADABLE_IN_BOTH = 4
    UNREADABLE_IN_OLD = 5
    UNREADABLE_IN_NEW = 6
    NOT_FINITE_IN_BOTH = 7
    NOT_FINITE_IN_OLD = 8
    NOT_FINITE_IN_NEW = 9


class Flip(enum.IntEnum):
    """What became of a prediction; `CHANGED`: from wrong to another wrong class, or without a label to judge it by."""

    SAME = 0
    FIXED = 1
    BROKEN = 2
    CHANGED = 3


class Pairing(enum.IntEnum):
    """Whether a compared sample has a pair of maps, and why not."""

    MEASURED = 0
    NO_CLASS = 1
    NOT_STORED = 2
    OTHER_VIEW = 3
    NOT_FINITE = 4
    CONSTANT_IN_BOTH = 5
    CONSTANT_IN_OLD = 6
    CONSTANT_IN_NEW = 7


def words(member: enum.IntEnum) -> str:
    """Return the name of a reason or kind as people read it."""
    return member.name.lower().replace("_", " ")


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of two runs under one numbering.

    Attributes:
        names: the old run's, then those that only the new one has.
        old, new: number of each class of a run, int64 (K,).
        only_old, only_new: names that one run alone has.
    """

    names: tuple[str, ...]
    old: np.ndarray
    new: np.ndarray
    only_old: tuple[str, ...] = ()
    only_new: tuple[str, ...] = ()

    def number(self, classes: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Return a run's class indices in the common numbering, -1 as it is; `of` is `old` or `new`."""
        return np.asarray(np.append(of, -1)[classes])

    def index(self, numbers: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Return classes of the common numbering as a run's indices, -1 for those that it does not have."""
        indices = np.full(len(self.names) + 1, -1)
        indices[of] = np.arange(len(of))
        return np.asarray(indices[numbers])


def match_classes(old: tuple[str, ...], new: tuple[str, ...], shared_only: bool) -> Classes:
    """Return the classes of two runs matched by name.

    Args:
        old, new: names by class index.
        shared_only: go on where one run has classes that the other has not.

    Raises:
        ConfigError: the names differ and that is not wanted, none is shared, or one stands twice in differing lists.
    """
    if old == new:
        return Classes(old, np.arange(len(old)), np.arange(len(new)))
    if len(set(old)) < len(old) or len(set(new)) < len(new):
        raise ConfigError("class names differ and one stands twice, so that they can't be matched by name")
    only_old, only_new = (tuple(n for n in a if n not in set(b)) for a, b in ((old, new), (new, old)))
    if len(only_old) == len(old):
        raise ConfigError(f"no class is in both runs: OLD has {_listed(old)}; NEW has {_listed(new)}")
    if (only_old or only_new) and not shared_only:
        sides = [f"only in {side}: {_listed(names)}" for side, names in (("OLD", only_old), ("NEW", only_new)) if names]
        raise ConfigError(f"classes differ; {'; '.join(sides)}; --shared-classes compares those that both have")
    names = old + only_new
    numbers = {name: number for number, name in enumerate(names)}
    return Classes(names, np.arange(len(old)), np.array([numbers[name] for name in new]), only_old, only_new)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_CLASSES} more" if len(names) > NAMED_CLASSES else ""
    return ", ".join(map(one_line, names[:NAMED_CLASSES])) + more


@dataclasses.dataclass(frozen=True)
class Matching:
    """Rows of two runs that have the same sample id, and rows whose id the other run has not; int64, old rows ascend.

    Attributes:
        old, new: rows of each pair, (n,).
        removed: other rows of the old run.
        added: other rows of the new run.
    """

    old: np.ndarray
    new: np.ndarray
    removed: np.ndarray
    added: np.ndarray


def match_ids(old: np.ndarray, new: np.ndarray) -> Matching:
    """Return which rows have the same sample id; by sorting, so that a million of them take no objects.

    Args:
        old, new: encoded ids, type S(width), each once.

    Raises:
        ValueError: an id stands twice on one side.
    """
    for ids, side in ((old, "OLD"), (new, "NEW")):
        ordered = ids[np.argsort(ids, kind="stable")]  # fast where ids are in order already, as they mostly are
        if (ordered[1:] == ordered[:-1]).any():
            raise ValueError(f"a sample id stands twice in {side}")
    order = np.argsort(new, kind="stable")
    place = np.minimum(np.searchsorted(new, old, sorter=order), len(new) - 1)
    partner = order[place]
    found = new[partner] == old
    added = np.ones(len(new), bool)
    added[partner[found]] = False
    return Matching(np.flatnonzero(found), partner[found], np.flatnonzero(~found), np.flatnonzero(added))


def why_apart(
    old_status: np.ndarray, new_status: np.ndarray, old_usable: np.ndarray, new_usable: np.ndarray, same: np.ndarray
) -> np.ndarray:
    """Return for pairs of one id why they are not compared, uint8 (n,) of `Apart`; the first reason in its order.

    Args:
        old_status, new_status: flags of each row.
        old_usable, new_usable: which rows have a prediction.
        same: which pairs have the same input.
    """
    old_bad, new_bad = ((status & Status.UNREADABLE) > 0 for status in (old_status, new_status))
    old_nan, new_nan = (
        ((status & Status.NON_FINITE) > 0) | ~usable
        for status, usable in ((old_status, old_usable), (new_status, new_usable))
    )
    conditions = (
        (old_bad & new_bad, Apart.UNREADABLE_IN_BOTH),
        (old_bad, Apart.UNREADABLE_IN_OLD),
        (new_bad, Apart.UNREADABLE_IN_NEW),
        (~same, Apart.CHANGED_INPUT),
        (old_nan & new_nan, Apart.NOT_FINITE_IN_BOTH),
        (old_nan, Apart.NOT_FINITE_IN_OLD),
        (new_nan, Apart.NOT_FINITE_IN_NEW),
    )
    return np.select([c for c, _ in conditions], [r for _, r in conditions], Apart.COMPARED).astype(np.uint8)


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
    reasons = np.bincount(pairs.pairing, minlength=len(Pairing)).tolist()
    order = pairs.spearman[pairs.pairing == Pairing.MEASURED]
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
        maps=reasons[Pairing.MEASURED],
        spearman=mean(pairs.spearman),
        spearman_median=median,
        spearman_p10=tenth,
        cosine=mean(pairs.cosine),
        top_iou=mean(pairs.top_iou),
        peak_shift=mean(pairs.peak_shift),
        without_maps={words(p): reasons[p] for p in Pairing if p != Pairing.MEASURED and reasons[p]},
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
    told = np.zeros(len(pairs.flip), bool)
    for reason, values, chosen in reasons:
        rows = np.flatnonzero(chosen & ~told)
        rows = rows[np.argsort(values[rows], kind="stable")[:most]]
        told[rows] = True
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
