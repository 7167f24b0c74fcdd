"""What landed and who did it: manifest.json, written last, so that its presence means complete; task-*.json."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batchcam.errors import RunError, one_line
from batchcam.rules import Status, flag_name
from batchcam.store import landing
from batchcam.store.document import read_document, seal
from batchcam.store.form import mismatch
from batchcam.store.plan import Plan, read_plan
from batchcam.store.schema import MANIFEST_FILE, MASTER_FILE, PLAN_FILE, TASK_PATTERN, WORKER_PATTERN
from batchcam.version import version

RECORD_FORM = {"file": str, "first": int, "count": int, "bytes": int, "sha256": str}
STAMPS = "stamps"
"""In a task's record: the stamps of the files that it landed or proved, for who merges and no one else."""

TASK_FORM = {
    "samples?": int,
    "unreadable?": int,
    "started?": str,
    "outcome?": str,
    "versions?": {"*": (str, None)},
    f"{STAMPS}?": [str],
}
"""What readers compute with; the rest of a task's record is only shown."""

SHARDS_FORM = {"count": int, "bytes": int, "sha256": str}

LISTED_TASKS = 10_000
"""Most shards of a run whose manifest says which task made which; the tasks' own records always do."""

_ONE_LABEL_FORM: Mapping[str, Any] = {"labelled": int, "correct": int, "accuracy": (float, None)}
OF_ONE_LABEL = frozenset(_ONE_LABEL_FORM)
"""Totals that a single-label run has, and a multi-label run has not."""

