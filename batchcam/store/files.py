"""The HDF5 files of a run: few open at once, and none that the library sees before it is proven."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py

from batchcam.errors import RunError
from batchcam.store import landing
from batchcam.store.plan import Plan, Shard
from batchcam.store.reader import open_structured, require_digest
from batchcam.store.schema import MASTER_FILE, SHARD_FOLDER

OPEN_FILES = 64
"""Files kept open at once; far below any limit of the system, however many shards a run has."""

Proof = Callable[[Path], str | None]
"""The SHA-256 that a file of the run must have, hex; None where nothing is known to prove it by."""


class OpenFiles:
    """HDF5 files that are open, of one run or of several that are read together; each until others need its place.

    Threads may share them: a file that leaves its place is closed when the last dataset that somebody reads is gone.

    Args:
        most: places.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: collections.OrderedDict[Path, h5py.File] = collections.OrderedDict()
        self._process, self._lock = os.getpid(), threading.Lock()

    def __len__(self) -> int:
        return len(self._files)

    def get(self, path: Path, opened: Callable[[], h5py.File]) -> h5py.File:
        """Return the file at `path`, which `opened` returns if it is not open."""
        if self._process != os.getpid():  # a fork shares its parent's open files, and where each is being read
            self.close()
            self._process, self._lock = os.getpid(), threading.Lock()  # another thread may have held the parent's
        with self._lock:
            if path in self._files:
                self._files.move_to_end(path)
            else:
                self._files[path] = opened()
                if len(self._files) > self._most:
                    self._files.popitem(last=False)
            return self._files[path]

    def close(self) -> None:
        """Close all of them."""
        while self._files:
            self._files.popitem()[1].close()


class RunFiles:
    """The files of one run directory, or a single shard.

    Args:
        path: the run directory or shard.
        plan: what the run is.
        proof: gives the digest that a file must have when it is opened for the first time; None: nothing is compared.
        proven: files that have been compared already.
    """

    def __init__(self, path: Path, plan: Plan, proof: Proof | None, proven: Iterable[Path] = ()) -> None:
        self._path, self._plan, self._proof = path, plan, proof
        self._is_folder = path.is_dir()
        self._proven = set(proven)
        self._open = OpenFiles(OPEN_FILES)

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    @property
    def proves(self) -> bool:
        """Whether files are proven before they are read."""
        return self._proof is not None

    def share(self, places: OpenFiles) -> None:
        """Keep files open in `places` from now on, which other runs use too."""
        self.close()
        self._open = places

    def shard(self, shard: Shard) -> h5py.File:
        """Return an open shard.

        Raises:
            RunError: it can't be read, is not this run's, or not built as the schema says.
        """
        return self._file(self._path / SHARD_FOLDER / shard.file if self._is_folder else self._path, shard)

    def master(self) -> h5py.File:
        """Return run.h5, open; raises as `shard` does."""
        return self._file(self._path / MASTER_FILE, None)

    def close(self) -> None:
        """Close all files."""
        self._open.close()

    def _file(self, path: Path, shard: Shard | None) -> h5py.File:
        return self._open.get(path, lambda: self._opened(path, shard))

    def _opened(self, path: Path, shard: Shard | None) -> h5py.File:
        if self._is_folder and not landing.is_own_file(self._path, path.relative_to(self._path).as_posix()):
            raise RunError(f"{path}: gone, or not a file of its own; see batchcam verify")
        self._prove(path)
        return open_structured(path, self._plan, shard)

    def _prove(self, path: Path) -> None:
        """Compare the file's SHA-256 with the one that was written with it, the first time it is opened.

        Raises:
            RunError: they differ, or the file can't be read.
        """
        if path in self._proven or self._proof is None or (digest := self._proof(path)) is None:
            return
        require_digest(path, digest)
        self._proven.add(path)
