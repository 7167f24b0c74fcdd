"""What landing shards costs, against writing the same bytes."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from batchcam.store.plan import write_plan
from batchcam.store.shard import ShardWriter
from benchmarks.measured import cpu_seconds
from benchmarks.reader import ORIGIN
from benchmarks.reader import rows as plausible_rows
from tests.helpers.synthetic import synthetic_plan


def write_speed(rounds: int) -> dict[str, float]:
    """Return what landing shards of 128 px maps costs, against writing the same bytes."""
    size = 3600
    plan = synthetic_plan(
        sample_count=size, shard_size=size, sample_id_bytes=9, grid_size=(4, 4), input_size=(128, 128), channels=512
    )
    columns, texts = plausible_rows(plan, plan.shards[0], np.random.default_rng(0))
    smooth = np.random.default_rng(1).standard_normal((size, 4, 4), np.float32)
    maps = np.stack([cv2.resize(m, (128, 128)) for m in smooth])
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    columns["maps"] = np.uint8((maps - low) / (high - low) * 255)
    weight = np.zeros((len(plan.class_names), plan.channels), np.float32)
    walls, cpus, plain = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            write_plan(run, plan, ORIGIN)
            with ShardWriter(run, plan, weight, weight[:, 0].copy()) as writer:
                before, start = cpu_seconds(), time.perf_counter()
                builder = writer.builder(plan.shards[0])
                builder.append(columns, texts)
                writer.submit(builder)
                writer.wait()
                walls.append(time.perf_counter() - start)
                cpus.append(cpu_seconds() - before)
            image = (run / "shards" / "shard-00000.h5").read_bytes()
            start = time.perf_counter()
            with (Path(folder) / "same").open("wb") as stream:
                os.write(stream.fileno(), image)
                os.fsync(stream.fileno())
            plain.append(time.perf_counter() - start)
    return {
        "maps_per_s": size / statistics.median(walls),
        "cpu_us_per_map": 1e6 * statistics.median(cpus) / size,
        "share_of_raw_bytes": len(image) / columns["maps"].nbytes,
        "os_write_maps_per_s": size / statistics.median(plain),
    }
