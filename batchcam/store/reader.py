"""Shards and run.h5 opened read-only, and their arrays in blocks of rows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from batchcam.errors import RunError
from batchcam.store import landing, structure
from batchcam.store.plan import Plan, Shard

Block = Mapping[str, np.ndarray]

UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What h5py raises over a file that it can't make sense of."""


def open_hdf5(path: Path) -> h5py.File:
    """Open `path` read-only, with HDF5's lock where the file system has one and without where it has not.

    A file of a run never changes, so the lock protects nothing; but HDF5 refuses a file that the same process has
    open with another setting, so its default (and HDF5_USE_FILE_LOCKING) comes first.

    Raises:
        OSError: it can't be opened.
    """
    try:
        return h5py.File(path, "r")
    except OSError:
        if os.environ.get("HDF5_USE_FILE_LOCKING"):
            raise
        return h5py.File(path, "r", locking=False)


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file whose structure is still to be checked; `open_checked` is for those who read from it.

    Raises:
        RunError: the HDF5 library can't read it, now or while it is in use, or it needs more memory than there is.
    """
    try:
        with open_hdf5(path) as file:
            yield file
    except UNREADABLE as error:
        raise RunError(f"{path}: HDF5 cannot read it: {error}") from error
    except MemoryError as error:
        raise RunError(f"{path}: needs more memory than there is") from error


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


def blocks(file: h5py.File, names: tuple[str, ...], rows: int) -> Iterator[tuple[int, Block]]:
    """Yield (first row, arrays by name) for consecutive blocks of at most `rows` rows of the file's sample arrays."""
    count = file[names[0]].shape[0]
    for start in range(0, count, rows):
        yield start, {name: file[name][start : start + rows] for name in names}
