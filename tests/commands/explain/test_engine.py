"""explain, evaluate and faithfulness with a network that OpenVINO computes."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from batchcam.commands.explain import explain as explain_module
from batchcam.commands.explain.planning import existing_plan
from batchcam.network import compiled
from batchcam.network.checkpoint import pack_checkpoint
from batchcam.store.document import read_document
from tests.helpers.networks import torchvision_network
from tests.helpers.outputs import run_json

pytest.importorskip("openvino")

CLASSES = ("ant", "bee", "cat", "dog")
VIEW = {"resize": [64], "image_size": [64, 64], "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}
COMPUTE = ("-b", 5, "-j", 0, "--threads", 1, "--device", "cpu")


class Desk:
    """A checkpoint, images, and commands on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkpoint, self.images = folder, folder / "model.pth", folder / "images"
        state = torchvision_network("squeezenet1_1", len(CLASSES)).state_dict()
        self.checkpoint.write_bytes(pack_checkpoint(state, "squeezenet1_1", CLASSES, VIEW, {}))
        rng = np.random.default_rng(0)
        for number in range(18):
            image = self.images / CLASSES[number % 4] / f"{number}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))

    def explain(self, run: str, *words: object) -> Path:
        out = self.folder / run
        ended = self.tried(run, *words)
        assert ended.code == 0, ended.err
        return out

    def tried(self, run: str, *words: object):
        out = self.folder / run
        return run_json("explain", self.checkpoint, self.images, "--out", out, "--shard-size", 6, *COMPUTE, *words)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "is_installed", lambda: True)
    monkeypatch.setattr(compiled, "_times_as_fast", lambda *_: 1.31)
    monkeypatch.delenv("BATCHCAM_ENGINE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def runs(desk: Desk) -> tuple[Path, Path]:
    """The same by torch and by OpenVINO."""
    return desk.explain("torch", "--engine", "torch"), desk.explain("openvino", "--engine", "openvino")


def digests(run: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((run / "shards").iterdir())]


def test_a_run_says_what_computed_it_and_is_another_run_than_torchs(runs: tuple[Path, Path]) -> None:
    by_torch, by_openvino = (read_document(run / "run.json") for run in runs)
    assert "engine" not in by_torch["plan"]  # as in all runs before there was a choice
    assert by_openvino["plan"]["engine"] == "openvino"
    assert by_torch["run_id"] != by_openvino["run_id"]
    assert [run["origin"]["resources"]["engine"] for run in (by_torch, by_openvino)] == ["torch", "openvino"]
    task = read_document(next(runs[1].glob("task-*.json")))
    assert task["versions"]["openvino"].startswith("20")
    assert any(remark.startswith("engine: OpenVINO 20") for remark in by_openvino["origin"]["remarks"])


def test_its_arrays_are_torchs_and_the_maps_add_up_to_the_logits(runs: tuple[Path, Path]) -> None:
    with h5py.File(runs[0] / "run.h5") as theirs, h5py.File(runs[1] / "run.h5") as ours:
        assert np.array_equal(theirs["prediction"], ours["prediction"])
        for name in ("logits", "cams", "confidence"):
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5 * max(1e-2, np.ptp(theirs[name])), rtol=0)
        assert np.abs(ours["maps"][:].astype(int) - theirs["maps"][:]).max() <= 1
        weight, bias = ours["classifier/weight"][:], ours["classifier/bias"][:]
        assert weight.shape[0] == len(bias) == len(CLASSES)
        total = ours["cams"][:].astype(np.float64).mean((2, 3)) + bias
        assert np.abs(total - ours["logits"]).max() < 1e-4


def test_it_verifies_against_torch_too(desk: Desk, runs: tuple[Path, Path]) -> None:
    assert run_json("verify", runs[1]).code == 0
    recomputed = run_json("verify", runs[1], "--checkpoint", desk.checkpoint, "--data", desk.images)
    assert recomputed.code == 0, recomputed.out


