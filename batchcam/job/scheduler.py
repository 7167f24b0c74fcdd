"""What a scheduler tells a job: its share of the work, where it runs."""

from __future__ import annotations

import dataclasses
import getpass
import os
import re
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

from batchcam.errors import ConfigError

OPTION: Final = "--task"
VARIABLE: Final = "BATCHCAM_TASK"  # of the same option, and easily left in a shell

Pair = tuple[str, str]
TORCHRUN: Final[Pair] = ("RANK", "WORLD_SIZE")
SRUN: Final[Pair] = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
SLURM_JOB: Final[Pair] = ("SLURM_PROCID", "SLURM_NTASKS")
MPI: Final[tuple[Pair, ...]] = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"))
LOCAL_RANKS: Final = {TORCHRUN: "LOCAL_RANK", SRUN: "SLURM_LOCALID", SLURM_JOB: "SLURM_LOCALID"}


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
        """Return whether this task works on shard number `shard`."""
        return shard % self.count == self.index


def share(task: str | None, environment: Mapping[str, str] = os.environ) -> Share:
    """Return this worker's share: `task` ("i/n"), or what torchrun or srun gave this very process, or everything.

    Raises:
        ConfigError: it is not i/n with 0 <= i < n.
    """
    source = VARIABLE if task == environment.get(VARIABLE) else OPTION
    if task is None:
        pair = _given_pair(environment)
        if pair is None:
            return Share(0, 1, remark=_passed_over(environment))
        task, source = _place(pair, environment), "/".join(pair)
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", task)
    if not match or int(match[1]) >= int(match[2]):
        raise ConfigError(f"{source} {task}: expected i/n with i from 0 to n-1, such as 0/4")
    return Share(int(match[1]), int(match[2]), source)


def local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Return which of this machine's workers this one is, as torchrun or srun told it; 0 where it is alone."""
    pair = _given_pair(environment)
    number = environment.get(LOCAL_RANKS[pair], "") if pair else ""
    return int(number) if number.isdecimal() else 0


def _given_pair(environment: Mapping[str, str]) -> Pair | None:
    """Return the variables by which what started this process told it its place; they also stand elsewhere.

    RANK and WORLD_SIZE stay in shells and containers, and only torchrun adds the id of its run. Slurm sets
    SLURM_PROCID and SLURM_NTASKS in batch scripts and shells too, where no step runs, or one whose id is a word or near
    2**32. mpirun starts itself on other machines by srun: its processes find the place of mpirun there, not theirs.
    """
    if environment.get("TORCHELASTIC_RUN_ID") and _place(TORCHRUN, environment):
        return TORCHRUN
    if not re.fullmatch(r"[0-9]{1,9}", environment.get("SLURM_STEP_ID", "")):
        return None
    pair = next((pair for pair in (SRUN, SLURM_JOB) if _place(pair, environment)), None)
    if pair and any(_place(other, environment) not in ("", _place(pair, environment)) for other in MPI):
        return None
    return pair


def _place(pair: Pair, environment: Mapping[str, str]) -> str:
    """Return "i/n" as two variables say it, empty where one is missing."""
    both = [environment.get(name, "") for name in pair]
    return "/".join(both) if all(both) else ""


def _passed_over(environment: Mapping[str, str]) -> str:
    """Return a sentence about the first variables that look like a share of several, empty where there are none."""
    for pair in (TORCHRUN, *MPI, SRUN, SLURM_JOB):
        place = _place(pair, environment)
        if re.fullmatch(r"[0-9]+/0*([2-9]|[1-9][0-9]+)", place):
            return (
                f"{'/'.join(pair)} are {place}, but neither torchrun nor srun started this process as one of several: "
                f"it does all shards ({OPTION} {place}: a share of them)"
            )
    return ""


def whereabouts(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return where this process runs, for the record: host, process, job, restarts."""
    restarts = environment.get("SLURM_RESTART_COUNT", "")
    job = environment.get("SLURM_ARRAY_JOB_ID") or environment.get("SLURM_JOB_ID")
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "user": user_name(),
        "job": job,
        "restarts": int(restarts) if restarts.isdecimal() else 0,
    }


def user_name() -> str:
    """Return whose process this is."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in passwd
        return str(os.getuid())


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
