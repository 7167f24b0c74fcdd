"""What a job's processes share: the signals that a scheduler sends to all of them, and an end with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from typing import Final

JOB_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What a scheduler sends to every process of a job."""

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def ignore_job_signals() -> None:
    """Make this process deaf to them: one that its parent ends, or whose work is done."""
    for number in JOB_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def die_with_parent(parent: int) -> None:
    """End this process when process `parent` ends, also by SIGKILL; elsewhere than on Linux, only if it has ended."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(0)


def peak_memory() -> tuple[int, int]:
    """Return the most bytes of memory that this process has had, and the largest of its children that have ended.

    A forked child's count as its own what it shares with its parent.
    """
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    own, child = (resource.getrusage(kind).ru_maxrss * 1024 for kind in kinds)
    return own, child
