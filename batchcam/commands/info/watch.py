"""A look at a run in progress: how far it is, how fast, which of its tasks are not well. No torch."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fnmatch
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from batchcam.errors import RunError
from batchcam.job import leases
from batchcam.job.console import readable_time
from batchcam.job.scheduler import epoch_seconds
from batchcam.store.landing import read_digest
from batchcam.store.manifest import read_task
from batchcam.store.plan import Shard, open_plan
from batchcam.store.schema import DIGEST_SUFFIX, MANIFEST_FILE, PARTIAL_SUFFIX, PLAN_FILE, SHARD_FOLDER, WORKER_PATTERN

RATE_SHARDS = 50  # the latest landed shards, from which the rate is taken
STALLED_S = 600.0
"""A task that has been silent for so long, and for the time of STALLED_SHARDS, is dead or hangs: it writes its record
after a shard, not within one."""
STALLED_SHARDS = 3
RUNNING, STALLED = "running", "stalled"
UNWELL = ("failed", "stopped early", STALLED)
STATES = (RUNNING, "done", *UNWELL)

Key = TypeVar("Key")
Said = TypeVar("Said")


@dataclasses.dataclass(frozen=True)
class UnwellTask:
    """A task that failed, stopped early or is stalled, and whose share no later task has taken over.

    Attributes:
        task: its share, such as "3/8".
        state: failed, stopped early or stalled.
        silent_s: seconds since it wrote its record.
        reason: why it ended, where it could tell.
    """

    task: str
    host: str
    state: str
    silent_s: float
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class ShardUnderWay:
    """A shard that a worker has begun, and how many seconds ago the worker gave a sign of life."""

    shard: int
    silent_s: float

    @property
    def is_left(self) -> bool:
        """Whether its worker counts as dead; another one will make it."""
        return self.silent_s > leases.STALE_S


@dataclasses.dataclass(frozen=True)
class Watch:
    """A look at a run in progress.

    Attributes:
        shards_landed: on disk.
        samples_landed: in the landed shards.
        samples_per_s: as the latest shards landed until now, by all tasks together; None before two have landed.
        seconds_left: at this rate; None while it is not known.
        silent_s: seconds since the latest shard landed, or since work went on after it; 0 of a complete run.
        unreadable: samples that the tasks found unreadable so far.
        tasks: how many are running, done, failed, stopped early, stalled; without those that a later one took over.
        task_seconds: that all tasks have worked together.
        unwell: the tasks that need a look, longest silent first.
        under_way: the shards that are being made, longest silent first.
        complete: whether the manifest and all shards are there.
    """

    run: str
    shards: int
    shards_landed: int
    samples: int
    samples_landed: int
    samples_per_s: float | None
    seconds_left: float | None
    silent_s: float
    unreadable: int
    tasks: dict[str, int]
    task_seconds: float
    unwell: list[UnwellTask]
    under_way: list[ShardUnderWay]
    complete: bool


def require_progress(seen: Watch, stall_s: float) -> None:
    """Refuse a run that is not complete and in which no shard landed for `stall_s` seconds.

    Raises:
        RunError: it is one.
    """
    if seen.complete or seen.silent_s < stall_s:
        return
    since = readable_time(seen.silent_s)
    if seen.shards_landed == seen.shards:
        raise RunError(f"{seen.run}: all shards are there, but for {since} nobody merged them: run batchcam merge")
    raise RunError(
        f"{seen.run}: no shard landed for {since}, {seen.shards_landed} of {seen.shards} are there; "
        "see batchcam info, and start the tasks again that are gone"
    )


def working_seconds(records: Iterable[dict[str, Any]]) -> float:
    """Return how long tasks have worked together, by their records."""
    seconds = (record.get("seconds") for record in records)
    return round(sum(each for each in seconds if isinstance(each, (int, float))), 3)


class Watcher:
    """Looks at a run again and again; a look costs a listing, and what has changed since the one before.

    Args:
        now: this machine's clock.

    Raises:
        RunError: not a run directory, or its plan is damaged.
    """

    def __init__(self, run: Path, now: Callable[[], float] = time.time) -> None:
        self._run, self._plan = run, open_plan(run)
        self._shard_of = {s.file: s for s in self._plan.shards}
        self._planned = (run / PLAN_FILE).stat().st_mtime
        self._clock = _Clock(now)
        self._landed: dict[str, tuple[int, float]] = {}
        self._signs: dict[str, float] = {}
        self._records: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}

    def look(self) -> Watch:
        """Return how far the run is now."""
        plan = self._plan
        # before the shards: whoever writes it has seen them all
        has_manifest = (self._run / MANIFEST_FILE).exists()
        landed, tasks = self._look_at_shards(), self._look_at_tasks()
        complete = has_manifest and len(landed) == len(plan.shards)
        last = landed[-1][0] if landed else self._planned
        now = self._clock.time(max([last, *self._signs.values(), *(written for written, _ in tasks)]))
        silent_s = 0.0 if complete else max(0.0, now - _waiting_since(last, tasks))
        done = sum(shard.count for _, shard in landed)
        rate = _rate(landed[-RATE_SHARDS:], silent_s)
        states = _states(tasks, now)
        return Watch(
            run=str(self._run),
            shards=len(plan.shards),
            shards_landed=len(landed),
            samples=plan.sample_count,
            samples_landed=done,
            samples_per_s=rate,
            seconds_left=(plan.sample_count - done) / rate if rate else None,
            silent_s=round(silent_s, 3),
            unreadable=sum(int(record.get("unreadable") or 0) for _, record in tasks),
            tasks=dict(collections.Counter(each.state for each in states)),
            task_seconds=working_seconds(record for _, record in tasks),
            unwell=[] if complete else [each for each in states if each.state in UNWELL],
            under_way=[
                ShardUnderWay(self._shard_of[file].index, round(max(0.0, now - sign), 3))
                for file, sign in sorted(self._signs.items(), key=lambda each: each[1])
            ],
            complete=complete,
        )

    def _look_at_shards(self) -> list[tuple[float, Shard]]:
        """Return when each shard landed that lies there with its digest, the latest last."""
        folder = self._run / SHARD_FOLDER
        is_there = folder.is_dir() and not folder.is_symlink()
        entries = list(os.scandir(folder)) if is_there else []
        inodes = {entry.name: entry.inode() for entry in entries}
        keys = {f: i for f, i in inodes.items() if f in self._shard_of and f + DIGEST_SUFFIX in inodes}

        def landed(file: str) -> float | None:
            return (folder / file).stat().st_mtime if read_digest(folder / file) else None

        self._landed = _read_new(self._landed, keys, landed)
        self._signs = self._signs_of_life(entries)
        found = [(written, self._shard_of[file]) for file, (_, written) in self._landed.items()]
        return sorted(found, key=lambda each: (each[0], each[1].index))

    def _signs_of_life(self, entries: Iterable[os.DirEntry[str]]) -> dict[str, float]:
        """Return when the worker of each shard under way gave its last sign, by the newest lease on it."""
        newest: dict[str, tuple[int, os.DirEntry[str]]] = {}
        for entry in entries:
            file, generation = leases.leased(entry.name, PARTIAL_SUFFIX) or ("", 0)
            if file in self._shard_of and file not in self._landed and generation >= newest.get(file, (0,))[0]:
                newest[file] = (generation, entry)
        signs = {}
        for file, (_, entry) in newest.items():
            with contextlib.suppress(FileNotFoundError):  # given back just now
                signs[file] = entry.stat(follow_symlinks=False).st_mtime
        return signs

    def _look_at_tasks(self) -> list[tuple[float, dict[str, Any]]]:
        """Return when each task wrote its record, and the record; those that are damaged are left out."""
        keys = {}
        for path in (self._run / name for name in fnmatch.filter(os.listdir(self._run), WORKER_PATTERN)):
            status = path.lstat()
            # an inode alone is soon another record's
            keys[path.name] = (status.st_mtime_ns, status.st_ino)
        self._records = _read_new(self._records, keys, lambda name: read_task(self._run / name))
        return [(key[0] / 1e9, record) for key, record in self._records.values()]


class _Clock:
    """The clock of the run's file system, as far as files tell it that appear between two looks; else ours."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now, self._ahead_s = now, 0.0
        self._looked: float | None = None
        self._newest = 0.0

    def time(self, newest: float) -> float:
        """Return the time, when the newest file has been written at `newest`."""
        now = self._now()
        if self._looked is not None and newest > self._newest:  # it was written since the look before
            self._ahead_s = min(max(self._ahead_s, newest - now), newest - self._looked)
        self._looked, self._newest = now, max(newest, self._newest)
        return max(now + self._ahead_s, newest)


