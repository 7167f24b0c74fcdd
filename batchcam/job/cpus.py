"""How many CPUs this process may use, and how many processes decode images beside it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

from batchcam.job.console import counted, note

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def available_cpus(control_groups: Path = CONTROL_GROUPS) -> int:
    """Return how many CPUs this process may use: by affinity, and by the quota of its container or job."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *_cpu_quotas(control_groups)]))


def loader_processes(asked: int | None) -> int:
    """Return how many processes decode images: as asked, or one for each four CPUs, at least one."""
    return max(1, available_cpus() // 4) if asked is None else asked


def warn_of_workers(asked: int | None) -> None:
    """Tell when more processes are to decode images than there are CPUs, on one line."""
    if (asked or 0) > (cpus := available_cpus()):
        note(f"warning: --workers {asked}: this process may use {counted(cpus, 'CPU')}", quiet=False)


def _cpu_quotas(root: Path) -> Iterator[int]:
    """Yield the CPUs' worth of time that each control group above this process allows, rounded up.

    Version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files; version 1 as Docker mounts it.
    """
    for group in _own_groups(root):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text().split()
            if quota != "max":
                yield math.ceil(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:
                yield math.ceil(int(quota) / int(period))


def _own_groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups in which this process is; inside a container its own is the root."""
    yield root
    yield root / "cpu"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            parts = Path(path.lstrip("/"))
            for group in (parts, *parts.parents):
                yield root / ("cpu" if controllers else "") / group
