"""The sizes and digests of a run's shards: one by one in run.h5 and beside the shards, all together in the manifest."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import h5py
import numpy as np

from batchcam.store import landing, structure
from batchcam.store.layout import create_group, write_text
from batchcam.store.manifest import FileRecord, ShardSum
from batchcam.store.plan import Plan, Shard
from batchcam.store.schema import SHARD_FOLDER, SHARD_TABLE, TEXT_CHUNK_ROWS, encode_text


@dataclasses.dataclass(frozen=True, eq=False)
class ShardTable:
    """Size and digest of each shard of a run.

    Attributes:
        sizes: in bytes, int64 (s,).
        digests: SHA-256, hex, S64 (s,).
    """

    sizes: np.ndarray
    digests: np.ndarray

    @classmethod
    def empty(cls, plan: Plan) -> ShardTable:
        """Return a table to be filled."""
        return cls(np.zeros(len(plan.shards), np.int64), np.zeros(len(plan.shards), "S64"))

    def set(self, shard: Shard, size: int, digest: str) -> None:
        """Enter a shard."""
        self.sizes[shard.index], self.digests[shard.index] = size, digest.encode()

    def record(self, shard: Shard) -> FileRecord:
        """Return what a shard is."""
        size, digest = int(self.sizes[shard.index]), self.digests[shard.index].decode("ascii", "replace")
        return FileRecord(shard.file, shard.first, shard.count, size, digest)

    def stated(self, plan: Plan) -> ShardSum:
        """Return what the manifest states of all of them."""
        lines = hashlib.sha256()
        for shard in plan.shards:
            lines.update(landing.digest_line(shard.file, self.record(shard).sha256).encode())
        return ShardSum(len(plan.shards), int(self.sizes.sum()), lines.hexdigest())


def table_beside(run: Path, plan: Plan, look: landing.Look = landing.unheeding) -> ShardTable | None:
    """Return the table as the shards and the digests beside them are; None where one is missing.

    `look` is called all the time, and may raise to give up.
    """
    table = ShardTable.empty(plan)
    for shard in plan.shards:
        look()
        path = run / SHARD_FOLDER / shard.file
        digest = landing.read_digest(path)
        if digest is None or not path.is_file():
            return None
        table.set(shard, path.stat().st_size, digest)
    return table


def stated_table(file: h5py.File, plan: Plan) -> ShardTable | None:
    """Return the table that run.h5 holds, None where it is not built as the schema says."""
    rows = len(plan.shards)
    sizes = structure.column(file, f"{SHARD_TABLE}/bytes", np.dtype(np.int64), rows)
    digests = structure.column(file, f"{SHARD_TABLE}/sha256", np.dtype("S64"), rows)
    return None if sizes is None or digests is None else ShardTable(sizes, digests)


def planned_columns(plan: Plan) -> dict[str, np.ndarray]:
    """Return the columns of the table in run.h5 that follow from the plan, by name in the file."""
    first = np.arange(0, plan.sample_count, plan.shard_size)
    return {
        f"{SHARD_TABLE}/file": encode_text([shard.file for shard in plan.shards]),
        f"{SHARD_TABLE}/first": first,
        f"{SHARD_TABLE}/count": np.minimum(plan.shard_size, plan.sample_count - first),
    }


def write_table(file: h5py.File, plan: Plan, table: ShardTable) -> None:
    """Write the table into run.h5."""
    create_group(file, SHARD_TABLE)
    columns = {f"{SHARD_TABLE}/bytes": table.sizes, f"{SHARD_TABLE}/sha256": table.digests, **planned_columns(plan)}
    for name, values in columns.items():
        if values.dtype.kind == "S":
            write_text(file, name, values)
        else:
            chunks = (min(len(values), TEXT_CHUNK_ROWS),)
            file.create_dataset(name, data=values, chunks=chunks, fletcher32=True)
