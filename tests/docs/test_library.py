"""The page on the library says what a script does: its examples run, one after the other, on generated images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision

import batchcam
from batchcam.network.checkpoint import pack_checkpoint
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

TRAINER = """
import numpy, torch, torchvision
from PIL import Image

class Photos:
    def __len__(self): return 6
    def __getitem__(self, index):
        pixels = numpy.random.default_rng(index).integers(0, 256, (32, 32, 3), numpy.uint8)
        return Image.fromarray(pixels), index % 2

torch.manual_seed(0)
network, photos = torchvision.models.shufflenet_v2_x0_5(num_classes=2), Photos()
"""


def write_checkpoint(path: Path, seed: int) -> None:
    """A ShuffleNet for images of 96 px, whose maps have 3x3 cells."""
    torch.manual_seed(seed)
    network = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
    half = [0.5] * 3
    preprocessing = {"resize": [96], "image_size": [96, 96], "mean": half, "std": half, "interpolation": "bilinear"}
    path.write_bytes(
        pack_checkpoint(network.state_dict(), "shufflenet_v2_x0_5", ("ant", "bee", "cat"), preprocessing, {})
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with last night's run, a new checkpoint, images, and somebody's trainer."""
    root = tmp_path_factory.mktemp("library")
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = root / "photos" / "test" / ("ant", "bee", "cat")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (32, 32, 3), np.uint8))
    write_checkpoint(root / "old.pth", 0)
    batchcam.explain(root / "old.pth", root / "photos" / "test", root / "runs" / "monday", device="cpu", quiet=True)
    write_checkpoint(root / "model.pth", 1)
    (root / "trainer.py").write_text(TRAINER)
    return root


@pytest.fixture
def said(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Return a function that runs an example in that folder and returns what it prints."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)

    def run(example: str) -> str:
        exec(compile(example, "docs/library.md", "exec"), {})
        return capsys.readouterr().out

    return run


def test_the_rerun_explains_compares_and_tells_its_verdict_in_six_lines(said: Callable[[str], str]) -> None:
    rerun = EXAMPLES[0]
    assert len(rerun.splitlines()) <= 6
    told = said(rerun)
    assert "--max-accuracy-drop 1: " in told
    # of random weights
    assert re.search(r"^--min-cam-similarity 0\.5: (missed|UNDECIDED, missed by the estimate): ", told, re.MULTILINE)
    assert told.splitlines()[-1] == "keep yesterday's model"


def test_the_rerun_of_the_same_checkpoint_passes(said: Callable[[str], str]) -> None:
    same = EXAMPLES[0].replace("model.pth", "old.pth").replace("tuesday", "wednesday")
    assert said(same).splitlines()[-1] == "release"


def test_the_epochs_end_is_explained_and_verified(said: Callable[[str], str]) -> None:
    assert said(EXAMPLES[1]) == "6 samples explained; 0 findings\n"


def test_the_reader_reads(said: Callable[[str], str]) -> None:
    told = said(EXAMPLES[2])
    assert "12 samples, 3 classes, complete" in told
    assert "(3, 3) " in told


def test_every_name_on_the_page_is_public() -> None:
    named = set(re.findall(r"batchcam\.([A-Za-z_]+)", PAGE))
    assert named <= set(batchcam.__all__)
    assert {"explain", "merge", "verify", "compare", "report", "open_run"} <= set(re.findall(r"`([a-z_]+)\(", PAGE))
    assert len(EXAMPLES) == 3
