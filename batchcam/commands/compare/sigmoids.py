"""What moved between two multi-label runs, class by class: each is at or above its run's threshold, or is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from batchcam.commands.compare.movement import (
    CLASS_MEANS,
    NOT_SHARED,
    Flip,
    Movement,
    Pairing,
    Pairs,
    SampleTotals,
    judge,
)
from batchcam.commands.compare.reading import Advance, Part, Sides, measure, target_classes
from batchcam.record.clusters import ClusterMeans, auroc_influence_of_clusters
from batchcam.record.intervals import Interval, auroc_influence, placements
from batchcam.record.metrics import Means
from batchcam.record.sigmoid_scores import SCORES, SigmoidScore, SigmoidScores
from batchcam.rules import FEWEST_IN_GROUP
from batchcam.store.run import Run

LARGEST: Final = np.finfo(np.float32).max
WORST: Final = (Flip.BROKEN, Flip.FIXED, Flip.CHANGED)


@dataclasses.dataclass(frozen=True)
class SigmoidChange:
    """What moved for one class over some compared samples.

    Attributes:
        name: of the class.
        old, new: its scores in each run, at the run's own threshold, by the labels that both runs state.
        change: new minus old of each of `SCORES`, None where either is.
        auroc_error: standard error of the change of AUROC, by DeLong; None likewise.
        fewest: labels of yes or of no, whichever are fewer; where samples have clusters, those that have one.
        clustered: whether they do.
        flips: samples at or above the threshold in one run alone.
        fixed, broken, changed: of these, by kind; changed where the runs state no label.
        intervals: of the drop of AUROC, and of the similarity of its maps, by name, where there are any.
    """

    name: str
    old: SigmoidScore
    new: SigmoidScore
    change: dict[str, float | None]
    auroc_error: float | None
    fewest: int
    clustered: bool
    flips: int
    fixed: int
    broken: int
    changed: int
    intervals: dict[str, Interval] = dataclasses.field(default_factory=dict, kw_only=True)

    @property
    def auroc_drop(self) -> float | None:
        """AUROC lost, in points of 0.01; None without a yes or a no."""
        change = self.change["auroc"]
        return None if change is None else 0 - 100 * change

    @property
    def is_judged(self) -> bool:
        """Whether there are enough labels, and both a yes and a no."""
        return self.old.known >= FEWEST_IN_GROUP and self.auroc_drop is not None

    @property
    def named(self) -> tuple[str, ...]:
        """What tables name the row by."""
        return (self.name,)

    @property
    def rank(self) -> tuple[object, ...]:
        """What tables are sorted by: the largest loss of AUROC first, then the most flips."""
        return not self.is_judged, -(self.auroc_drop or 0), -self.flips, self.name


@dataclasses.dataclass(frozen=True)
class SigmoidMovement(SigmoidChange):
    """What moved for one class over all compared samples.

    Attributes:
        maps: pairs of its maps, over the samples where it stands at or above its threshold, or highest of all, in the
            run that `--target` says.
        logit_change, spearman, cosine, top_iou, peak_shift: means over these, or None.
        spearman_deviation: standard deviation of the similarity, None of less than two pairs.
    """

    maps: int
    logit_change: float | None
    spearman: float | None
    cosine: float | None
    top_iou: float | None
    peak_shift: float | None
    spearman_deviation: float | None


@dataclasses.dataclass(frozen=True)
class SigmoidGroupMovement(SigmoidChange):
    """What moved for one class in one group; `compared`: samples of the group."""

    group: tuple[str, ...]
    compared: int

    @property
    def named(self) -> tuple[str, ...]:
        """What tables name the row by."""
        return *self.group, self.name


@dataclasses.dataclass(frozen=True)
class Macro:
    """The mean of a score over the `classes` that have it in both runs, and new minus old."""

    classes: int
    old: float
    new: float
    change: float


@dataclasses.dataclass(frozen=True)
class SigmoidTotals(SampleTotals):
    """What moved over all compared samples of multi-label runs.

    Attributes:
        labels: of all classes, how many both runs state.
        class_flips: flips of all classes.
        macro: of each of `SCORES` that any class has.
        auroc_error: standard error of the mean's change of AUROC, by DeLong; None without one.
    """

    labels: int
    class_flips: int
    macro: dict[str, Macro]
    auroc_error: float | None

    @property
    def auroc_drop(self) -> float | None:
        """Mean AUROC lost, in points of 0.01; None where no class has one."""
        return 0 - 100 * self.macro["auroc"].change if "auroc" in self.macro else None


@dataclasses.dataclass(frozen=True)
class Told:
    """What two runs say of the classes that they share.

    Attributes:
        labels: 1 or 0 where both state it, else -1, int8 (n, K).
        old, new: logits, (n, K); of samples that are not finite in NEW those of the worst answer.
        old_above, new_above: which are at or above the run's own threshold, (n, K).
        flips: `Flip`, (n, K).
        otherwise: whether they label any class otherwise, bool (n,).
    """

    labels: np.ndarray
    old: np.ndarray
    new: np.ndarray
    old_above: np.ndarray
    new_above: np.ndarray
    flips: np.ndarray
    otherwise: np.ndarray


class SigmoidPairs:
    """What moved for the classes that two multi-label runs share, counted part by part: 11 bytes are kept of a label.

    Args:
        sides: the runs.

    Attributes:
        moved: whether any logit is another one.
        relabelled: samples of which the runs label a class otherwise.
        similarity, shifts: where samples have clusters, means by class: of the maps' similarity, and of how much more
            often it is predicted.
    """

    def __init__(self, sides: Sides) -> None:
        classes, self._sides = sides.classes, sides
        self._shared = np.intersect1d(classes.old, classes.new)
        names = [classes.names[k] for k in self._shared]
        self._runs: list[tuple[Run, np.ndarray, np.ndarray]] = []
        self._scores: list[SigmoidScores] = []
        for run, of in ((sides.old, classes.old), (sides.new, classes.new)):
            places = classes.index(self._shared, of)
            thresholds = [run.plan.thresholds[k] for k in places]
            self._scores.append(SigmoidScores(names, thresholds, together=False))
            self._runs.append((run, places, np.asarray(run.plan.threshold_logits)[places]))
        self._flips = [np.empty((0, len(names)), np.uint8)]
        self._maps = np.zeros(len(classes.names), np.int64)
        self._means = {name: Means(len(classes.names)) for name in CLASS_MEANS}
        self._clusters, self._clustered = [np.empty(0, np.int64)], False
        self.similarity, self.shifts = ClusterMeans(), ClusterMeans()
        self.moved, self.relabelled = False, 0

    def read(self, part: Part) -> Told:
        """Return what the runs say of the shared classes of some samples.

        Raises:
            RunError: a run can't be read.
        """
        pairs = zip(self._runs, (part.old_rows, part.new_rows), strict=True)
        (old_labels, old), (new_labels, new) = (_read(run, rows, places) for (run, places, _), rows in pairs)
        labels = np.where(old_labels == new_labels, old_labels, -1)
        lost = part.new["prediction"] < 0  # in NEW each yes is ranked last, each no first
        new[lost] = np.where(labels[lost] == 0, LARGEST, -LARGEST)
        old_above, new_above = (logits >= least for logits, (*_, least) in zip((old, new), self._runs, strict=True))
        flips = np.where(lost[:, None], Flip.BROKEN, judge(labels, old_above, new_above)).astype(np.uint8)
        otherwise = ((old_labels >= 0) & (new_labels >= 0) & (old_labels != new_labels)).any(1)
        return Told(labels, old, new, old_above, new_above, flips, otherwise)

    def measure(
        self, part: Part, highest: np.ndarray, target: str, advance: Advance, clusters: np.ndarray | None = None
    ) -> Pairs:
        """Count compared samples, and return what moved for each of them.

        Args:
            part: the samples.
            highest: class of each that stands highest above its threshold in a run, -1: there is none, OLD's counts.
            target: that run, `old` or `new`: maps are compared of these classes, and by class of all that stand above.
            advance: told how many rows are read.
            clusters: number of each one's, int64 (n,).

        Raises:
            RunError: a run can't be read.
        """
        told = self.read(part)
        highest = np.where(highest < 0, target_classes(part, self._sides.classes, highest, "old"), highest)
        chosen = self._of_all(told.old_above if target == "old" else told.new_above, False)
        chosen[np.arange(len(highest)), highest] = True
        places, classes = np.nonzero(chosen)
        unlabelled = np.full(len(places), -1)
        moved = measure(self._sides, part.take(places), self._sides.classes, unlabelled, classes, advance)
        self._maps += np.bincount(classes[moved.pairing == Pairing.MEASURED], minlength=len(self._maps))
        for name, means in self._means.items():
            means.add(getattr(moved, name), classes)
        if clusters is not None:
            self._clusters.append(clusters)
            self._clustered = True
            self.similarity.add(moved.spearman, clusters[places], classes)
            shifts = told.new_above.astype(np.int8) - told.old_above
            rows, shared = np.nonzero(shifts)
            self.shifts.add(shifts[rows, shared], clusters[rows], self._shared[shared])
        return self._add(told, moved.take(classes == highest[places]))

    def _add(self, told: Told, pairs: Pairs) -> Pairs:
        for scores, logits in zip(self._scores, (told.old, told.new), strict=True):
            scores.add(told.labels, logits)
        self._flips.append(flips := told.flips)
        self.moved = self.moved or bool((told.old != told.new).any())
        self.relabelled += int(told.otherwise.sum())
        sure = np.where(flips == Flip.BROKEN, np.abs(told.new - self._runs[1][2]), 0)
        return dataclasses.replace(
            pairs,
            labels=self._of_all(told.labels, -1),
            flips=self._of_all(flips, NOT_SHARED),
            flip=np.select([(flips == kind).any(1) for kind in WORST], WORST, Flip.SAME).astype(np.uint8),
            mistake=sure.max(1, initial=0),
        )

    def _of_all(self, values: np.ndarray, fill: int) -> np.ndarray:
        """Return values of the shared classes among those of all classes."""
        found = np.full((len(values), len(self._sides.classes.names)), fill, values.dtype)
        found[:, self._shared] = values
        return found

    def _changes(self, rows: np.ndarray | slice = slice(None)) -> Iterator[dict[str, Any]]:
        """Yield what `SigmoidChange` says of each shared class, over all compared samples or some."""
        self._flips = [np.concatenate(self._flips)] if len(self._flips) > 1 else self._flips
        old, new = (scores.scores(rows) for scores in self._scores)
        pairs = zip(old, new, self._influences(rows), self._flips[0][rows].T, strict=True)
        for before, after, (influence, fewest), flips in pairs:
            counts = {kind.name.lower(): int((flips == kind).sum()) for kind in WORST}
            change = {name: _change(getattr(before, name), getattr(after, name)) for name in SCORES}
            error = None if influence is None else float(np.sqrt((influence**2).sum()))
            what = {"name": before.name, "old": before, "new": after, "change": change, "auroc_error": error}
            yield {**what, "fewest": fewest, "clustered": self._clustered, "flips": sum(counts.values()), **counts}

    def _influences(self, rows: np.ndarray | slice) -> Iterator[tuple[np.ndarray | None, int]]:
        """Yield what each cluster adds to the change of AUROC of each class, and how many have a yes, or no if fewer.

        A sample is a cluster where there are no others; without a yes or a no there is None.
        """
        (labels, old), (_, new) = (scores.stated(rows) for scores in self._scores)
        clusters = np.arange(len(labels))
        if self._clustered:
            clusters = np.unique(np.concatenate(self._clusters)[rows], return_inverse=True)[1]
        for k in range(labels.shape[1]):
            known = labels[:, k] >= 0
            true, of = labels[known, k] == 1, clusters[known]
            if true.all() or not true.any():
                yield None, 0
                continue
            lost = placements(old[known, k], true) - placements(new[known, k], true)
            influence = auroc_influence(lost, true)
            fewest = min(len(np.unique(of[side])) for side in (true, ~true))
            yield auroc_influence_of_clusters(influence, true, of, int(clusters.max()) + 1), fewest

    def mean_auroc_error(self) -> float | None:
        """Return the standard error of the change of AUROC in the mean over the classes, None without one."""
        total, count = np.zeros(0), 0
        for influence, _ in self._influences(slice(None)):
            if influence is not None:
                total, count = influence if not count else total + influence, count + 1
        return float(np.sqrt((total**2).sum())) / count if count else None

    @property
    def shared(self) -> list[int]:
        """Numbers of the shared classes."""
        return [int(k) for k in self._shared]

    def classes(self) -> list[SigmoidMovement]:
        """Return what moved for each shared class."""
        deviations = self._means["spearman"].deviations
        means: dict[str, list[Any]] = {name: means.of_classes for name, means in self._means.items()}
        return [
            SigmoidMovement(
                **change,
                maps=int(self._maps[k]),
                spearman_deviation=deviations[k],
                **{name: values[k] for name, values in means.items()},
            )
            for change, k in zip(self._changes(), self.shared, strict=True)
        ]

    def group(self, group: tuple[str, ...], rows: np.ndarray) -> list[SigmoidGroupMovement]:
        """Return what moved for each shared class in a group, by the rows in which its samples were added."""
        return [SigmoidGroupMovement(**change, group=group, compared=len(rows)) for change in self._changes(rows)]


def _read(run: Run, rows: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and logits of some classes at rows in any order, read in that in which they are stored."""
    order = np.argsort(rows, kind="stable")
    labels, logits = np.empty((len(rows), len(classes)), np.int8), np.empty((len(rows), len(classes)), np.float32)
    start = 0
    for some, block in run.blocks(("labels", "logits"), rows[order]):
        places = order[start : start + len(some)]
        labels[places], logits[places] = block["labels"][:, classes], block["logits"][:, classes]
        start += len(some)
    return labels, logits


def _change(old: float | None, new: float | None) -> float | None:
    return None if old is None or new is None else new - old


def sigmoid_totals(movement: Movement, classes: Sequence[SigmoidMovement], auroc_error: float | None) -> SigmoidTotals:
    """Return what moved over all samples of multi-label runs, and in the mean over their classes."""
    macro = {}
    for name in SCORES:
        both = [(getattr(c.old, name), getattr(c.new, name)) for c in classes if c.change[name] is not None]
        if both:
            old, new = (sum(values) / len(both) for values in zip(*both, strict=True))
            macro[name] = Macro(len(both), old, new, new - old)
    labels, flips = sum(c.old.known for c in classes), sum(c.flips for c in classes)
    of_samples = {**movement.of_samples(), "old_confidence": None, "new_confidence": None}
    return SigmoidTotals(labels=labels, class_flips=flips, macro=macro, auroc_error=auroc_error, **of_samples)