MANIFEST_FORM = {
    "schema_version": int,
    "run_id": str,
    "shards": (SHARDS_FORM, [RECORD_FORM]),
    "master": RECORD_FORM,
    "samples?": RECORD_FORM,
    "totals": {
        "samples": int,
        **{f"{name}?": form for name, form in _ONE_LABEL_FORM.items()},
        "status": {flag_name(flag): int for flag in Status if flag} | {"*": int},
        "largest_identity_residual": (float, None),
        "trained_on?": int,
    },
    "findings": [{"kind": str, "count": int}],
    "tasks": [TASK_FORM],
    "made": {},
}


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """A file of the run as the manifest states it: name relative to its folder, samples, size and digest."""

    file: str
    first: int
    count: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class ShardSum:
    """All shards of a run as the manifest states them; each by itself stands in run.h5.

    Attributes:
        count: of the shards.
        bytes: of all of them.
        sha256: of the lines of their digest files, in their order.
    """

    count: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A complete run.

    Attributes:
        shards: all of them together.
        master: run.h5.
        totals: samples, labelled, correct, accuracy (none of these three in a multi-label run), samples by status,
            largest identity residual.
        findings: what a reader should look at: kind and count.
        tasks: what each task recorded of itself.
        made: when, where and by whom it was written.
        schema_version: of the plan.
        samples: samples.h5, None where the run was planned by a version that wrote none.
    """

    run_id: str
    shards: ShardSum
    master: FileRecord
    totals: dict[str, Any]
    findings: list[dict[str, Any]]
    tasks: list[dict[str, Any]]
    made: dict[str, Any]
    schema_version: int
    samples: FileRecord | None = None


def write_manifest(run: Path, manifest: Manifest) -> None:
    """Land manifest.json."""
    content = {"batchcam_version": version(), **dataclasses.asdict(manifest)}
    if manifest.samples is None:
        del content["samples"]
    if manifest.shards.count > LISTED_TASKS:
        content["tasks"] = [{name: task[name] for name in task if name != "shards"} for task in manifest.tasks]
    landing.land(run / MANIFEST_FILE, seal(content))


def read_manifest(run: Path, plan: Plan, path: Path | None = None) -> Manifest:
    """Return the manifest of `run`, or one that lies elsewhere.

    Raises:
        FileNotFoundError: there is none: the run is not complete.
        RunError: it was changed, is damaged, or belongs to another plan.
    """
    path = path or run / MANIFEST_FILE
    content = read_document(path)
    if content.get("schema_version") != plan.schema_version:
        raise RunError(f"{path}: schema {content.get('schema_version')!r}; {PLAN_FILE} says {plan.schema_version}")
    if (where := mismatch(content, MANIFEST_FORM)) is not None:
        raise RunError(f"{path}: not a manifest of this version: {where} is missing or of the wrong type")
    try:
        manifest = Manifest(
            shards=_shards(content["shards"], plan),
            master=FileRecord(**content["master"]),
            samples=FileRecord(**content["samples"]) if "samples" in content else None,
            **{name: content[name] for name in ("run_id", "totals", "findings", "tasks", "made", "schema_version")},
        )
    except TypeError as error:  # a record with more fields
        raise RunError(f"{path}: not a manifest of this version: {error}") from error
    if OF_ONE_LABEL & manifest.totals.keys() != (frozenset() if plan.is_multi_label else OF_ONE_LABEL):
        raise RunError(f"{path}: its totals are not those of the plan's problem type")
    if manifest.run_id != plan.run_id:
        belongs_to = one_line(manifest.run_id[:12])
        raise RunError(f"{path}: belongs to run {belongs_to}, run.json to run {plan.run_id[:12]}")
    if manifest.shards.count != len(plan.shards):
        raise RunError(f"{path}: its shards are not those of run.json")
    if (manifest.master.file, manifest.master.first, manifest.master.count) != (MASTER_FILE, 0, plan.sample_count):
        raise RunError(f"{path}: tells of another file than {MASTER_FILE} over all samples")
    return manifest


def _shards(stated: dict[str, Any] | list[dict[str, Any]], plan: Plan) -> ShardSum:
    """Return what a manifest states of the shards; those of earlier versions listed them."""
    if isinstance(stated, dict):
        return ShardSum(**stated)
    records = [FileRecord(**each) for each in stated]
    if [(r.file, r.first, r.count) for r in records] != [(s.file, s.first, s.count) for s in plan.shards]:
        return ShardSum(0, 0, "")  # none of this plan's
    lines = "".join(landing.digest_line(r.file, r.sha256) for r in records)
    return ShardSum(
        len(records), sum(r.bytes for r in records), hashlib.sha256(lines.encode("utf-8", "replace")).hexdigest()
    )


def stated_manifest(run: Path, plan: Plan) -> Manifest | None:
    """Return the manifest of `run` as `read_manifest` does, None where there is none: the run is not complete."""
    try:
        return read_manifest(run, plan)
    except FileNotFoundError:
        return None


def manifest_if_complete(run: Path) -> Manifest | None:
    """Return the manifest of a run that is complete by its plan, None of any other folder."""
    try:
        return read_manifest(run, read_plan(run))
    except (OSError, RunError):
        return None


def holds_images(run: Path) -> bool:
    """Return whether a run is complete, and at least half of its images could be read.

    A run of nothing, as when the image server was away, replaces nothing.
    """
    if (manifest := manifest_if_complete(run)) is None:
        return False
    unreadable: int = manifest.totals["status"][flag_name(Status.UNREADABLE)]
    return bool(2 * unreadable <= manifest.totals["samples"])


def unverified_note(run: Path) -> Path:
    """Return the path of the empty file that lies beside a run as long as verify has not passed it."""
    return run.with_name(f"{run.name}.unverified")


def task_file(number: int) -> str:
    """Return a new name task-NNNNN-*.json; every process that works on a run has its own."""
    return TASK_PATTERN.replace("*", f"{number:05d}-{secrets.token_hex(4)}")


def merge_file() -> str:
    """Return a new name task-merge-*.json, for the stamps of what a process that merges has proven."""
    return TASK_PATTERN.replace("*", f"merge-{secrets.token_hex(4)}")


def task_numbers(run: Path) -> set[int]:
    """Return the numbers of the tasks that have begun to work on a run, as the names of their records say."""
    found = (re.match("task-([0-9]+)-", path.name) for path in run.glob(TASK_PATTERN))
    return {int(match[1]) for match in found if match}


def write_task(run: Path, name: str, record: dict[str, Any]) -> None:
    """Land what a task did so far under the name that `task_file` gave it."""
    landing.land(run / name, seal(record))


def read_tasks(run: Path) -> list[dict[str, Any]]:
    """Return what the tasks recorded, by time of start; records that are damaged are left out (verify names them)."""
    tasks = [_without_stamps(task) for task in _sound_records(run, WORKER_PATTERN)]
    return sorted(tasks, key=lambda t: str(t.get("started")))


def read_stamps(run: Path) -> set[str]:
    """Return the stamps that were left in a run; a record that is damaged leaves none."""
    return {stamp for record in _sound_records(run, TASK_PATTERN) for stamp in record.get(STAMPS, ())}


def read_task(path: Path) -> dict[str, Any]:
    """Return what a task recorded, but for the stamps.

    Raises:
        FileNotFoundError: there is none.
        RunError: it is damaged, or no record of a task.
    """
    return _without_stamps(_read_record(path))


def _read_record(path: Path) -> dict[str, Any]:
    content = read_document(path)
    if (where := mismatch(content, TASK_FORM)) is not None:
        raise RunError(f"{path}: not a task's record: {where} is of the wrong type")
    return content


def _without_stamps(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != STAMPS}


def _sound_records(run: Path, pattern: str) -> Iterator[dict[str, Any]]:
    for path in sorted(run.glob(pattern)):
        with contextlib.suppress(FileNotFoundError, RunError):
            yield _read_record(path)
