"""Submitting: the lines for sbatch, what it prints, and how the last job's end is waited for."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchcam.cli.process import main
from batchcam.commands.submit.config import SubmitConfig
from batchcam.commands.submit.submit import SubmitSummary, submit
from batchcam.errors import BatchcamError, ConfigError, StoppedEarlyError
from batchcam.job.stop import Stop
from tests.helpers import ROOT
from tests.helpers.pretended import Pretended, at_first

JOBS = ROOT / "jobs"
WORDS = ("m.pth", "photos", Path("run"))


@pytest.fixture
def slurm(pretended) -> Pretended:
    """A Slurm whose arrays have at most 1001 tasks."""
    pretended.program("sbatch", "echo 41")
    pretended.program("scontrol", "echo 'MaxArraySize            = 1001'")
    return pretended


def test_dry_run_tells_the_lines_for_sbatch_and_submits_nothing(slurm):
    config = SubmitConfig(
        "m.pth", "my photos", Path("run"), ("-b", "8"), tasks=6, at_once=2, gpus=True, stage=True,
        sbatch=("--time=60",), finish_sbatch=("--mem=16G",), against=Path("old"), max_flips=2, min_compared=90.5,
        shared_classes=True, dry_run=True,
    )  # fmt: skip
    explained, finished = submit(config).lines
    assert explained == (
        "sbatch --parsable --array=0-5%2 --export=ALL,EXPLAIN_TASKS=6,EXPLAIN_STAGE=1 --gpus-per-task=1 --time=60 "
        f"{JOBS}/explain.sbatch m.pth 'my photos' run --device cuda -b 8"
    )
    assert finished == (
        "sbatch --parsable --kill-on-invalid-dep=yes --dependency=afterok:EXPLAIN --mem=16G "
        f"{JOBS}/finish.sbatch 'my photos' run old --max-flips 2 --min-compared 90.5 --shared-classes"
    )
    assert slurm.calls() == []
    assert not Path("logs").exists()


def test_array_and_last_job_are_submitted_in_turn_and_told(slurm, capfd):
    slurm.program("sbatch", at_first("echo 41", "echo 42"))
    assert submit(SubmitConfig(*WORDS, tasks=1001)) == SubmitSummary("run", "41", "42")
    array, finish = slurm.calls("sbatch")
    assert array[2] == "--array=0-1000%1001"
    assert finish[3] == "--dependency=afterok:41"
    assert Path("logs").is_dir()
    assert "grep -e error: -e FAILED logs/*-41_*.out" in capfd.readouterr().err


def test_ids_are_stdout_so_that_scripts_can_read_them(slurm, capfd):
    with pytest.raises(SystemExit) as caught:
        main(["submit", *map(str, WORDS), "--tasks", "3"])
    assert (caught.value.code, capfd.readouterr().out) == (0, "explain 41\nfinish 41\n")
    assert slurm.calls("sbatch")[0][-5:] == [*map(str, WORDS), "--tasks", "3"]


@pytest.mark.parametrize(
    ("most", "told"),
    [(1001, "1001st"), (512, "512th"), (11, "11th"), (3, "3rd"), (112, "112th")],
)
def test_more_tasks_than_an_array_may_have_are_refused_with_how_many_it_may(slurm, most, told):
    slurm.program("scontrol", f"echo 'MaxArraySize            = {most}'")
    with pytest.raises(ConfigError) as caught:
        submit(SubmitConfig(*WORDS, tasks=5000))
    assert str(caught.value) == f"--tasks 5000: at most {most} here; a task takes every {told} shard"
    assert slurm.calls("sbatch") == []


def test_a_slurm_that_says_nothing_of_its_arrays_is_asked_by_sbatch(slurm):
    slurm.program("scontrol", "exit 1")
    assert submit(SubmitConfig(*WORDS, tasks=5000)).explain == "41"


@pytest.mark.parametrize(
    "said",
    [
        "echo 41",
        "echo '41;cluster'",
        "echo Welcome; echo '  3 reservations'; echo; echo 41",
        "echo 2026; echo 41",
        "echo 41; echo 'Estimated cost: 12 units'",
        r"printf '41\r\n'",
        "echo Submitted batch job 41",
    ],
)
def test_id_of_a_job_is_found_in_whatever_sbatch_prints(slurm, said):
    slurm.program("sbatch", said)
    assert submit(SubmitConfig(*WORDS)).finish == "41"


@pytest.mark.parametrize(
    "said", ["", "echo queue closed", "echo job 41 accepted", "echo 41 42", "echo 41x", "echo 41; exit 5"]
)
def test_submission_ends_with_what_sbatch_said_where_no_job_id_is_in_it(slurm, said):
    slurm.program("sbatch", said)
    with pytest.raises(
        BatchcamError, match=r"no job id for explain: sbatch ended with exit code . and printed"
    ) as caught:
        submit(SubmitConfig(*WORDS))
    assert said.removeprefix("echo ").partition(";")[0] in str(caught.value)
    assert len(slurm.calls("sbatch")) == 1


def test_a_machine_without_slurm_is_told_so(pretended, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BatchcamError, match=r"sbatch: cannot start: No such file .*is this a machine of Slurm's"):
        submit(SubmitConfig(*WORDS))


def job(state: str, code: str = "0:0") -> str:
    return f"echo 'Welcome'; echo 'JobId=41 JobState={state} Reason=None ExitCode={code} Node=n1'"


@pytest.mark.parametrize(
    ("shown", "code", "told"),
    [
        (job("COMPLETED"), 0, ""),
        (at_first("exit 1", job("FAILED", "3:0")), 3, ""),
        (at_first(job("RUNNING"), job("COMPLETED")), 0, ""),
        (at_first(job("REQUEUED"), job("COMPLETED")), 0, ""),
        (job("FAILED", "75:0"), 75, "job 41 ended as FAILED, exit code 75; how the run is: batchcam info run"),
        (job("FAILED", "0:9"), 1, "job 41 ended as FAILED"),
        *((job(state), 1, f"job 41 ended as {state}, exit code 1") for state in (
            "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REVOKED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE",
            "LAUNCH_FAILED", "A_STATE_TO_COME",
        )),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", 1, "job 41 is not known to Slurm"),
        ("exit 1", 1, "job 41 is not known to Slurm any more; how the run is: batchcam info run"),
    ],
)  # fmt: skip
def test_waiting_ends_with_every_end_of_the_job_and_its_code(slurm, shown, code, told, capfd):
    slurm.program("scontrol", f'[ "$2" != config ] || exit 1; {shown}')
    assert submit(SubmitConfig(*WORDS, wait=True)).exit_code == code
    assert told in capfd.readouterr().err


def test_why_tasks_failed_is_told_where_the_last_job_was_cancelled(slurm, capfd):
    slurm.program("scontrol", job("CANCELLED"))
    Path("logs").mkdir()
    Path("logs/batchcam-explain-41_3.out").write_text("all well\nbatchcam: error: no such file\ntask 3/8: FAILED: 1\n")
    Path("logs/batchcam-explain-40_3.out").write_text("batchcam: error: of another day\n")
    submit(SubmitConfig(*WORDS, wait=True))
    lines = [line for line in capfd.readouterr().err.splitlines() if "logs/batchcam" in line]
    assert [line.partition(".out: ")[2] for line in lines] == ["batchcam: error: no such file", "task 3/8: FAILED: 1"]


def test_a_signal_ends_the_waiting_and_not_the_job(slurm):
    slurm.program("scontrol", job("RUNNING"))
    with (
        Stop(0),
        pytest.raises(StoppedEarlyError, match="no longer waiting for job 41, which goes on: squeue --job 41"),
    ):
        submit(SubmitConfig(*WORDS, wait=True))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"tasks": 0}, "--tasks 0: must be"),
        ({"max_flips": 2.0}, "--max-flips needs --against"),
        ({"shared_classes": True}, "--shared-classes needs --against"),
        ({"stage": True, "data": "stl10:photos"}, "--stage copies image files, of which stl10:photos has none"),
    ],
)
def test_submission_that_can_not_be_meant_is_refused(more, told):
    with pytest.raises(ConfigError, match=told):
        SubmitConfig(**{"checkpoint": "m.pth", "data": "photos", "run": Path("run"), **more})
