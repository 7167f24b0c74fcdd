"""What a scheduler tells a job: its share of the work, where it runs."""

from __future__ import annotations

import dataclasses
import getpass
import os
import re
import socket
import time
from collections.abc import Mapping
from typing import Any

from batchcam.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Share:
    """Task `index` of `count`: it takes every `count`-th shard."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def takes(self, shard: int) -> bool:
        """Return whether this task works on shard number `shard`."""
        return shard % self.count == self.index


def share(task: str | None, environment: Mapping[str, str] = os.environ) -> Share:
    """Return this worker's share: from `task` ("i/n"), or torchrun's or srun's variables, or everything.

    Raises:
        ConfigError: it is not i/n with 0 <= i < n.
    """
    source = "--task"
    if task is None:
        for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
            if rank in environment and size in environment:
                task, source = f"{environment[rank]}/{environment[size]}", f"{rank}/{size}"
                break
        else:
            return Share(0, 1)
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", task)
    if not match or int(match[1]) >= int(match[2]):
        raise ConfigError(f"{source} {task}: expected i/n with i from 0 to n-1, such as 0/4")
    return Share(int(match[1]), int(match[2]))


def local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Return which of this machine's workers this one is, from torchrun's or srun's variables; 0 where it is alone."""
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        if environment.get(name, "").isdecimal():
            return int(environment[name])
    return 0


def whereabouts(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return where this process runs, for the record: host, process, job, restarts."""
    restarts = environment.get("SLURM_RESTART_COUNT", "")
    job = environment.get("SLURM_ARRAY_JOB_ID") or environment.get("SLURM_JOB_ID")
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "user": _user(),
        "job": job,
        "restarts": int(restarts) if restarts.isdecimal() else 0,
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in passwd
        return str(os.getuid())


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
