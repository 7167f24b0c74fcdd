"""What a scheduler tells a job: its share, and where it runs."""

from __future__ import annotations

import os
import time

import pytest

from batchcam.errors import ConfigError
from batchcam.job.scheduler import Share, share, utc_now, whereabouts


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
