"""What a task of many asks of the file system: `python -m benchmarks.scale --tasks 1000`, by strace, which it needs.

Images are hard links to a few small ones, the network is two convolutions, and each task is a process of its own, one
after the other; shards of the others are rows from nowhere. Counted is what comes after the imports, which are the same
whatever there is to do. 500,000 samples take 600 MB of disk for a moment.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
import torch

from batchcam.store.plan import read_plan
from batchcam.store.shard import ShardWriter, has_landed
from benchmarks.reader import rows as plausible_rows
from tests.helpers.networks import GapNetwork, seeded

CLASSES = ("ant", "bee", "cat")
MOST_LINKS = 50_000  # of one file; file systems end at 65,000
DONE = "/imports-done"
TASK = f"""
import json, os, sys, time
from pathlib import Path
import batchcam.commands.explain.explain
from batchcam.cli import main
from batchcam.job.processes import peak_memory

try:
    os.stat({DONE!r})
except OSError:
    pass
cpu = time.process_time()
try:
    main(sys.argv[2:])
finally:
    measured = {{"cpu_s": time.process_time() - cpu, "peak_mb": peak_memory()[0] / 2**20}}
    Path(sys.argv[1]).write_text(json.dumps(measured))
"""
NO_METADATA = {"read", "write", "pread64", "pwrite64", "lseek", "mmap", "ioctl"}
"""Calls on a file that is open, which no metadata server answers."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """One task: calls on files of the dataset and of the run, those of them about metadata, CPU seconds, memory."""

    calls: int
    metadata: int
    cpu_s: float
    peak_mb: float


def image(data: Path, number: int, samples: int) -> Path:
    """Return where an image lies."""
    return data / CLASSES[number * len(CLASSES) // samples] / f"{number:07d}.png"


def dataset(data: Path, samples: int) -> Path:
    """Make a folder of class folders of hard links."""
    rng = np.random.default_rng(0)
    for number in range(samples):
        path = image(data, number, samples)
        if number % MOST_LINKS == 0 or not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 256, (16, 16, 3), np.uint8))
            first = path
        else:
            os.link(first, path)
    return data


def task(folder: Path, words: list[object], index: int, count: int) -> Measured:
    """Run a task of explain; return what it cost."""
    trace, told = folder / "trace", folder / "measured.json"
    settings = ("--model", "tests.helpers.networks:GapNetwork", "--preprocess", "stl10", "--image-size", 16)
    quiet = ("--cams", "predicted", "--maps", "none", "--device", "cpu", "-j", 0, "--threads", 1, "-q")
    command = [sys.executable, "-c", TASK, told, "explain", *words, *settings, *quiet, "--task", f"{index}/{count}"]
    strace = ["strace", "-f", "-y", "-e", "trace=%file,%desc", "-o", trace]
    subprocess.run([str(word) for word in (*strace, *command, "--share-only")], stdout=subprocess.DEVNULL, check=True)
    calls = counted(trace, str(folder / "data"), str(folder / "run"))
    trace.unlink()
    few = sum(number for call, number in calls.items() if call not in NO_METADATA)
    return Measured(sum(calls.values()), few, **json.loads(told.read_text()))


def counted(trace: Path, *folders: str) -> collections.Counter[str]:
    """Return how often each system call named a file in one of the folders, after the imports."""
    calls: collections.Counter[str] = collections.Counter()
    seen = False
    with trace.open(errors="replace") as lines:
        for line in lines:
            seen = seen or DONE in line
            call = re.match(r"\d+ +(\w+)\(", line)
            if seen and call and any(folder in line for folder in folders):
                calls[call[1]] += 1
    return calls


def land_others(run: Path, data: Path, left: Collection[int]) -> None:
    """Land rows from nowhere, but for the digests of images, as all shards that are missing, but for those left."""
    plan, rng = read_plan(run), np.random.default_rng(0)
    weight = np.zeros((len(plan.class_names), plan.channels), np.float32)
    with ShardWriter(run, plan, weight, weight[:, 0].copy()) as writer:
        for shard in plan.shards:
            if shard.index not in left and not has_landed(run, shard):
                builder = writer.builder(shard)
                columns, texts = plausible_rows(plan, shard, rng)
                images = (image(data, number, plan.sample_count) for number in columns["sample_index"].tolist())
                digests = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in images)
                columns["input_sha256"] = np.frombuffer(digests, np.uint8).reshape(-1, 32)
                builder.append(columns, texts)
                writer.submit(builder)


def line(name: str, found: Measured) -> None:
    print(
        f"| {name} | {found.metadata:,} | {found.calls:,} | {found.cpu_s:.2f} s | {found.peak_mb:.0f} |",
        flush=True,
    )


def measure(count: int, samples: int, shard_size: int) -> None:
    """Print what tasks of a few kinds cost, and what all of them do."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(seeded(GapNetwork).state_dict(), folder / "model.pth")
        run, data, shards = folder / "run", dataset(folder / "data", samples), -(-samples // shard_size)
        words = [folder / "model.pth", data, "--out", run, "--shard-size", shard_size, "-b", 100]
        print(
            f"\n{samples:,} samples in {shards:,} shards, {count:,} tasks\n\n"
            "| task | metadata calls | calls | CPU | peak MB |\n|---|---|---|---|---|"
        )
        first = task(folder, words, 0, count)
        line("first: lists, plans, makes its share", first)
        later = task(folder, words, 1, count)
        line("later: makes its share", later)
        again = task(folder, words, 1, count)
        line("the same again: nothing to do", again)
        land_others(run, data, left=(2, 3))
        one = task(folder, words, 2, count)
        line("makes 1 shard, all others but one have landed", one)
        merging = task(folder, words, 3, count)
        line("makes the last one, and merges", merging)
        resumed = task(folder, words, 2, count)
        line("nothing to do, the run is complete", resumed)
        line("the first again: looks at the dataset", task(folder, words, 0, count))
        total = first.metadata + (count - 1) * later.metadata + merging.metadata
        print(
            f"\nAll {count:,} tasks, the first + {count - 1:,} x a later one + merging: {total:,} metadata calls; "
            f"once more over the complete run: {first.metadata + (count - 1) * resumed.metadata:,}"
        )
