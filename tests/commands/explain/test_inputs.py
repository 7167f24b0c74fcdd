"""A dataset's name stands for its content: other code or other images never go into a run that is there."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchcam.commands.compare.compare import compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import RunError
from batchcam.store.plan import read_plan
from tests.commands.explain.test_explain import config, write_checkpoint

CODE = """
from pathlib import Path
from PIL import Image
import numpy as np


class Photos:
    targets = [0, 1, 2] * 4
    sample_ids = [f"s{i}" for i in range(12)]
    seed = 0

    def __len__(self):
        return 12

    def __getitem__(self, index):
        shift = int((Path(__file__).parent / "shift").read_text())
        pixels = np.random.default_rng(index + shift + self.seed).integers(0, 256, (32, 32, 3), np.uint8)
        return Image.fromarray(pixels), self.targets[index]


class Others(Photos):
    seed = 100
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path with the user's module `shelf`, and what its callables read."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "shelf.py").write_text(CODE)
    (folder / "shift").write_text("0")
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop("shelf", None)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "m.pth", 0)


def edit(shelf: Path, old: str, new: str) -> None:
    code = (shelf / "shelf.py").read_text()
    assert old in code
    (shelf / "shelf.py").write_text(code.replace(old, new))
    sys.modules.pop("shelf", None)
    importlib.invalidate_caches()


def test_the_code_of_a_dataset_stands_in_the_plan_and_the_run_id(checkpoint: Path, shelf: Path, tmp_path: Path) -> None:
    explain(config(checkpoint, "python:shelf:Photos", tmp_path / "a"))
    code = json.loads((tmp_path / "a/run.json").read_bytes())["plan"]["dataset_code"]
    assert code["callable"] == "shelf:Photos"
    assert len(code["module_sha256"]) == 64
    explain(config(checkpoint, "python:shelf:Others", tmp_path / "b"))
    assert read_plan(tmp_path / "a").run_id != read_plan(tmp_path / "b").run_id
    assert verify(VerifyConfig(tmp_path / "a", quiet=True)).found == []


def test_another_callable_does_not_go_into_a_finished_run(checkpoint: Path, shelf: Path, tmp_path: Path) -> None:
    explain(config(checkpoint, "python:shelf:Photos", tmp_path / "run"))
    assert explain(config(checkpoint, "python:shelf:Photos", tmp_path / "run")).samples == 0
    with pytest.raises(RunError, match=r"another run: dataset code \(callable shelf:Photos there, shelf:Others here\)"):
        explain(config(checkpoint, "python:shelf:Others", tmp_path / "run"))


def test_an_edited_module_does_not_go_into_a_finished_run(checkpoint: Path, shelf: Path, tmp_path: Path) -> None:
    explain(config(checkpoint, "python:shelf:Photos", tmp_path / "run"))
    edit(shelf, "seed = 0", "seed = 1")
    with pytest.raises(RunError, match=r"another run: dataset code \(module_sha256"):
        explain(config(checkpoint, "python:shelf:Photos", tmp_path / "run"))


@pytest.mark.parametrize("missing", [False, True])
def test_other_data_behind_the_same_code_is_found(checkpoint: Path, shelf: Path, tmp_path: Path, missing: bool) -> None:
    run = tmp_path / "run"
    explain(config(checkpoint, "python:shelf:Photos", run))
    if missing:
        sorted((run / "shards").glob("*.h5"))[-1].unlink()
    (shelf / "shift").write_text("7")
    with pytest.raises(RunError, match="images looked at are others than those that were explained, first s0"):
        explain(config(checkpoint, "python:shelf:Photos", run))
    (shelf / "shift").write_text("0")
    assert explain(config(checkpoint, "python:shelf:Photos", run)).complete


def write_images(folder: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for number in range(12):
        path = folder / ("ant", "bee", "cat")[number % 3] / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return folder


def test_images_of_the_same_names_and_sizes_do_not_go_into_a_finished_run(checkpoint: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 0)
    explain(config(checkpoint, images, tmp_path / "run"))
    write_images(images, 1)
    with pytest.raises(RunError, match="8 of 8 images looked at are others"):
        explain(config(checkpoint, images, tmp_path / "run"))


def test_an_image_that_is_gone_says_nothing_and_the_run_stays_complete(checkpoint: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 0)
    (images / "ant/0.bmp").write_bytes(b"x" * (images / "ant/3.bmp").stat().st_size)
    assert explain(config(checkpoint, images, tmp_path / "run")).unreadable == 1
    write_images(images, 0)
    assert explain(config(checkpoint, images, tmp_path / "run")).samples == 0


def test_compare_looks_at_inputs_before_it_says_the_same_run(checkpoint: Path, shelf: Path, tmp_path: Path) -> None:
    explain(config(checkpoint, "python:shelf:Photos", tmp_path / "a"))
    explain(config(checkpoint, "python:shelf:Photos", tmp_path / "same"))
    (shelf / "shift").write_text("1")  # eleven of the images are another sample's, all are others
    explain(config(checkpoint, "python:shelf:Photos", tmp_path / "b"))
    assert read_plan(tmp_path / "a").run_id == read_plan(tmp_path / "b").run_id
    notes = compare(CompareConfig(tmp_path / "a", tmp_path / "same", quiet=True)).notes
    assert any("both are the same run" in note for note in notes)
    notes = compare(CompareConfig(tmp_path / "a", tmp_path / "b", quiet=True)).notes
    assert any("both have one run id, but 12 of their images differ" in note for note in notes)
    assert not any("same run" in note for note in notes)
