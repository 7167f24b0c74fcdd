"""What a call of explain is given, to be changed in one thing by each test."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tests.helpers.networks import GapNetwork, seeded
from tests.helpers.synthetic import run_command

NAMES = ("ant", "bee", "cat")
SMALL = "shufflenet_v2_x0_5"
"""An architecture of torchvision's that is quick."""

SAID = {"resize": [10], "image_size": [8, 8], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
"""Preprocessing as a checkpoint says it, and as options do."""

VIEW = ("--image-size", "8", "--mean", "0.5", "--std", "0.5")


def pixels(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@dataclasses.dataclass
class Desk:
    """What a call of explain is given; each case changes one thing.

    Attributes:
        folder: for what it needs.
        model: callable that builds the network; "" for the architecture that the checkpoint says.
        data: the dataset.
        view: words that say how an image becomes the network's input.
        words: further words of the command line.
        variables: of the environment.
    """

    folder: Path
    model: str = f"{GapNetwork.__module__}:GapNetwork"
    data: str = ""
    view: tuple[object, ...] = VIEW
    words: tuple[object, ...] = ()
    variables: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "network.pth"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def explain(self) -> tuple[int, str, str]:
        """Explain the dataset, class folders where there is none; return exit code, stdout, stderr."""
        if not self.checkpoint.exists():
            self.save(state())
        if not self.data:
            self.class_folders(*NAMES)
        network = ["--model", self.model] if self.model else []
        words = [*network, *self.view, *self.words, "--workers", 0, "--threads", 1, "--out", self.run]
        return run_command("explain", self.checkpoint, self.data, *words)

    def save(self, content: object) -> None:
        torch.save(content, self.checkpoint)

    def class_folders(self, *names: str) -> Path:
        for seed, name in enumerate(names):
            (self.folder / "images" / name).mkdir(parents=True)
            pixels(seed).save(self.folder / "images" / name / "1.png")
        self.data = str(self.folder / "images")
        return self.folder / "images"

    def manifest(self, *rows: tuple[str, ...], names: tuple[str, ...] = ()) -> None:
        """Write a CSV manifest, its header first, two images and the names of the classes."""
        for seed, path in enumerate(("1.png", "2.png")):
            pixels(seed).save(self.folder / path)
        with (self.folder / "list.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        self.data = str(self.folder / "list.csv")
        if names:
            self.class_names(*names)

    def class_names(self, *names: str) -> None:
        (self.folder / "names.txt").write_text("\n".join(names))
        self.words = (*self.words, "--class-names", self.folder / "names.txt")


def state(network: nn.Module | None = None) -> Mapping[str, Tensor]:
    return (network or seeded(GapNetwork)).state_dict()
