"""Shards and run.h5 opened read-only, and their arrays in blocks of rows."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from batchcam.errors import OutOfMemoryError, RunError
from batchcam.store import landing, structure
from batchcam.store.bringing import bring
from batchcam.store.plan import Plan, Shard

READ_BYTES = 32 * 2**20
"""Memory of one block of rows."""

COLUMN_BYTES = 2**22
"""The same, where rows are a few numbers each: larger ones are no quicker."""

CACHE_BYTES = 2**20
"""Of chunks, for each array that is open: HDF5's own 8 MiB fill when rows are read one after the other."""

DENSE = 4
"""Rows are read in one slice when at least one in so many is wanted."""

TEXT_BYTES = 64
"""What Python adds to a text of its own."""

Rows = np.ndarray | range
"""Rows of a file: any, or consecutive ones."""

UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What h5py raises over a file that it can't make sense of."""


def open_hdf5(path: Path) -> h5py.File:
    """Open `path` read-only, with HDF5's lock where the file system has one and without where it has not.

    A file of a run never changes, so the lock protects nothing; but HDF5 refuses a file that the same process has
    open with another setting, so its default (and HDF5_USE_FILE_LOCKING) comes first.

    Raises:
        OSError: it can't be opened.
    """
    bring(path)
    try:
        return h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)
    except OSError:
        if os.environ.get("HDF5_USE_FILE_LOCKING"):
            raise
        return h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES, locking=False)


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file whose structure is still to be checked; `open_checked` is for those who read from it.

    Raises:
        RunError: the HDF5 library can't read it, now or while it is in use.
        OutOfMemoryError: it needs more memory than there is.
    """
    try:
        with open_hdf5(path) as file:
            yield file
    except (*UNREADABLE, MemoryError) as error:
        require_memory(path, error)
        raise RunError(f"{path}: HDF5 cannot read it: {error}") from error


def require_memory(path: Path, error: Exception) -> None:
    """Raise OutOfMemoryError when memory is what the reader of an HDF5 file lacked, who got `error`."""
    unfolded = min(structure.PIECE_BYTES, structure.DEFLATE_RATIO * path.stat().st_size) if path.is_file() else 1
    try:
        if not isinstance(error, MemoryError):  # a filter that failed is all that HDF5 tells, also of this
            mmap.mmap(-1, 2 * unfolded or 1).close()
            return
    except OSError:
        pass
    raise OutOfMemoryError(f"{path}: needs more memory than there is") from error


def open_structured(path: Path, plan: Plan, shard: Shard | None) -> h5py.File:
    """Return a shard, or run.h5 (None), open for reading, after its structure has been checked.

    Raises:
        RunError: it is not this run's, not built as the schema says, or the HDF5 library can't read it.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_hdf5(path))
            structure.require(file, plan, shard, path)
        except UNREADABLE as error:
            raise RunError(f"{path}: HDF5 cannot read it: {error}; see batchcam verify") from error
        stack.pop_all()
    return file


@contextlib.contextmanager
def open_checked(path: Path, plan: Plan, shard: Shard | None) -> Iterator[h5py.File]:
    """Open a shard, or run.h5 (None), for reading, after its structure has been checked.

    Raises:
        RunError: as `open_structured`, and when the library can't read it later.
    """
    with open_file(path) as file:
        structure.require(file, plan, shard, path)
        yield file


def require_digest(path: Path, digest: str) -> None:
    """Raise RunError unless the file at `path` has this SHA-256."""
    if not path.is_file():  # nor wait for a pipe
        raise RunError(f"{path}: gone, or not a file; see batchcam verify")
    try:
        actual = landing.file_digest(path)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}; see batchcam verify") from error
    if actual != digest:
        raise RunError(f"{path}: changed after it was written, its SHA-256 is another; see batchcam verify")


def decode(values: np.ndarray) -> list[str]:
    """Return an array of encoded text as strings; bytes that are not UTF-8 show as escapes."""
    return [v.decode("utf-8", "backslashreplace") for v in values.tolist()]


def blocks(
    open_array: Callable[[str], h5py.Dataset], names: Sequence[str], rows: Rows, budget: int, held: int = 0
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield (rows, arrays by name) of one file's sample arrays, texts as they are stored.

    The file is cut every so many rows, whichever of them are wanted: what a block holds depends on this file alone.

    Args:
        open_array: returns an array of the file by its name.
        rows: in the order wanted; a range of any length takes no memory.
        budget: bytes of memory for one block.
        held: bytes a row that the caller makes of a block and holds at once.

    Raises:
        RunError: an array can't be read.
    """
    size = max(1, budget // (held + sum(_row_bytes(open_array(name)) for name in names)))
    for some in _cut(rows, size) if isinstance(rows, range) else split(rows, rows // size):
        yield some, {name: read_rows(open_array(name), some) for name in names}


def _cut(rows: range, size: int) -> Iterator[np.ndarray]:
    """Yield consecutive rows in blocks that end at multiples of `size`."""
    for first in range(rows.start - rows.start % size, rows.stop, size):
        yield np.arange(max(first, rows.start), min(first + size, rows.stop))


def _row_bytes(dataset: h5py.Dataset) -> int:
    text = TEXT_BYTES if dataset.dtype.kind == "S" else 0
    return int(math.prod(dataset.shape[1:])) * int(dataset.dtype.itemsize) + text


def split(rows: np.ndarray, owners: np.ndarray) -> list[np.ndarray]:
    """Return `rows` in parts of consecutive ones that have the same owner."""
    return np.split(rows, np.flatnonzero(np.diff(owners)) + 1) if len(rows) else []


def read_rows(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Return rows of an HDF5 dataset, at least one, in the order asked for, which HDF5 itself can't."""
    first, stop = int(rows.min()), int(rows.max()) + 1
    if stop - first <= DENSE * len(rows):  # a slice reads quicker than a list of rows
        block: np.ndarray = read(dataset, slice(first, stop))
        return block if len(block) == len(rows) and (np.diff(rows) == 1).all() else block[rows - first]
    wanted, back = np.unique(rows, return_inverse=True)
    return np.asarray(read(dataset, wanted)[back])


def read_whole(file: h5py.File, name: str) -> np.ndarray:
    """Return an array whose structure is proven; h5py's `file[name][...]` takes three times as long for a small one."""
    dataset = h5py.h5d.open(file.id, name.encode())
    values = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values


def read(dataset: h5py.Dataset, selection: Any) -> Any:
    """Return what a selection of an HDF5 dataset holds.

    Raises:
        RunError: it can't be read.
        OutOfMemoryError: it needs more memory than there is.
    """
    try:
        return dataset[selection]
    except (OSError, RuntimeError, MemoryError) as error:
        require_memory(Path(dataset.file.filename), error)
        name = dataset.name.lstrip("/")
        raise RunError(f"{dataset.file.filename}: {name}: cannot read: {error}; see batchcam verify") from error
