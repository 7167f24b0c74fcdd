"""What gates judge: what moved as values of all samples, classes or groups, each with its interval and its words."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from batchcam.commands.compare.groups import GroupMovement
from batchcam.commands.compare.matching import Apart
from batchcam.commands.compare.movement import ClassMovement, SampleTotals, Totals
from batchcam.commands.compare.sigmoids import SigmoidChange, SigmoidGroupMovement, SigmoidMovement, SigmoidTotals
from batchcam.job.console import counted
from batchcam.record.clusters import INDEPENDENT, Design, auroc_interval_of_clusters
from batchcam.record.groups import group_name
from batchcam.record.intervals import Interval, auroc_interval
from batchcam.rules import FEWEST_IN_GROUP

FEWEST_OF_CLASS: Final = 10
"""Pairs of maps, or predictions, below which a class is not judged."""

ABSENT: Final = "of which there is nothing to judge"
BOTH_LABELS: Final = "of a class that both label, some yes and some no"
OPPOSITE: Final = {"a drop of": "a rise of", "a rise of": "a drop of"}


@dataclasses.dataclass(frozen=True)
class Moved:
    """What gates judge.

    Attributes:
        totals: what moved.
        classes: what moved for each class.
        groups: what moved in each group.
        samples: of OLD.
        labelled: of these, with a label; all of multi-label runs.
        apart: how many ids of either run are not compared, by reason.
        setup: in what the runs' set-ups differ.
        designs: where samples have clusters, of what is told, by its name and the place of the class, -1: of all.
    """

    totals: Totals | SigmoidTotals
    classes: Sequence[ClassMovement | SigmoidMovement]
    groups: Sequence[GroupMovement | SigmoidGroupMovement]
    samples: int
    labelled: int
    apart: Mapping[str, int]
    setup: Sequence[str] = ()
    designs: Mapping[tuple[str, int], Design] = dataclasses.field(default_factory=dict)

    def design(self, name: str, place: int = -1) -> Design:
        """Return the design of what is told of all samples, or of the class at a place."""
        return self.designs.get((name, place), INDEPENDENT)

    @property
    def left_out(self) -> dict[str, int]:
        """OLD's samples that are not compared, by reason, the runs by the names that they have on the command line."""
        return named({reason: count for reason, count in self.apart.items() if reason != Apart.ADDED.text})

    @property
    def compared_text(self) -> str:
        """How many of OLD's samples could be compared, and why not the others."""
        return f"{self.totals.compared} of {self.samples} samples could be compared{because(self.left_out)}"


