"""slurm-task, what a task of the array does: its share of the run, in a step of srun, and again where that helps."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from batchcam.commands.submit import slurm
from batchcam.commands.submit.config import TaskConfig
from batchcam.errors import EXIT_DONE, EXIT_FAILED, EXIT_FINDINGS, EXIT_STOPPED_EARLY, ConfigError
from batchcam.job.console import note
from batchcam.job.processes import ignore_job_signals
from batchcam.job.scheduler import share, whereabouts
from batchcam.job.steps import Steps, batchcam, ended, parted
from batchcam.store.manifest import read_tasks

OUT_OF_MEMORY: Final = re.compile(rb"(srun|slurmstepd)[^ ]*: .*(out of memory|oom.kill)", re.IGNORECASE)
"""How Slurm tells that a process of a step ended for want of memory; that may be a loader, of which there are more."""

STDERR: Final = 2

KILLED: Final = 128
"""Exit codes from here on mean a signal."""


@dataclasses.dataclass(frozen=True)
class TaskSummary:
    """How a task ended, in words and as its job's exit code: findings are no failure, which would stop the chain."""

    told: str
    exit_code: int


@dataclasses.dataclass(frozen=True)
class Worker:
    """How a worker ended.

    Attributes:
        code: the exit code that it told, or else srun's: that may be a loader's, in whose place another one came.
        out_of_memory: whether it was ended for want of memory.
    """

    code: int
    out_of_memory: bool


def slurm_task(config: TaskConfig) -> TaskSummary:
    """Explain this task's share; where the worker was stopped or killed, and nobody cancelled the job, once more.

    Raises:
        ConfigError: this is no task of an array.
    """
    task = _Task(config)
    with Steps(config.quiet) as process:
        task.tell("starts")
        worker = task.work(process)
        if worker.out_of_memory and (fewer := task.fewer_loaders()) is not None:
            task.tell(f"out of memory; once more, with --workers {fewer}")
            worker = task.work(process, "--workers", str(fewer))
        if worker.out_of_memory:
            return task.failed(task.needs(), EXIT_FAILED)
        if worker.code in (EXIT_DONE, EXIT_FINDINGS):
            return TaskSummary(task.line("done, with findings" if worker.code else "done"), EXIT_DONE)
        if worker.code == EXIT_STOPPED_EARLY or worker.code >= KILLED:
            return task.run_again(worker.code)
        return task.failed(f"exit code {worker.code}; see above", worker.code)


class _Task:
    """A task as Slurm's variables say it."""

    def __init__(self, config: TaskConfig, environment: Mapping[str, str] = os.environ) -> None:
        index, self._job = (environment.get(f"SLURM_ARRAY_{name}_ID", "") for name in ("TASK", "JOB"))
        if not index or config.tasks is None:
            raise ConfigError("no task of an array of Slurm's: submit with --array, and export EXPLAIN_TASKS, its size")
        self._config = config
        self._share = str(share(None, config.tasks, {"SLURM_ARRAY_TASK_ID": index}))
        self._id = f"{self._job}_{index}"  # not SLURM_JOB_ID: that of the last task means the whole array
        self._restarts: int = whereabouts(environment)["restarts"]
        self._node = environment.get("SLURMD_NODENAME") or os.uname().nodename
        self._megabytes = _number(environment.get("SLURM_MEM_PER_NODE"))
        self._loaders = _number(environment.get("BATCHCAM_WORKERS"))

    def line(self, what: str) -> str:
        """Return a line of the task's log."""
        return f"task {self._share}, job {self._id} on {self._node}, restart {self._restarts}: {what}"

    def tell(self, what: str) -> None:
        """Write a line into the task's log."""
        note(self.line(what), quiet=False)

    def failed(self, why: str, code: int) -> TaskSummary:
        """Return that the task does not go on."""
        return TaskSummary(self.line(f"FAILED: {why}"), code)

    def work(self, process: Steps, *more: str) -> Worker:
        """Let a worker explain in a step of srun, which hands SIGUSR1 on to it; at SIGTERM it would kill the worker."""
        config, out_of_memory = self._config, False
        words = ["explain", config.checkpoint, config.data, "--out", str(config.run), "--task", self._share]
        command = ["srun", "--ntasks=1", *batchcam(), *words, *config.options, *more]
        # the worker removes its copies too, if nothing kills it
        with tempfile.TemporaryFile() as output, _folder_in(config.stage_in) as stage:
            command += ["--stage-to", stage] if stage else []
            child = process.start([*command, "--json"], stdout=output, stderr=subprocess.PIPE)
            for line in child.stderr or ():
                out_of_memory = out_of_memory or bool(OUT_OF_MEMORY.match(line))
                os.write(STDERR, line)  # the worker's lines have their time already
            code = ended(child)
            output.seek(0)
            text, said = parted(output.read().decode("utf-8", "replace"))
            print(text, end="", flush=True)
        return Worker(said.get("exit_code", code), out_of_memory and not said and not process.stopped())

    def fewer_loaders(self) -> int | None:
        """Return half of the loader processes that the worker had, None if it had none."""
        had = next((each.get("workers") for each in reversed(self._records())), self._loaders)
        return had // 2 if had else None

    def needs(self) -> str:
        """Return how much memory to ask for."""
        peaks = [each.get("peak_memory_bytes") for each in read_tasks(self._config.run)]
        peak = max((each // 2**20 for each in peaks if isinstance(each, int)), default=0)
        known = f"; workers of this run had up to {peak} MB, without their loader processes" if peak else ""
        asked = f"--mem={2 * self._megabytes}M" if self._megabytes else "more --mem"
        had = f"{self._megabytes} MB are" if self._megabytes else "its memory is"
        return f"{had} not enough: submit with {asked}{known}"

    def run_again(self, code: int) -> TaskSummary:
        """Let Slurm start the task again, unless it was cancelled, or gets nowhere.

        RUNNING: the time limit's signal, or a preemption that is still polite. Otherwise (COMPLETING) it was cancelled,
        or Slurm runs it again by itself; to ask for it now would bring a cancelled job back.
        """
        if (state := slurm.state_of(self._id)) != "RUNNING":
            return TaskSummary(self.line(f"ended with exit code {code}; Slurm says {state or 'nothing'}"), code)
        if (idle := self._idle_goes()) >= self._config.goes:
            return self.failed(f"exit code {code}, and no new shard in {idle} goes; see above", code)
        told = f"exit code {code}: asking for another go"
        self.tell(told)
        ignore_job_signals()  # what follows makes Slurm end all processes of the job
        if slurm.ask("scontrol", "requeue", self._id) is None:
            return self.failed(f"exit code {code}, and Slurm does not run it again", code)
        return TaskSummary(self.line("Slurm runs it again"), code)

    def _idle_goes(self) -> int:
        """Return how many goes have passed, this one included, since one landed a shard."""
        fruitful = (each.get("restarts") for each in self._records() if each.get("shards"))
        return self._restarts - max((go for go in fruitful if isinstance(go, int)), default=-1)

    def _records(self) -> list[dict[str, Any]]:
        """Return what the workers of this task recorded of themselves, in all goes."""
        mine = (self._share, self._job)
        return [each for each in read_tasks(self._config.run) if (each.get("task"), each.get("job")) == mine]


def _folder_in(place: Path | None) -> contextlib.AbstractContextManager[str | None]:
    if place is None:
        return contextlib.nullcontext()
    return tempfile.TemporaryDirectory(prefix="batchcam.", dir=place, ignore_cleanup_errors=True)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None
