"""The last job goes on after findings, and stops at failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchcam.commands.submit.config import FinishConfig
from batchcam.commands.submit.finish import finish
from batchcam.job.steps import Steps

STEPS = [
    "merge runs/new run",
    "verify runs/new run",
    "report runs/new run --data my photos --out runs/new run.html",
    "compare runs/old runs/new run --out runs/new run-against-old --max-flips 2 --shared-classes",
]


@pytest.fixture
def steps(monkeypatch, tmp_path) -> dict[str, int]:
    """Exit codes that steps have from now on; those that ran are keys in their order."""
    monkeypatch.chdir(tmp_path)
    codes: dict[str, int] = {}

    def run(_: Steps, *words: str) -> int:
        codes[" ".join(words)] = code = codes.pop(words[0], 0)
        return code

    monkeypatch.setattr(Steps, "run", run)
    return codes


@pytest.mark.parametrize(
    ("codes", "ended", "count"),
    [
        ({}, 0, 4),
        ({"merge": 3}, 3, 4),
        ({"report": 3}, 3, 4),
        ({"compare": 3}, 3, 4),
        ({"compare": 1}, 1, 4),
        ({"merge": 1}, 1, 1),
        ({"verify": 3}, 3, 2),
        ({"merge": 3, "verify": 1}, 1, 2),
        ({"report": 2}, 2, 3),
        ({"verify": 75}, 75, 2),
    ],
)
def test_last_job_goes_on_after_findings_and_stops_at_failures(steps, codes, ended, count):
    steps.update(codes)
    against = Path("runs/old/")
    summary = finish(
        FinishConfig("my photos", Path("runs/new run/"), against=against, max_flips=2, shared_classes=True)
    )
    assert summary.exit_code == ended
    assert list(steps) == STEPS[:count]
    assert summary.told.startswith("done" if count == 4 and ended in (0, 3) else "FAILED: exit code")


def test_last_job_leaves_the_manifest_of_a_complete_run_alone(steps):
    Path("run").mkdir()
    Path("run/manifest.json").touch()
    assert finish(FinishConfig("photos", Path("run"))).exit_code == 0
    assert list(steps) == ["verify run", "report run --data photos --out run.html"]


@pytest.mark.parametrize("data", ["python:my.module:photos", "torchvision:CIFAR10:data:test"])
def test_last_job_names_the_code_that_gives_the_images(steps, data):
    finish(FinishConfig(data, Path("run")))
    assert list(steps)[-1] == f"report run --data {data} --out run.html"