@dataclasses.dataclass(frozen=True)
class Value:
    """What is judged of all samples, of a class or of a group.

    Attributes:
        value: found.
        count: of what the value is.
        bounds: its interval at a level, in units of 1 / `scale`.
        before, after: words around the number.
        either_way: whether the value is that of a change without its sign, of 100 at most.
    """

    value: float
    count: int
    bounds: Callable[[float], tuple[float, float] | None]
    before: str
    after: str
    scale: float = 100
    either_way: bool = False

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval at a level of confidence, all numbers where none is known."""
        low, high = (self.scale * end for end in self.bounds(level) or (-math.inf, math.inf))
        return (max(low, 0.0), min(max(high, -low), 100.0)) if self.either_way else (low, high)

    def text(self, low: float, high: float) -> str:
        """Return what was found, with its interval; a drop below 0 is a rise."""
        value, before = self.value, self.before
        if value < 0 and before in OPPOSITE:
            value, low, high, before = -value, -high, -low, OPPOSITE[before]
        interval = f" ({low:.3g} to {high:.3g})" if math.isfinite(low) else ""
        return f"{before} {value:.6g}{interval} {self.after}".strip()


@dataclasses.dataclass(frozen=True)
class Found:
    """The values that a gate judges, what did not count, and what there is none of where there are no values."""

    values: Sequence[Value]
    not_judged: dict[str, int]
    missing: str


def _flips(moved: Moved) -> Found:
    t = moved.totals
    flipped = "have a class told otherwise" if isinstance(t, SigmoidTotals) else "flipped"
    lost = f", {t.not_finite} of them as NEW is not finite" if t.not_finite else ""
    after = f"% of {t.compared} compared samples {flipped}{lost}"
    values = _rate(t.flips, t.compared, "", after, moved.design("flips"))
    return Found(values, moved.left_out, "compared")


def _rate(part: int, whole: int, before: str, after: str, design: Design) -> list[Value]:
    bounds = functools.partial(design.wilson, part, whole)
    return [Value(100 * part / whole, whole, bounds, before, after)] if whole else []


def _accuracy(name: str, moved: Moved) -> Found:
    t = moved.totals
    assert isinstance(t, Totals)
    right = round((getattr(t, name) or 0) * t.labelled)
    after = f"% on {t.labelled} labelled samples"
    values = _rate(right, t.labelled, "accuracy of", after, moved.design(name))
    return Found(values, _unlabelled(moved, t), "labelled in both")


def _accuracy_change(sign: int, moved: Moved) -> Found:
    t = moved.totals
    assert isinstance(t, Totals)
    after = f"points on {t.labelled} labelled samples"
    if t.p is not None:
        after += f" (exact McNemar p {t.p:.2g})"
    values = _drop(t.lost, t.fixed, t.labelled, after, moved.design("accuracy_drop"), sign)
    return Found(values, _unlabelled(moved, t), "labelled in both")


def _drop(lost: int, won: int, count: int, after: str, design: Design, sign: int = 1) -> list[Value]:
    """Return accuracy lost, in points, of paired samples; a sign of -1: gained."""
    if not count:
        return []
    pair, before = ((lost, won), "a drop of") if sign > 0 else ((won, lost), "a rise of")
    bounds = functools.partial(design.paired, *pair, count)
    return [Value(100 * (pair[0] - pair[1]) / count, count, bounds, before, after)]


def _accuracy_lost(of: ClassMovement | GroupMovement, design: Design, after: str) -> list[Value]:
    lost = of.old_correct - of.new_correct + of.fixed
    return _drop(lost, of.fixed, of.labelled, after, design)


def _unlabelled(moved: Moved, t: Totals) -> dict[str, int]:
    without = t.compared - t.labelled
    return moved.left_out | ({"without one label in both": without} if without else {})


def _mean_auroc(moved: Moved) -> Found:
    t = moved.totals
    assert isinstance(t, SigmoidTotals)
    if t.auroc_drop is None:
        return Found([], moved.left_out, BOTH_LABELS)
    fewest = sum(c.fewest for c in moved.classes if isinstance(c, SigmoidMovement))
    clusters = moved.design("flips").clusters
    bounds = _auroc_bounds(t.auroc_drop, t.auroc_error, min(fewest, clusters or fewest), clusters is not None)
    after = f"points of the mean AUROC over {counted(t.macro['auroc'].classes, 'class')}"
    return Found([Value(t.auroc_drop, t.compared, bounds, "a drop of", after)], moved.left_out, BOTH_LABELS)


def _class_aurocs(changes: Sequence[SigmoidChange]) -> Found:
    values = [_auroc(c, c.auroc_drop) for c in changes if c.is_judged and c.auroc_drop is not None]
    absent = sum(not c.old.known for c in changes)
    few = f"with fewer than {FEWEST_IN_GROUP} labels, or no yes, or no no"
    left_out = _some({few: len(changes) - len(values) - absent, ABSENT: absent})
    return Found(values, left_out, f"{BOTH_LABELS} with {FEWEST_IN_GROUP} labels")


def _auroc(c: SigmoidChange, drop: float) -> Value:
    bounds = _auroc_bounds(drop, c.auroc_error, c.fewest, c.clustered)
    after = f"points of AUROC on {counted(c.old.known, 'label')} of {group_name(c.named)}"
    return Value(drop, c.old.known, bounds, "a drop of", after)


def _auroc_bounds(drop: float, error: float | None, fewest: int, clustered: bool) -> Callable[[float], Interval | None]:
    interval: Callable[..., Interval | None] = auroc_interval_of_clusters if clustered else auroc_interval
    return functools.partial(interval, drop / 100, error or 0, fewest)


def _similarity(moved: Moved) -> Found:
    t = moved.totals
    values = _mean_similarity(t, f"over {t.maps} pairs of maps", moved.design("spearman"))
    return Found(values, moved.left_out | named(t.without_maps), "with a map in both")


def _mean_similarity(
    of: Totals | SigmoidTotals | ClassMovement | SigmoidMovement, after: str, design: Design
) -> list[Value]:
    if of.spearman is None:
        return []
    bounds = functools.partial(design.mean, of.spearman, of.spearman_deviation or 0, of.maps)
    return [Value(of.spearman, of.maps, bounds, "mean similarity", after, scale=1)]


def _class_similarities(moved: Moved) -> Found:
    there = [(place, c) for place, c in enumerate(moved.classes) if c.maps or not _is_absent(c)]
    values = []
    for place, c in ((place, c) for place, c in there if c.maps >= FEWEST_OF_CLASS):
        after = f"over {c.maps} pairs of maps of {c.name}"
        values += _mean_similarity(c, after, moved.design("spearman", place))
    few = {f"with fewer than {FEWEST_OF_CLASS} pairs of maps": len(there) - len(values)}
    return Found(values, _some(few | _absent(moved, there)), f"of a class with {FEWEST_OF_CLASS} pairs of maps")


def _absent(moved: Moved, there: Sequence[object]) -> dict[str, int]:
    return {ABSENT: len(moved.classes) - len(there)}


def _is_absent(c: ClassMovement | SigmoidMovement) -> bool:
    """Return whether no sample is of a class, nor predicted as it: nothing of it can be judged."""
    if isinstance(c, SigmoidMovement):
        return not (c.old.yes or c.old.predicted or c.new.predicted)
    return not (c.labelled or c.old_predicted or c.new_predicted)


def _count_shifts(moved: Moved) -> Found:
    there = [(place, c) for place, c in enumerate(moved.classes) if not _is_absent(c)]
    values = [v for place, c in there for v in _count_shift(c, moved.totals.compared, moved.design("shift", place))]
    few = {f"with fewer than {FEWEST_OF_CLASS} predictions in either run": len(there) - len(values)}
    missing = f"predicted as a class that has {FEWEST_OF_CLASS} predictions in a run"
    return Found(values, _some(few | _absent(moved, there)), missing)


def _count_shift(c: ClassMovement | SigmoidMovement, compared: int, design: Design) -> list[Value]:
    """Return how much more or less often a class is predicted, in per cent of the larger count, if it is judged."""
    if isinstance(c, SigmoidMovement):
        old, new, moved = c.old.predicted, c.new.predicted, c.flips
    else:
        old, new, moved = c.old_predicted, c.new_predicted, 2 * c.left + c.new_predicted - c.old_predicted
    if max(old, new) < FEWEST_OF_CLASS:
        return []
    more, fewer = (moved + abs(new - old)) // 2, (moved - abs(new - old)) // 2
    bounds = functools.partial(design.paired, more, fewer, compared)
    after = f"% {'more' if new > old else 'fewer'} samples predicted as {c.name}, {old} → {new}"
    share, scale = 100 * abs(new - old) / max(old, new), 100 * compared / max(old, new)
    return [Value(share, compared, bounds, "", after, scale, either_way=True)]


def _group_drops(moved: Moved) -> Found:
    changes = [m for m in moved.groups if isinstance(m, SigmoidGroupMovement)]
    if changes:
        return _class_aurocs(changes)
    groups = [m for m in moved.groups if isinstance(m, GroupMovement)]
    values = []
    for m in (m for m in groups if m.is_judged):
        values += _accuracy_lost(m, m.design, f"points on {m.labelled} labelled samples of {group_name(m.group)}")
    few = _some({f"with fewer than {FEWEST_IN_GROUP} labelled samples": len(groups) - len(values)})
    return Found(values, few, f"of a group with {FEWEST_IN_GROUP} samples labelled in both")


FOUND: Final[Mapping[str, Callable[[Moved], Found]]] = {
    "max_flips": _flips,
    "max_accuracy_drop": functools.partial(_accuracy_change, 1),
    "max_accuracy_rise": functools.partial(_accuracy_change, -1),
    "min_accuracy": functools.partial(_accuracy, "new_accuracy"),
    "max_auroc_drop": _mean_auroc,
    "max_class_auroc_drop": lambda moved: _class_aurocs([c for c in moved.classes if isinstance(c, SigmoidChange)]),
    "min_cam_similarity": _similarity,
    "min_class_similarity": _class_similarities,
    "max_count_shift": _count_shifts,
    "max_group_drop": _group_drops,
}
"""What each gate judges."""

TOLD: Final[Mapping[str, tuple[Callable[[Moved], Found], type[SampleTotals]]]] = {
    "flips_percent": (_flips, SampleTotals),
    "old_accuracy": (functools.partial(_accuracy, "old_accuracy"), Totals),
    "new_accuracy": (functools.partial(_accuracy, "new_accuracy"), Totals),
    "accuracy_drop": (functools.partial(_accuracy_change, 1), Totals),
    "auroc_drop": (_mean_auroc, SigmoidTotals),
    "spearman": (_similarity, SampleTotals),
}
"""What intervals are told of, of which kind of totals."""


def intervals(moved: Moved, confidence: float) -> dict[str, Interval]:
    """Return the intervals of what moved over all samples by name; accuracies, drops and flips in per cent."""
    found = {}
    for name, (find, kind) in TOLD.items():
        for value in find(moved).values if isinstance(moved.totals, kind) else ():
            low, high = value.interval(confidence / 100)
            if math.isfinite(low):
                found[name] = low, high
    return found


def with_intervals(moved: Moved, rows: Sequence[Any], level: float) -> list[Any]:
    """Return classes, or groups, with the intervals of what moved in each."""
    return [
        dataclasses.replace(row, intervals=_row_intervals(moved, row, place, level)) for place, row in enumerate(rows)
    ]


def _row_intervals(
    moved: Moved, row: ClassMovement | GroupMovement | SigmoidChange, place: int, level: float
) -> dict[str, Interval]:
    found = {}
    if isinstance(row, SigmoidChange):
        found["auroc_drop"] = [] if row.auroc_drop is None else [_auroc(row, row.auroc_drop)]
    else:
        design = row.design if isinstance(row, GroupMovement) else moved.design("accuracy_drop", place)
        found["accuracy_drop"] = _accuracy_lost(row, design, "")
    if isinstance(row, (ClassMovement, SigmoidMovement)):
        found["spearman"] = _mean_similarity(row, "", moved.design("spearman", place))
    intervals = {name: value.interval(level) for name, values in found.items() for value in values}
    return {name: ends for name, ends in intervals.items() if math.isfinite(ends[0])}


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}


def named(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts by reason, the runs by the names that they have on the command line."""
    return {reason.replace(" in old", " in OLD").replace(" in new", " in NEW"): n for reason, n in counts.items()}


def count_texts(counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(f"{n} {reason}" for reason, n in counts.items())


def because(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(count_texts(counts))})" if counts else ""
