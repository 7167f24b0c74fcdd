"""merge: prove that the shards cover the dataset, write run.h5 and the manifest."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from batchcam.errors import RunError
from batchcam.job.cpus import available_cpus
from batchcam.job.scheduler import utc_now, whereabouts
from batchcam.job.stop import reason_to_stop
from batchcam.record.totals import Totals, needs_a_look
from batchcam.store import landing
from batchcam.store.manifest import Manifest, read_manifest, read_tasks, write_manifest
from batchcam.store.master import prove_shards, write_master
from batchcam.store.plan import Plan, open_plan
from batchcam.store.samples import require_list
from batchcam.store.schema import LIST_FILE, MANIFEST_FILE, MASTER_FILE, PLAN_FILE, SHARD_FOLDER, TASK_PATTERN
from batchcam.store.shard import LandedShard, has_landed, landed_shards
from batchcam.store.shard_table import table_beside


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


def merge(run: str | os.PathLike[str], *, made: Iterable[LandedShard] = ()) -> MergeSummary:
    """Write run.h5 and manifest.json over the shards of a run; the manifest comes last.

    Where both are there and right they stay as they are, so that their digests, once noted down, stay true.

    Args:
        run: the run directory.
        made: shards that this very process has landed. The digest of all others is computed again.

    Raises:
        RunError: shards are missing or do not belong here; the message names them.
        StoppedEarlyError: a signal or the time limit.
    """
    run = Path(run)
    plan = open_plan(run)
    _require_all(run, plan)
    samples, threads = require_list(run), available_cpus()
    there = _stated(run, plan)
    if there and _is_intact(run, there):
        counted = Totals(plan.is_multi_label)
        shards = prove_shards(run, plan, counted.add, reason_to_stop, threads)
        if (shards, counted.stated(), samples) == (there.shards, there.totals, there.samples):
            return _kept(run, plan, dataclasses.replace(there, totals=counted.stated()))
    counted = Totals(plan.is_multi_label)
    known = {each.shard.index: (each.bytes, each.sha256) for each in made if each.is_own}
    master, shards = write_master(run, plan, counted.add, reason_to_stop, known, threads)
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


def _is_intact(run: Path, manifest: Manifest) -> bool:
    try:
        return landing.file_digest(run / MASTER_FILE) == manifest.master.sha256
    except OSError:  # a bad block is what merging again mends
        return False


def _is_stated(run: Path, plan: Plan, manifest: Manifest) -> bool:
    """Return whether there is a manifest that says the same of the same files, such as of a worker that merged too."""
    try:
        there = read_manifest(run, plan)
    except (FileNotFoundError, RunError):
        return False
    said = [(each.shards, each.master, each.totals, each.samples) for each in (there, manifest)]
    return said[0] == said[1]


def complete_run(run: Path, own: Callable[[int], bool] | None = None, made: Iterable[LandedShard] = ()) -> MergeSummary:
    """Return what the manifest of a complete run says; merge first if there is none, or it is not about these files.

    Args:
        run: the run directory.
        own: which shards to look at, by index, where others look at the others and this process has made none; None:
            all, and whether the manifest is about them.
        made: as `merge` takes them.

    Raises:
        RunError, StoppedEarlyError: as `merge`.
    """
    plan = open_plan(run)
    there = _stated(run, plan, own)
    return _kept(run, plan, there) if there else merge(run, made=made)


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
    table = table_beside(run, plan)
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
    landed = landed_shards(run, plan)
    missing = [s.index for s in plan.shards if s.index not in landed]
    if missing:
        named = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        raise RunError(f"{run}: {len(missing)} of {len(plan.shards)} shards are missing ({named}); run explain again")