def _read_new(
    before: dict[str, tuple[Key, Said]], keys: dict[str, Key], read: Callable[[str], Said | None]
) -> dict[str, tuple[Key, Said]]:
    """Return what files say: as before where a file's key is the same; those that can't be read are left out."""
    said = {}
    for name, key in keys.items():
        known = before.get(name)
        if known is not None and known[0] == key:
            said[name] = known
            continue
        try:
            new = read(name)
        except (FileNotFoundError, RunError):  # removed meanwhile, or damaged, of which verify tells
            continue
        if new is not None:
            said[name] = (key, new)
    return said


def _rate(landed: list[tuple[float, Shard]], silent_s: float) -> float | None:
    """Return samples a second over the latest shards until now; a silence counts where it is longer than usual."""
    if len(landed) < 2 or landed[-1][0] <= landed[0][0]:
        return None
    took = landed[-1][0] - landed[0][0]
    usual = took / (len(landed) - 1)
    # the first of them landed when the clock started
    return sum(shard.count for _, shard in landed[1:]) / (took + max(0.0, silent_s - usual))


def _waiting_since(last: float, tasks: list[tuple[float, dict[str, Any]]]) -> float:
    """Return since when a shard is due: the last one's landing, or where work went on later, the first start after it.

    Only the first one counts: tasks that start again and again without a shard are no progress.
    """
    starts = (epoch_seconds(record.get("started")) for _, record in tasks)
    return min((start for start in starts if start is not None and start > last), default=last)


def _states(tasks: list[tuple[float, dict[str, Any]]], now: float) -> list[UnwellTask]:
    """Return how each task is that no later one took over, longest silent first."""
    newest: dict[str, str] = {}
    for _, record in tasks:
        share = str(record.get("task"))
        newest[share] = max(newest.get(share, ""), str(record.get("started")))
    patience_s = max([STALLED_S, *(STALLED_SHARDS * _shard_seconds(record) for _, record in tasks)])
    states = []
    for written, record in tasks:
        state, share, silent_s = str(record.get("outcome")), str(record.get("task")), max(0.0, now - written)
        if state == RUNNING and silent_s > patience_s:
            state = STALLED
        if state not in UNWELL or newest[share] <= str(record.get("written")):
            reason = str(record.get("reason", ""))
            states.append(UnwellTask(share, str(record.get("host")), state, round(silent_s, 3), reason))
    return sorted(states, key=lambda each: -each.silent_s)


def _shard_seconds(record: dict[str, Any]) -> float:
    """Return how long a task takes for a shard; 0 while that is not known."""
    seconds, shards = record.get("seconds"), record.get("shards")
    if not isinstance(seconds, (int, float)) or not isinstance(shards, list) or not shards:
        return 0.0
    return seconds / len(shards)
