"""info: what was explained, by which weights, how well, what went wrong. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batchcam.errors import RunError
from batchcam.record.clusters import INDEPENDENT, ClusterColumn, Design
from batchcam.record.groups import GroupCounts, GroupScore, RowGroups, grouped_by
from batchcam.record.intervals import LEVEL, Interval
from batchcam.record.metrics import ClassCounts, ClassScore
from batchcam.record.sigmoid_groups import SigmoidGroup, sigmoid_groups
from batchcam.record.sigmoid_scores import Pair, SigmoidScore, counted_of
from batchcam.record.spatial import SpatialShare, spatial_shares
from batchcam.record.totals import Totals, accuracy_needs, intervals_of, sum_totals
from batchcam.rules import Status
from batchcam.store import landing
from batchcam.store.bringing import shown
from batchcam.store.document import read_document
from batchcam.store.form import mismatch
from batchcam.store.manifest import Manifest, read_manifest, read_tasks, stated_manifest
from batchcam.store.master import collect
from batchcam.store.opening import open_run
from batchcam.store.plan import LEFT_OUT_KEY, Plan, open_plan
from batchcam.store.reader import COLUMN_BYTES, blocks, decode, open_checked, require_digest
from batchcam.store.run import Run
from batchcam.store.schema import MASTER_FILE, PLAN_FILE, SHARD_FOLDER, TRAINED_ON, meta_array
from batchcam.store.series import is_series
from batchcam.store.shard import landed_shards
from batchcam.store.shard_table import ShardTable, stated_table

UNREADABLE_SHOWN = 10
COUNTED_BYTES = 64
"""Held of a row while it is counted."""

COMPARED = ("device", "threads", "versions")
ORIGIN_FORM = {
    "options": {"classifier": {"checkpoint": str}, "data": str},
    "created": str,
    "user": str,
    "host": str,
    "remarks?": [str],
    f"{LEFT_OUT_KEY}?": int,
}


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What a run is and how far it got.

    Attributes:
        complete: whether the manifest is there, and every shard as large as it says.
        plan: the plan as JSON types.
        origin: paths, command line and time of the run's first call.
        shards_landed: shards on disk.
        lost_shards: of a run that was complete, those that are gone or cut short since.
        totals: samples, accuracy (none of a multi-label run), samples by status: over the landed shards, or all that
            the manifest states.
        trained_on: of these samples, images that the network was trained on; None where the checkpoint does not say.
        classes: score of each class of a single-label run, over the same samples.
        tasks: what each task recorded of itself.
        notes: what a reader should know, such as tasks on different machines.
        unreadable: the first unreadable samples, each with the reason.
        runs: those of a series, whose `origin` is empty: each has its own.
        sigmoids: score of each class of a multi-label run, over the samples that are left of it.
        pairs: of a multi-label run the classes that come together most.
        group_by: columns of the manifest by which `groups` are told.
        spatial: how much of the predictions is in the cells of their maps; None where all but the bias is.
        groups: score of each group, the least accurate first; of a multi-label run of each of its classes.
        intervals: of the accuracy; empty of multi-label runs.
        needed: how many labelled samples would make that ± 1 point, None without any.
        level: of confidence of all intervals.
        cluster: column of the manifest whose values the intervals are over, None: over samples.
        clusters: how many of them there are.
    """

    run: str
    complete: bool
    plan: dict[str, Any]
    run_id: str
    origin: dict[str, Any]
    shards_landed: int
    shards: int
    lost_shards: int
    totals: dict[str, Any]
    trained_on: int | None
    classes: list[ClassScore]
    tasks: list[dict[str, Any]]
    notes: list[str]
    unreadable: list[str]
    runs: list[RunOfSeries] = dataclasses.field(default_factory=list)
    sigmoids: list[SigmoidScore] = dataclasses.field(default_factory=list)
    pairs: list[Pair] = dataclasses.field(default_factory=list)
    spatial: SpatialShare | None = None
    group_by: tuple[str, ...] = ()
    groups: list[GroupScore] | list[SigmoidGroup] = dataclasses.field(default_factory=list)
    _: dataclasses.KW_ONLY
    intervals: dict[str, Interval | None]
    needed: int | None
    level: float
    cluster: str | None
    clusters: int | None


