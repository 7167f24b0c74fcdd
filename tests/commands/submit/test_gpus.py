"""Workers of several GPUs: each has a share and a GPU, none is ended for another's sake, the worst code counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchcam.commands.submit import gpus
from batchcam.commands.submit.config import GpusConfig
from batchcam.commands.submit.gpus import explain_gpus
from batchcam.errors import ConfigError
from tests.helpers import ROOT


def config(count: int = 2) -> GpusConfig:
    return GpusConfig(count, "m.pth", "my photos", Path("run"), ("-b", "8"))


@pytest.fixture
def workers(pretended, monkeypatch):
    monkeypatch.setattr(gpus, "batchcam", lambda: ["batchcam"])
    return pretended


@pytest.mark.parametrize(
    ("codes", "worst"),
    [((0, 0), 0), ((0, 3), 3), ((3, 0), 3), ((75, 3), 75), ((3, 75), 75), ((1, 75), 1), ((75, 1), 1), ((137, 75), 137)],
)
def test_each_worker_has_a_gpu_and_a_share_and_the_worst_code_counts(workers, monkeypatch, codes, worst):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    workers.program(
        "batchcam",
        f"case $CUDA_VISIBLE_DEVICES$* in 5*--task\\ 0/2*) exit {codes[0]} ;; 7*--task\\ 1/2*) exit {codes[1]} ;; esac",
    )
    assert explain_gpus(config()).exit_code == worst
    explain = ["batchcam", "explain", "m.pth", "my photos", "--out", "run"]
    assert sorted(workers.calls()) == [[*explain, "--task", f"{i}/2", "--device", "cuda", "-b", "8"] for i in range(2)]


def test_several_gpus_in_an_allocation_are_left_to_srun(workers, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    workers.program("srun", "exit 75")
    assert explain_gpus(config(8)).exit_code == 75
    explain = ["batchcam", "explain", "m.pth", "my photos", "--out", "run", "--device", "cuda", "-b", "8"]
    assert workers.calls() == [["srun", "--ntasks=8", "--gpus-per-task=1", "--kill-on-bad-exit=0", *explain]]


@pytest.mark.parametrize(("cpus", "threads"), [(8, 4), (1, 1), (3, 1)])
def test_workers_of_one_machine_share_its_cpus(workers, monkeypatch, cpus, threads):
    monkeypatch.setattr(gpus, "available_cpus", lambda: cpus)
    workers.program("batchcam", "echo $CUDA_VISIBLE_DEVICES $BATCHCAM_THREADS $BATCHCAM_WORKERS >> ../given")
    assert explain_gpus(config()).exit_code == 0
    assert sorted(Path("../given").read_text().splitlines()) == [f"{i} {threads} {threads}" for i in range(2)]


def test_what_the_user_says_of_threads_holds(workers, monkeypatch):
    monkeypatch.setenv("BATCHCAM_THREADS", "3")
    workers.program("batchcam", "echo $BATCHCAM_THREADS >> ../given")
    explain_gpus(config(1))
    assert Path("../given").read_text() == "3\n"


def test_more_workers_than_gpus_and_none_at_all_are_refused(workers, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES names 2 GPUs, not 3"):
        explain_gpus(config(3))
    with pytest.raises(ConfigError, match="GPUS 0: must be at least 1"):
        config(0)
    assert workers.calls() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_workers_in_good_order(tmp_path, number):
    worker = "trap 'exit 75' USR1; touch $BASHPID.here; while :; do sleep 0.05; done"
    start = (
        "import sys; from pathlib import Path; from batchcam.commands.submit import gpus; "
        f"gpus.batchcam = lambda: ['bash', '-c', {worker!r}]; "
        "sys.exit(gpus.explain_gpus(gpus.GpusConfig(2, 'm', 'd', Path('r'))).exit_code)"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", start], cwd=tmp_path, env=environment) as process:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.here"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(timeout=60) == 75
