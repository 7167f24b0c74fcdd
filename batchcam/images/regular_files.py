"""Files that someone else provides: read whole, or refused."""

from __future__ import annotations

import os
import stat
from typing import Final

from batchcam import systems

MOST_BYTES: Final = 2**30
"""Largest stored image: the most pixels that are decoded take less, unpacked, at 16 bits for each of four channels."""


class NotRegularError(Exception):
    """A pipe, socket or device: reading it may never end."""


class TooLargeError(Exception):
    """A file of more bytes than are worth reading."""


def read_regular_file(path: str | bytes | os.PathLike[str], most: int | None = None) -> bytes:
    """Return the content of the regular file at `path`.

    Args:
        path: of the file, or a link to it.
        most: bytes.

    Raises:
        NotRegularError: it is something else than a file or folder.
        TooLargeError: it has more than `most` bytes.
        OSError: it can't be read, or is a folder.
        MemoryError: it does not fit.
    """
    descriptor = os.open(path, systems.READING)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise NotRegularError("not a regular file")
        if most is not None and status.st_size > most:
            raise TooLargeError(f"more than {most} bytes")
        systems.let_wait(descriptor)
        # no file object, which would ask the storage three times more for each of a million images
        return b"".join(iter(lambda: os.read(descriptor, max(status.st_size + 1, 2**16)), b""))
    finally:
        os.close(descriptor)
