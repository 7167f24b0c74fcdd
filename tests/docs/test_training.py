"""The page on other people's trainers: its examples train for real, and their checkpoints go through the gate."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers import ROOT
from tests.helpers.fake_batchcam import Fake

PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
NAMES = ("ant", "bee")


def example(heading: str) -> str:
    """Return the first block of code below a heading of the page."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section, heading
    return re.findall(r"^```\w+\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)[0]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two classes of images to learn from and to test, their names, and what all examples import."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for channel, name in enumerate(NAMES):
            (folder := tmp_path / "photos" / part / name).mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(0, 120, (72, 64, 3))
                pixels[..., channel] += 100
                cv2.imwrite(str(folder / f"{number}.png"), pixels.astype(np.uint8))
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    (tmp_path / "promote.py").write_text(example("The gate as a function"))
    return tmp_path


def test_the_plain_loop_trains_and_hands_its_checkpoint_to_the_gate(place: Path, monkeypatch, capsys) -> None:
    fake = Fake(place / "bin")
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("PATH", f"{fake.folder}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delitem(sys.modules, "promote", raising=False)
    try:
        exec(compile(example("A plain loop"), "docs/training.md", "exec"), {})
    finally:
        sys.modules.pop("promote", None)
    assert capsys.readouterr().out == "promoted\n"
    explain, verify = fake.calls()
    assert explain[:3] == ["explain", "models/plain/model.pth", "photos/test"]
    assert explain[5:] == ["--arch", "resnet18", "--image-size", "64", "--mean", "0.5", "--std", "0.5", "--json"]
    assert verify[0] == "verify"


@pytest.fixture
def run(place: Path) -> Callable[..., str]:
    """Run a program of the page in that folder with the real batchcam; return what it said."""
    (place / "bin").mkdir()
    (place / "bin/batchcam").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchcam "$@"\n')
    (place / "bin/batchcam").chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not re.match("BATCHCAM|WANDB|MLFLOW|SLURM", k)}
    environment = {
        **kept,
        "BATCHCAM_DEVICE": "cpu",
        "BATCHCAM_THREADS": "1",
        "BATCHCAM_WORKERS": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "WANDB_MODE": "offline",
        "GITHUB_RUN_ID": "7",
        "CHECKPOINT": "model.pth",
        "GITHUB_STEP_SUMMARY": "summary",
        "PATH": f"{place}/bin:{os.environ['PATH']}",
        "PYTHONPATH": f"{place}:{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }

    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "heading", "version"),
    [
        ("torch", "A plain loop", "plain"),
        ("lightning", "Lightning", "lightning"),
        ("accelerate", "Hugging Face Trainer", "transformers"),  # the Trainer needs it
    ],
)
def test_a_trainer_ends_with_a_promoted_version(place: Path, run, package, heading, version) -> None:
    pytest.importorskip(package)
    run(sys.executable, "-c", example(heading))
    assert (place / "models/promoted").resolve() == place / "models" / version
    assert (place / "models" / version / "run/manifest.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("package", "heading"), [("mlflow", "MLflow"), ("wandb", "Weights & Biases")])
def test_a_tracker_keeps_accuracy_and_report_of_the_version(place: Path, run, package, heading) -> None:
    pytest.importorskip(package)
    run(sys.executable, "-c", example("A plain loop"))
    (place / "models/promoted").unlink()
    run(sys.executable, "-c", example(heading))
    version = (place / "models/promoted").resolve().name
    assert version != "plain"
    report = (place / f"{version}.html").read_bytes().strip()
    kept = [path for path in place.rglob("*.html") if path.parent != place]
    assert report in [path.read_bytes().strip() for path in kept]


@pytest.mark.slow
def test_the_workflows_script_promotes_the_first_version_and_tells_why_it_refuses_the_next(place: Path, run) -> None:
    yaml = pytest.importorskip("yaml")
    (step,) = yaml.safe_load(example("A hosted workflow"))["jobs"]["promote"]["steps"]
    run(sys.executable, "-c", example("A plain loop"))
    (place / "models/promoted").unlink()
    run("bash", "-e", "-c", step["run"])
    summary = (place / "summary").read_text()
    assert summary.startswith("### model.pth: promoted\n```text\n")
    (place / "models/7").rename(place / "models/6")
    (place / "models/promoted").unlink()
    (place / "models/promoted").symlink_to("6")
    code = "import torch; s = torch.load('model.pth'); s['model']['fc.weight'] *= -1; torch.save(s, 'model.pth')"
    run(sys.executable, "-c", code)
    run("bash", "-e", "-c", step["run"], code=3)
    assert "### model.pth: not promoted (exit code 3)\n```text\n" in (place / "summary").read_text()
    assert "--max-flips 5: exceeded" in (place / "summary").read_text()
