"""Benchmark of reading: `python -m benchmarks.reader` builds runs and prints how long a look takes.

Not a test: times depend on the machine. Medians of several rounds, files in the page cache.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import batchcam
from batchcam.commands.merge import merge
from batchcam.store.plan import Plan, Shard, write_plan
from batchcam.store.shard import ShardWriter
from tests.helpers.synthetic import synthetic_plan

ORIGIN = {"options": {"classifier": {"checkpoint": ""}, "data": ""}, "created": "", "user": "", "host": ""}


def rows(plan: Plan, shard: Shard, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Rows of plausible types and sizes; the reader does not ask whether they are true."""
    n, classes, maps = shard.count, len(plan.class_names), plan.maps_per_sample
    columns = {
        "sample_index": np.arange(shard.first, shard.first + n),
        "input_sha256": np.zeros((n, 32), np.uint8),
        "input_bytes": np.full(n, -1),
        "label": rng.integers(0, classes, n),
        "prediction": rng.integers(0, classes, n),
        "confidence": rng.random(n, np.float32),
        "logits": rng.standard_normal((n, classes), np.float32),
        "cam_class": np.tile(np.arange(maps), (n, 1)),
        "cams": rng.standard_normal((n, maps, *plan.grid_size), np.float32),
        "crop_box": np.zeros((n, 4), np.float32),
        "image_size": np.ones((n, 2), np.int32),
        "identity_residual": np.zeros(n, np.float32),
        "status": np.zeros(n, np.uint8),
    }
    if plan.maps == "uint8":
        height, width = plan.input_size
        noise = rng.integers(0, 256, (n, height // 2, width), np.uint8)
        columns["maps"] = noise.repeat(2, axis=1)  # deflates to half, as a typical map does
        columns["map_range"] = np.zeros((n, 2), np.float32)
    return columns, {"sample_id": [f"{i:09d}" for i in columns["sample_index"]], "error": [""] * n}


def build(run: Path, shards: int, shard_size: int, maps: str) -> Path:
    plan = synthetic_plan(
        sample_count=shards * shard_size, shard_size=shard_size, sample_id_bytes=9, maps=maps, cams="all",
        grid_size=(4, 4), input_size=(128, 128),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    weight = np.zeros((len(plan.class_names), plan.channels), np.float32)
    write_plan(run, plan, ORIGIN)
    with ShardWriter(run, plan, weight, weight[:, 0].copy()) as writer:
        for shard in plan.shards:
            builder = writer.builder(shard)
            builder.append(*rows(plan, shard, rng))
            writer.submit(builder)
    merge(run)
    return run


def median_ms(action: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def first_look(path: Path) -> None:
    with batchcam.open_run(path) as run:
        run.cam(0, 1), run.map(0)


def main() -> None:
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        hundred = build(Path(folder) / "hundred", 100, 64, "uint8")
        with batchcam.open_run(hundred) as run:
            look = median_ms(lambda: (run.cam(i := int(rng.integers(len(run))), 1), run.map(i)), 200)
        print(f"one sample's CAM and map out of 100 shards, run open: {look:.2f} ms (wanted: under 10)")
        large = build(Path(folder) / "large", 1, 3600, "uint8")
        size = (large / "shards" / "shard-00000.h5").stat().st_size / 2**20
        first = median_ms(lambda: first_look(large), 5)
        print(f"the first look into a shard of {size:.0f} MiB, its SHA-256 included: {first:.0f} ms")
        million = build(Path(folder) / "million", 100, 10_000, "none")
        with batchcam.open_run(million) as run:
            proven = median_ms(lambda: run.prediction[:], 1)
            read = median_ms(lambda: run.prediction[:], 5)
        print(f"predictions of 1,000,000 samples: {read:.0f} ms, the first time {proven:.0f} ms (wanted: under 1000)")
        thousand = build(Path(folder) / "thousand", 1000, 4, "none")
        opened = median_ms(lambda: batchcam.open_run(thousand).close(), 5)
        print(f"opening a run of 1,000 shards: {opened:.0f} ms (wanted: under 500)")


if __name__ == "__main__":
    main()
