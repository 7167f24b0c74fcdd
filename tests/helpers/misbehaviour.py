"""What a confined process may do wrong, by name: the child imports this module and gets one of them as its work."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from batchcam.errors import OutOfMemoryError, RunError
from batchcam.job import confined, confinement

MAP_NORESERVE = 0x4000  # asm-generic/mman.h; in the mmap module from Python 3.13 on


def answer(parent: confined.Parent, folder: Path, what: str, **more: Any) -> None:
    parent.tell(pid=os.getpid())
    globals()[what](parent, folder, **more)


def work(parent: confined.Parent, folder: Path) -> None:
    print("what a library prints is no message")
    parent.tell(read=(folder / "inside").read_text(), environment=dict(os.environ))


def raise_ours(parent: confined.Parent, folder: Path) -> None:
    raise RunError("RUN: no run at all")


def raise_another(parent: confined.Parent, folder: Path) -> None:
    raise TypeError("a defect\nof ours")


def crash(parent: confined.Parent, folder: Path) -> None:
    ctypes.string_at(0)


def abort(parent: confined.Parent, folder: Path) -> None:
    os.abort()


def be_killed(parent: confined.Parent, folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_early(parent: confined.Parent, folder: Path) -> None:
    os._exit(0)


def babble(parent: confined.Parent, folder: Path) -> None:
    parent._stream.write("not JSON\n")
    parent._stream.flush()
    time.sleep(60)


def take_memory(parent: confined.Parent, folder: Path) -> None:
    map_a_terabyte()


def have_too_little_memory(parent: confined.Parent, folder: Path) -> None:
    raise OutOfMemoryError("shard: needs more memory than there is")


def map_a_terabyte() -> None:
    """Map memory without touching it: only a limit on addresses stands in the way."""
    mmap.mmap(-1, 2**40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE).close()


def never_end(parent: confined.Parent, folder: Path) -> None:
    confinement.CPU_SECONDS = 1
    parent.alive()
    while True:
        pass


def sleep(parent: confined.Parent, folder: Path) -> None:
    time.sleep(60)


def read(parent: confined.Parent, folder: Path, path: str) -> None:
    parent.tell(read=Path(path).read_text())


def write(parent: confined.Parent, folder: Path) -> None:
    (folder / "new").write_text("")


def connect(parent: confined.Parent, folder: Path, port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=5)


def path(parent: confined.Parent, folder: Path) -> None:
    parent.tell(path=sys.path)
