"""Benchmark of large things: `python -m benchmarks.large FOLDER` prints what many classes and large images cost.

Whole processes, as the operating system accounts for them: the start of `explain` for ImageNet-21k's classes and for a
small network, 50-megapixel PNGs decoded by one and by four loader processes, and how soon a stop is heard. FOLDER takes
600 MB. Where control groups of version 1 can be made, as by root in a container, the images are explained in 1 GB, too.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision

MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
HEIGHT, WIDTH = 6122, 8168
IMAGES = 24
DRAWN = 3


def network(folder: Path, architecture: str, class_count: int) -> list[str | Path]:
    """Write a checkpoint with random weights, and return how to explain it."""
    path, names = folder / f"{architecture}-{class_count}.pth", folder / f"{class_count}.txt"
    if not path.exists():
        torch.manual_seed(0)
        built = torchvision.models.get_model(architecture, weights=None, num_classes=class_count)
        torch.save(built.state_dict(), path)
    names.write_text("".join(f"class {k}\n" for k in range(class_count)), encoding="utf-8")
    return [path, "--arch", architecture, "--class-names", names, "--preprocess", "imagenet", "--cams", "predicted"]


def images(folder: Path, height: int, width: int, count: int) -> Path:
    """Draw smooth PNGs with a little noise, the first three again and again; return a manifest of them."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    names = [f"{number:02d}.png" for number in range(count)]
    for number, name in enumerate(names):
        if (folder / name).exists():
            continue
        if number >= DRAWN:
            (folder / name).hardlink_to(folder / names[number % DRAWN])
            continue
        image = cv2.resize(rng.integers(0, 248, (60, 80, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        image ^= rng.integers(0, 8, image.shape, np.uint8)
        cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    manifest = folder / "images.csv"
    manifest.write_text("path\n" + "".join(f"{name}\n" for name in names), encoding="utf-8")
    return manifest


def measured(words: list[str | Path], stop_after_s: float | None = None, group: Path | None = None) -> str:
    """Run `batchcam explain`, and return what it took; how long it went on after SIGTERM where it gets one."""

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    with tempfile.TemporaryDirectory() as run, tempfile.TemporaryFile() as told:
        command = [sys.executable, "-m", "batchcam", "explain", *words, "--out", Path(run) / "run"]
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=told, stderr=told, preexec_fn=enter)
        if stop_after_s is not None:
            time.sleep(stop_after_s)
            process.send_signal(signal.SIGTERM)
            start = time.monotonic()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
    code = os.waitstatus_to_exitcode(status)
    cpu = used.ru_utime + used.ru_stime
    return f"exit {code} | {seconds:.1f} s | {cpu:.1f} s | {used.ru_maxrss * 1024 / 1e6:,.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stop-after", type=float, default=12, help="Seconds after which SIGTERM is sent.")
    asked = parser.parse_args()
    folder: Path = asked.folder
    folder.mkdir(parents=True, exist_ok=True)
    small, large = images(folder / "small", 256, 256, 8), images(folder / "large", HEIGHT, WIDTH, IMAGES)
    print("| what | ended | wall | CPU | largest process |\n|---|---|---|---|---|", flush=True)

    def line(what: str, found: str) -> None:
        print(f"| {what} | {found} |", flush=True)

    for architecture, class_count in (("resnet18", 10), ("resnet50", 1000), ("resnet50", 21841)):
        words = network(folder, architecture, class_count)
        line(f"{architecture}, {class_count:,} classes: dry run", measured([*words, small, "--dry-run"]))
    words = [*network(folder, "resnet18", 10), large]
    for workers in (1, 4):
        line(f"{IMAGES} PNGs of 50 megapixels, -j {workers}", measured([*words, "-j", str(workers)]))
    for workers in (0, 4):
        line(f"the same, -j {workers}: after SIGTERM", measured([*words, "-j", str(workers)], asked.stop_after))
    if MEMORY_GROUPS.is_dir() and os.access(MEMORY_GROUPS, os.W_OK):
        group = MEMORY_GROUPS / f"batchcam-{os.getpid()}"
        group.mkdir()
        try:
            (group / "memory.limit_in_bytes").write_text(str(2**30))
            line("the same, -j 4, in 1 GB", measured([*words, "-j", "4"], group=group))
        finally:
            group.rmdir()


if __name__ == "__main__":
    main()
