"""What docs/engines.md shows, run: three tasks, one of which is killed once; the run is that of one worker."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from tests.helpers import ROOT
from tests.helpers.networks import GapNetwork, seeded
from tests.jobs.test_slurm import PATIENCE_S, started

pytestmark = pytest.mark.slow

HELPERS = ROOT / "tests" / "helpers"
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


def free_ports() -> tuple[str, str]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("", 0))
        return str(one.getsockname()[1]), str(other.getsockname()[1])


@pytest.fixture
def grid_engine(desk) -> Iterator[dict[str, str]]:
    """Variables that lead to a Grid Engine of the test's own."""
    needs("sge_qmaster")
    place = desk.here / "sge"
    up = subprocess.run([HELPERS / "gridengine/sge-up", place, *free_ports()], capture_output=True, text=True)
    if up.returncode:
        pytest.skip(f"Grid Engine does not start: {up.stderr}")
    try:
        yield dict(re.findall(r"export (\w+)=(.*)", (place / "env.sh").read_text()))
    finally:
        subprocess.run([HELPERS / "gridengine/sge-down", place], capture_output=True)


def test_grid_engine(desk, grid_engine):
    worker = BATCHCAM.replace("OMPI_COMM_WORLD_RANK", "SGE_TASK_ID").replace("' 1'", "' 2'")
    (desk.here / "bin/batchcam").write_text(worker.replace("exit 137", "exit 75"))
    desk.environment |= grid_engine
    done = desk.run("sh", "-c", snippet("Grid Engine"))
    assert done.returncode == 0, done.stdout + done.stderr
    told = {path.name[-1]: path.read_text() for path in desk.here.glob("STDIN.e*")}
    for task in "123":
        assert f"share {int(task) - 1}/3 from SGE_TASK_ID/" in told[task], told
    desk.require_whole()


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


def needs_submitit() -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")


def test_submitit_on_slurm_submits_again_what_slurm_ends(desk, tmp_path_factory):
    needs_submitit()
    # the first worker of share 1/3 does nothing, until it is told to stop
    waits = """{ trap 'touch "$0.stopped"; exit 75' USR1; touch "$0.waits"; while :; do sleep 0.1; done; }"""
    (desk.here / "bin/batchcam").write_text(BATCHCAM.replace("exit 137", waits))
    (desk.here / "night.py").write_text(snippet("submitit").replace("cpus_per_task=4", "cpus_per_task=1"))
    with started(tmp_path_factory) as cluster:
        desk.environment["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
        words = [sys.executable, "night.py", "slurm"]
        with subprocess.Popen(words, cwd=desk.here, env=desk.environment, stdout=subprocess.PIPE, text=True) as night:
            try:
                cluster.wait_for("the worker", (desk.here / "bin/batchcam.waits").exists)
                (job,) = (path.name.partition("_submitted")[0] for path in desk.here.glob("logs/*_1_submitted.pkl"))
                cluster.run("scancel", "--signal=USR2", job)
                stdout, _ = night.communicate(timeout=PATIENCE_S)
            finally:
                night.kill()
    assert (desk.here / "bin/batchcam.stopped").exists()
    assert re.fullmatch(r"\[[03], [03], [03]\]", stdout.splitlines()[-1])
    desk.require_whole()


def test_submitit(desk):
    needs_submitit()
    (desk.here / "night.py").write_text(snippet("submitit"))
    done = desk.run(sys.executable, "night.py", "local")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("[")
    desk.require_whole()