@dataclasses.dataclass(frozen=True)
class RunOfSeries:
    """A run of a series.

    Attributes:
        origin: paths, command line and time of its first call.
        totals: as its manifest states them, rows included of which another run has a newer one.
        intervals: of their accuracy.
    """

    run: str
    run_id: str
    checkpoint_sha256: str
    origin: dict[str, Any]
    totals: dict[str, Any]
    intervals: dict[str, Interval | None]


def info(run: Path, level: float = LEVEL, cluster: str | None = None) -> RunInfo:
    """Return what `run` is, a series too; of a run in progress, what has landed so far.

    Args:
        level: of confidence of the intervals.
        cluster: column of the manifest that says which samples belong together.

    Raises:
        RunError: neither a run directory nor a series, or a file of it is damaged.
        ConfigError: there is no such column, or all samples are of one cluster.
    """
    if is_series(run):
        with open_run(run) as series:
            return _of_series(series, level, cluster)
    plan = open_plan(run)
    landed = landed_shards(run, plan)
    manifest, table = stated_manifest(run, plan), None
    tally = _Tally(plan)
    if manifest is None:
        for _, columns, *_ in collect(run, plan, [s for s in plan.shards if s.index in landed]):
            tally.totals.add(columns)
            tally.add(columns)
            tally.name(columns)
    else:
        table = _count_master(run, plan, manifest, tally)
    totals = manifest.totals if manifest else tally.stated()
    origin, tasks, notes = _provenance(run, manifest)
    lost = _lost(run, plan, table, landed) if table else 0
    if lost:
        notes.append(f"numbers are of all {plan.sample_count} samples, as run.h5 has them; see batchcam verify")
    of_classes = _Classes(classes=[] if plan.is_multi_label else tally.classes.scores(plan.class_names, level))
    spatial = None
    if (plan.is_multi_label or plan.has_offset or cluster) and landed:
        # totals of one label are of all samples, whatever is left
        with open_run(run, partial=bool(lost) and not (cluster and not plan.is_multi_label)) as opened:
            if plan.is_multi_label or cluster:
                of_classes = _of_classes(opened, level, cluster)
            spatial = spatial_shares(opened)
    return RunInfo(
        run=shown(run),
        complete=manifest is not None and not lost,
        plan=plan.to_dict(),
        run_id=plan.run_id,
        origin=origin,
        shards_landed=len(landed),
        shards=len(plan.shards),
        lost_shards=lost,
        tasks=tasks,
        notes=[*notes, *of_classes.notes, *_of_share(spatial)],
        unreadable=tally.unreadable,
        **_told(of_classes, totals, spatial, level, cluster),
    )


@dataclasses.dataclass(frozen=True)
class _Classes:
    """What `RunInfo` says of each class; `design`: of the accuracy, or of the share of labels told right."""

    classes: list[ClassScore] = dataclasses.field(default_factory=list)
    sigmoids: list[SigmoidScore] = dataclasses.field(default_factory=list)
    pairs: list[Pair] = dataclasses.field(default_factory=list)
    design: Design = INDEPENDENT
    clusters: int | None = None
    notes: Sequence[str] = ()


def _of_classes(run: Run, level: float, cluster: str | None) -> _Classes:
    if run.plan.is_multi_label:
        scores, column = counted_of(run, level, cluster)
        notes = column.notes({"labels told right": scores.design})
        return _Classes([], scores.scores(), scores.pairs(), scores.design, column.count, notes)
    counts, column = _class_counts(run, cluster)
    notes = column.notes({"accuracy": counts.design})
    return _Classes(counts.scores(run.class_names, level), [], [], counts.design, column.count, notes)


def _class_counts(run: Run, cluster: str | None) -> tuple[ClassCounts, ClusterColumn]:
    counts, column = ClassCounts(len(run.class_names)), ClusterColumn(run, cluster)
    for _, block in run.blocks((*column.arrays, "label", "prediction")):
        counts.add(block["label"], block["prediction"], column.of(block))
    return counts, column


