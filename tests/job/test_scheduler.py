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

OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "6", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
SGE = {"SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "8", "SGE_TASK_STEPSIZE": "1"}

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
        (None, OPEN_MPI, Share(2, 6), "OMPI_COMM_WORLD_RANK/OMPI_COMM_WORLD_SIZE"),
        (None, TORCHRUN | OPEN_MPI, Share(1, 4), "RANK/WORLD_SIZE"),
        (None, {"PMI_RANK": "3", "PMI_SIZE": "4"}, Share(3, 4), "PMI_RANK/PMI_SIZE"),
        # srun started mpirun's daemon here, which started this process
        (None, STEP | {"PMI_RANK": "0", "PMI_SIZE": "32"}, Share(0, 32), "PMI_RANK/PMI_SIZE"),
        (None, STEP | OPEN_MPI, Share(2, 6), "OMPI_COMM_WORLD_RANK/OMPI_COMM_WORLD_SIZE"),
    ],
)
def test_share_is_what_the_user_or_what_started_this_process_says(task, environment, expected, source):
    given = share(task, environment=environment)
    assert (given, given.source, given.remark) == (expected, source, "")


@pytest.mark.parametrize(
    ("first", "last", "step"), [(1, 8, 1), (1, 15, 2), (1, 16, 2), (2, 10, 2), (3, 20, 4), (1, 1, 1)]
)
@pytest.mark.parametrize(
    ("index", "told"),
    [
        ("SGE_TASK_ID", ("SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE")),
        ("LSB_JOBINDEX", ("", "LSB_JOBINDEX_END", "LSB_JOBINDEX_STEP")),
    ],
    ids=["sge", "lsf"],
)
def test_tasks_whose_numbers_start_and_step_otherwise_have_each_share_once(first, last, step, index, told):
    environment = {name: str(number) for name, number in zip(told, (first, last, step), strict=True) if name}
    numbers = range(first, last + 1, step)
    given = [share(None, environment={**environment, index: str(number)}) for number in numbers]
    assert [str(each) for each in given] == [f"{i}/{len(numbers)}" for i in range(len(numbers))]


@pytest.mark.parametrize(
    ("environment", "expected", "source"),
    [
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "10"}, Share(0, 10),
         "AWS_BATCH_JOB_ARRAY_INDEX/AWS_BATCH_JOB_ARRAY_SIZE"),
        ({"BATCH_TASK_INDEX": "3", "BATCH_TASK_COUNT": "4"}, Share(3, 4), "BATCH_TASK_INDEX/BATCH_TASK_COUNT"),
        (SGE | {"SGE_TASK_ID": "8"}, Share(7, 8), "SGE_TASK_ID/SGE_TASK_LAST"),
        ({"LSB_JOBINDEX": "1", "LSB_JOBINDEX_END": "4"}, Share(0, 4), "LSB_JOBINDEX/LSB_JOBINDEX_END"),
        # the 3rd task of 8 starts 6 processes, of which this is the 3rd
        (SGE | {"SGE_TASK_ID": "3"} | OPEN_MPI, Share(14, 48),
         "SGE_TASK_ID/SGE_TASK_LAST and OMPI_COMM_WORLD_RANK/OMPI_COMM_WORLD_SIZE"),
    ],
)  # fmt: skip
def test_share_of_a_task_of_an_array_is_what_its_scheduler_says(environment, expected, source):
    given = share(None, environment=environment)
    assert (given, given.source, given.remark) == (expected, source, "")


LONE = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "PBS_ARRAY_INDEX", "PBS_ARRAYID")


@pytest.mark.parametrize("name", LONE)
@pytest.mark.parametrize("first", [0, 1])
def test_tasks_that_know_only_their_numbers_share_the_run_once_they_are_told_how_many(name, first):
    given = [share(None, 4, {name: str(number)}) for number in range(first, first + 4)]
    assert sorted(each.index for each in given) == [0, 1, 2, 3]
    assert {(each.count, each.source, each.remark) for each in given} == {(4, f"{name}/--tasks", "")}
    with pytest.raises(ConfigError, match=rf"{name}/--tasks 5/4: expected"):
        share(None, 4, {name: "5"})


@pytest.mark.parametrize("name", LONE)
def test_a_number_without_a_count_is_no_share_and_is_told(name):
    given = share(None, environment={name: "3", "SLURM_ARRAY_TASK_COUNT": "4"})
    assert given == Share(0, 1)
    assert given.remark.startswith(f"{name} is 3, but nothing says of how many: no share is taken from it (--tasks N")


