"""Checkpoints as people have them, each by the library that writes it, and what becomes of one in batchcam's hands."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

import batchcam
from tests.helpers.desk import SMALL
from tests.helpers.networks import torchvision_network
from tests.helpers.synthetic import run_command

NAMES = ("cat", "dog", "owl")
SIDE = 64
VIEW = ("--image-size", str(SIDE), "--mean", "0.5", "--std", "0.5")
MOST_STEPS = 6  # that an error can ask for, one after the other
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of checkpoint.

    Attributes:
        name: in the docs' words.
        by: what writes it; "by hand" where it is imitated.
        make: writes it under a path, returns the network whose logits are to be explained.
        file: its name.
        network: words that say which network it is of.
        choice: what is answered where several weights may be meant.
        packages: what has to be installed.
        untried: what its error asks for and only its owner can do, "" where that is tried.
    """

    name: str
    by: str
    make: Callable[[Path], nn.Module]
    file: str = "model.pth"
    network: tuple[str, ...] = ("--arch", SMALL)
    choice: str = ""
    packages: tuple[str, ...] = ()
    untried: str = ""

    @property
    def missing(self) -> str:
        """Name of a package that is not here, "" where all are."""
        return next((name for name in self.packages if not find_spec(name)), "")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a checkpoint.

    Attributes:
        steps: what was done, one after the other, as each error said.
        refusal: the last error, "" where the checkpoint was explained.
        difference: of the recorded logits from the network's own, the largest, relative to the largest logit.
    """

    steps: tuple[str, ...]
    refusal: str
    difference: float

    @property
    def converted(self) -> bool:
        """Whether another file had to be made."""
        return any(not step.startswith("--") for step in self.steps)


def tried(kind: Kind, folder: Path) -> Outcome:
    """Make a checkpoint and explain three images; do what each error says to be done, until it says nothing."""
    path = folder / kind.file
    network = kind.make(path).float().eval()
    photos = folder / "photos"
    inputs = _photos(photos)
    words: list[str] = []
    steps: list[str] = []
    for number in range(MOST_STEPS):
        run = folder / f"run{number}"
        compute = ("--out", run, "--workers", 0, "--threads", 1, "--device", "cpu", "-q")
        code, _, error = run_command("explain", path, photos, *words, *compute)
        if code == 0:
            return Outcome(tuple(steps), "", _difference(run, network, inputs))
        line = error.removeprefix("batchcam: error: ").rstrip("\n").replace(f"{folder}/", "")
        assert "\n" not in line, error
        done = _follow(line, kind, network, path)
        if done is None:
            return Outcome(tuple(steps), line, 0.0)
        step, path, more = done
        words += more
        steps += [step] if step else []
    raise AssertionError(f"{kind.name}: says again and again what to do: {line}")


def _photos(folder: Path) -> dict[str, Tensor]:
    """Write an image of each class; return what a network is given of it, by sample id."""
    rng = np.random.default_rng(0)
    inputs = {}
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / "1.png")
        inputs[f"{name}/1.png"] = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - 0.5) / 0.5
    return inputs


def _difference(run: Path, network: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    record = batchcam.open_run(run)
    images = torch.stack([inputs[sample_id] for sample_id in record.sample_id[:]])
    with torch.inference_mode():
        logits = network(images)
    logits = getattr(logits, "logits", logits).numpy()
    return float(np.abs(record.logits[:] - logits).max() / max(1, np.abs(logits).max()))


def _follow(error: str, kind: Kind, network: nn.Module, path: Path) -> tuple[str, Path, tuple[str, ...]] | None:
    """Do what an error says; return it, where the checkpoint is then, and what is to be said besides."""
    if "does not say its preprocessing" in error:
        return "", path, VIEW
    if "name it with --arch" in error:
        return " ".join(kind.network), path, kind.network
    if "--weights-key" in error and kind.choice:
        return f"--weights-key {kind.choice}", path, ("--weights-key", kind.choice)
    if "--method gradcam" in error:
        return "--method gradcam", path, ("--method", "gradcam")
    if found := re.search(r"name the checkpoint in it, such as (\S+)", error):
        return f"`{found[1]}` in it", path / found[1], ()
    if "unpack it, and name the checkpoint" in error:
        shutil.unpack_archive(path, path.parent / "unpacked")
        return "unpack it", next(path.parent.glob("unpacked/*")), ()
    if found := re.search(r"python (-m torch\S* \S+ )(\S+) weights\.pth", error):
        made = path.parent / "weights.pth"
        subprocess.run([sys.executable, *found[1].split(), path, made], check=True, capture_output=True)
        return found[0], made, ()
    if found := re.search(r"(?:torch\.save|safetensors\.torch\.save_file)\(.*'(weights\.\w+)'\)", error):
        arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        libraries = {"torch": torch, "numpy": np, "safetensors": safetensors, "glob": glob}
        place = path if path.is_dir() else path.parent
        with _within(place):
            exec(found[0], {**libraries, "network": network, "file": path, "state": arrays})
        return found[0], place / found[1], ()
    return None


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def small() -> nn.Module:
    return torchvision_network(SMALL, len(NAMES))
