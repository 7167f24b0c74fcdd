"""Images inside of other files, each read by its place: with a descriptor of its own, which makes a fork safe."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from batchcam.images.decoding import UnreadableImageError
from batchcam.images.regular_files import MOST_BYTES

_LOCAL_HEADER: Final = 30
_STORED, _DEFLATED = 0, 8
"""Methods of compression in a zip."""

ENCRYPTED: Final = -1
LINK: Final = -2
"""What stands for the method of an entry that is not read."""

_UNREAD: Final = {ENCRYPTED: "is encrypted in the zip", LINK: "a link in the zip, which is not followed"}


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
        path: absolute.
        size: bytes.
        changed: when, in nanoseconds.
    """

    path: str
    size: int
    changed: int

    @classmethod
    def at(cls, path: str) -> Holder:
        """Return the regular file at `path`.

        Raises:
            HolderError: it is none.
            OSError: it can't be looked at.
        """
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise HolderError(f"{path}: not a regular file")
        return cls(os.path.abspath(path), status.st_size, status.st_mtime_ns)

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open it; yield its descriptor.

        Raises:
            HolderError: it can't be opened, or was changed.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise HolderError(f"{self.path}: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            if (status.st_size, status.st_mtime_ns) != (self.size, self.changed):
                raise HolderError(f"{self.path}: was changed since it was listed")
            yield descriptor
        finally:
            os.close(descriptor)


def read_exactly(descriptor: int, count: int, offset: int) -> bytes:
    """Return `count` bytes from `offset`, fewer where the file ends.

    Raises:
        OSError: they can't be read.
    """
    parts: list[bytes] = []
    while count and (part := os.pread(descriptor, count, offset)):
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return b"".join(parts)


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces(Stored):
    """Images that are pieces of files, as in a tar or an Arrow file.

    Attributes:
        holders: the files.
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
        with holder.opened() as descriptor:
            data = read_exactly(descriptor, size, int(self.offsets[index]))
        if len(data) != size:
            raise UnreadableImageError(f"{os.path.basename(holder.path)} ends before this image does")
        return data


@dataclasses.dataclass(frozen=True, eq=False)
class Zipped(Stored):
    """Images in a zip, as its directory tells them; arrays (n,).

    Attributes:
        holder: the file.
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
        with self.holder.opened() as descriptor:
            offset = int(self.offsets[index])
            header = read_exactly(descriptor, _LOCAL_HEADER, offset)
            if len(header) != _LOCAL_HEADER or header[:4] != b"PK\3\4" or offset + packed > self.holder.size:
                raise UnreadableImageError("the zip is damaged: its directory leads to no entry")
            lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            data = read_exactly(descriptor, packed, offset + _LOCAL_HEADER + lengths)
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
