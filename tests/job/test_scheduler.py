"""What a scheduler tells a job: its share, and where it runs."""

from __future__ import annotations

import os
import time

import pytest

from batchcam.errors import ConfigError
from batchcam.job.scheduler import Share, local_rank, share, utc_now, whereabouts

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_GTIDS": "0"}
STEP = BATCH | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"}
"""What Slurm 22.05 sets in a batch script, and in a step of srun."""

INTERACTIVE = str(2**32 - 6)


@pytest.mark.parametrize(
    ("task", "environment", "expected", "source"),
    [
        (None, {}, Share(0, 1), ""),
        ("2/5", {}, Share(2, 5), "--task"),
        ("0/2", TORCHRUN | STEP, Share(0, 2), "--task"),
        ("0/2", {"BATCHCAM_TASK": "0/2"}, Share(0, 2), "BATCHCAM_TASK"),
        ("1/2", {"BATCHCAM_TASK": "0/2"}, Share(1, 2), "--task"),
        (None, TORCHRUN, Share(1, 4), "RANK/WORLD_SIZE"),
        (None, STEP, Share(3, 8), "SLURM_PROCID/SLURM_STEP_NUM_TASKS"),
        (None, BATCH | {"SLURM_STEP_ID": "12"}, Share(0, 4), "SLURM_PROCID/SLURM_NTASKS"),
        (None, TORCHRUN | STEP, Share(1, 4), "RANK/WORLD_SIZE"),
        (None, STEP | {"PMI_RANK": "3", "PMI_SIZE": "8"}, Share(3, 8), "SLURM_PROCID/SLURM_STEP_NUM_TASKS"),
        (None, STEP | {"RANK": "0", "WORLD_SIZE": "2"}, Share(3, 8), "SLURM_PROCID/SLURM_STEP_NUM_TASKS"),
        (None, TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}, Share(0, 1), "RANK/WORLD_SIZE"),
    ],
)
def test_share_is_what_the_user_or_what_started_this_process_says(task, environment, expected, source):
    given = share(task, environment)
    assert (given, given.source, given.remark) == (expected, source, "")


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        (BATCH, "SLURM_PROCID/SLURM_NTASKS are 0/4"),
        (BATCH | {"SLURM_STEP_ID": "batch"}, "SLURM_PROCID/SLURM_NTASKS are 0/4"),
        (BATCH | {"SLURM_STEP_ID": INTERACTIVE, "SLURM_STEP_NUM_TASKS": "1"}, "SLURM_PROCID/SLURM_NTASKS are 0/4"),
        ({"RANK": "1", "WORLD_SIZE": "4"}, "RANK/WORLD_SIZE are 1/4"),
        ({"RANK": "1", "WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": ""}, "RANK/WORLD_SIZE are 1/4"),
        (
            {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
            "OMPI_COMM_WORLD_RANK/OMPI_COMM_WORLD_SIZE are 0/2",
        ),
        (STEP | {"PMI_RANK": "0", "PMI_SIZE": "32"}, "PMI_RANK/PMI_SIZE are 0/32"),  # srun started mpirun
    ],
)
def test_variables_that_started_no_process_are_no_share_and_are_told(environment, names):
    given = share(None, environment)
    assert given == Share(0, 1)
    assert given.remark.startswith(f"{names}, but neither torchrun nor srun started this process as one of several")


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1"},
        {"RANK": "1", "TORCHELASTIC_RUN_ID": "none"},
        {"WORLD_SIZE": "4", "RANK": ""},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"},  # a shell of salloc
        {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
        {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "2"},
        {"RANK": "admiral", "WORLD_SIZE": "large"},
    ],
)
def test_half_a_share_and_a_share_of_one_are_the_whole_without_a_word(environment):
    given = share(None, environment)
    assert (given, given.remark) == (Share(0, 1), "")


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        (TORCHRUN, 1),
        (TORCHRUN | STEP, 1),
        (STEP, 3),
        (STEP | {"SLURM_LOCALID": "x"}, 0),
        ({"LOCAL_RANK": "2"}, 0),
        (STEP | {"LOCAL_RANK": "2"}, 3),
        (BATCH | {"SLURM_LOCALID": "5"}, 0),
        ({**TORCHRUN, "WORLD_SIZE": ""}, 0),
    ],
)
def test_rank_on_this_machine_comes_from_what_gave_the_share(environment, rank):
    assert local_rank(environment) == rank


@pytest.mark.parametrize(
    "task", ["", "1", "4/4", "5/4", "0/0", "-1/4", "1/-4", "a/b", "1/4 ", "1/4\n", "1.0/4", "1/4/2"]
)
def test_task_that_is_no_share_is_refused(task):
    with pytest.raises(ConfigError, match=r"(?s)--task .*expected i/n with i from 0 to n-1"):
        share(task, {})


def test_schedulers_variables_that_are_no_share_are_refused_by_their_name():
    with pytest.raises(ConfigError, match="SLURM_PROCID/SLURM_STEP_NUM_TASKS 8/8"):
        share(None, STEP | {"SLURM_PROCID": "8"})


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
