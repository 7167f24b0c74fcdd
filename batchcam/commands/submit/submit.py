"""submit: a run as two jobs of Slurm: an array that explains it, and one that finishes it when all tasks have."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from batchcam.commands.jobs.jobs import find_jobs
from batchcam.commands.submit import slurm
from batchcam.commands.submit.config import SubmitConfig
from batchcam.errors import EXIT_DONE, EXIT_FINDINGS, ConfigError, StoppedEarlyError, one_line
from batchcam.job.console import counted, note
from batchcam.job.stop import wait
from batchcam.store.problem import is_multi_label
from batchcam.version import PACKAGE

LOGS = Path("logs")
"""Where the scripts of the jobs let Slurm write; without it they would fail, and say nothing."""


@dataclasses.dataclass(frozen=True)
class SubmitSummary:
    """What was submitted.

    Attributes:
        explain: id of the array.
        finish: id of the job behind it.
        lines: instead of both, the lines for sbatch of a dry run.
        exit_code: of the last job, if that was waited for.
    """

    run: str
    explain: str = ""
    finish: str = ""
    lines: tuple[str, ...] = ()
    exit_code: int = EXIT_DONE


def submit(config: SubmitConfig) -> SubmitSummary:
    """Submit a run; again after a failure: finished shards stay.

    Raises:
        ConfigError: more tasks than an array may have, or a gate that means nothing for OLD.
        BatchcamError: sbatch submits nothing.
        StoppedEarlyError: a signal, while waiting.
    """
    if config.against and (multi_label := is_multi_label(config.against)) is not None:
        config.require_meant(multi_label)
    if config.dry_run:
        jobs = (_explain_words(config), _finish_words(config, "EXPLAIN"))
        return SubmitSummary(str(config.run), lines=tuple(map(shlex.join, jobs)))
    most = slurm.most_tasks()
    if most is not None and config.tasks > most:
        raise ConfigError(f"--tasks {config.tasks}: at most {most} here; a task takes every {_ordinal(most)} shard")
    LOGS.mkdir(exist_ok=True)
    explain = slurm.submit("explain", _explain_words(config))
    note(f"explain {explain}: {counted(config.tasks, 'task')}", config.quiet)
    finish = slurm.submit("finish", _finish_words(config, explain))
    why = f"grep -e error: -e FAILED {LOGS}/*-{explain}_*.out"
    note(f"finish {finish}: is cancelled if a task fails; why it did: {why}", config.quiet)
    code = _wait(config, explain, finish) if config.wait else EXIT_DONE
    return SubmitSummary(str(config.run), explain, finish, exit_code=code)


def _explain_words(config: SubmitConfig) -> list[str]:
    at_once = min(config.at_once or config.tasks, config.tasks)
    exported = f"--export=ALL,EXPLAIN_TASKS={config.tasks}{',EXPLAIN_STAGE=1' if config.stage else ''}"
    gpus, device = (["--gpus-per-task=1"], ["--device", "cuda"]) if config.gpus else ([], [])
    array = ["sbatch", "--parsable", f"--array=0-{config.tasks - 1}%{at_once}", exported, *gpus, *config.sbatch]
    work = [config.checkpoint, config.data, str(config.run), *device, *config.options]
    return [*array, str(_scripts(config) / "explain.sbatch"), *work]


def _finish_words(config: SubmitConfig, explain: str) -> list[str]:
    behind = ["--kill-on-invalid-dep=yes", f"--dependency=afterok:{explain}"]
    against = [str(config.against), *config.words] if config.against else []
    script = str(_scripts(config) / "finish.sbatch")
    return ["sbatch", "--parsable", *behind, *config.finish_sbatch, script, config.data, str(config.run), *against]


def _scripts(config: SubmitConfig) -> Path:
    return config.scripts or find_jobs(PACKAGE.parent)


def _wait(config: SubmitConfig, explain: str, finish: str) -> int:
    """Return the exit code of the last job when it has ended; tell why where that is a failure."""

    def sleep(seconds: float) -> None:
        try:
            wait(seconds)
        except StoppedEarlyError as error:
            raise StoppedEarlyError(
                f"no longer waiting for job {finish}, which goes on: squeue --job {finish}"
            ) from error

    state, code = slurm.outcome(finish, sleep)
    for line in _reasons(explain) if state == "CANCELLED" else ():
        note(line, quiet=False)
    if code not in (EXIT_DONE, EXIT_FINDINGS):
        told = f"ended as {state}, exit code {code}" if state else "is not known to Slurm any more"
        note(f"job {finish} {told}; how the run is: batchcam info {shlex.quote(str(config.run))}", quiet=False)
    return code


def _reasons(explain: str) -> list[str]:
    """Return the lines of the tasks' logs that say what failed."""
    logs = sorted(LOGS.glob(f"*-{explain}_*.out"))
    lines = (f"{log}: {line}" for log in logs for line in log.read_text(errors="replace").splitlines())
    return [one_line(line) for line in lines if "error:" in line or "FAILED" in line]


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
