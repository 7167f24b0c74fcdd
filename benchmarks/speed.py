"""Benchmark of explaining: `python -m benchmarks.speed --out DIR` writes table.md, bench.json and bench.svg.

Every contestant does a whole job over the same images, in a process of its own that is forked anew for each round, in
an order that rotates. images/s and "batchcam is" are of the stream alone, from the first image to the last row on the
disk; start-up stands apart: importing in a fresh interpreter, then building, converting, compiling (of explain also
the merge at the end), of the first round and the median of all. "with start-up" leaves out imports alone. A contestant
whose package is not installed is left out: torchcam comes with the test extra, OpenVINO with the extra cpu; `pip
install grad-cam captum timm` brings others, in an environment of their own, and so does ultralytics, `--no-deps`.

`--before TREE` lets the batchcam of another checkout take part: it is then "as fast" as its row says. `--quick` takes
three minutes on two cores. With `--device cuda` take more images, such as `--images 8192`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torchvision

from batchcam.job.cpus import available_cpus
from batchcam.network.checkpoint import pack_checkpoint
from benchmarks.contestants import BATCH, BEFORE, CONTESTANTS, GPU_ONLY, OURS, RESNET_ONLY, Job
from benchmarks.drawn import CLASSES, photos, stl10
from benchmarks.landing import write_speed
from benchmarks.measured import energy, import_seconds, measure
from benchmarks.speed_tables import chart, shares, table

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5] * 3, [0.5] * 3)
QUICK_IMAGES = 64


def main() -> None:
    asked = options()
    asked.out.mkdir(parents=True, exist_ok=True)
    names = competing(asked)
    for name in names:
        for module in modules_of(name)[1].split(", "):
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as text:
        os.environ["XDG_CACHE_HOME"] = str(Path(text) / "cache")  # else the first round is no first one
        for job in islice(jobs(Path(text), asked), asked.jobs):
            found[job.name] = compete(job, names, asked)
    save(found, write_speed(asked.rounds), asked)


def save(found: dict[str, list[dict[str, Any]]], writing: dict[str, float], asked: argparse.Namespace) -> None:
    result = {
        "machine": machine(asked.device),
        "energy": "RAPL, all packages of the machine" if energy() else "not readable here",
        "asked": {name: str(value) for name, value in vars(asked).items()},
        "jobs": found,
        "shares": {name: shares(rows) for name, rows in found.items()},
        "writing": writing,
    }
    (asked.out / "bench.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (asked.out / "bench.svg").write_text(chart(found), encoding="utf-8")
    (asked.out / "table.md").write_text(page(result, asked), encoding="utf-8")
    print("\n" + page(result, asked))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=512, help="JPEGs; twice as many of STL10")
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu or cuda")
    parser.add_argument("--before", type=Path, metavar="TREE", help="another checkout of this repository")
    parser.add_argument("--arch", default="resnet18", help="another network of torchvision's leaves out the peers")
    parser.add_argument("--only", action="append", metavar="TEXT", help="contestants with this in their name; again")
    parser.add_argument("--jobs", type=int, default=2, choices=(1, 2), help="1: JPEGs alone")
    parser.add_argument("--quick", action="store_true", help=f"one round of {QUICK_IMAGES} images")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds, asked.images = 1, QUICK_IMAGES
    return asked


def competing(asked: argparse.Namespace) -> list[str]:
    """Return the contestants' names: batchcam first, whose rates the others' are compared with."""
    names = [OURS, *([BEFORE] if asked.before else []), *(name for name in CONTESTANTS if name != OURS)]
    if asked.device.type == "cpu":
        names = [name for name in names if not any(text in name for text in GPU_ONLY)]
    if asked.device.type != "cpu" or not importlib.util.find_spec("openvino"):
        names = [name for name in names if "--engine torch" not in name]  # auto is torch
    if asked.arch != "resnet18":
        names = [name for name in names if not name.startswith(RESNET_ONLY)]
    return [name for name in names if name == OURS or any(text in name for text in asked.only or [""])]


def modules_of(name: str) -> tuple[Any, str]:
    return CONTESTANTS[OURS if name == BEFORE else name]


def jobs(folder: Path, asked: argparse.Namespace) -> Iterator[Job]:
    """Yield the datasets, about as long each, with their checkpoints."""
    photos(folder / "photos", asked.images)
    stl10(folder / "stl10", 2 * asked.images)
    for job in (
        Job("JPEG 500×375 → 224 px", str(folder / "photos"), [256], 224, IMAGENET, asked.device),
        Job("STL10 binary 96 → 128 px", f"stl10:{folder / 'stl10'}:test", [128, 128], 128, HALF, asked.device),
    ):
        torch.manual_seed(0)
        state = torchvision.models.get_model(asked.arch, weights=None, num_classes=len(CLASSES)).state_dict()
        job.checkpoint = folder / f"{job.size}.pth"
        job.checkpoint.write_bytes(pack_checkpoint(state, asked.arch, CLASSES, job.preprocessing(), {}))
        yield job


def compete(job: Job, names: list[str], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each contestant: medians over interleaved rounds, and rates relative to batchcam's."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    images = len(job.users_dataset())
    for number in range(asked.rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            tree = asked.before if name == BEFORE else None
            found = measure(modules_of(name)[0], job, images, job.device, tree)
            if found is not None:
                results[name].append(found)
                print(f"{job.name}, round {number + 1}: {name} {1 / found['s']:.1f} images/s", flush=True)
    ours, rows = results[OURS], []
    for name, found in results.items():
        if ours and len(found) == len(ours):
            tree = asked.before if name == BEFORE else None
            import_s = import_seconds(modules_of(name)[1], tree, 1 if asked.quick else 3)
            rows.append(row(name, found, ours, images, import_s))
    return rows


def row(
    name: str, found: list[dict[str, float]], ours: list[dict[str, float]], images: int, import_s: float | None
) -> dict[str, Any]:
    def whole(one: dict[str, float]) -> float:
        return one["s"] + one["start_s"] / images

    rates = [1 / one["s"] for one in found]
    both = [*zip(found, ours, strict=True)]  # round by round: what slows the machine down slows both
    medians = {key: statistics.median(one[key] for one in found) for key in found[0] if all(key in f for f in found)}
    return {
        **medians,
        "name": name,
        "images_per_s": statistics.median(rates),
        "spread": [min(rates), max(rates)],
        "batchcam_is_times": statistics.median(one["s"] / our["s"] for one, our in both),
        "batchcam_is_times_whole": statistics.median(whole(one) / whole(our) for one, our in both),
        "cpu_ms_per_image": 1000 * medians["cpu_s"],
        "start_first_s": found[0]["start_s"],
        "import_s": import_s,
    }


def machine(device: torch.device) -> str:
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""  # nothing forks any more
    return f"{gpu}{available_cpus()} CPUs ({platform.machine()}), torch {torch.__version__}, {date.today()}"


def page(result: dict[str, Any], asked: argparse.Namespace) -> str:
    told = [
        f"{asked.arch}, batch {BATCH}, rounds: {asked.rounds} of {asked.images} images (STL10: twice as many), "
        f"{result['machine']}"
    ]
    for name, rows in result["jobs"].items():
        told += [table(name, rows)]
        told += ["Shares: " + "; ".join(f"{each}: {share:.2f}" for each, share in result["shares"][name].items())]
    writing = result["writing"]
    told.append(
        f"Landing shards of 128 px maps: {writing['maps_per_s']:,.0f} maps/s, {writing['cpu_us_per_map']:.0f} µs of "
        f"CPU a map, {writing['share_of_raw_bytes']:.2f} of the raw bytes; the same bytes by `os.write` and fsync: "
        f"{writing['os_write_maps_per_s']:,.0f} maps/s."
    )
    return "\n\n".join(told) + "\n"


if __name__ == "__main__":
    main()
