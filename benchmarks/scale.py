"""Benchmark of size: `python -m benchmarks.scale` writes runs of growing size and prints what they cost.

Synthetic rows, so that the store alone is measured: cells of ResNet18 at 128 px, landing, merging, memory. Landing and
merging of each size run in processes of their own. The largest takes 15 GB of disk for a moment, and minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from batchcam.commands.explain.planning import sample_bytes
from batchcam.store.plan import Plan, Shard, write_plan
from batchcam.store.schema import MANIFEST_FILE
from batchcam.store.shard import ShardWriter
from benchmarks import merging, tasks
from benchmarks.big_runs import cost, sound_run
from benchmarks.reader import ORIGIN
from benchmarks.reader import rows as plausible_rows
from tests.helpers.synthetic import synthetic_plan

SHARD_SAMPLES = 50_000

Measured = dict[str, float]


MERGE = """
import json, re, sys, time
from pathlib import Path
from batchcam.commands.merge import merge

start = time.perf_counter()
merge(Path(sys.argv[1]))
seconds = time.perf_counter() - start
peak_kb = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(json.dumps({"merge_s": seconds, "merging_peak_mb": int(peak_kb) / 1024}))
"""
"""VmHWM and not getrusage's maximum, which counts the process that started this one."""


def build(folder: Path, plan: Plan) -> Measured:
    """Write and merge a run; return seconds, bytes and memory."""
    rng = np.random.default_rng(0)
    run = folder / "run"
    write_plan(run, plan, ORIGIN)
    weight = np.zeros((len(plan.class_names), plan.channels), np.float32)
    block = Shard(0, 0, plan.shard_size)
    columns, texts = plausible_rows(plan, block, rng)
    start = time.perf_counter()
    with ShardWriter(run, plan, weight, weight[:, 0].copy()) as writer:
        for shard in plan.shards:
            builder = writer.builder(shard)
            columns["sample_index"] = np.arange(shard.first, shard.first + shard.count)
            texts["sample_id"] = [f"{i:09d}" for i in columns["sample_index"]]
            builder.append(columns, texts)
            writer.submit(builder)
        writer.wait()
    seconds = time.perf_counter() - start
    size = sum(p.stat().st_size for p in (run / "shards").glob("*.h5"))
    return {
        "write_s": seconds,
        "bytes_per_sample": size / plan.sample_count,
        "most_bytes_per_sample": sample_bytes(plan),
        "writing_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **merged(run),
    }


def merged(run: Path) -> Measured:
    """Merge in a fresh process, whose memory is that of merging alone; return seconds and memory."""
    ended = subprocess.run([sys.executable, "-c", MERGE, run], stdout=subprocess.PIPE, check=True)
    measured: Measured = json.loads(ended.stdout)
    return measured


def apart(plan: Plan) -> Measured:
    """Return what `build` measures, in a process of its own."""
    reader, writer = os.pipe()
    if child := os.fork():
        os.close(writer)
        with os.fdopen(reader) as stream:
            text = stream.read()
        os.waitpid(child, 0)
        measured: Measured = json.loads(text)
        return measured
    with tempfile.TemporaryDirectory() as folder:
        os.write(writer, json.dumps(build(Path(folder), plan)).encode())
    os._exit(0)


def plan_of(samples: int, shard_size: int, classes: int = 10, maps: str = "uint8") -> Plan:
    return synthetic_plan(
        sample_count=samples, shard_size=shard_size, sample_id_bytes=9, maps=maps, cams="all", grid_size=(4, 4),
        input_size=(128, 128), class_names=tuple(f"class {k}" for k in range(classes)), channels=512,
    )  # fmt: skip


def line(name: str, plan: Plan) -> None:
    found = apart(plan)
    count = plan.sample_count
    print(
        f"| {name} | {found['write_s']:.1f} s, {1e6 * found['write_s'] / count:.0f} µs a sample "
        f"| {found['merge_s']:.1f} s, {1000 * found['merge_s'] / len(plan.shards):.1f} ms a shard "
        f"| {found['bytes_per_sample']:,.0f} | {found['writing_peak_mb']:.0f}, {found['merging_peak_mb']:.0f} |",
        flush=True,
    )