def _of_series(series: Run, level: float, cluster: str | None) -> RunInfo:
    spatial = spatial_shares(series)
    made = [(run, read_manifest(run.path, run.plan)) for run in series.runs]
    own = [_provenance(run.path, manifest) for run, manifest in made]
    stated = [manifest.totals for _, manifest in made]
    alone = len(series) == sum(totals["samples"] for totals in stated)
    totals = sum_totals(stated) if alone else _counted(series)
    there, planned = series.shard_counts
    of_classes = _of_classes(series, level, cluster)
    return RunInfo(
        run=shown(series.path),
        complete=True,
        plan=series.plan.to_dict(),
        run_id=series.plan.run_id,
        origin={},
        shards_landed=there,
        shards=planned,
        lost_shards=0,
        tasks=[task for _, tasks, _ in own for task in tasks],
        notes=[
            *dict.fromkeys((*series.remarks, *(note for _, _, notes in own for note in notes), *of_classes.notes)),
            *_of_share(spatial),
        ],
        unreadable=list(_failed(series)),
        runs=[
            RunOfSeries(
                run.path.name,
                run.plan.run_id,
                run.plan.checkpoint_sha256,
                origin,
                manifest.totals,
                intervals_of(manifest.totals, level, _class_counts(run, cluster)[0].design if cluster else INDEPENDENT),
            )
            for (run, manifest), (origin, _, _) in zip(made, own, strict=True)
        ],
        **_told(of_classes, totals, spatial, level, cluster),
    )


def _told(
    of: _Classes, totals: dict[str, Any], spatial: SpatialShare | None, level: float, cluster: str | None
) -> dict[str, Any]:
    """Return what `RunInfo` says of a run as of a series."""
    return {
        "totals": totals,
        "trained_on": totals.get(TRAINED_ON),
        "classes": of.classes,
        "sigmoids": of.sigmoids,
        "pairs": of.pairs,
        "spatial": spatial,
        "intervals": intervals_of(totals, level, of.design),
        "needed": accuracy_needs(totals, level, of.design),
        "level": level,
        "cluster": cluster,
        "clusters": of.clusters,
    }


def _of_share(spatial: SpatialShare | None) -> list[str]:
    return [spatial.finding] if spatial and spatial.finding else []


def _counted(run: Run) -> dict[str, Any]:
    """Return the totals of rows that no manifest states."""
    columns = ("label", "prediction", "status", "identity_residual", *([TRAINED_ON] if run.plan.training_known else []))
    totals = Totals(run.plan.is_multi_label)
    for _, block in run.blocks(columns):
        totals.add(block)
    return totals.stated()


def _failed(run: Run) -> Iterator[str]:
    """Yield the first unreadable samples, each with the reason."""
    rows = np.concatenate([rows[block["error"] != ""] for rows, block in run.blocks(("error",))])[:UNREADABLE_SHOWN]
    for _, block in run.blocks(("sample_id", "error"), rows):
        yield from (f"{sample_id}: {error}" for sample_id, error in zip(*block.values(), strict=True))


def group_scores(
    path: Path, columns: Sequence[str], level: float, cluster: str | None = None
) -> list[GroupScore] | list[SigmoidGroup]:
    """Return how the groups of a run's samples fare, a series' too, with intervals at a level of confidence."""
    with open_run(path) as run:
        names = [meta_array(column).name for column in grouped_by(columns, run.plan.meta, path)]
        if run.plan.is_multi_label:
            scores, groups = counted_of(run, level, cluster, together=False)[0], RowGroups()
            for _, block in run.blocks(names):
                groups.add([block[name] for name in names])
            return sigmoid_groups(scores, scores.scores(), groups)
        counted, clusters = GroupCounts(), ClusterColumn(run, cluster)
        read = dict.fromkeys((*names, *clusters.arrays, "label", "prediction", "confidence", "status"))
        for _, block in run.blocks(tuple(read)):
            unreadable = (block["status"] & Status.UNREADABLE) > 0
            counted.add([block[name] for name in names], {**block, "unreadable": unreadable}, clusters.of(block))
    return counted.scores(level)


