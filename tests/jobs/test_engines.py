"""What docs/engines.md shows, run: three tasks, one of which is killed once; the run is that of one worker."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from tests.helpers import ROOT
from tests.helpers.networks import GapNetwork, seeded

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
SETTINGS = {
    "MODEL": "tests.helpers.networks:GapNetwork", "PREPROCESS": "stl10", "IMAGE_SIZE": "16", "BATCH_SIZE": "4",
    "SHARD_SIZE": "4", "WORKERS": "0", "THREADS": "1", "DEVICE": "cpu",
}  # fmt: skip

BATCHCAM = f"""#!/bin/bash
# the first worker of share 1/3 is killed
case "$* ${{OMPI_COMM_WORLD_RANK:-}}" in
explain*' --task 1/3'* | explain*' 1') mkdir "$0.killed" 2>/dev/null && exit 137 ;;
esac
exec "{sys.executable}" -m batchcam "$@"
"""


class Desk:
    """A folder with a model, images, and a batchcam on PATH of which one task is killed once."""

    def __init__(self, here: Path) -> None:
        self.here = here
        torch.save(seeded(GapNetwork).state_dict(), here / "model.pth")
        rng = np.random.default_rng(0)
        for number in range(24):
            (folder := here / "photos" / ("ant", "bee", "cat")[number % 3]).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number:02d}.png"), rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        (here / "photos/ant/bad.png").write_bytes(b"")  # a finding
        (here / "bin").mkdir()
        (here / "bin/batchcam").write_text(BATCHCAM)
        (here / "bin/batchcam").chmod(0o755)
        kept = {k: v for k, v in os.environ.items() if not re.match("BATCHCAM|SLURM|OMPI|PMI", k)}
        self.environment = {
            **kept,
            **{f"BATCHCAM_{name}": value for name, value in SETTINGS.items()},
            "PATH": f"{here}/bin:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        }

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=self.here, env=self.environment, capture_output=True, text=True, timeout=600)

    def require_whole(self) -> None:
        """The run is complete, true, and has the bytes of one worker, although a task was killed."""
        assert (self.here / "bin/batchcam.killed").exists()
        assert self.run("batchcam", "explain", "model.pth", "photos", "--out", "alone", "-q").returncode == 3
        assert digests(self.here / "runs/monday") == digests(self.here / "alone")
        assert verify(VerifyConfig(self.here / "runs/monday", quiet=True)).found == []


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk(tmp_path)


def digests(run: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((run / "shards").glob("*.h5"))}


def snippet(heading: str) -> str:
    """Return the block below a heading of the page."""
    return re.search(rf"^## {heading}\n.*?^```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]


def needs(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")


def test_open_mpi(desk):
    needs("mpirun")
    desk.environment |= {
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
    }  # fmt: skip
    command = snippet("Open MPI").split()
    first, second = desk.run(*command), desk.run(*command)
    assert first.returncode != 0
    assert second.returncode == 0, second.stderr
    for rank in range(3):
        assert f"share {rank}/3 from OMPI_COMM_WORLD_RANK/OMPI_COMM_WORLD_SIZE" in second.stderr
    desk.require_whole()


def test_snakemake(desk):
    needs("snakemake")
    (desk.here / "Snakefile").write_text(snippet("Snakemake"))
    done = desk.run("snakemake", "--cores", "3", "--retries", "2")
    assert done.returncode == 0, done.stderr
    assert (desk.here / "monday.html").stat().st_size > 10_000
    desk.require_whole()


def test_dvc(desk):
    needs("dvc")
    for words in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        assert desk.run(*words).returncode == 0
    (desk.here / "dvc.yaml").write_text(snippet("DVC"))
    (desk.here / "bin/batchcam").write_text(BATCHCAM.replace("explain*' --task 1/3'*", "explain*"))
    assert desk.run("dvc", "repro").returncode != 0
    done = desk.run("dvc", "repro")
    assert done.returncode == 0, done.stderr
    desk.require_whole()


def test_submitit(desk):
    pytest.importorskip("submitit", reason="submitit is not installed")
    (desk.here / "night.py").write_text(snippet("submitit"))
    done = desk.run(sys.executable, "night.py", "local")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("[")
    desk.require_whole()
