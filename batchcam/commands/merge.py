"""merge: prove that the shards cover the dataset, write run.h5 and the manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from batchcam.errors import BatchcamError, RunError
from batchcam.job.cpus import available_cpus
from batchcam.job.scheduler import utc_now, whereabouts
from batchcam.job.stop import Stop, reason_to_stop, stop_if_asked
from batchcam.record.totals import Totals, needs_a_look
from batchcam.store import landing
from batchcam.store.manifest import (
    STAMPS,
    Manifest,
    merge_file,
    read_manifest,
    read_stamps,
    read_tasks,
    write_manifest,
    write_task,
)
from batchcam.store.master import Proof, prove_shards, write_master
from batchcam.store.plan import Plan, open_plan
from batchcam.store.samples import require_list
from batchcam.store.schema import LIST_FILE, MANIFEST_FILE, MASTER_FILE, PLAN_FILE, SHARD_FOLDER, TASK_PATTERN
from batchcam.store.shard import has_landed, landed_shards
from batchcam.store.shard_table import table_beside
from batchcam.store.stamps import Stamps

NOTE_EVERY_S = 10
"""Seconds between two notes of what has been proven."""


@dataclasses.dataclass(frozen=True)
class MergeSummary:
    """A complete run.

    Attributes:
        totals: as the manifest states them.
        findings: samples that need a look.
        shards: of the run.
        bytes: of shards and run.h5.
        kept: whether run.h5 and the manifest were there, and stay as they are.
    """

    totals: dict[str, Any]
    findings: int
    shards: int
    bytes: int
    kept: bool


def merge(run: str | os.PathLike[str], *, prove: bool = False, time_limit_s: float | None = None) -> MergeSummary:
    """Write run.h5 and manifest.json over the shards of a run; the manifest comes last.

    Where both are there and right they stay as they are, so that their digests, once noted down, stay true.

    Args:
        run: the run directory.
        prove: read also those shards that have been untouched since a task of this run wrote them, or a merge proved
            them.
        time_limit_s: stop early after so many seconds.

    Raises:
        RunError: shards are missing or do not belong here; the message names them.
        StoppedEarlyError: a signal or the time limit; what is proven by then is not read again.
    """
    with Stop(time_limit_s):
        return _merge(Path(run), prove)


def _merge(run: Path, prove: bool) -> MergeSummary:
    plan = open_plan(run)
    _require_all(run, plan)
    samples = require_list(run)
    there = _stated(run, plan)
    if there and not _is_intact(run / MASTER_FILE, there):
        there = None
    former = None if there or prove else _former(run, plan)
    proof = Proof(Stamps(read_stamps(run), trusted=not prove), former, available_cpus())
    if there:
        counted = Totals(plan.is_multi_label)
        shards = prove_shards(run, plan, counted.add, reason_to_stop, proof)
        if (shards, counted.stated(), samples) == (there.shards, there.totals, there.samples):
            return _kept(run, plan, dataclasses.replace(there, totals=counted.stated()))
    counted = Totals(plan.is_multi_label)
    with _noting(run, proof.stamps) as stop:
        master, shards = write_master(run, plan, counted.add, stop, proof)
    totals = counted.stated()
    findings = needs_a_look(totals)
    manifest = Manifest(
        run_id=plan.run_id,
        shards=shards,
        master=master,
        totals=totals,
        findings=findings,
        tasks=read_tasks(run),
        made={"when": utc_now(), **whereabouts()},
        schema_version=plan.schema_version,
        samples=samples,
    )
    if not _is_stated(run, plan, manifest):
        write_manifest(run, manifest)
    _remove_leftovers(run, plan)
    return _summary(manifest, kept=False)


@contextlib.contextmanager
def _noting(run: Path, stamps: Stamps) -> Iterator[Callable[[], str | None]]:
    """Leave the stamps of what this process proves in a record: when the block ends, however, and now and then before.

    Given out is what the block asks for a reason to stop.
    """
    name, started, noted, noted_at = merge_file(), utc_now(), 0, time.monotonic()

    def note() -> None:
        nonlocal noted, noted_at
        noted_at, new = time.monotonic(), stamps.new
        if len(new) > noted:
            noted = len(new)
            write_task(run, name, {**whereabouts(), "started": started, "written": utc_now(), STAMPS: new})

    def reason() -> str | None:
        if time.monotonic() - noted_at >= NOTE_EVERY_S:
            note()
        return reason_to_stop()

    try:
        yield reason
    except BaseException:
        with contextlib.suppress(BatchcamError):  # what ended the block matters more
            note()
        raise
    note()


def _is_intact(master: Path, manifest: Manifest) -> bool:
    try:
        return landing.file_digest(master, stop_if_asked) == manifest.master.sha256
    except OSError:  # a bad block is what merging again mends
        return False


def _former(run: Path, plan: Plan) -> Path | None:
    """Return where a run.h5 lies that is as a manifest says, which is not about all shards of now."""
    places: tuple[Callable[[Path], Path], ...] = (lambda path: path, landing.aside)
    for place in places:
        with contextlib.suppress(FileNotFoundError, RunError):
            master = place(run / MASTER_FILE)
            if _is_intact(master, read_manifest(run, plan, place(run / MANIFEST_FILE))):
                return master
    return None


def _is_stated(run: Path, plan: Plan, manifest: Manifest) -> bool:
    """Return whether there is a manifest that says the same of the same files, such as of a worker that merged too."""
    try:
        there = read_manifest(run, plan)
    except (FileNotFoundError, RunError):
        return False
    said = [(each.shards, each.master, each.totals, each.samples) for each in (there, manifest)]
    return said[0] == said[1]


def complete_run(run: Path, own: Callable[[int], bool] | None = None) -> MergeSummary:
    """Return what the manifest of a complete run says; merge first if there is none, or it is not about these files.

    Args:
        run: the run directory.
        own: which shards to look at, by index, where others look at the others and this process has made none; None:
            all, and whether the manifest is about them.
    """
    plan = open_plan(run)
    there = _stated(run, plan, own)
    return _kept(run, plan, there) if there else merge(run)


def _stated(run: Path, plan: Plan, own: Callable[[int], bool] | None = None) -> Manifest | None:
    """Return the manifest if there is one, and the files that it states, by their sizes and the digests beside them."""
    try:
        manifest = read_manifest(run, plan)
    except (FileNotFoundError, RunError):
        return None
    path, record = run / MASTER_FILE, manifest.master
    if not path.is_file() or path.stat().st_size != record.bytes or landing.read_digest(path) != record.sha256:
        return None
    if own is not None:
        return manifest if all(has_landed(run, shard) for shard in plan.shards if own(shard.index)) else None
    table = table_beside(run, plan, stop_if_asked)
    return manifest if table and table.stated(plan) == manifest.shards else None


def _kept(run: Path, plan: Plan, manifest: Manifest) -> MergeSummary:
    _remove_leftovers(run, plan)
    return _summary(manifest, kept=True)


def stated_run(run: Path) -> MergeSummary:
    """Return what the manifest of a run says that another worker has just merged, without looking at its files.

    Raises:
        FileNotFoundError: there is none: the run is not complete.
        RunError: it is damaged, or of another run.
    """
    return _summary(read_manifest(run, open_plan(run)), kept=False)


def _summary(manifest: Manifest, kept: bool) -> MergeSummary:
    size = manifest.master.bytes + manifest.shards.bytes
    findings = sum(f["count"] for f in manifest.findings)
    return MergeSummary(manifest.totals, findings, manifest.shards.count, size, kept)


def _remove_leftovers(run: Path, plan: Plan) -> None:
    """Remove the temporary files of workers that died: in a complete run nobody needs them."""
    landing.remove_stale_partials(run / SHARD_FOLDER, (s.file for s in plan.shards))
    tasks = [final for _, final in landing.partials(run) if fnmatch.fnmatch(final, TASK_PATTERN)]
    landing.remove_stale_partials(run, (PLAN_FILE, LIST_FILE, MASTER_FILE, MANIFEST_FILE, *tasks))


def _require_all(run: Path, plan: Plan) -> None:
    def look(index: int) -> bool:
        stop_if_asked()
        return True

    landed = landed_shards(run, plan, look)
    missing = [s.index for s in plan.shards if s.index not in landed]
    if missing:
        named = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        raise RunError(f"{run}: {len(missing)} of {len(plan.shards)} shards are missing ({named}); run explain again")
