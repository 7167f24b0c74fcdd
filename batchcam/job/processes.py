"""A job's processes: the signals that a scheduler sends to all, an end with their parent, whether one has ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

if sys.platform == "win32":
    JOB_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
else:
    JOB_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What a scheduler sends to every process of a job."""

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


@contextlib.contextmanager
def listening(handler: Callable[[int], None], once: bool) -> Iterator[None]:
    """Let `JOB_SIGNALS` go to `handler` while the block runs; in other threads than the main one none can.

    Args:
        handler: takes the signal's number.
        once: whether a second signal of a kind does what it did before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in JOB_SIGNALS}  # one may come as soon as it is listened for

    def hear(number: int, frame: FrameType | None) -> None:
        if once:
            signal.signal(number, before[signal.Signals(number)])
        handler(number)

    try:
        for number in before:
            signal.signal(number, hear)
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def ignore_job_signals() -> None:
    """Make this process deaf to them: one that its parent ends, or whose work is done."""
    for number in JOB_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def die_with_parent(parent: int) -> None:
    """End this process when process `parent` ends, also by SIGKILL; elsewhere than on Linux, only if it has ended."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(0)


def peak_memory() -> tuple[int, int]:
    """Return the most bytes of memory that this process has had, and the largest of its children that have ended.

    A forked child's count as its own what it shares with its parent.
    """
    if sys.platform == "win32":
        raise NotImplementedError
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    own, child = (resource.getrusage(who).ru_maxrss * unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own, child


def this_process() -> dict[str, Any]:
    """Return who this process is, so that others can ask `has_ended`."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "processes": _process_table()}


def has_ended(process: Mapping[str, Any]) -> bool:
    """Return whether a process of `this_process` is known to have ended: one of this machine, or of its container."""
    pid, table = process.get("pid"), process.get("processes")
    if not isinstance(pid, int) or not table or table != _process_table():
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    except (OSError, IndexError):
        return False
    return state in "ZX"  # ended, and nobody has asked how


def _process_table() -> str:
    """Return what names the list of processes that this one is in, empty where nothing does.

    Neither the host's name does, which containers may share, nor that of the namespace alone, which a restart repeats.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