def provenance(run: Path, plan: Plan) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """Return where a run comes from, what each task recorded of itself, and what a reader should know of that."""
    return _provenance(run, stated_manifest(run, plan))


def _provenance(run: Path, manifest: Manifest | None) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    tasks = manifest.tasks if manifest else read_tasks(run)
    origin = _origin(run)
    return origin, tasks, [*origin.get("remarks", ()), *_notes(tasks, manifest is not None)]


def _lost(run: Path, plan: Plan, table: ShardTable, landed: set[int]) -> int:
    """Return how many shards of a complete run are gone, or have another size."""
    return sum(
        shard.index not in landed or (run / SHARD_FOLDER / shard.file).stat().st_size != table.sizes[shard.index]
        for shard in plan.shards
    )


def _origin(run: Path) -> dict[str, Any]:
    origin: dict[str, Any] = read_document(run / PLAN_FILE)["origin"]
    if (where := mismatch(origin, ORIGIN_FORM)) is not None:
        raise RunError(f"{run / PLAN_FILE}: origin: {where} is missing or of the wrong type")
    return origin


class _Tally:
    """What info tells of the samples, counted part by part."""

    def __init__(self, plan: Plan) -> None:
        self.totals, self.classes = Totals(plan.is_multi_label), ClassCounts(len(plan.class_names))
        self.unreadable: list[str] = []
        self._training_known = plan.training_known

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Count samples of classes."""
        self.classes.add(columns["label"], columns["prediction"])

    def name(self, columns: Mapping[str, np.ndarray]) -> None:
        """Name the first samples that are unreadable, each with the reason, among those that some columns have."""
        rows = np.flatnonzero(columns["error"] != b"")[: UNREADABLE_SHOWN - len(self.unreadable)]
        pairs = zip(decode(columns["sample_id"][rows]), decode(columns["error"][rows]), strict=True)
        self.unreadable += [f"{sample_id}: {error}" for sample_id, error in pairs]

    def stated(self) -> dict[str, Any]:
        """Return the totals, which were counted beside."""
        return ({TRAINED_ON: 0} if self._training_known else {}) | self.totals.stated()


def _count_master(run: Path, plan: Plan, manifest: Manifest, tally: _Tally) -> ShardTable | None:
    """Count the samples of a complete run, and return the sizes of its shards: all in one file, however many."""
    if not landing.is_own_file(run, MASTER_FILE):  # what a link leads to is none of this run's
        raise RunError(f"{run / MASTER_FILE}: gone, or a link; see batchcam verify")
    require_digest(run / MASTER_FILE, manifest.master.sha256)
    with open_checked(run / MASTER_FILE, plan, None) as file:
        names, every = ("label", "prediction"), range(plan.sample_count)
        for rows, columns in blocks(file.__getitem__, names, every, COLUMN_BYTES, COUNTED_BYTES):
            tally.add(columns)
            without = rows[columns["prediction"] < 0]  # others have no error
            if len(without) and len(tally.unreadable) < UNREADABLE_SHOWN:
                for _, texts in blocks(file.__getitem__, ("sample_id", "error"), without, COLUMN_BYTES):
                    tally.name(texts)
        return stated_table(file, plan)


def _notes(tasks: list[dict[str, Any]], complete: bool) -> list[str]:
    """Return where tasks differ in what promise 5 depends on: kind of machine, threads, library versions."""
    notes = []
    for key in COMPARED:
        kinds = {str(t.get(key)) for t in tasks}
        if len(kinds) > 1:
            notes.append(f"tasks ran with different {key}: shards would not be byte-identical if made again elsewhere")
    if not complete and any(t.get("outcome") == "running" for t in tasks):
        notes.append("some tasks are running, or were killed without a last word")
    if not complete and any(t.get("outcome") in ("stopped early", "failed") for t in tasks):
        notes.append("some tasks stopped early or failed; whoever runs the same command again finishes their shards")
    return notes