def test_tasks_of_an_array_that_start_several_processes_share_their_shares():
    shares = [
        share(
            None, 3, STEP | {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": "2"}
        )
        for task in range(3)
        for rank in range(2)
    ]
    assert [str(each) for each in shares] == [f"{i}/6" for i in range(6)]


@pytest.mark.parametrize("environment", [{}, STEP, SGE | {"SGE_TASK_ID": "2"}])
def test_how_many_tasks_where_none_has_a_number_is_refused(environment):
    with pytest.raises(ConfigError, match=r"--tasks 8: none of SLURM_ARRAY_TASK_ID, .* says which of them this is"):
        share(None, 8, environment)
    assert share("2/4", 8, environment) == Share(2, 4)


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        (BATCH, "SLURM_PROCID/SLURM_NTASKS are 0/4"),
        (BATCH | {"SLURM_STEP_ID": "batch"}, "SLURM_PROCID/SLURM_NTASKS are 0/4"),
        (BATCH | {"SLURM_STEP_ID": INTERACTIVE, "SLURM_STEP_NUM_TASKS": "1"}, "SLURM_PROCID/SLURM_NTASKS are 0/4"),
        ({"RANK": "1", "WORLD_SIZE": "4"}, "RANK/WORLD_SIZE are 1/4"),
        ({"RANK": "1", "WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": ""}, "RANK/WORLD_SIZE are 1/4"),
    ],
)
def test_variables_that_started_no_process_are_no_share_and_are_told(environment, names):
    given = share(None, environment=environment)
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
        {"OMPI_COMM_WORLD_RANK": "1"},
        {"JOB_COMPLETION_INDEX": ""},
        {"AWS_BATCH_JOB_ARRAY_INDEX": "1"},
        {"AWS_BATCH_JOB_ID": "7", "AWS_BATCH_JOB_ARRAY_SIZE": "4"},
        {"BATCH_TASK_INDEX": "1"},
        dict.fromkeys(("SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"), "undefined"),
        {"SGE_TASK_ID": "3"},
        {"LSB_JOBINDEX": "0", "LSB_JOBINDEX_END": "0", "LSB_JOBINDEX_STEP": "0"},  # LSF without an array
        {"RANK": "admiral", "WORLD_SIZE": "large"},
    ],
)
def test_half_a_share_and_a_share_of_one_are_the_whole_without_a_word(environment):
    given = share(None, environment=environment)
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
        (OPEN_MPI, 1),
        (STEP | OPEN_MPI, 1),
        (STEP | {"PMI_RANK": "3", "PMI_SIZE": "8"}, 3),  # srun --mpi=pmi2
        ({"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALRANKID": "2"}, 2),
        ({"PMI_RANK": "3", "PMI_SIZE": "8", "PMI_LOCAL_RANK": "1"}, 1),
        (SGE | {"SGE_TASK_ID": "2"}, 0),
        (SGE | {"SGE_TASK_ID": "2"} | OPEN_MPI, 1),
    ],
)
def test_rank_on_this_machine_comes_from_what_gave_the_share(environment, rank):
    assert local_rank(environment) == rank


@pytest.mark.parametrize(
    "task", ["", "1", "4/4", "5/4", "0/0", "-1/4", "1/-4", "a/b", "1/4 ", "1/4\n", "1.0/4", "1/4/2"]
)
def test_task_that_is_no_share_is_refused(task):
    with pytest.raises(ConfigError, match=r"(?s)--task .*expected i/n with i from 0 to n-1"):
        share(task, environment={})


def test_schedulers_variables_that_are_no_share_are_refused_by_their_name():
    with pytest.raises(ConfigError, match="SLURM_PROCID/SLURM_STEP_NUM_TASKS 8/8"):
        share(None, environment=STEP | {"SLURM_PROCID": "8"})


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_shares_divide_the_shards_among_them(count):
    taken = [[s for s in range(25) if Share(i, count).takes(s)] for i in range(count)]
    assert sorted(s for shards in taken for s in shards) == list(range(25))
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


def test_share_is_written_as_it_is_given():
    assert share(str(Share(3, 8)), environment={}) == Share(3, 8)


def test_whereabouts_name_the_job_and_its_restarts():
    found = whereabouts({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_RESTART_COUNT": "2"})
    assert (found["job"], found["restarts"], found["pid"]) == ("5", 2, os.getpid())
    assert whereabouts({"SLURM_JOB_ID": "7"})["job"] == "7"


@pytest.mark.parametrize("name", ["AWS_BATCH_JOB_ID", "BATCH_JOB_UID", "PBS_JOBID", "LSB_JOBID", "JOB_ID"])
def test_whereabouts_name_the_job_of_any_engine_and_slurms_before_a_name_that_is_anybodys(name):
    assert whereabouts({name: "a-7", "SLURM_JOB_ID": ""})["job"] == "a-7"
    assert whereabouts({name: "a-7", "SLURM_JOB_ID": "9"})["job"] == "9"


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
