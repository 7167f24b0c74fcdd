"""A dataset's name stands for its content: other code or other images never go into a run that is there."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchcam.commands.compare.compare import compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.explain import planning
from batchcam.commands.explain.explain import explain
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import RunError
from batchcam.store.plan import read_plan
from tests.commands.explain.test_explain import config, write_checkpoint
from tests.helpers.synthetic import synthetic_plan, synthetic_rows, synthetic_run

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
    assert verify(VerifyConfig(tmp_path / "a", quiet=True), confine=False).found == []


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
    with pytest.raises(RunError, match=r"belongs to another run: first inputs \(s0 \w{16} there, \w{16} here, s1 "):
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


def test_compare_looks_at_inputs_before_it_says_the_same_run(checkpoint: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 0)
    explain(config(checkpoint, images, tmp_path / "a"))
    explain(config(checkpoint, images, tmp_path / "same"))
    write_images(images, 1)
    explain(config(checkpoint, images, tmp_path / "b"))
    assert read_plan(tmp_path / "a").run_id == read_plan(tmp_path / "b").run_id
    notes = compare(CompareConfig(tmp_path / "a", tmp_path / "same", quiet=True)).notes
    assert any("both are the same run" in note for note in notes)
    notes = compare(CompareConfig(tmp_path / "a", tmp_path / "b", quiet=True)).notes
    assert any("both have one run id, but 12 of their images differ" in note for note in notes)
    assert not any("same run" in note for note in notes)


HELPER = """
def shifted(pixels):
    return pixels + 0
"""


def call_helper(shelf: Path) -> None:
    """Let the dataset's pixels pass through a function of another module."""
    (shelf / "helper.py").write_text(HELPER)
    edit(shelf, "return Image.fromarray(pixels)", "return Image.fromarray(helper.shifted(pixels))")
    edit(shelf, "from pathlib", "import helper\nfrom pathlib")
    sys.modules.pop("helper", None)


def edit_helper(shelf: Path) -> None:
    (shelf / "helper.py").write_text(HELPER.replace("+ 0", "+ 1"))
    sys.modules.pop("helper", None)
    sys.modules.pop("shelf", None)
    importlib.invalidate_caches()


def test_an_edited_helper_of_the_module_makes_another_run(checkpoint: Path, shelf: Path, tmp_path: Path) -> None:
    call_helper(shelf)
    explain(config(checkpoint, "python:shelf:Photos", tmp_path / "a"))
    edit_helper(shelf)
    explain(config(checkpoint, "python:shelf:Photos", tmp_path / "b"))
    plans = [read_plan(tmp_path / name) for name in "ab"]
    assert plans[0].dataset_code == plans[1].dataset_code
    assert plans[0].run_id != plans[1].run_id
    with pytest.raises(RunError, match=r"belongs to another run: first inputs \(s0"):
        explain(config(checkpoint, "python:shelf:Photos", tmp_path / "a"))


class InMemory:
    """A map-style dataset whose images a transform decides."""

    def __init__(self, shift: int) -> None:
        self.shift = shift

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
        return Image.fromarray(pixels + np.uint8(self.shift)), index % 3


def write_stl10(root: Path, seed: int) -> str:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train_X.bin").write_bytes(np.random.default_rng(seed).bytes(4 * 3 * 96 * 96))
    (folder / "train_y.bin").write_bytes(bytes([1, 2, 3, 1]))
    return f"stl10:{root}:train"


@pytest.mark.parametrize("kind", ["in memory", "stl10"])
def test_other_images_of_the_same_ids_labels_and_sizes_are_another_run(
    checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    def dataset(seed: int) -> object:
        return InMemory(seed) if kind == "in memory" else write_stl10(tmp_path, seed)

    for seed in (0, 1):
        asked = config(checkpoint, "", tmp_path / str(seed))
        explain(dataclasses.replace(asked, data=dataset(seed)))
    plans = [read_plan(tmp_path / name) for name in "01"]
    assert plans[0].dataset_fingerprint == plans[1].dataset_fingerprint
    assert plans[0].run_id != plans[1].run_id
    assert verify(VerifyConfig(tmp_path / "1", quiet=True), confine=False).found == []


def test_a_plan_over_files_does_not_depend_on_which_can_be_read(checkpoint: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 0)
    explain(config(checkpoint, images, tmp_path / "run"))
    assert not read_plan(tmp_path / "run").first_inputs


def test_first_inputs_are_cut_digests_of_the_first_samples(checkpoint: Path, shelf: Path, tmp_path: Path) -> None:
    explain(config(checkpoint, "python:shelf:Photos", tmp_path / "run"))
    pixels = [np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8) for index in range(12)]
    expected = {f"s{i}": hashlib.sha256(each.tobytes()).hexdigest()[:16] for i, each in enumerate(pixels)}
    assert read_plan(tmp_path / "run").first_inputs == expected


def test_a_run_planned_before_there_were_first_inputs_is_finished_and_keeps_its_id(
    checkpoint: Path, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(planning, "first_inputs", lambda source: {})
        explain(config(checkpoint, "python:shelf:Photos", run))
    plan = read_plan(run)
    assert not plan.first_inputs
    sorted((run / "shards").glob("*.h5"))[0].unlink()
    assert explain(config(checkpoint, "python:shelf:Photos", run)).complete
    assert read_plan(run) == plan
    (shelf / "shift").write_text("7")
    with pytest.raises(RunError, match="images looked at are others than those that were explained, first s0"):
        explain(config(checkpoint, "python:shelf:Photos", run))


@pytest.mark.parametrize("first", [True, False], ids=["then", "now"])
def test_an_input_that_can_not_be_read_at_one_time_says_nothing(
    checkpoint: Path, shelf: Path, tmp_path: Path, first: bool
) -> None:
    fails = "        if index == 1 and (Path(__file__).parent / 'away').exists():\n            raise ValueError\n"
    edit(shelf, "        shift = int", f"{fails}        shift = int")
    if first:
        (shelf / "away").touch()
    explain(config(checkpoint, "python:shelf:Photos", tmp_path / "run"))
    assert ("s1" in read_plan(tmp_path / "run").first_inputs) != first
    (shelf / "away").unlink() if first else (shelf / "away").touch()
    assert explain(config(checkpoint, "python:shelf:Photos", tmp_path / "run")).samples == 0


def test_verify_finds_first_inputs_that_are_not_the_plans(tmp_path: Path) -> None:
    digests, ids = (synthetic_rows(synthetic_plan()).part(10, 2)[k] for k in (0, 1))
    first = {i: d.tobytes().hex()[:16] for i, d in zip(ids["sample_id"], digests["input_sha256"], strict=True)}
    synthetic_run(tmp_path / "right", first_inputs=first)
    assert verify(VerifyConfig(tmp_path / "right", quiet=True), confine=False).found == []
    synthetic_run(tmp_path / "wrong", first_inputs=first | {ids["sample_id"][0]: "0" * 16})
    (found,) = verify(VerifyConfig(tmp_path / "wrong", quiet=True), confine=False).found
    assert (found.kind.value, found.array) == ("dataset", "input_sha256")
    assert "1 of the first inputs are not those of run.json" in found.message
