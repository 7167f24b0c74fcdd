"""How many loader processes explain wants: `python -m benchmarks.balance [-j N]… [--arch NAME]…` prints a table.

Interleaved rounds over the JPEGs of `benchmarks.speed`; rates of the stream relative to the default's, which the first
row is. On fewer CPUs than there are: `taskset -c 0-3 python -m benchmarks.balance`.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from pathlib import Path

import torch

import batchcam.commands.explain.explain  # noqa: F401  # before the first fork
from batchcam.job.cpus import available_cpus
from batchcam.rules import ENGINES
from benchmarks.contestants import Job, explain
from benchmarks.measured import measure
from benchmarks.speed import jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-j", dest="counts", type=int, action="append", help="[default: 1, a quarter, half, all CPUs]")
    parser.add_argument("--arch", action="append", help="[default: resnet18, squeezenet1_1]")
    parser.add_argument("--pixels", default="pillow")
    parser.add_argument("--engine", default=ENGINES[0], choices=ENGINES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--device", type=torch.device, default="cpu")
    asked = parser.parse_args()
    cpus = available_cpus()
    counts = [None, *(asked.counts or sorted({max(1, cpus // part) for part in (cpus, 4, 2, 1)}))]
    for arch in asked.arch or ["resnet18", "squeezenet1_1"]:
        asked.arch = arch
        with tempfile.TemporaryDirectory() as folder:
            print(table(next(jobs(Path(folder), asked)), counts, asked), flush=True)


def table(job: Job, counts: list[int | None], asked: argparse.Namespace) -> str:
    found: dict[int | None, list[dict[str, float]]] = {count: [] for count in counts}
    for number in range(asked.rounds):
        turn = number % len(counts)
        for count in counts[turn:] + counts[:turn]:
            contestant = functools.partial(explain, workers=count, pixels=asked.pixels, engine=asked.engine)
            measured = measure(contestant, job, asked.images, job.device)
            if measured is None:
                raise SystemExit(f"explain failed with -j {count}")
            found[count].append(measured)
    lines = [
        f"{asked.arch}, --pixels {asked.pixels}, --engine {asked.engine}, {available_cpus()} CPUs, {job.device}:\n",
        "| loader processes | images/s | of the default's | CPU ms/image | waiting for images |",
        "|---|---|---|---|---|",
    ]
    for rows in found.values():
        ratio = statistics.median(ours["s"] / one["s"] for one, ours in zip(rows, found[None], strict=True))
        rate, cpu, waits = (
            statistics.median(values)
            for values in ([1 / r["s"] for r in rows], [1000 * r["cpu_s"] for r in rows],
                           [r["share_waiting_for_images"] for r in rows])
        )  # fmt: skip
        lines.append(f"| {rows[0]['loader_processes']:.0f} | {rate:.1f} | {ratio:.2f} | {cpu:.1f} | {waits:.0%} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
