"""Images inside of other files, each read by its place: nothing stays open, which makes a fork safe."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from batchcam import systems
from batchcam.images import remote
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.regular_files import MOST_BYTES

_LOCAL_HEADER: Final = 30
_USUAL_NAME: Final = 300
"""Bytes of a name and what else stands before an entry of a zip: mostly one read gets all."""

_STORED, _DEFLATED = 0, 8
"""Methods of compression in a zip."""

ENCRYPTED: Final = -1
LINK: Final = -2
"""What stands for the method of an entry that is not read."""

_UNREAD: Final = {ENCRYPTED: "is encrypted in the zip", LINK: "a link in the zip, which is not followed"}

LOOK_EVERY_S: Final = 60
"""Seconds between two looks whether a file behind a URL was replaced."""

_looked: Final[dict[tuple[int, str], float]] = {}
"""When this process, and those that it was forked from, have looked, by process and URL."""

Read: TypeAlias = Callable[[int, int], bytes]
"""Returns so many bytes from an offset, fewer where the file ends; raises OSError."""


class HolderError(Exception):
    """A file of many images is gone, or another one now: nothing is known of its images."""


class Stored(Protocol):
    """Images as they are stored.

    Attributes:
        sizes: bytes of each, -1 where not known, int64 (n,).
    """

    sizes: NDArray[np.int64]

    def read(self, index: int) -> bytes:
        """Return the bytes of one image.

        Raises:
            UnreadableImageError: it is not there as it should be.
            HolderError: the file in which it lies is no more what it was.
            OSError: it can't be read.
        """


@dataclasses.dataclass(frozen=True)
class Holder:
    """A file of many images, as it was when they were listed.

    Attributes:
        path: absolute, or a URL.
        size: bytes.
        changed: when, in nanoseconds, or what its server says of its content.
    """

    path: str
    size: int
    changed: int | str

    @classmethod
    def at(cls, path: str) -> Holder:
        """Return the regular file at `path`, or the one behind a URL.

        Raises:
            HolderError: it is none.
            OSError: it can't be looked at.
        """
        if remote.is_url(path):
            return cls(path, *remote.status(path))
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise HolderError(f"{path}: not a regular file")
        return cls(os.path.abspath(path), status.st_size, status.st_mtime_ns)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Read]:
        """Open it; yield what reads it.

        Raises:
            HolderError: it can't be opened, or was changed.
        """
        if remote.is_url(self.path):
            self._look_again()
            yield self._read_range
            return
        try:
            descriptor = os.open(self.path, systems.READING)
        except OSError as error:
            raise HolderError(f"{self.path}: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            if (status.st_size, status.st_mtime_ns) != (self.size, self.changed):
                raise self._replaced()
            yield functools.partial(_read_exactly, descriptor)
        finally:
            os.close(descriptor)

    def _read_range(self, count: int, offset: int) -> bytes:
        end = min(offset + count, self.size)
        return remote.read(self.path, offset, end) if offset < end else b""

    def _look_again(self) -> None:
        """Ask a server from time to time, and first in each process, whether the file is still what it was."""
        key, now = (os.getpid(), self.path), time.monotonic()
        if now - _looked.get(key, -LOOK_EVERY_S) < LOOK_EVERY_S:
            return
        try:
            status = remote.status(self.path)
        except OSError as error:
            raise HolderError(f"{remote.without_secrets(self.path)}: {error.strerror}") from error
        if status != (self.size, self.changed):
            raise self._replaced()
        _looked[key] = now

    def _replaced(self) -> HolderError:
        return HolderError(f"{remote.without_secrets(self.path)}: was changed since it was listed")


class HolderFile(io.RawIOBase):
    """What reads a holder, as a file object for packages that want one."""

    def __init__(self, read: Read, size: int) -> None:
        """Begin at its first byte."""
        self._read, self._size, self._at = read, size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as the file goes."""
        room = memoryview(buffer)
        data = self._read(min(len(room), max(0, self._size - self._at)), self._at)
        room[: len(data)] = data
        self._at += len(data)
        return len(data)


def _read_exactly(descriptor: int, count: int, offset: int) -> bytes:
    parts: list[bytes] = []
    while count and (part := systems.read_at(descriptor, count, offset)):
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return b"".join(parts)


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces(Stored):
    """Images that are pieces of files, as in a tar or an Arrow file.

    Attributes:
        holder: in which of them each image lies, (n,).
        offsets: where it begins, int64 (n,).
        refused: why some are no images that can be read, by index.
    """

    sizes: NDArray[np.int64]
    holders: Sequence[Holder]
    holder: NDArray[np.int32]
    offsets: NDArray[np.int64]
    refused: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def read(self, index: int) -> bytes:
        """Return the bytes of one image."""
        if reason := self.refused.get(index):
            raise UnreadableImageError(reason)
        size = int(self.sizes[index])
        _require_size(size)
        holder = self.holders[self.holder[index]]
        with holder.opened() as read:
            data: bytes = read(size, int(self.offsets[index]))
        if len(data) != size:
            raise UnreadableImageError(f"{os.path.basename(remote.address(holder.path))} ends before this image does")
        return data


@dataclasses.dataclass(frozen=True, eq=False)
class Zipped(Stored):
    """Images in a zip, as its directory tells them; arrays (n,).

    Attributes:
        offsets: of the entry.
        packed: bytes of what is stored.
        crc: of the image.
        methods: of compression, or why it is not read.
    """

    sizes: NDArray[np.int64]
    holder: Holder
    offsets: NDArray[np.int64]
    packed: NDArray[np.int64]
    crc: NDArray[np.int64]
    methods: NDArray[np.int64]

    def read(self, index: int) -> bytes:
        """Return the bytes of one image, whose CRC is the one that the directory tells."""
        size, packed, method = int(self.sizes[index]), int(self.packed[index]), int(self.methods[index])
        if method not in (_STORED, _DEFLATED):
            reason = f"compressed by method {method} in the zip: store or deflate it"
            raise UnreadableImageError(_UNREAD.get(method, reason))
        _require_size(size)
        _require_size(packed)
        with self.holder.opened() as read:
            offset = int(self.offsets[index])
            entry = read(_LOCAL_HEADER + _USUAL_NAME + packed, offset)
            if len(entry) < _LOCAL_HEADER or entry[:4] != b"PK\3\4" or offset + packed > self.holder.size:
                raise UnreadableImageError("the zip is damaged: its directory leads to no entry")
            begin = _LOCAL_HEADER + int.from_bytes(entry[26:28], "little") + int.from_bytes(entry[28:30], "little")
            data = entry[begin : begin + packed] if begin + packed <= len(entry) else read(packed, offset + begin)
        if method == _DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
            except zlib.error as error:
                raise UnreadableImageError(f"damaged in the zip: {error}") from error
        if len(data) != size or zlib.crc32(data) != self.crc[index]:
            raise UnreadableImageError("damaged in the zip: its size or CRC is another than its directory tells")
        return data


def _require_size(size: int) -> None:
    if size > MOST_BYTES:
        raise UnreadableImageError(f"more than {MOST_BYTES} bytes")
