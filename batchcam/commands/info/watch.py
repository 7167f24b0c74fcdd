"""info --watch: a run in progress, again and again until it is complete. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from batchcam.job.stop import wait
from batchcam.store.manifest import read_tasks
from batchcam.store.plan import Plan, Shard, open_plan
from batchcam.store.schema import MANIFEST_FILE, SHARD_FOLDER
from batchcam.store.shard import landed_shards

RATE_SHARDS = 50  # the latest landed shards, from which the rate is taken


@dataclasses.dataclass(frozen=True)
class Watch:
    """A look at a run in progress.

    Attributes:
        run: the run directory.
        shards: of the plan.
        shards_landed: on disk.
        samples: of the plan.
        samples_landed: in the landed shards.
        samples_per_s: as the latest shards landed, by all tasks together; None before two have landed.
        seconds_left: at this rate; None while it is not known.
        unreadable: samples that the tasks found unreadable so far.
        tasks: what each task recorded of itself so far.
        complete: whether the manifest and all shards are there.
    """

    run: str
    shards: int
    shards_landed: int
    samples: int
    samples_landed: int
    samples_per_s: float | None
    seconds_left: float | None
    unreadable: int
    tasks: list[dict[str, Any]]
    complete: bool


def watch(run: Path, interval_s: float = 2.0, sleep: Callable[[float], None] = wait) -> Iterator[Watch]:
    """Yield a look at `run` every `interval_s` seconds, the last one when it is complete.

    Raises:
        RunError: not a run directory, or its plan is damaged.
        StoppedEarlyError: a signal came.
    """
    plan = open_plan(run)
    while True:
        seen = look(run, plan)
        yield seen
        if seen.complete:
            return
        sleep(interval_s)


def look(run: Path, plan: Plan) -> Watch:
    """Return how far `run` is now."""
    landed = landed_shards(run, plan)
    complete = (run / MANIFEST_FILE).exists() and len(landed) == len(plan.shards)
    shards = [s for s in plan.shards if s.index in landed]
    done = sum(s.count for s in shards)
    rate = _rate(run, shards)
    tasks = read_tasks(run)
    return Watch(
        run=str(run),
        shards=len(plan.shards),
        shards_landed=len(shards),
        samples=plan.sample_count,
        samples_landed=done,
        samples_per_s=rate,
        seconds_left=(plan.sample_count - done) / rate if rate else None,
        unreadable=sum(int(t.get("unreadable") or 0) for t in tasks),
        tasks=tasks,
        complete=complete,
    )


def _rate(run: Path, shards: list[Shard]) -> float | None:
    """Return samples a second over the latest shards, by the times that the file system gave them."""
    times = []
    for shard in shards:
        try:
            times.append(((run / SHARD_FOLDER / shard.file).stat().st_mtime, shard.count))
        except FileNotFoundError:  # removed for repair meanwhile
            continue
    latest = sorted(times)[-RATE_SHARDS:]
    if len(latest) < 2 or latest[-1][0] <= latest[0][0]:
        return None
    # the first of them landed when the clock started
    return sum(count for _, count in latest[1:]) / (latest[-1][0] - latest[0][0])
