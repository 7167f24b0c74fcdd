"""What merging costs: `python -m benchmarks.scale --merging`. Synthetic rows; 2.5 GB of disk for a moment."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from batchcam.store import landing
from batchcam.store.manifest import task_file, write_task
from batchcam.store.plan import Plan, Shard, write_plan
from batchcam.store.schema import DIGEST_SUFFIX, MANIFEST_FILE, MASTER_FILE, TASK_PATTERN
from batchcam.store.shard import ShardWriter
from benchmarks.big_runs import cost
from benchmarks.reader import ORIGIN
from benchmarks.reader import rows as plausible_rows


def land(run: Path, plan: Plan, shards: Sequence[Shard], seed: int = 0) -> None:
    """Land shards, all with the same rows but for ids, and leave a record of it, as a task does."""
    weight = np.zeros((len(plan.class_names), plan.channels), np.float32)
    columns, texts = plausible_rows(plan, Shard(0, 0, plan.shard_size), np.random.default_rng(seed))
    with ShardWriter(run, plan, weight, weight[:, 0].copy()) as writer:
        for shard in shards:
            index = np.arange(shard.first, shard.first + shard.count)
            builder = writer.builder(shard)
            builder.append({**columns, "sample_index": index}, {**texts, "sample_id": [f"{i:09d}" for i in index]})
            writer.submit(builder, replace=True)
    write_task(run, task_file(0), {"stamps": [each.stamp for each in writer.landed]})


def measure(name: str, plan: Plan) -> None:
    """Print what merging a run costs by the last of its tasks, later, and where nobody has left a word."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        write_plan(run, plan, ORIGIN)
        land(run, plan, plan.shards)
        _print(name, "by the last task", run)
        for file in (MANIFEST_FILE, MASTER_FILE):  # as explain does where a shard is gone
            landing.set_aside(run / file)
        (run / (MASTER_FILE + DIGEST_SUFFIX)).unlink()
        land(run, plan, plan.shards[1:2], seed=1)
        _print(name, "after one shard was made again", run)
        _print(name, "complete, `--prove`", run, "--prove")
        for path in (run / MANIFEST_FILE, run / MASTER_FILE, *run.glob(TASK_PATTERN)):
            path.unlink()
        _print(name, "as a copy", run)
        for processes in (1, 2):
            found = cost("verify", run, "-j", processes, "--quiet")
            print(f"| {name} | verify -j {processes} | {found['cpu_s']:.1f} |", flush=True)


def _print(name: str, what: str, run: Path, *more: str) -> None:
    print(f"| {name} | merge {what} | {cost('merge', run, *more, '--quiet')['cpu_s']:.1f} |", flush=True)
