"""What a scheduler tells a job: the share, the signals, the time limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from batchcam.errors import ConfigError
from batchcam.job.scheduler import Share, Stop, share, utc_now, whereabouts


@pytest.mark.parametrize(
    ("task", "environment", "expected"),
    [
        (None, {}, Share(0, 1)),
        ("2/5", {}, Share(2, 5)),
        (None, {"RANK": "1", "WORLD_SIZE": "4"}, Share(1, 4)),
        (None, {"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}, Share(3, 8)),
        (None, {"RANK": "1", "WORLD_SIZE": "4", "SLURM_PROCID": "3", "SLURM_NTASKS": "8"}, Share(1, 4)),
        ("0/2", {"RANK": "1", "WORLD_SIZE": "4"}, Share(0, 2)),
        (None, {"RANK": "1"}, Share(0, 1)),
        (None, {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "2"}, Share(0, 1)),
    ],
)
def test_share_comes_from_the_task_then_torchrun_then_srun(task, environment, expected):
    assert share(task, environment) == expected


@pytest.mark.parametrize(
    "task", ["", "1", "4/4", "5/4", "0/0", "-1/4", "1/-4", "a/b", "1/4 ", "1/4\n", "1.0/4", "1/4/2"]
)
def test_task_that_is_no_share_is_refused(task):
    with pytest.raises(ConfigError, match=r"(?s)--task .*expected i/n with i from 0 to n-1"):
        share(task, {})


def test_schedulers_variables_that_are_no_share_are_refused_by_their_name():
    with pytest.raises(ConfigError, match="SLURM_PROCID/SLURM_NTASKS 8/8"):
        share(None, {"SLURM_PROCID": "8", "SLURM_NTASKS": "8"})


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_shares_divide_the_shards_among_them(count):
    taken = [[s for s in range(25) if Share(i, count).takes(s)] for i in range(count)]
    assert sorted(s for shards in taken for s in shards) == list(range(25))
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


def test_share_is_written_as_it_is_given():
    assert share(str(Share(3, 8)), {}) == Share(3, 8)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda n: n.name)
def test_first_signal_is_only_a_reason_to_stop(number):
    with Stop() as stop:
        assert stop.reason() is None
        os.kill(os.getpid(), number)
        assert stop.reason() == number.name


def test_handlers_are_as_before_after_the_block():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(n) for n in numbers]
    with Stop():
        assert all(signal.getsignal(n) != b for n, b in zip(numbers, before, strict=True))
        os.kill(os.getpid(), signal.SIGUSR1)
    assert [signal.getsignal(n) for n in numbers] == before
    with pytest.raises(ZeroDivisionError), Stop():
        raise ZeroDivisionError
    assert [signal.getsignal(n) for n in numbers] == before


def test_second_signal_of_a_kind_does_what_it_always_did():
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason() == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_signal_of_another_kind_does_not_end_the_process_either():
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason() == "SIGTERM"


def test_second_termination_ends_the_process():
    program = (
        "import os, signal, time; from batchcam.job.scheduler import Stop\n"
        "with Stop() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print(stop.reason(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(30)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "SIGTERM\n")


def test_time_limit_is_a_reason_to_stop_once_it_is_over(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Stop(60) as stop:
        now = 159.9
        assert stop.reason() is None
        now = 160.0
        assert stop.reason() == "time limit"


def test_time_limit_counts_from_the_making_of_stop(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stop = Stop(60)
    now = 161.0
    with stop:
        assert stop.reason() == "time limit"


def test_signal_outweighs_the_time_limit_as_reason():
    with Stop(0) as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.reason() == "SIGUSR1"


def test_whereabouts_name_the_job_and_its_restarts():
    found = whereabouts({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_RESTART_COUNT": "2"})
    assert (found["job"], found["restarts"], found["pid"]) == ("5", 2, os.getpid())
    assert whereabouts({"SLURM_JOB_ID": "7"})["job"] == "7"


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_whereabouts_need_no_scheduler_and_no_name(monkeypatch, error):
    def nobody() -> str:
        raise error("no such user")

    monkeypatch.setattr("getpass.getuser", nobody)
    found = whereabouts({})
    assert (found["job"], found["restarts"], found["user"]) == (None, 0, str(os.getuid()))


def test_restart_count_that_is_no_number_stops_no_job():
    assert whereabouts({"SLURM_RESTART_COUNT": ""})["restarts"] == 0


def test_time_is_utc_to_the_second(monkeypatch):
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((2026, 1, 2, 3, 4, 5, 4, 2, 0)))
    assert utc_now() == "2026-01-02T03:04:05Z"
