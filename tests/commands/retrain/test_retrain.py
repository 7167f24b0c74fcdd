"""Retraining by script: order, promotion of what may be promoted only, gates, going on after an interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.fake_batchcam import JOBS, Fake, wait_until, write_documents

STEPS = ["train", "evaluate", "explain", "verify", "compare"]


@pytest.fixture
def fake(tmp_path) -> Fake:
    return Fake(tmp_path / "fake bin")


@pytest.fixture
def models(tmp_path) -> Path:
    return tmp_path / "my models"


def retrain(fake: Fake, version: Path, *gates: str) -> tuple[int, str, str]:
    return fake.run("retrain", *gates, "my train", "my test", version, "--epochs", "2")


def promoted(models: Path) -> str | None:
    return os.readlink(models / "promoted") if (models / "promoted").is_symlink() else None


@pytest.fixture
def first(fake, models) -> Path:
    """A version that is promoted."""
    assert retrain(fake, models / "first")[0] == 0
    fake.calls()
    return models / "first"


def test_a_version_is_not_promoted_by_a_test_of_which_most_could_not_be_read(fake, models):
    write_documents(models / "first" / "run", samples=30, unreadable=16)
    fake.answer(explain=3)
    code, _, stderr = retrain(fake, models / "first")
    assert (code, promoted(models)) == (3, None)
    assert "refused: most images of TEST could not be read" in stderr


def test_the_first_version_is_promoted_without_a_comparison(fake, models):
    code, _, stderr = retrain(fake, models / "first")
    assert code == 0
    assert stderr == f"batchcam: {models}/first: promoted; promoted: first\n"
    checkpoint, run = f"{models}/first/model.pth", f"{models}/first/run"
    assert fake.calls() == [
        ["train", "my train", "--out", checkpoint, "--epochs", "2", "--json"],
        ["evaluate", checkpoint, "my test", "--json"],
        ["explain", checkpoint, "my test", "--out", run, "--json"],
        ["verify", run, "--recompute", "16", "--checkpoint", checkpoint, "--data", "my test", "--json"],
    ]
    assert promoted(models) == "first"


def test_how_labels_are_read_is_told_to_every_step(fake, models):
    reading = ["--findings", "Edema,Mass", "--problem-type=multi-label"]
    fake.run("retrain", "train", "test", models / "first", "--epochs", "2", "--root", "images", *reading)
    for step, *words in fake.calls():
        own = ["--root", "images", *([] if step == "verify" else reading)]
        assert [word for word in words if word in {*own, *reading}] == (own if step != "train" else [*own])


def test_the_second_version_is_compared_with_the_promoted_one(fake, models, first):
    code, _, _ = retrain(fake, models / "second", "--max-flips", "2", "--shared-classes")
    assert code == 0
    assert fake.calls()[-1] == [
        "compare", f"{first}/run", f"{models}/second/run", "--out", f"{models}/second/compare",
        "--max-flips", "2", "--shared-classes", "--json",
    ]  # fmt: skip
    assert promoted(models) == "second"
    assert (models / "promoted" / "model.pth").samefile(models / "second" / "model.pth")
    assert (models / "promoted" / "run").samefile(models / "second" / "run")


@pytest.mark.parametrize("given", [["--min-accuracy", "80"], ["--min-cam-similarity", "0.5"]])
def test_a_first_version_is_held_to_the_minima_that_were_asked_for(fake, models, given):
    fake.answer(compare=3)
    code, _, stderr = retrain(fake, models / "first", "--max-flips", "2", *given)
    run = f"{models}/first/run"
    assert fake.calls()[-1] == ["compare", run, run, "--out", f"{models}/first/compare", *given, "--json"]
    assert (code, promoted(models), "refused" in stderr) == (3, None, True)


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        ([], ["--max-accuracy-drop", "1"]),
        (["--min-cam-similarity", "0.7"], ["--min-cam-similarity", "0.7"]),
        (["--min-compared", "90"], ["--max-accuracy-drop", "1", "--min-compared", "90"]),
        (["--max-accuracy-drop", "0", "--max-flips", "5"], ["--max-flips", "5", "--max-accuracy-drop", "0"]),
    ],
)
def test_there_is_always_a_gate(fake, models, first, given, passed_on):
    retrain(fake, models / "second", *given)
    assert fake.calls()[-1][5:-1] == passed_on


def test_a_gate_that_is_exceeded_refuses_with_the_reason(fake, models, first):
    fake.answer(compare=3)
    code, stdout, stderr = retrain(fake, models / "second", "--max-flips", "2")
    assert code == 3
    told = f"{models}/second: refused: --max-flips 2: exceeded: 9 % flipped; promoted: first"
    assert stderr == f"batchcam: {told}\n"
    assert "fake compare says this" in stdout
    assert promoted(models) == "first"


def test_a_refused_version_is_promoted_with_other_gates(fake, models, first):
    fake.answer(compare=3)
    retrain(fake, models / "second")
    fake.answer(compare=0)
    assert retrain(fake, models / "second", "--max-flips", "20")[0] == 0
    assert promoted(models) == "second"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("code", [2, 75])
def test_what_fails_or_stops_is_not_promoted_and_keeps_its_exit_code(fake, models, first, step, code):
    fake.answer(**{step: code})
    ended, _, stderr = retrain(fake, models / "second")
    assert ended == code
    assert [words[0] for words in fake.calls()] == STEPS[: STEPS.index(step) + 1]
    assert stderr.endswith("; promoted: first\n")
    assert ("stopped early at " if code == 75 else "not promoted: ") + step in stderr
    assert promoted(models) == "first"
    fake.answer(**{step: 0})
    assert retrain(fake, models / "second")[0] == 0
    assert promoted(models) == "second"


def test_a_record_that_is_not_true_is_refused(fake, models):
    fake.answer(verify=3)
    code, _, stderr = retrain(fake, models / "first")
    assert code == 3
    assert "refused: the record" in stderr
    assert promoted(models) is None


@pytest.mark.parametrize("step", ["train", "explain"])
def test_unreadable_images_do_not_keep_a_version_from_promotion_but_are_told(fake, models, step):
    fake.answer(**{step: 3})
    code, _, stderr = retrain(fake, models / "first")
    assert code == 3
    assert "promoted, with findings" in stderr
    assert promoted(models) == "first"


def test_a_promoted_version_is_left_alone(fake, models, first):
    for name in ("first", "first/"):
        assert retrain(fake, f"{models}/{name}")[0] == 0
    assert fake.calls() == []


def test_further_seeds_are_trained_once_a_version_is_promoted_and_not_again(fake, models):
    assert retrain(fake, models / "first", "--seeds", "2")[0] == 0
    noise = f"{models}/first/noise"
    again = [
        [
            ["train", "my train", "--out", f"{noise}/{n}/model.pth", "--epochs", "2", "--seed", f"100000{n}", "--json"],
            ["explain", f"{noise}/{n}/model.pth", "my test", "--out", f"{noise}/{n}/run", "--json"],
        ]
        for n in (1, 2, 3)
    ]
    assert fake.calls()[4:] == again[0] + again[1]
    assert retrain(fake, models / "first", "--seeds", "2")[0] == 0
    assert fake.calls() == []
    assert retrain(fake, models / "first", "--seeds", "3")[0] == 0
    assert fake.calls() == again[2]


@pytest.mark.parametrize(("code", "told"), [(75, "stopped early at train"), (1, "train failed")])
def test_a_version_stays_promoted_where_its_retrainings_fail_and_they_go_on_later(fake, models, first, code, told):
    fake.answer(train=code)
    ended, _, stderr = retrain(fake, models / "first", "--seeds", "2")
    assert (ended, promoted(models), told in stderr) == (code, "first", True)
    assert "is promoted already, but its retrainings" in stderr
    fake.answer(train=0)
    assert retrain(fake, models / "first", "--seeds", "2")[0] == 0
    assert (models / "first" / "noise" / "2" / "run" / "manifest.json").exists()


def test_a_refused_version_gets_no_retrainings(fake, models, first):
    fake.answer(compare=3)
    assert retrain(fake, models / "second", "--seeds", "2")[0] == 3
    assert not (models / "second" / "noise").exists()


def test_limits_that_are_auto_come_from_the_promoted_versions_retrainings(fake, models):
    retrain(fake, models / "first", "--seeds", "2", "--min-cam-similarity", "auto")
    assert "compare" not in {words[0] for words in fake.calls()}
    retrain(fake, models / "second", "--min-cam-similarity", "auto")
    noise = [word for n in (1, 2) for word in ("--noise", f"{models}/first/noise/{n}/run")]
    assert fake.calls()[-1][5:-1] == ["--min-cam-similarity", "auto", *noise]


def test_limits_that_are_auto_without_retrainings_are_refused_before_anything_is_trained(fake, models, first):
    code, _, stderr = retrain(fake, models / "second", "--max-flips", "auto")
    assert (code, fake.calls()) == (2, [])
    assert "--max-flips auto: " in stderr
    assert "has 0 retrainings, and two are needed: run the retrain that promoted it again with --seeds 3" in stderr
    code = retrain(fake, models / "second", "--max-flips", "auto", "--noise", "a", "--noise", "b")[0]
    assert (code, fake.calls()[-1][5:-1]) == (0, ["--max-flips", "auto", "--noise", "a", "--noise", "b"])


def test_a_promoted_version_that_is_gone_is_not_taken_for_none(fake, models, first):
    first.rename(models / "archived")
    fake.answer(compare=1)
    assert retrain(fake, models / "second")[0] == 1
    assert fake.calls()[-1][1] == f"{models}/first/run"
    assert promoted(models) == "first"


def test_a_version_may_be_named_without_a_folder(fake, tmp_path):
    words = [JOBS / "retrain.sh", "train", "test", "first"]
    subprocess.run(words, cwd=tmp_path, env=fake.environment, check=True, capture_output=True)
    assert promoted(tmp_path) == "first"


def test_what_is_no_link_is_not_replaced(fake, models):
    (models / "promoted" / "by hand").mkdir(parents=True)
    assert retrain(fake, models / "first")[0] == 2
    assert (models / "promoted" / "by hand").exists()
    assert fake.calls() == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["train", "test"],
        ["--max-flips"],
        ["--min-compared"],
        ["--max-flip", "2", "t", "t", "v"],
        ["t", "t", "models/promoted"],
    ],
)
def test_usage_is_told(fake, words):
    code, _, stderr = fake.run("retrain", *words)
    assert code == 2
    assert stderr.startswith("batchcam: error: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("retrain tr te models/v2 --epochs 3 --group-by site", "put --group-by before TRAIN"),
        ("promote m te models/v3 --max-class-auroc-drop=60 --arch resnet50", "put --max-class-auroc-drop before CKPT"),
        ("nightly m te models --keep 3", "put --keep before CKPT"),
        ("submit m te models/run --against old", "put --against before CKPT"),
    ],
)
def test_an_option_that_only_the_first_command_knows_is_refused_after_its_arguments(
    fake, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    code, _, stderr = fake.run(*words.split())
    assert (code, message in stderr) == (2, True)
    assert fake.calls() == []
    assert not (tmp_path / "models").exists()


def test_a_second_start_ends_at_once_and_a_signal_stops_the_first(fake, models):
    fake.hang("evaluate")
    running = fake.start("retrain.sh", "my train", "my test", models / "first")
    wait_until((fake.folder / "calls").exists)
    code, _, stderr = retrain(fake, models / "second")
    assert code == 75
    assert f"not started: process {running.pid} on " in stderr
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=20)
    assert running.returncode == 75
    assert "stopped early" in told
    assert promoted(models) is None


def photos(folder: Path, seed: int) -> str:
    """Three classes of twelve noisy images of 32 px, each brightest in another channel."""
    rng = np.random.default_rng(seed)
    for channel, name in enumerate(("ant", "bee", "cat")):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 120, (32, 32, 3))
            pixels[..., channel] += 100
            cv2.imwrite(str(folder / name / f"{number:02d}.png"), pixels.astype(np.uint8))
    return str(folder)


@pytest.mark.slow
def test_real_versions_are_trained_on_after_a_signal_promoted_and_refused(tmp_path, models):
    batchcam = Path(sys.executable).with_name("batchcam")
    if not batchcam.exists():
        pytest.skip("batchcam is not installed beside this Python")
    environment = {"PATH": f"{batchcam.parent}:/usr/bin:/bin"}
    environment |= {"BATCHCAM_DEVICE": "cpu", "BATCHCAM_THREADS": "1", "BATCHCAM_WORKERS": "0"}
    learn, test = photos(tmp_path / "to learn", 0), photos(tmp_path / "to test", 1)

    def start(version: str, *more: str) -> subprocess.Popen[str]:
        options = ["--preprocess", "stl10", "--image-size", "32", "-b", "8", "--epochs", "3"]
        words = [JOBS / "retrain.sh", "--max-flips", "5", learn, test, models / version, *options, *more]
        return subprocess.Popen(words, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    running = start("first")
    wait_until(lambda: (models / "first" / "model.last.pth").exists() or running.poll() is not None, timeout_s=300)
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=600)
    assert running.returncode == 75, told
    assert promoted(models) is None

    running = start("first")
    _, told = running.communicate(timeout=600)
    assert running.returncode == 0, told
    assert "starting at epoch 1" not in told
    assert promoted(models) == "first"

    running = start("second", "--learning-rate", "1e-6")
    _, told = running.communicate(timeout=600)
    assert running.returncode == 3, told
    assert "refused: --max-flips 5: exceeded: " in told
    assert promoted(models) == "first"
    assert json.loads((models / "second" / "compare" / "compare.json").read_text())
    assert (models / "second" / "run" / "manifest.json").exists()
