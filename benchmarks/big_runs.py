"""Runs of millions of samples that verify finds nothing wrong with, made in minutes, and what commands cost on them.

A trivial network of two classes over two cells, computed here: of the code under test only the store writes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from batchcam.commands.merge import merge
from batchcam.store import landing
from batchcam.store.plan import Plan, Shard, fingerprint_text, write_plan
from batchcam.store.samples import list_image, list_record
from batchcam.store.shard import ShardWriter
from tests.helpers.synthetic import ORIGIN, synthetic_plan

ONE_ERROR = "not an image: " + "x" * 1000
"""Of one sample in 300,000 where a run is asked to have long errors."""

Rows = tuple[dict[str, np.ndarray], dict[str, list[str]]]


def sound_rows(shard: Shard, seed: int, long_errors: bool, before: int) -> Rows:
    """Rows of a shard: CAM of each class is its weight times the only channel, over two cells; inputs know no seed."""
    rng, inputs = np.random.default_rng((seed, shard.index)), np.random.default_rng(shard.index)
    count = shard.count
    cells = rng.standard_normal((count, 1, 2), np.float32) + np.float32([[[0, 3]]])
    cams = np.concatenate([cells, -cells], 1)[:, :, None, :]
    logits = cams.astype(np.float64).mean((2, 3))
    prediction = logits.argmax(1)
    stored = np.take_along_axis(cams, prediction[:, None, None, None], 1)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    numbers = range(before + shard.first, before + shard.first + count)
    ids = [f"class {i % 2}/image {i:09d}.jpg" for i in numbers]
    errors, status = [""] * count, np.where((stored <= 0).all((1, 2, 3)), 8, 0).astype(np.uint8)
    columns = {
        "sample_index": np.arange(shard.first, shard.first + count),
        "input_sha256": inputs.integers(0, 256, (count, 32), np.uint8),
        "input_bytes": inputs.integers(10_000, 20_000, count),
        "label": inputs.integers(0, 2, count),
        "prediction": prediction,
        "confidence": (1 / powers.sum(1)).astype(np.float32),
        "logits": logits.astype(np.float32),
        "cam_class": prediction[:, None],
        "cams": stored,
        "crop_box": np.tile(np.float32([0, 0, 80, 48]), (count, 1)),
        "image_size": np.tile(np.int32([48, 80]), (count, 1)),
        "identity_residual": np.zeros(count, np.float32),
        "status": status,
    }
    if long_errors:
        for row in range(-shard.first % 300_000, count, 300_000):
            errors[row] = ONE_ERROR
            status[row] = 1
            for name, values in columns.items():
                if name in ("confidence", "logits", "cams", "identity_residual", "crop_box"):
                    values[row] = np.nan
                elif name in ("prediction", "cam_class", "image_size"):
                    values[row] = -1
                elif name == "input_sha256":
                    values[row] = 0
    return columns, {"sample_id": ids, "error": errors}


def sound_run(
    run: Path,
    samples: int,
    shard_size: int,
    seed: int = 0,
    long_errors: bool = False,
    merged: bool = True,
    before: int = 0,
) -> Plan:
    """Make a run of `samples`, with the list of them; `merged`: complete; `before`: samples of runs before it."""
    plan = synthetic_plan(
        sample_count=samples, shard_size=shard_size, sample_id_bytes=27, maps="none", cams="predicted",
        grid_size=(1, 2), input_size=(48, 80), class_names=("for", "against"), channels=1,
    )  # fmt: skip
    fingerprint, listed = hashlib.sha256(), {"sample_id": [], "label": [], "input_bytes": []}
    for shard in plan.shards:
        columns, texts = sound_rows(shard, seed, long_errors, before)
        of = {"sample_id": texts["sample_id"], "label": columns["label"], "input_bytes": columns["input_bytes"]}
        fingerprint.update(fingerprint_text({**of, "sample_id": np.array([i.encode() for i in of["sample_id"]])}))
        listed["sample_id"] += of["sample_id"]
        for name in ("label", "input_bytes"):
            listed[name].append(of[name])
    plan = synthetic_plan(**{**vars(plan), "cams": str(plan.cams), "dataset_fingerprint": fingerprint.hexdigest()})
    columns = {n: v if n == "sample_id" else np.concatenate(v) for n, v in listed.items()}
    write_plan(run, plan, ORIGIN, list_image(plan, columns))
    landing.take_up(run / "samples.h5", list_record(run).sha256)
    weight = np.float32([[1], [-1]])
    with ShardWriter(run, plan, weight, np.zeros(2, np.float32)) as writer:
        for shard in plan.shards:
            builder = writer.builder(shard)
            builder.append(*sound_rows(shard, seed, long_errors, before))
            writer.submit(builder)
    if merged:
        merge(run)
    return plan


LAUNCH = """
import json, os, sys, time
start = time.monotonic()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ,
    file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
_, status, used = os.wait4(child, 0)
print(json.dumps({"seconds": time.monotonic() - start, "cpu_s": used.ru_utime + used.ru_stime,
    "peak_mb": used.ru_maxrss / 1024, "code": os.waitstatus_to_exitcode(status)}))
"""
"""A process so small that its memory hides in none of its child's, whose peak counts its own children's too."""


def cost(*words: object) -> dict[str, float]:
    """Run a command of batchcam; return seconds, CPU seconds, the peak of its largest process, and the exit code."""
    command = [sys.executable, "-S", "-c", LAUNCH, sys.executable, "-m", "batchcam", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured
