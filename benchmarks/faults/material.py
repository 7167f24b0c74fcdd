"""What the cases work on: a few images, a tiny network, a run that nothing interrupted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import BatchcamError
from batchcam.network.checkpoint import pack_checkpoint
from batchcam.store import landing
from batchcam.store.document import read_document
from batchcam.store.findings import Kind

from .warm import Warm

CLASSES = ("ant", "bee", "cat")
SIDE = 32
LEASE = ".lease-"
"""What the name of a lease has, and no other file's."""


def network() -> nn.Module:
    """Return the tiny network of every case: two convolutions, pooling, one linear layer."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, padding=1))
    return nn.Sequential(body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, len(CLASSES)))


def write_images(root: Path, count: int, seed: int = 0) -> Path:
    """Write `count` images of random pixels in three class folders."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        folder = root / CLASSES[number % len(CLASSES)]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number:05d}.png"), rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    return root


def write_checkpoint(path: Path, seed: int = 0) -> Path:
    """Write weights of `network` with everything that explain has to know, except how to make it."""
    torch.manual_seed(seed)
    half = [0.5, 0.5, 0.5]
    size = [SIDE, SIDE]
    preprocessing = {"resize": size, "image_size": size, "mean": half, "std": half, "interpolation": "bilinear"}
    path.write_bytes(pack_checkpoint(network().state_dict(), "resnet18", CLASSES, preprocessing, {}))
    return path


@dataclass(frozen=True)
class Job:
    """One explain command, and the run that it gives when nothing interrupts it."""

    checkpoint: Path
    images: Path
    reference: Path
    shard_size: int

    @classmethod
    def prepare(cls, warm: Warm, samples: int, shard_size: int) -> Job:
        """Return a job; its images, weights and run, which must verify, are made once."""
        folder = warm.folder / f"job-{samples}-{shard_size}"
        job = cls(folder / "model.pth", folder / "images", folder / "reference", shard_size)
        if folder.exists():
            return job
        write_images(job.images, samples)
        write_checkpoint(job.checkpoint)
        ended = warm.run(job.explain(job.reference))
        assert ended.code == 0, ended.output
        assert verify(VerifyConfig(job.reference, quiet=True), confine=False).found == []
        return job

    def copied(self, folder: Path) -> Job:
        """Return the same job with its images and weights in another folder."""
        folder.mkdir()
        images = shutil.copytree(self.images, folder / "images")
        return Job(shutil.copy(self.checkpoint, folder / "model.pth"), images, self.reference, self.shard_size)

    def explain(self, run: Path, *more: object) -> list[object]:
        """Return the arguments of explain."""
        return [
            "explain", self.checkpoint, self.images, "--out", run, "--model", "benchmarks.faults.material:network",
            "--shard-size", self.shard_size, "-b", 2, "-j", 0, "--threads", 1, "--device", "cpu", "-q", *more,
        ]  # fmt: skip

    @property
    def files(self) -> dict[str, bytes]:
        """Return the files whose bytes every run must have: shards, run.h5 and their digests, samples.h5."""
        paths = (*self.reference.glob("shards/*"), *self.reference.glob("run.h5*"), self.reference / "samples.h5")
        return {str(p.relative_to(self.reference)): p.read_bytes() for p in paths}


class Watcher:
    """Looks at a run as a reader may at any moment: what has its final name must be whole.

    Args:
        run: the run directory.
        files: bytes that each file must have once it is there.
        trust_manifest: while there is a manifest, no file may be missing.
    """

    def __init__(self, run: Path, files: dict[str, bytes], trust_manifest: bool = True) -> None:
        self.looks = 0
        self._run, self._files, self._trust_manifest = run, files, trust_manifest

    def look(self) -> list[str]:
        """Return what a reader could trip over, a line each."""
        self.looks += 1
        wrong = []
        complete = self._trust_manifest and (self._run / "manifest.json").exists()
        for name, content in self._files.items():
            found = _bytes(self._run / name)
            if found is None and complete and (self._run / "manifest.json").exists():
                wrong.append(f"{name}: missing although there is a manifest")
            if found is not None and found != content:
                wrong.append(f"{name}: {len(found)} bytes that are not those of the undisturbed run")
            has_digest = name.endswith(".h5") and name != "samples.h5"  # whose digest stands in run.json
            if found is not None and has_digest and landing.read_digest(self._run / name) is None:
                wrong.append(f"{name}: without its digest")
        for path in _documents(self._run):
            try:
                read_document(path)
            except FileNotFoundError:
                pass
            except BatchcamError as error:
                wrong.append(str(error))
        return wrong


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _documents(run: Path) -> list[Path]:
    try:
        return [run / name for name in os.listdir(run) if name.endswith(".json") and not name.startswith(".")]
    except FileNotFoundError:
        return []


def whole(run: Path, files: dict[str, bytes]) -> list[str]:
    """Return what is wrong with a run that should be complete: other bytes, files left over, findings of verify."""
    wrong = [f"{name}: other bytes" for name, content in files.items() if _bytes(run / name) != content]
    wrong += [f"{path.relative_to(run)}: left over" for path in run.rglob(".*")]
    return wrong + [
        f"{finding.file}: {finding.kind.value}"
        for finding in verify(VerifyConfig(run, quiet=True), confine=False).found
    ]


INTERRUPTED = {Kind.MANIFEST_MISSING, Kind.FILE_MISSING, Kind.LEFTOVER_FILE, Kind.DIGEST_FILE_DAMAGED}
"""What verify may find in a run that was interrupted."""


def told_interrupted(run: Path) -> list[str]:
    """Return what verify finds in an interrupted run and should not; that it is no run yet is all right."""
    try:
        found = verify(VerifyConfig(run, quiet=True), confine=False).found
    except BatchcamError:
        return []
    return [f"verify: {f.file}: {f.kind.value}" for f in found if f.kind not in INTERRUPTED]


def outputs(root: Path) -> dict[str, bytes]:
    """Return every file under `root` with its bytes; a training's history without the seconds, its last column."""
    files = {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    return {n: re.sub(rb",[^,\n]*\n", b"\n", b) if n.endswith(".history.csv") else b for n, b in files.items()}


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Return which files are not as expected, missing or too many."""
    return [f"{name}: differs" for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]


def pick(numbers: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of `numbers`, evenly spread, with the first and the last."""
    if len(numbers) <= most:
        return list(numbers)
    return [numbers[round(i * (len(numbers) - 1) / max(1, most - 1))] for i in range(most)]
