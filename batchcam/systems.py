"""How files are opened and named where systems differ; what else only some have lies in `job`."""

from __future__ import annotations

import os
import sys
from typing import Final

if sys.platform == "win32":
    BINARY: Final = os.O_BINARY
    READING: Final = os.O_RDONLY | os.O_BINARY
else:
    BINARY: Final = 0
    READING: Final = os.O_RDONLY | os.O_NONBLOCK  # else opening a pipe waits for its other end

RENAMES_OPEN_FILES: Final = sys.platform != "win32"


def let_wait(descriptor: int) -> None:
    """Let reading wait, of what was opened for `READING`: a file system may otherwise say that nothing is there yet."""
    if sys.platform != "win32":
        os.set_blocking(descriptor, True)


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """Return up to `count` bytes of a file from `offset` on; the position may move."""
    if sys.platform == "win32":
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, count)
    return os.pread(descriptor, count, offset)


def is_share(path: str) -> bool:
    r"""Return whether a path leads to another machine, as \\server\share does: looking is signing in there."""
    return sys.platform == "win32" and path.replace("\\", "/").startswith("//")


def is_below(path: bytes) -> bool:
    """Return whether a path that a file says, with slashes, leads to no other place than below a folder."""
    other = (b"\\", b":") if sys.platform == "win32" else ()  # a drive, a stream, another way up
    return not path.startswith(b"/") and b".." not in path.split(b"/") and not any(mark in path for mark in other)
