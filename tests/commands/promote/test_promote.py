"""A checkpoint of somebody's own training code comes through the same gate as one of retrain's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from batchcam.commands.promote.promote import _adopted
from batchcam.store import landing
from tests.helpers.fake_batchcam import Fake, latest
from tests.helpers.networks import GapNetwork, seeded


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path / "bin")


@pytest.fixture
def best(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    path.write_bytes(b"weights")
    return path


def test_a_checkpoint_is_copied_explained_proven_and_promoted(fake: Fake, tmp_path: Path, best: Path) -> None:
    models = tmp_path / "models"
    of_network = ["--arch", "resnet50", "--class-names=names.txt", "--device", "cpu"]
    options = [*of_network[:2], "--shard-size", "9", *of_network[2:], "-b", "8"]
    code, _, stderr = fake.run("promote", best, "test", models / "first", *options)
    assert (code, stderr) == (0, f"batchcam: {models}/first: promoted; promoted: first\n")
    copy, run = f"{models}/first/model.safetensors", f"{models}/first/run"
    assert fake.calls() == [
        ["explain", copy, "test", "--out", run, *options, "--json"],
        ["verify", run, "--recompute", "16", "--checkpoint", copy, "--data", "test", *of_network, "--json"],
    ]
    assert Path(copy).read_bytes() == b"weights"
    assert latest(models, "promoted") == "first"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """As transformers writes it, with what its Trainer leaves beside."""
    folder = tmp_path / "net"
    (folder / "checkpoint-7").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "preprocessor_config.json", "optimizer.pt", "checkpoint-7/x.bin"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_directory_is_copied_with_what_it_is_read_from(fake: Fake, tmp_path: Path, directory: Path) -> None:
    version = tmp_path / "models/first"
    code, _, stderr = fake.run("promote", directory, "test", version)
    assert (code, stderr) == (0, f"batchcam: {version}: promoted; promoted: first\n")
    assert fake.calls()[0][:2] == ["explain", f"{version}/model"]
    assert {p.name: p.read_bytes().decode() for p in (version / "model").iterdir()} == {
        name: name for name in ("config.json", "model.safetensors", "preprocessor_config.json")
    }


def test_a_copy_of_a_directory_that_was_stopped_is_made_anew(fake: Fake, tmp_path: Path, directory: Path) -> None:
    version = tmp_path / "models/first"
    (version / "model").mkdir(parents=True)
    (version / "model/model.safetensors").write_bytes(b"half")
    (version / "model/pytorch_model.bin").write_bytes(b"of another one")
    assert fake.run("promote", directory, "test", version)[0] == 0
    assert (version / "model/model.safetensors").read_bytes() == b"model.safetensors"
    assert not (version / "model/pytorch_model.bin").exists()


def test_config_of_a_directory_lands_last(tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    landed: list[str] = []
    monkeypatch.setattr(landing, "land", lambda path, data: landed.append(path.name))
    _adopted(directory, tmp_path / "version")
    assert landed[-1] == "config.json"
    assert sorted(landed) == ["config.json", "model.safetensors", "preprocessor_config.json"]


def test_a_directory_that_was_changed_is_another_checkpoint(fake: Fake, tmp_path: Path, directory: Path) -> None:
    version = tmp_path / "models/first"
    fake.answer(explain=75)
    assert fake.run("promote", directory, "test", version)[0] == 75
    assert fake.run("promote", directory, "test", version)[0] == 75
    (directory / "optimizer.pt").write_bytes(b"does not count")
    assert fake.run("promote", version / "model", "test", version)[0] == 75
    (directory / "preprocessor_config.json").write_bytes(b"{}")
    code, _, stderr = fake.run("promote", directory, "test", version)
    assert (code, f"another checkpoint than {directory}; name a new VERSION" in stderr) == (1, True)


def test_a_directory_that_does_not_say_what_it_holds_is_refused(fake: Fake, tmp_path: Path) -> None:
    code, _, stderr = fake.run("promote", tmp_path, "test", tmp_path / "models" / "first")
    what = "a directory without a config.json: name a checkpoint in it"
    assert (code, stderr) == (2, f"batchcam: error: {tmp_path}: {what}\n")


def test_the_second_one_is_compared_and_refused_for_the_gates_reason(fake: Fake, tmp_path: Path, best: Path) -> None:
    models = tmp_path / "models"
    fake.run("promote", best, "test", models / "first")
    fake.answer(compare=3)
    code, stdout, stderr = fake.run("promote", "--max-flips", "2", best, "test", models / "second")
    assert code == 3
    told = "refused: --max-flips 2: exceeded: 9 % flipped; promoted: first"
    assert stderr == f"batchcam: {models}/second: {told}\n"
    assert "fake compare says this" in stdout
    assert (models / "second" / "compare.txt").read_text() == stdout.splitlines(keepends=True)[-1]


def test_a_refusal_without_a_gate_that_was_exceeded_points_to_what_compare_said(
    fake: Fake, tmp_path: Path, best: Path
) -> None:
    fake.run("promote", best, "test", tmp_path / "models/first")
    fake.answer(compare=3)
    (fake.folder / "compare.json").unlink()
    assert "refused: see above" in fake.run("promote", best, "test", tmp_path / "models/second")[2]


@pytest.mark.parametrize(
    ("kind", "code", "ended", "told"),
    [
        ("classes", 1, 3, "refused: photos: the model does not know these classes"),
        ("classes", 2, 3, "refused: photos: the model does not know these classes"),
        (None, 1, 1, "not promoted: explain failed (exit code 1)"),
        (None, 2, 2, "not promoted: explain failed (exit code 2)"),
    ],
)
def test_a_version_whose_classes_do_not_fit_is_refused_and_any_other_error_is_a_failure(
    fake: Fake, tmp_path: Path, best: Path, kind: str | None, code: int, ended: int, told: str
) -> None:
    fake.answer(explain=code)
    fake.say(error="photos: the model does not know these classes", error_kind=kind, exit_code=code)
    found, stdout, stderr = fake.run("promote", best, "test", tmp_path / "models/first")
    assert found == ended
    assert told in stderr
    assert stdout == "fake explain says this\n"
    assert not os.path.lexists(tmp_path / "models/promoted")


def images(folder: Path, *names: str) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(4):
            cv2.imwrite(str(folder / name / f"{number}.png"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    return folder


def two_classes() -> GapNetwork:
    network = GapNetwork()
    network.head = torch.nn.Linear(network.head.in_features, 2)
    return network


def three_classes() -> GapNetwork:
    return GapNetwork()


@pytest.mark.slow
def test_classes_that_the_checkpoint_or_the_promoted_version_does_not_have_are_refused_for_real(
    fake: Fake, tmp_path: Path
) -> None:
    fake.do_real_steps()
    models, both = tmp_path / "models", images(tmp_path / "both", "ant", "bee")
    view = ["--preprocess", "stl10", "--image-size", "16", "--device", "cpu", "-j", "0", "--threads", "1"]

    def promote(test: Path, version: str, network: Callable[[], GapNetwork]) -> tuple[int, str]:
        classes = ["ant", "bee", "cat"][: network().head.out_features]
        torch.save({"model": seeded(network).state_dict(), "classes": classes}, tmp_path / "best.pth")
        model = f"{__name__}:{network.__name__}"
        code, _, stderr = fake.run("promote", tmp_path / "best.pth", test, models / version, "--model", model, *view)
        return code, stderr

    assert promote(both, "two", two_classes)[0] == 0
    code, stderr = promote(both, "three", three_classes)
    assert (code, "refused: classes differ: 1 class only in NEW: cat; --shared-classes compares" in stderr) == (3, True)
    other = images(tmp_path / "other", "ant", "dog")
    code, stderr = promote(other, "four", three_classes)
    assert (code, "refused: " in stderr, "not know these classes of the dataset: dog" in stderr) == (3, True, True)
    assert latest(models, "promoted") == "two"


def test_a_version_that_has_another_checkpoint_is_refused(fake: Fake, tmp_path: Path, best: Path) -> None:
    version = tmp_path / "models/first"
    fake.answer(explain=75)
    assert fake.run("promote", best, "test", version)[0] == 75
    best.write_bytes(b"other weights")
    fake.calls()
    code, _, stderr = fake.run("promote", best, "test", version)
    assert (code, fake.calls()) == (1, [])
    assert f"another checkpoint than {best}; name a new VERSION" in stderr
    assert not os.path.lexists(tmp_path / "models/promoted")


def test_a_checkpoint_that_lies_in_its_version_already_is_taken_as_it_is(fake: Fake, tmp_path: Path) -> None:
    version = tmp_path / "models/first"
    version.mkdir(parents=True)
    (version / "model.pth").write_bytes(b"weights")
    assert fake.run("promote", version / "model.pth", "test", version)[0] == 0


@pytest.mark.parametrize("words", [["none.pth", "test", "models/first"], [__file__, "test", "models/promoted"]])
def test_what_cannot_be_meant_is_usage(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fake.run("promote", *words)[0] == 2
    assert not (tmp_path / "models").exists()
