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
from batchcam.store.manifest import Manifest
from batchcam.store.plan import Plan, Shard
from batchcam.store.reader import open_structured, require_digest
from batchcam.store.schema import MASTER_FILE, SHARD_FOLDER
from batchcam.store.shard_table import ShardTable, stated_table, table_beside

OPEN_FILES = 8
"""Files kept open at once, however many shards a run has: HDF5 takes 0.6 MB of memory for each."""


class OpenFiles:
    """HDF5 files that are open, of one run or of several that are read together; each until others need its place.

    Threads may share them: a file that leaves its place is closed when the last dataset that somebody reads is gone.

    Args:
        most: places.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: collections.OrderedDict[Path, h5py.File] = collections.OrderedDict()
        self._process, self._lock = os.getpid(), threading.RLock()

    def __len__(self) -> int:
        return len(self._files)

    def get(self, path: Path, opened: Callable[[], h5py.File]) -> h5py.File:
        """Return the file at `path`, which `opened` returns if it is not open."""
        if self._process != os.getpid():  # a fork shares its parent's open files, and where each is being read
            self.close()
            self._process, self._lock = os.getpid(), threading.RLock()  # another thread may have held the parent's
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
        plan: what the run is.
        proves: whether a file is compared with its digest when it is opened for the first time.
        manifest: which states the digests of a complete run; None: those beside the files do.
        partial: whether the digest beside a shard does, where run.h5 can't be read that has it and others are missing.
        proven: files that have been compared already.
    """

    def __init__(
        self,
        path: Path,
        plan: Plan,
        proves: bool,
        manifest: Manifest | None = None,
        partial: bool = False,
        proven: Iterable[Path] = (),
    ) -> None:
        self.proves = proves
        self._path, self._plan, self._manifest, self._partial = path, plan, manifest, partial
        self._is_folder = path.is_dir()
        self._proven = set(proven)
        self._table: ShardTable | None = None
        self._open = OpenFiles(OPEN_FILES)

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

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
        self._prove(path, shard)
        return open_structured(path, self._plan, shard)

    def _prove(self, path: Path, shard: Shard | None) -> None:
        """Compare the file's SHA-256 with the one that was written with it, the first time it is opened."""
        if self.proves and path not in self._proven and (digest := self._digest(path, shard)) is not None:
            require_digest(path, digest)
            self._proven.add(path)

    def _digest(self, path: Path, shard: Shard | None) -> str | None:
        """Return the SHA-256 that a file must have, None where nothing is known to prove it by."""
        if self._manifest is None:
            return landing.read_digest(path)
        if shard is None:
            return self._manifest.master.sha256
        try:
            self._table = self._table or self.proven_table(self._manifest)
        except RunError:
            if self._partial:
                return landing.read_digest(path)
            raise
        return self._table.record(shard).sha256

    def proven_table(self, manifest: Manifest) -> ShardTable:
        """Return the digests that a manifest is about: in run.h5, or, where it can't be read, beside the shards."""
        refusal = RunError(
            f"{self._path / MASTER_FILE}: its table of shards is not the manifest's; see batchcam verify"
        )
        try:
            table = stated_table(self.master(), self._plan)
        except RunError as error:
            table, refusal = None, error
        if table is None or table.stated(self._plan) != manifest.shards:
            table = table_beside(self._path, self._plan)
        if table is None or table.stated(self._plan) != manifest.shards:
            raise refusal
        return table
