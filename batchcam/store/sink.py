"""Files for HDF5 that keep the disk's errors to themselves: one to write into, and one that is proven as it is read."""

from __future__ import annotations

import abc
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from batchcam import systems
from batchcam.errors import RunError

BLOCK_BYTES = 2**20
BLOCKS = 4
"""Blocks kept in memory; HDF5 goes back to few places, so nearly all are read or written once, and whole."""


class Blocks(abc.ABC):
    """A file object for h5py that goes through blocks, and whose calls succeed whatever becomes of the disk.

    HDF5 does not survive an error: the process crashes later, as late as at its end, or what was written before reads
    as zeros (h5py#914, #1120, #2160). So the first error waits here until someone asks.

    Attributes:
        error: the first error; the content is worth nothing once there is one.
        size: of the content, in bytes.
    """

    def __init__(self, size: int, block_bytes: int) -> None:
        self.error: Exception | None = None
        self.size = size
        self._block_bytes = block_bytes
        self._position = 0
        self._blocks: dict[int, bytearray] = {}  # by place in the file, the most recently used last

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset` from the start, the position or the end, and return the position."""
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position on, up to the end of the file, and return how many bytes there were."""
        content, done = memoryview(buffer).cast("B"), 0
        for block, part in self._parts(min(len(content), self.size - self._position)):
            content[done : (done := done + part.stop - part.start)] = block[part]
        return done

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes from the position on, fewer at the end of the file, or all that follow."""
        left = max(0, self.size - self._position)
        buffer = bytearray(left if size < 0 else min(size, left))
        self.readinto(buffer)
        return bytes(buffer)

    def require_sound(self) -> None:
        """Raise the first error, if there was one."""
        if self.error:
            raise self.error

    @abc.abstractmethod
    def _load(self, number: int) -> bytearray:
        """Return a block of the file, in full length."""

    @abc.abstractmethod
    def _let_go(self, number: int) -> None:
        """Forget a block, to make room for another."""

    def _parts(self, count: int) -> Iterator[tuple[bytearray, slice]]:
        """Yield each block that holds some of the next `count` bytes, and where in it they lie; move behind them."""
        end = self._position + count
        while self._position < end:
            number, start = divmod(self._position, self._block_bytes)
            stop = min(self._block_bytes, start + end - self._position)
            yield self._block(number), slice(start, stop)
            self._position += stop - start

    def _block(self, number: int) -> bytearray:
        block = self._blocks.pop(number, None) or self._load(number)
        self._blocks[number] = block
        if len(self._blocks) > BLOCKS:
            self._let_go(next(iter(self._blocks)))
        return block


class ProvenFile(Blocks):
    """A file to read of which only proven blocks are seen; others read as zeros.

    It is opened anew for each block: forks can share this object, and nobody has to close it.

    Args:
        size: of the file, in bytes.
        block_bytes: of each block, but for the last.
        sha256: of each block, hex.
    """

    def __init__(self, path: Path, size: int, block_bytes: int, sha256: Sequence[str]) -> None:
        super().__init__(size, block_bytes)
        self.path, self._sha256 = path, sha256

    def _load(self, number: int) -> bytearray:
        start, problem, content = number * self._block_bytes, None, b""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | systems.BINARY)
            try:
                content = systems.read_at(descriptor, min(self._block_bytes, self.size - start), start)
            finally:
                os.close(descriptor)
        except OSError as error:
            problem = error.strerror
        if hashlib.sha256(content).hexdigest() != self._sha256[number]:
            problem, content = problem or "changed after it was written, its SHA-256 is another", b""
            self.error = self.error or RunError(f"{self.path}: {problem}; see batchcam verify")
        return bytearray(content.ljust(self._block_bytes, b"\0"))

    def _let_go(self, number: int) -> None:
        del self._blocks[number]


class Sink(Blocks):
    """A file object for h5py over an open file, to write and read.

    Nothing is written after the first error, and all blocks stay in memory: what is read is still what was written.
    Whoever writes much asks `require_sound` whether to go on.

    Args:
        descriptor: of an empty file, for reading and writing; it is not closed here.

    Attributes:
        sha256: of the content, hex, once the file has landed.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(0, BLOCK_BYTES)
        self.sha256 = ""
        self._descriptor = descriptor

    def write(self, data: Any) -> int:
        """Write a buffer at the position and return its length."""
        content, done = memoryview(data).cast("B"), 0
        self.size = max(self.size, self._position + len(content))  # first: a block is written out up to there
        for block, part in self._parts(len(content)):
            block[part] = content[done : (done := done + part.stop - part.start)]
        return done

    def truncate(self, size: int | None = None) -> int:
        """Make the file `size` bytes long, by default up to the position; new bytes are zero."""
        size = self._position if size is None else size
        if size < self.size:
            for number, block in self._blocks.items():
                kept = min(max(0, size - number * self._block_bytes), self._block_bytes)
                block[kept:] = bytes(self._block_bytes - kept)
            self._cut(size)
        self.size = size
        return size

    def flush(self) -> None:
        """Do nothing: what matters is `finish`."""

    def finish(self) -> None:
        """Write what is still in memory, and sync.

        Raises:
            OSError: this, or something before, failed.
        """
        for number in sorted(self._blocks):
            self._let_go(number)
        self.require_sound()
        if os.fstat(self._descriptor).st_size != self.size:
            os.ftruncate(self._descriptor, self.size)
        os.fsync(self._descriptor)

    def _load(self, number: int) -> bytearray:
        block = bytearray(self._block_bytes)
        try:
            content = systems.read_at(self._descriptor, self._block_bytes, number * self._block_bytes)
        except OSError as error:
            self.error = self.error or error
        else:
            block[: len(content)] = content
        return block

    def _let_go(self, number: int) -> None:
        """Write a block and forget it; one that can't be written stays."""
        if self.error:
            return
        start = number * self._block_bytes
        rest = memoryview(self._blocks[number])[: max(0, self.size - start)]
        try:
            os.lseek(self._descriptor, start, os.SEEK_SET)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self.error = error
        else:
            del self._blocks[number]

    def _cut(self, size: int) -> None:
        try:
            if os.fstat(self._descriptor).st_size > size:
                os.ftruncate(self._descriptor, size)
        except OSError as error:
            self.error = self.error or error
