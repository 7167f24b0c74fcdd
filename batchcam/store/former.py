"""Rows of a run.h5 that was made before some of the shards were made again: those of the others are what they were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from batchcam.errors import RunError
from batchcam.store import structure
from batchcam.store.layout import Columns, array_shape
from batchcam.store.plan import Plan, Shard
from batchcam.store.reader import COLUMN_BYTES, open_file, read, read_whole
from batchcam.store.schema import Array
from batchcam.store.shard_table import ShardTable, stated_table


class FormerRows:
    """The small columns of a run.h5 that is proven, and of which shards they are; read some shards at a time.

    Args:
        arrays: which it holds itself.
    """

    def __init__(self, file: h5py.File, plan: Plan, arrays: Sequence[Array], table: ShardTable) -> None:
        self._file, self._plan, self._arrays, self._table = file, plan, arrays, table
        row_bytes = sum(file[a.name].dtype.itemsize * math.prod(array_shape(a, plan, 1)) for a in arrays)
        self._count = max(1, COLUMN_BYTES // row_bytes // plan.shard_size) * plan.shard_size
        self._rows = range(0)
        self._columns: Columns = {}

    @classmethod
    def of(cls, file: h5py.File, plan: Plan, arrays: Sequence[Array]) -> FormerRows | None:
        """Return the rows of a run.h5, None where it does not hold each of these arrays itself."""
        table = stated_table(file, plan)
        problems = structure.array_problems(file, arrays, plan, plan.sample_count)
        return cls(file, plan, arrays, table) if table and not any(problems) else None

    def has(self, shard: Shard, size: int, digest: str) -> bool:
        """Return whether they are also those of a shard of this size and digest."""
        record = self._table.record(shard)
        return (record.bytes, record.sha256) == (size, digest)

    def columns(self, shard: Shard, path: Path) -> Columns:
        """Return the columns of a shard that they are of, and its status, which may lie in the shard alone."""
        if shard.first not in self._rows:
            self._rows = range(shard.first, min(shard.first + self._count, self._plan.sample_count))
            rows = slice(self._rows.start, self._rows.stop)
            self._columns = {a.name: read(self._file[a.name], rows) for a in self._arrays}
        first = shard.first - self._rows.start
        columns = {a.name: self._narrow(a, self._columns[a.name][first : first + shard.count]) for a in self._arrays}
        return columns if "status" in columns else {**columns, "status": self._status(shard, path)}

    def _narrow(self, array: Array, values: np.ndarray) -> np.ndarray:
        """Return texts whose length nothing states as wide as the longest of these: the longest of all may be gone."""
        if array.storage != "text" or array.name in self._plan.text_bytes:
            return values
        return values.astype(f"S{max(1, int(np.char.str_len(values).max()))}")

    def _status(self, shard: Shard, path: Path) -> np.ndarray:
        status = next(a for a in self._plan.arrays if a.name == "status")
        with open_file(path) as file:
            for _, problem in structure.array_problems(file, [status], self._plan, shard.count):
                raise RunError(f"{path}: status: {problem}; see batchcam verify")
            return read_whole(file, "status")
