"""Stamps: by its stamp, a file is known as one that was proven before, and that nobody has touched since.

Who writes a shard, or proves one, leaves its stamp in a task's record. Whatever touches a file sets its ctime, to a
value that nobody can choose, and a copy is another inode: then its bytes have to be read again. Of two changes within
one tick of the file system's clock (milliseconds; none since Linux 6.13) it tells one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from batchcam.store import landing

STAMP_LETTERS = 16
"""Of a stamp: a wrong file would be taken for one of a million right ones once in 10^13 times."""


def stamp(name: str, digest: str, status: os.stat_result) -> str:
    """Return the stamp of a file: its name, SHA-256 in hex, and size, inode and ctime, without the device.

    Its number differs between machines on which the same file system is mounted.
    """
    facts = f"{name} {digest} {status.st_size} {status.st_ino} {status.st_ctime_ns}"
    return hashlib.sha256(os.fsencode(facts)).hexdigest()[:STAMP_LETTERS]


def stamp_of_landed(path: Path, digest: str, inode: int) -> str | None:
    """Return the stamp of the file that was landed as `path` with this inode, None where another took its place."""
    try:
        with path.open("rb") as content:
            status = os.fstat(content.fileno())
    except OSError:
        return None
    return stamp(path.name, digest, status) if status.st_ino == inode else None


class Stamps:
    """The stamps that were left in a run, and those of files that this process has proven since.

    Args:
        left: by tasks and earlier merges.
        trusted: whether a file that has one is taken for proven.
    """

    def __init__(self, left: Iterable[str] = (), trusted: bool = True) -> None:
        self._left = frozenset(left)
        self._proven = set(self._left) if trusted else set()

    @property
    def new(self) -> list[str]:
        """Of files that this process has proven; other threads may be proving more."""
        return sorted(self._proven.copy() - self._left)

    def prove(self, path: Path, digest: str, look: landing.Look) -> int | None:
        """Return the size of a file if it has this SHA-256, by its stamp or its bytes; None if it has another.

        Raises:
            OSError: it can't be read.
        """
        with path.open("rb") as content:
            # of an open file: a network file system may show the status of a name late
            status = os.fstat(content.fileno())
            own = stamp(path.name, digest, status)
            if own not in self._proven:
                if landing.digest_of(content, look) != digest:
                    return None
                self._proven.add(own)
        return status.st_size
