"""A checkpoint of somebody's own training code comes through the same gate as one of retrain's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.fake_batchcam import Fake, latest


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
        ["explain", copy, "test", "--out", run, *options],
        ["verify", run, "--recompute", "16", "--checkpoint", copy, "--data", "test", *of_network],
    ]
    assert Path(copy).read_bytes() == b"weights"
    assert latest(models, "promoted") == "first"


def test_a_directory_is_refused_with_the_way_out(fake: Fake, tmp_path: Path) -> None:
    code, _, stderr = fake.run("promote", tmp_path, "test", tmp_path / "models" / "first")
    assert (code, stderr) == (2, f"batchcam: error: {tmp_path}: a directory: save its weights as one file\n")


def test_the_second_one_is_compared_and_refused_for_the_gates_reason(fake: Fake, tmp_path: Path, best: Path) -> None:
    models = tmp_path / "models"
    fake.run("promote", best, "test", models / "first")
    fake.answer(compare=3)
    code, stdout, stderr = fake.run("promote", "--max-flips", "2", best, "test", models / "second")
    assert code == 3
    told = "refused: --max-flips 2: exceeded: 9 % flipped; promoted: first"
    assert stderr == f"batchcam: {models}/second: {told}\n"
    assert "fake compare says this" in stdout
    assert stdout == (models / "second" / "compare.txt").read_text()


def test_a_refusal_without_a_gate_that_was_exceeded_points_to_what_compare_said(
    fake: Fake, tmp_path: Path, best: Path
) -> None:
    fake.run("promote", best, "test", tmp_path / "models/first")
    fake.answer(compare=3)
    (fake.folder / "compare.json").unlink()
    assert "refused: see above" in fake.run("promote", best, "test", tmp_path / "models/second")[2]


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
