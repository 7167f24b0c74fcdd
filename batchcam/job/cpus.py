"""How many CPUs this process may use, and how many processes decode images beside it."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from batchcam.job.console import counted, note
from batchcam.job.control_groups import CONTROL_GROUPS, own_groups


def available_cpus(control_groups: Path = CONTROL_GROUPS) -> int:
    """Return how many CPUs this process may use: by affinity, and by the quota of its container or job."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *_cpu_quotas(control_groups)]))


def loader_processes(asked: int | None, gpus: int) -> int:
    """Return how many processes decode images: as asked, or by the CPUs.

    Half of them where the network needs CPUs too: it waits for none while decoding takes less time than it does. A GPU
    only waits for images, so all of them, shared out where there are several; but never less than a quarter, in case
    one worker is alone with them.

    Args:
        asked: for as many.
        gpus: that this process may choose from; 0: the network is on the CPUs.
    """
    cpus = available_cpus()
    return max(1, cpus // 4, cpus // (gpus or 2)) if asked is None else asked


def warn_of_workers(asked: int | None) -> None:
    """Tell when more processes are to decode images than there are CPUs, on one line."""
    if (asked or 0) > (cpus := available_cpus()):
        note(f"warning: --workers {asked}: this process may use {counted(cpus, 'CPU')}", quiet=False)


def _cpu_quotas(root: Path) -> Iterator[int]:
    """Yield the CPUs' worth of time that each control group above this process allows, rounded up."""
    for group in own_groups(root, "cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text().split()
            if quota != "max":
                yield math.ceil(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:
                yield math.ceil(int(quota) / int(period))
