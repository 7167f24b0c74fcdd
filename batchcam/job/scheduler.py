"""What a scheduler tells a job: its share of the work, where it runs."""

from __future__ import annotations

import calendar
import dataclasses
import getpass
import os
import re
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from batchcam.errors import ConfigError

UTC_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"
OPTION: Final = "--task"
VARIABLE: Final = "BATCHCAM_TASK"  # of the same option, and easily left in a shell


@dataclasses.dataclass(frozen=True)
class Share:
    """Task `index` of `count`: it takes every `count`-th shard.

    Attributes:
        source: the option or the variables that gave it, empty where nothing did.
        remark: which variables look like a share of this process, and are none.
    """

    index: int
    count: int
    source: str = dataclasses.field(default="", compare=False)
    remark: str = dataclasses.field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def is_asked_for(self) -> bool:
        """Whether the user named it, and not what started the process."""
        return self.source == OPTION

    def takes(self, shard: int) -> bool:
        """Return whether shard number `shard` is of this task's share."""
        return self.owner(shard) == self.index

    def owner(self, shard: int) -> int:
        """Return which task's share shard number `shard` is of."""
        return shard % self.count


@dataclasses.dataclass(frozen=True)
class Engine:
    """The variables by which what starts processes tells each one its place.

    Attributes:
        index: number of this one.
        count: how many there are, numbered from 0.
        first, last, step: instead of a count the lowest number, the highest, and from one to the next; without `first`
            the lowest that the steps allow, without `step` 1.
        local: number of this one on its machine, which picks the GPU; the first that is there.
        only_with: a variable and what it has to look like: else the others are there, but mean another process.
    """

    index: str
    count: str = ""
    first: str = ""
    last: str = ""
    step: str = ""
    local: tuple[str, ...] = ()
    only_with: tuple[str, str] | None = None

    @property
    def names(self) -> str:
        """The variables that a person looks at."""
        return f"{self.index}/{self.count or self.last}"

    def share(self, environment: Mapping[str, str]) -> Share | None:
        """Return the share of this very process, None where the variables tell none.

        Raises:
            ConfigError: they tell what is no share.
        """
        if self.only_with and not re.fullmatch(self.only_with[1], environment.get(self.only_with[0], "")):
            return None
        place = self.place(environment)
        return _share(*place, self.names) if place else None

    def place(self, environment: Mapping[str, str]) -> tuple[int, int] | None:
        """Return number from 0 and count of whichever process the variables mean; None where one is missing."""
        index, count, last = (_number(environment, name) for name in (self.index, self.count, self.last))
        if index is not None and count is not None:
            return index, count
        if index is None or last is None:
            return None
        step = _number(environment, self.step) or 1
        first = _number(environment, self.first)
        if first is None:
            first = (index - 1) % step + 1
        return (index - first) // step, (last - first) // step + 1


# RANK and WORLD_SIZE stay in shells and containers; only torchrun adds the id of its run
TORCHRUN: Final = Engine("RANK", "WORLD_SIZE", local=("LOCAL_RANK",), only_with=("TORCHELASTIC_RUN_ID", ".+"))

# Slurm sets them in batch scripts and shells too, where no step runs, or one whose id is a word or near 2**32
STEP: Final = ("SLURM_STEP_ID", "[0-9]{1,9}")
SRUN: Final = tuple(
    Engine("SLURM_PROCID", count, local=("SLURM_LOCALID",), only_with=STEP)
    for count in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
)
MPI: Final = (
    Engine("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", local=("OMPI_COMM_WORLD_LOCAL_RANK",)),
    Engine("PMI_RANK", "PMI_SIZE", local=("MPI_LOCALRANKID", "PMI_LOCAL_RANK")),  # MPICH and Intel MPI; Cray
)
ARRAYS: Final = (
    Engine("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    Engine("BATCH_TASK_INDEX", "BATCH_TASK_COUNT"),  # Google
    Engine("SGE_TASK_ID", first="SGE_TASK_FIRST", last="SGE_TASK_LAST", step="SGE_TASK_STEPSIZE"),
    # 0 where LSF has no array
    Engine("LSB_JOBINDEX", last="LSB_JOBINDEX_END", step="LSB_JOBINDEX_STEP", only_with=("LSB_JOBINDEX", "[1-9].*")),
)
INDICES: Final = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "PBS_ARRAY_INDEX", "PBS_ARRAYID")
"""In arrays of Slurm, Kubernetes (an Indexed Job), PBS and Torque, which don't tell how many tasks share the work.

SLURM_ARRAY_TASK_COUNT is how many were submitted together, which may be some of them once more.
"""

