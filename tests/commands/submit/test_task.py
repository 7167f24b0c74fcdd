"""A task of an array: who decides how it ended, when it runs again, and when it has had enough."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from batchcam.commands.submit.config import TaskConfig
from batchcam.commands.submit.task import slurm_task
from batchcam.errors import ConfigError
from batchcam.store.manifest import task_file, write_task
from tests.helpers import ROOT
from tests.helpers.pretended import Pretended, at_first

ARRAY = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "9", "SLURMD_NODENAME": "n1"}
CONFIG = TaskConfig("m.pth", "my photos", Path("run"), ("-b", "8"), tasks=8)
OOM = "echo 'slurmstepd-n1: error: Detected 1 oom-kill event(s) in StepId=9.0. Some of your processes …' >&2"


def told(code: int) -> str:
    """Shell of a worker that ends and says so."""
    return f"echo as told; echo '{json.dumps({'exit_code': code})}'; exit {code}"


@pytest.fixture
def task(pretended, monkeypatch) -> Pretended:
    """A task whose worker is done, in a job that runs."""
    for name, value in ARRAY.items():
        monkeypatch.setenv(name, value)
    pretended.program("srun", told(0))
    pretended.program("squeue", "echo RUNNING")
    pretended.program("scontrol", "")
    return pretended


def record(restarts: int, shards: list[str], **more: Any) -> None:
    Path("run").mkdir(exist_ok=True)
    content = {"task": "3/8", "job": "7", "restarts": restarts, "shards": shards, "started": f"{restarts}", **more}
    write_task(Path("run"), task_file(3), content)


def test_worker_does_the_share_of_this_task_in_a_step_of_srun(task, capfd):
    assert slurm_task(CONFIG).exit_code == 0
    (call,) = task.calls("srun")
    explain = call.index("explain")
    assert (call[1:3], call[explain:]) == (
        ["--ntasks=1", sys.executable],
        ["explain", "m.pth", "my photos", "--out", "run", "--task", "3/8", "-b", "8", "--json"],
    )
    assert capfd.readouterr().out == "as told\n"


def test_copies_of_a_worker_that_was_killed_are_gone_before_it_runs_again(task, tmp_path):
    task.program("srun", 'touch "${@: -2:1}/0"; ls "$TMPDIR" > ../seen; exit 137'.replace("$TMPDIR", str(tmp_path)))
    task.program("scontrol", f"ls -d {tmp_path}/batchcam.* >> ../seen")
    config = dataclasses.replace(CONFIG, stage_in=tmp_path)
    assert slurm_task(config).exit_code == 137
    assert len([line for line in Path("../seen").read_text().splitlines() if "batchcam." in line]) == 1
    assert task.calls("srun")[0][-3] == "--stage-to"


@pytest.mark.parametrize(
    ("code", "state", "ended", "asks"),
    [
        (0, "RUNNING", 0, 0),
        (3, "RUNNING", 0, 0),  # or the jobs that wait would not run
        (1, "RUNNING", 1, 0),
        (2, "RUNNING", 2, 0),
        (75, "RUNNING", 75, 1),
        (75, "COMPLETING", 75, 0),  # cancelled
        (75, "", 75, 0),
    ],
)
def test_task_asks_for_another_go_when_it_helps_and_nobody_cancelled_it(task, code, state, ended, asks):
    task.program("srun", told(code))
    task.program("squeue", f"echo {state}")
    assert slurm_task(CONFIG).exit_code == ended
    assert task.calls("scontrol") == [["scontrol", "requeue", "7_3"]] * asks


@pytest.mark.parametrize(("state", "asks"), [("RUNNING", 1), ("COMPLETING", 0)])
def test_a_worker_that_was_killed_runs_again(task, state, asks):
    task.program("srun", "exit 137")
    task.program("squeue", f"echo {state}")
    assert slurm_task(CONFIG).exit_code == 137
    assert len(task.calls("scontrol")) == asks


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_of_the_worker_counts_and_not_that_of_a_loader_that_was_started_again(task, code):
    task.program("srun", f"{OOM}; echo '{{\"exit_code\": {code}}}'; echo 'srun: error: n1: Out Of Memory' >&2; exit 1")
    assert slurm_task(CONFIG).exit_code == 0
    assert len(task.calls("srun")) == 1


def test_a_worker_without_enough_memory_has_one_more_try_with_half_the_loaders(task, capfd):
    record(0, [], workers=5)
    task.program("srun", at_first(f"{OOM}; exit 137", told(0)))
    assert slurm_task(CONFIG).exit_code == 0
    assert task.calls("srun")[1][-3:] == ["--workers", "2", "--json"]
    assert "restart 0: out of memory; once more, with --workers 2" in capfd.readouterr().err


def test_a_worker_without_enough_memory_fails_in_the_end_and_says_how_much_to_ask_for(task, monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "500")
    monkeypatch.setenv("BATCHCAM_WORKERS", "4")
    Path("run").mkdir()
    write_task(Path("run"), task_file(1), {"task": "1/8", "job": "7", "peak_memory_bytes": 400 * 2**20})
    task.program("srun", f"{OOM}; exit 1")
    ended = slurm_task(CONFIG)
    assert (ended.exit_code, len(task.calls("srun")), task.calls("scontrol")) == (1, 2, [])
    assert "FAILED: 500 MB are not enough: submit with --mem=1000M; workers of this run had up to 400 MB" in ended.told


def test_a_worker_without_loaders_is_not_tried_again_where_memory_is_short(task, monkeypatch):
    monkeypatch.setenv("BATCHCAM_WORKERS", "0")
    task.program("srun", f"{OOM}; exit 137")
    ended = slurm_task(CONFIG)
    assert (ended.exit_code, len(task.calls("srun"))) == (1, 1)
    assert "its memory is not enough: submit with more --mem" in ended.told


@pytest.mark.parametrize(
    ("restarts", "fruitful", "asks"),
    [
        (0, [], 1),
        (8, [], 1),
        (9, [], 0),  # ten goes, and no shard
        (10, [0], 0),
        (9, [0], 1),
        (500, range(500), 1),
        (500, [3, 491], 1),
        (500, [3, 490], 0),
        (500, [500], 1),
    ],
)
def test_goes_are_bounded_that_land_nothing_and_no_others(task, monkeypatch, restarts, fruitful, asks):
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    task.program("srun", told(75))
    for go in fruitful:
        record(go, ["shard-00003.h5"])
    record(restarts, [])
    write_task(
        Path("run"), task_file(3), {"task": "3/8", "job": "6", "restarts": restarts, "shards": ["an older job's"]}
    )
    ended = slurm_task(CONFIG)
    assert (ended.exit_code, len(task.calls("scontrol"))) == (75, asks)
    assert ("FAILED: exit code 75, and no new shard in 10 goes" in ended.told) == (not asks)


@pytest.mark.parametrize(
    ("squeue", "scontrol", "requests"),
    [
        (at_first("exit 1", "echo RUNNING"), "", 1),
        (at_first("exit 1", "echo COMPLETING"), "", 0),
        ("echo RUNNING", at_first("exit 1", "true"), 2),
        ("echo 'Welcome to Cluster 5'; echo; echo RUNNING", "", 1),
        ("echo RUNNING; echo 'maintenance on Monday'", "", 1),
        ("echo 'slurm_load_jobs error: Socket timed out'; exit 1", "", 0),
    ],
    ids=["slow", "slow-and-cancelled", "slow-requeue", "banner", "footer", "gone"],
)
def test_slurm_is_asked_again_and_no_banner_taken_for_an_answer(task, squeue, scontrol, requests):
    task.program("srun", told(75))
    task.program("squeue", squeue)
    task.program("scontrol", scontrol)
    assert slurm_task(CONFIG).exit_code == 75
    assert len(task.calls("scontrol")) == requests


def test_a_requeue_that_slurm_never_answers_is_told(task):
    task.program("srun", told(75))
    task.program("scontrol", "exit 1")
    assert "FAILED: exit code 75, and Slurm does not run it again" in slurm_task(CONFIG).told


@pytest.mark.parametrize("missing", ["SLURM_ARRAY_TASK_ID", ""])
def test_task_without_a_number_or_a_count_is_refused(task, monkeypatch, missing):
    monkeypatch.delenv(missing or "SLURM_RESTART_COUNT", raising=False)
    with pytest.raises(ConfigError, match="export EXPLAIN_TASKS"):
        slurm_task(CONFIG if missing else TaskConfig("m.pth", "photos", Path("run")))
    assert task.calls() == []


def test_signals_reach_the_worker_once_however_many_come(task):
    task.program(
        "srun",
        'trap \'echo heard >> ../heard; sleep 0.5; echo "{\\"exit_code\\": 75}"; exit 75\' USR1\n'
        "touch ../ready; while :; do sleep 0.05; done",
    )
    words = [sys.executable, "-m", "batchcam", "slurm-task", "--tasks", "8", "m.pth", "photos", "run"]
    with subprocess.Popen(
        words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not Path("../ready").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
            process.send_signal(number)
            time.sleep(0.1)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert Path("../heard").read_text() == "heard\n"
    assert "exit code 75: asking for another go" in said
    assert len(task.calls("scontrol")) == 1
