"""What a report says of a run in numbers, counted block by block: a run of any size passes through little memory."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

import numpy as np

from batchcam.errors import RunError
from batchcam.job.console import Progress
from batchcam.record.calibration import Bin, Reliability, calibration_interval, expected_calibration_error
from batchcam.record.clusters import ClusterColumn, Design
from batchcam.record.distribution import Distribution
from batchcam.record.evidence import border, border_share, cell_shares, entropy
from batchcam.record.groups import MEASURES, GroupCounts, GroupScore, RowGroups, grouped_by
from batchcam.record.intervals import LEVEL, Interval
from batchcam.record.map_clusters import DrawnMaps, SplitClass
from batchcam.record.metrics import ClassCounts, ClassScore, Means, PairCounts
from batchcam.record.screen import Gathering, PeakCounts, screen
from batchcam.record.sigmoid_groups import SigmoidGroup, sigmoid_groups
from batchcam.record.sigmoid_scores import Pair, SigmoidScore, SigmoidScores, sigmoid
from batchcam.record.spatial import SpatialShare, spatial_shares
from batchcam.record.totals import Totals
from batchcam.rules import Status
from batchcam.store.run import Run
from batchcam.store.schema import TRAINED_ON, meta_array
from batchcam.store.stored_cams import picked_cams

CELL_BYTES: Final = 40
"""Held for each cell of a map while its evidence is measured: float64, a few times."""

ROW_BYTES: Final = 256
"""Held for each row besides."""

LABEL_BYTES: Final = 64
"""Held for each class of a row of a multi-label run."""

COLUMNS: Final = ("label", "prediction", "confidence", "status", "identity_residual")

ODD_STATUS: Final = {
    "non-finite": Status.NON_FINITE,
    "constant": Status.CONSTANT_MAP,
    "no-positive": Status.NO_POSITIVE_EVIDENCE,
}


@dataclasses.dataclass(frozen=True)
class Maps:
    """Where the evidence for the predicted classes sits.

    Attributes:
        evenly: what the share in the outermost ring is for evidence spread evenly.
        inside: whether the grid has cells inside of its outermost ring.
        cells: mean over samples of each cell's share of positive evidence, (h, w), NaN without any sample.
        class_cams: mean raw CAM of each class over the samples that are predicted as it and labelled with it,
            (K, h, w), NaN without any.
    """

    evenly: float
    inside: bool
    cells: np.ndarray
    class_cams: np.ndarray


class Group:
    """Predictions whose distributions are shown together.

    Attributes:
        kind: CSS class of its bars.
        size: how many samples it has.
        spread: how each of MEASURES is distributed.
    """

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind, self.size = name, kind, 0
        self.spread = {measure: Distribution(0, 1) for measure in MEASURES}

    def add(self, measured: dict[str, np.ndarray], chosen: np.ndarray) -> None:
        """Count the samples that are chosen, bool (n,), of some."""
        self.size += int(chosen.sum())
        for measure, spread in self.spread.items():
            spread.add(measured[measure][chosen])


class First:
    """The rows of the smallest values, of equal ones those that came first, and how many rows there are.

    Args:
        most: how many rows to keep.
    """

    def __init__(self, most: int) -> None:
        self._most, self.count = most, 0
        self.values, self.rows = np.zeros(0), np.zeros(0, np.int64)

    def add(self, values: np.ndarray, rows: np.ndarray) -> None:
        """Take in rows, int64 (n,), each with its value, (n,)."""
        self.count += len(rows)
        values, rows = np.concatenate([self.values, values]), np.concatenate([self.rows, rows])
        order = np.argsort(values, kind="stable")[: self._most]
        self.values, self.rows = values[order], rows[order]


@dataclasses.dataclass(frozen=True)
class Sigmoids:
    """What a report says of the classes of a multi-label run, of which each is true or not by itself.

    Attributes:
        scores: one per class.
        pairs: the classes that come together most.
        missed, flagged: by index of the class, samples labelled with it and below its threshold, and samples labelled
            as not of it and not below; the farthest from it first.
        groups: one per group and class, the least AUROC first; none where nobody asked for groups.
    """

    scores: list[SigmoidScore]
    pairs: list[Pair]
    missed: dict[int, First]
    flagged: dict[int, First]
    groups: list[SigmoidGroup]


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything that a report says of a run in numbers.

    Attributes:
        totals: as the manifest states them.
        predicted: how many samples have a prediction.
        judged: of those, how many have a label to judge it, or a class of a multi-label run, by.
        odd: how many samples have a map that is odd in any way.
        scores: one per class.
        confusions: pairs of label and prediction that occur with their counts, right ones too, the most frequent first.
        bins: reliability of the labelled predictions, in a multi-label run of the sigmoid wherever a label is known.
        bins_design: of their calibration error.
        groups: right, wrong, and unlabelled predictions, where there are any; in a multi-label run all together.
        means: of each of MEASURES over the samples predicted as each class, (K,), None without any.
        mean_intervals: of these, None of less than two.
        maps: where the evidence sits.
        peaks: how many predictions as each class have their map's peak in each cell, (K, h, w).
        gatherings: where more peaks are than chance explains.
        split: the classes whose maps come in several clusters, those of the most maps first.
        firsts: samples to show by what is remarkable about them.
        scores_by_group: one per group, the least accurate first; none where nobody asked for groups. Of a multi-label
            run only their samples and means tell something.
        level: of confidence of the intervals.
        design: of the accuracy, in a multi-label run of the share of labels told right.
        clusters: of samples, that the intervals are over; None: over samples.
        notes: what readers of the intervals should know.
        sigmoids: of a multi-label run, what is told of each class; nothing else is about right and wrong then.
        spatial: how much of the predictions is in the cells of their maps; None where all but the bias is.
    """

    totals: dict[str, Any]
    predicted: int
    judged: int
    odd: int
    scores: list[ClassScore]
    confusions: list[tuple[int, int, int]]
    bins: list[Bin]
    bins_design: Design
    groups: list[Group]
    means: dict[str, list[float | None]]
    mean_intervals: dict[str, list[Interval | None]]
    maps: Maps
    peaks: np.ndarray
    gatherings: list[Gathering]
    split: list[SplitClass]
    firsts: dict[str, First]
    scores_by_group: list[GroupScore]
    level: float
    design: Design
    clusters: int | None
    notes: list[str]
    sigmoids: Sigmoids | None = None
    spatial: SpatialShare | None = None

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error, None without labelled predictions."""
        return expected_calibration_error(self.bins)

    @property
    def calibration_interval(self) -> Interval | None:
        """That of the calibration error."""
        return calibration_interval(self.bins, self.level, self.bins_design)


def gather(
    run: Run,
    top: int,
    unreadable: int,
    quiet: bool,
    group_by: tuple[str, ...] = (),
    level: float = LEVEL,
    cluster: str | None = None,
) -> Facts:
    """Read what a report says of `run` in numbers.

    Args:
        top: most samples of each kind to show.
        unreadable: most unreadable samples to list.
        group_by: columns of the manifest by which samples are grouped.
        level: of confidence of the intervals.
        cluster: column of the manifest that says which samples belong together.
    """
    columns = [meta_array(name).name for name in grouped_by(group_by, run.plan.meta, run.path)]
    tally = _Tally(run, top, unreadable, columns, level, ClusterColumn(run, cluster))
    names = ["cams", *COLUMNS, *([] if run.plan.cams.is_all else ["cam_class"])]
    names += [*columns, *(array for array in tally.clusters.arrays if array not in columns)]
    names += [TRAINED_ON] if run.plan.training_known else []
    held = CELL_BYTES * math.prod(run.plan.grid_size) + ROW_BYTES
    if run.plan.is_multi_label:
        names += ["labels", "logits"]
        held += LABEL_BYTES * len(run.class_names)
    with Progress("report", len(run), "samples", quiet) as progress:
        for rows, block in run.blocks(names, held=held):
            _require_sound(run, block)
            tally.add(rows, block, picked_cams(block["cams"], block.get("cam_class"), block["prediction"]))
            progress.advance(len(rows))
    return dataclasses.replace(tally.facts(run.class_names), spatial=spatial_shares(run))


def _require_sound(run: Run, block: dict[str, np.ndarray]) -> None:
    predicted = block["prediction"] >= 0
    if max(block["label"].max(), block["prediction"].max()) >= len(run.class_names):
        raise RunError(
            f"{run.path}: labels or predictions beyond its {len(run.class_names)} classes; see batchcam verify"
        )
    if not ((block["confidence"][predicted] >= 0) & (block["confidence"][predicted] <= 1)).all():
        raise RunError(f"{run.path}: confidences that are not from 0 to 1; see batchcam verify")


class _Tally:
    """Counts what a report says of samples, block by block."""

    def __init__(
        self, run: Run, top: int, unreadable: int, group_columns: list[str], level: float, clusters: ClusterColumn
    ) -> None:
        self._level, self.clusters = level, clusters
        self._group_columns, self._by_group = group_columns, GroupCounts()
        classes, grid = len(run.class_names), run.plan.grid_size
        self._ring = border(grid)
        self._totals = Totals(run.plan.is_multi_label)
        self._scores, self._confusions = ClassCounts(classes), PairCounts(classes)
        self._sigmoids = _SigmoidTally(run, top, level) if run.plan.is_multi_label else None
        self._reliability = Reliability()
        self._odd = 0
        others = "all" if self._sigmoids else "without a label"
        self._groups = [Group("right", "right"), Group("wrong", "wrong"), Group(others, "plain")]
        self._means = {measure: Means(classes) for measure in MEASURES}
        self._cells, self._mapped = np.zeros(grid), 0
        self._peaks = PeakCounts(classes, grid)
        predicted = np.flatnonzero(run.prediction[:] >= 0)
        self._drawn = DrawnMaps(run, predicted, run.prediction[predicted])
        self._sums, self._counts = np.zeros((classes, *grid)), np.zeros(classes)
        kinds = ("mistakes", "hits", "unjudged", *ODD_STATUS, "border-only")
        self._firsts = {kind: First(top) for kind in kinds} | {"unreadable": First(unreadable)}

    def add(self, rows: np.ndarray, block: dict[str, np.ndarray], cams: np.ndarray) -> None:
        label, prediction, status = block["label"], block["prediction"], block["status"]
        predicted = prediction >= 0
        judged = predicted & (label >= 0)
        right, wrong, unjudged = judged & (prediction == label), judged & (prediction != label), predicted & ~judged
        clusters = self.clusters.of(block)
        self._totals.add(block)
        self._scores.add(label, prediction, clusters)
        self._confusions.add(label[judged], prediction[judged])
        if self._sigmoids:
            self._reliability.add(*self._sigmoids.add(rows, block, clusters))
        else:
            self._reliability.add(block["confidence"][judged], right[judged], _of(clusters, judged))
        shares = cell_shares(cams)
        measured = {"confidence": block["confidence"], "border": border_share(shares), "spread": entropy(shares)}
        is_unreadable = (status & Status.UNREADABLE) > 0
        if self._group_columns:
            columns = [block[name] for name in self._group_columns]
            self._by_group.add(columns, {**block, **measured, "unreadable": is_unreadable}, clusters)
            if self._sigmoids:
                self._sigmoids.groups.add(columns)
        for group, chosen in zip(self._groups, (right, wrong, unjudged), strict=True):
            group.add(measured, chosen)
        for measure, means in self._means.items():
            means.add(measured[measure][predicted], prediction[predicted], _of(clusters, predicted))
        is_true = block["labels"][np.arange(len(rows)), prediction] == 1 if self._sigmoids else right
        self._add_maps(cams, shares, prediction, is_true & predicted)
        self._drawn.add(rows, cams)
        flags = {kind: (status & flag) > 0 for kind, flag in ODD_STATUS.items()}
        on_border = (measured["border"] == 1) & ~flags["constant"] & (not self._ring.all())
        self._odd += int(np.any([*flags.values(), on_border], 0).sum())
        flags |= {"border-only": on_border, "unreadable": is_unreadable}
        ranked = {"mistakes": (-1, wrong), "hits": (1, right), "unjudged": (1, unjudged)}
        for kind, (sign, chosen) in ranked.items():
            self._firsts[kind].add(sign * block["confidence"][chosen], rows[chosen])
        for kind, chosen in flags.items():
            self._firsts[kind].add(rows[chosen], rows[chosen])

    def _add_maps(self, cams: np.ndarray, shares: np.ndarray, prediction: np.ndarray, is_true: np.ndarray) -> None:
        self._peaks.add(cams, prediction)
        some = np.isfinite(shares[:, 0, 0])
        self._cells += shares[some].sum(0)
        self._mapped += int(some.sum())
        usable = is_true & np.isfinite(cams).all((1, 2))
        np.add.at(self._sums, prediction[usable], cams[usable])
        np.add.at(self._counts, prediction[usable], 1)

    def facts(self, class_names: tuple[str, ...]) -> Facts:
        """Return what was counted."""
        right, wrong, unjudged = (group.size for group in self._groups)
        design, what = self._scores.design, "accuracy"
        if self._sigmoids:
            design, what = self._sigmoids.design, "labels told right"
        with np.errstate(invalid="ignore"):
            means = self._sums / np.where(self._counts > 0, self._counts, np.nan)[:, None, None]
            cells = self._cells / (self._mapped or math.nan)
        return Facts(
            totals=self._totals.stated(),
            predicted=right + wrong + unjudged,
            judged=self._sigmoids.judged if self._sigmoids else right + wrong,
            odd=self._odd,
            scores=self._scores.scores(class_names, self._level),
            confusions=self._confusions.most_frequent(),
            bins=self._reliability.bins(),
            bins_design=self._reliability.design,
            groups=[group for group in self._groups if group.size],
            means={measure: means.of_classes for measure, means in self._means.items()},
            mean_intervals={measure: means.intervals(self._level) for measure, means in self._means.items()},
            maps=Maps(float(self._ring.mean()), not self._ring.all(), cells, means),
            peaks=self._peaks.cells,
            gatherings=screen(self._peaks.cells, class_names, self._level),
            split=list(self._drawn.split()),
            firsts=self._firsts,
            scores_by_group=self._by_group.scores(self._level),
            level=self._level,
            design=design,
            clusters=self.clusters.count,
            notes=self.clusters.notes({what: design}),
            sigmoids=self._sigmoids.told() if self._sigmoids else None,
        )


def _of(clusters: np.ndarray | None, chosen: np.ndarray) -> np.ndarray | None:
    return None if clusters is None else clusters[chosen]


class _SigmoidTally:
    """Counts what a report says of the classes of a multi-label run, block by block."""

    def __init__(self, run: Run, top: int, level: float) -> None:
        self._scores = SigmoidScores(run.class_names, run.plan.thresholds, level=level)
        self._above, self._top = run.plan.threshold_logits, top
        self._missed: dict[int, First] = {}
        self._flagged: dict[int, First] = {}
        self.judged, self.groups = 0, RowGroups()

    @property
    def design(self) -> Design:
        return self._scores.design

    def add(
        self, rows: np.ndarray, block: dict[str, np.ndarray], clusters: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Count some samples; return the probability of each known label, whether it is true, and its cluster."""
        labels, logits = block["labels"], block["logits"]
        self._scores.add(labels, logits, clusters)
        known = (labels >= 0) & np.isfinite(logits).all(1)[:, None]
        self.judged += int(known.any(1).sum())
        distance = logits - self._above
        for firsts, sign, label in ((self._missed, 1, 1), (self._flagged, -1, 0)):
            wrong = known & (labels == label) & ((distance >= 0) != label)
            for class_ in np.flatnonzero(wrong.any(0)).tolist():
                chosen = wrong[:, class_]
                first = firsts.setdefault(class_, First(self._top))
                first.add(sign * distance[chosen, class_], rows[chosen])
        of = None if clusters is None else np.repeat(clusters, known.sum(1))
        return sigmoid(logits[known]), labels[known] == 1, of

    def told(self) -> Sigmoids:
        """Return what was counted."""
        of_all = self._scores.scores()
        groups = sigmoid_groups(self._scores, of_all, self.groups)
        return Sigmoids(of_all, self._scores.pairs(), self._missed, self._flagged, groups)