JOB_IDS: Final = (
    *("SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID", "AWS_BATCH_JOB_ID", "BATCH_JOB_UID", "PBS_JOBID", "LSB_JOBID"),
    "JOB_ID",  # Grid Engine's; last, as its name is anybody's
)
"""What names the job of this process."""


def share(task: str | None, tasks: int | None = None, environment: Mapping[str, str] = os.environ) -> Share:
    """Return this worker's share: `task` ("i/n"), or what this very process was told by what started it, or everything.

    A task of an array that starts several processes, as by srun or mpirun, has its share in equal parts for them.

    Args:
        task: what the user says.
        tasks: how many tasks an array has that tells them only their numbers, from 0 or from 1.
        environment: the variables of this process.

    Raises:
        ConfigError: it is not i/n with 0 <= i < n; or there are `tasks`, and nothing numbers them.
    """
    if task is not None:
        source = VARIABLE if task == environment.get(VARIABLE) else OPTION
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", task)
        return _share(int(match[1]), int(match[2]), source) if match else _refuse(source, task)
    given = [each for each in (_of_array(tasks, environment), _of_process(environment)) if each]
    index, count = 0, 1
    for each in given:
        index, count = index * each.count + each.index, count * each.count
    remark = _passed_over(tasks, environment, given)
    return Share(index, count, " and ".join(each.source for each in given), remark)


def local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Return which of this machine's workers this one is, as what started it told; 0 where it is alone."""
    engine = _starter(environment)
    numbers = (_number(environment, name) for name in engine.local) if engine else ()
    return next((number for number in numbers if number is not None), 0)


def _share(index: int, count: int, source: str) -> Share:
    return Share(index, count, source) if 0 <= index < count else _refuse(source, f"{index}/{count}")


def _refuse(source: str, task: str) -> NoReturn:
    raise ConfigError(f"{source} {task}: expected i/n with i from 0 to n-1, such as 0/4")


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _starter(environment: Mapping[str, str]) -> Engine | None:
    """Return what started this process as one of several.

    mpirun starts itself on other machines by srun: its processes find the place of mpirun there, not theirs. Where both
    agree, srun alone was it.
    """
    if TORCHRUN.share(environment):
        return TORCHRUN
    srun, mpi = (next((each for each in engines if each.share(environment)), None) for engines in (SRUN, MPI))
    return srun if srun and (not mpi or mpi.share(environment) == srun.share(environment)) else mpi


def _of_process(environment: Mapping[str, str]) -> Share | None:
    engine = _starter(environment)
    return engine.share(environment) if engine else None


def _of_array(tasks: int | None, environment: Mapping[str, str]) -> Share | None:
    if tasks is None:
        return next(filter(None, (each.share(environment) for each in ARRAYS)), None)
    name = _lone_index(environment)
    if not name:
        raise ConfigError(
            f"{OPTION}s {tasks}: none of {', '.join(INDICES)} says which of them this is; {OPTION} i/{tasks} says both"
        )
    index = int(environment[name])
    return _share(0 if index == tasks else index, tasks, f"{name}/{OPTION}s")  # the last one, where they count from 1


def _lone_index(environment: Mapping[str, str]) -> str:
    """Return the variable that numbers this task of an array, empty where there is none."""
    return next((name for name in INDICES if _number(environment, name) is not None), "")


def _passed_over(tasks: int | None, environment: Mapping[str, str], given: list[Share]) -> str:
    """Return a sentence about the first variables that look like a share and are not taken, empty without any."""
    if tasks is None and (name := _lone_index(environment)):
        return (
            f"{name} is {environment[name]}, but nothing says of how many: no share is taken from it "
            f"({OPTION}s N: of N tasks)"
        )
    for engine in () if given else (TORCHRUN, *SRUN):
        index, count = engine.place(environment) or (0, 1)
        if count > 1:
            place = f"{index}/{count}"
            return (
                f"{engine.names} are {place}, but neither torchrun nor srun started this process as one of several: it "
                f"does all shards ({OPTION} {place}: a share of them)"
            )
    return ""


def whereabouts(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return where this process runs, for the record: host, process, job, restarts."""
    restarts = environment.get("SLURM_RESTART_COUNT", "")
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "user": user_name(),
        "job": next((environment[name] for name in JOB_IDS if environment.get(name)), None),
        "restarts": int(restarts) if restarts.isdecimal() else 0,
    }


def user_name() -> str:
    """Return whose process this is."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without an entry in passwd; Windows has none
        if sys.platform == "win32":
            return "unknown"
        return str(os.getuid())


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return time.strftime(UTC_FORM, time.gmtime())


def epoch_seconds(text: object) -> float | None:
    """Return the seconds of the epoch of what `utc_now` returned; None of anything else."""
    try:
        return calendar.timegm(time.strptime(str(text), UTC_FORM))
    except ValueError:
        return None