@pytest.mark.parametrize("words", [("-j", 2), ("--threads", 2), ("--engine", "auto")])
def test_the_bytes_do_not_depend_on_processes_or_threads_and_auto_takes_it(
    desk: Desk, runs: tuple[Path, Path], words: tuple[object, ...], tmp_path: Path
) -> None:
    assert digests(desk.explain(str(tmp_path), *words)) == digests(runs[1])


def test_what_was_planned_with_an_engine_goes_on_with_it(desk: Desk, tmp_path: Path) -> None:
    for engine, other in (("torch", "openvino"), ("openvino", "torch")):
        run = desk.explain(str(tmp_path / engine), "--engine", engine)
        before = digests(run)
        (run / "shards/shard-00001.h5").unlink()
        refused = desk.tried(str(run), "--engine", other)
        assert refused.code == 1
        assert "belongs to another run: engine" in refused.err
        desk.explain(str(run), "--engine", "auto")
        assert digests(run) == before


@pytest.mark.parametrize(("first", "second", "engine"), [(1.31, 1.05, "openvino"), (1.05, 1.31, "")])
def test_workers_that_measure_otherwise_follow_the_first_and_each_records_why(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: float, second: float, engine: str
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(compiled, "_times_as_fast", lambda *_: first)
    desk.explain(str(run), "--task", "0/2", "--share-only")
    monkeypatch.setattr(compiled, "_times_as_fast", lambda *_: second)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    looked: list[Path] = []

    def none_at_first(run: Path):
        looked.append(run)
        return existing_plan(run) if len(looked) > 2 else None

    monkeypatch.setattr(explain_module, "existing_plan", none_at_first)
    desk.explain(str(run), "--task", "1/2")
    assert len(looked) > 2
    assert read_document(run / "run.json")["plan"].get("engine", "") == engine
    assert run_json("verify", run).code == 0
    records = (read_document(next(run.glob(f"task-0000{n}-*.json"))) for n in (0, 1))
    choices = [record.get("engine_choice", "") for record in records]
    if engine:
        assert choices[0].startswith("engine: OpenVINO 20")
        assert "1.31 × as fast on this machine" in choices[0]
        assert choices[1].startswith("engine: OpenVINO 20")
        assert "as fast" not in choices[1]
    else:
        assert choices == ["engine: torch; OpenVINO is 1.05 × as fast on this machine, and taken from 1.15 ×", ""]


def test_a_run_of_an_engine_that_is_not_here_says_what_to_install(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = desk.explain(str(tmp_path / "run"), "--engine", "openvino")
    (run / "shards/shard-00001.h5").unlink()
    monkeypatch.setitem(sys.modules, "openvino", None)
    refused = desk.tried(str(run))
    assert refused.code == 1
    assert "pip install 'batchcam[cpu]'" in refused.err


def test_gradients_are_torchs(desk: Desk, tmp_path: Path) -> None:
    assert (
        "engine" not in read_document(desk.explain(str(tmp_path / "run"), "--method", "gradcam") / "run.json")["plan"]
    )
    refused = desk.tried(str(tmp_path / "other"), "--method", "gradcam", "--engine", "openvino")
    assert refused.code == 2
    assert "--engine openvino: has no gradients" in refused.err


def test_evaluate_and_faithfulness_give_torchs_numbers(
    desk: Desk, runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [
        run_json("evaluate", desk.checkpoint, desk.images, *COMPUTE, "--engine", engine).said
        for engine in ("torch", "openvino")
    ]
    assert said[0] == said[1]
    words = ("--checkpoint", desk.checkpoint, "--data", desk.images, "--samples", 4, "--steps", 4, "--threads", 1)
    curves = []
    for installed in (True, False):
        monkeypatch.setattr(compiled, "is_installed", lambda installed=installed: installed)
        out = tmp_path / f"{installed}"
        ended = run_json("faithfulness", runs[1], *words, "--device", "cpu", "--out", out)
        assert ended.code == 0, ended.err
        curves.append(np.genfromtxt(out / "curves.csv", delimiter=",", skip_header=1))
    assert not np.array_equal(*curves)  # they were not both torch's
    np.testing.assert_allclose(curves[0], curves[1], atol=1e-5)