def growth(folder: Path, samples: int) -> None:
    """Print what the commands cost on a sound run of `samples` without maps, beside another one of the same samples."""
    run, other = folder / f"{samples}", folder / f"{samples}-other"
    for seed, path in enumerate((run, other)):
        sound_run(path, samples, SHARD_SAMPLES, seed)
    commands: dict[str, tuple[object, ...]] = {
        "verify -j 1": ("verify", run, "-j", 1),
        "verify -j 2": ("verify", run, "-j", 2),
        "info": ("info", run),
        "export csv": ("export", run, "--to", "csv", "--out", folder / f"{samples}-csv"),
        "compare": ("compare", run, other),
        "report": ("report", run, "--out", folder / f"{samples}.html"),
        "report --against": ("report", run, "--against", other, "--out", folder / f"{samples}-against.html"),
        "merge": ("merge", run),
    }
    for name, words in commands.items():
        if name == "merge":
            (run / MANIFEST_FILE).unlink()
        found = cost(*words, "--quiet")
        print(f"| {name} | {samples:,} | {found['cpu_s']:.1f} | {found['peak_mb']:.0f} |", flush=True)


def series(folder: Path, runs: int = 100, samples: int = 10_000) -> None:
    """Print what the commands cost on a series of runs without maps, beside one run of as many samples."""
    sound_run(folder / "one", runs * samples, SHARD_SAMPLES)
    for number in range(runs):
        sound_run(folder / f"many/part-{number:02d}", samples, samples, before=number * samples)
    for command in ("info", "report", "compare"):
        for run in (folder / "one", folder / "many"):
            more = {"report": ("--out", folder / f"{run.name}.html"), "compare": (run,)}.get(command, ())
            found = cost(command, run, *more, "--quiet")
            print(f"| {command} | {run.name} | {found['cpu_s']:.1f} | {found['peak_mb']:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--most", type=int, default=1_000_000, help="Largest number of samples.")
    parser.add_argument("--most-without-maps", type=int, default=4_000_000, help="The same, of runs without maps.")
    parser.add_argument("--most-shards", type=int, default=10_000)
    parser.add_argument("--growth", type=int, default=0, help="Only: commands on runs of up to so many samples.")
    parser.add_argument("--series", action="store_true", help="Measure instead a hundred runs read as one.")
    parser.add_argument("--merging", action="store_true", help="Measure instead what merging costs.")
    parser.add_argument("--tasks", type=int, default=0, help="Measure instead what so many tasks ask of a file system.")
    parser.add_argument("--tasks-samples", type=int, default=500_000)
    asked = parser.parse_args()
    if asked.growth:
        print("| command | samples | CPU s | peak MB |\n|---|---|---|---|")
        for samples in (100_000, 1_000_000, 10_000_000):
            if samples <= asked.growth:
                with tempfile.TemporaryDirectory() as folder:
                    growth(Path(folder), samples)
        return
    if asked.series:
        print("| command | run | CPU s | peak MB |\n|---|---|---|---|")
        with tempfile.TemporaryDirectory() as folder:
            series(Path(folder))
        return
    if asked.merging:
        print("| run | command | CPU s |\n|---|---|---|")
        merging.measure("5,000 shards of 60 kB", plan_of(50_000, 10, maps="none"))
        merging.measure("8 shards of 240 MB", plan_of(120_000, 15_000, classes=100))
        return
    if asked.tasks:
        tasks.measure(asked.tasks, asked.tasks_samples, shard_size=100)
        return
    print("| run | landing | merging | bytes a sample | peak MB landing, merging |\n|---|---|---|---|---|")
    for samples in (1_000, 10_000, 100_000, 1_000_000):
        if samples <= asked.most:
            line(f"{samples:,} samples in shards of 1,000", plan_of(samples, 1000))
    for samples in (1_000_000, 4_000_000):
        if samples <= asked.most_without_maps:
            line(f"{samples:,} samples in shards of 10,000, no maps", plan_of(samples, 10_000, maps="none"))
    for shards in (1, 100, 1_000, 10_000):
        if shards <= asked.most_shards:
            line(f"{shards:,} shards of 4 samples, no maps", plan_of(4 * shards, 4, maps="none"))
    for classes in (10, 100, 1000):
        line(f"4,000 samples of {classes:,} classes", plan_of(4000, 1000, classes))


if __name__ == "__main__":
    main()
