"""explain --retry-unreadable: which rows of a run are unreadable, and what has to stay as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from batchcam.commands.explain.assembly import Assembly
from batchcam.data.samples import UNKNOWN_SIZE
from batchcam.errors import DatasetError
from batchcam.rules import Status
from batchcam.store.plan import Plan, Shard, dataset_fingerprint
from batchcam.store.reader import open_checked
from batchcam.store.schema import SHARD_FOLDER


@dataclasses.dataclass(frozen=True)
class RecordedShard:
    """What a shard says of its samples before they are tried again.

    Attributes:
        unreadable: which could not be read, bool (n,).
        input_sha256: digests of the images, uint8 (n, 32).
        away: which had no file when the dataset was listed, bool (n,).
    """

    shard: Shard
    unreadable: np.ndarray
    input_sha256: np.ndarray
    away: np.ndarray

    def improves(self, unreadable: np.ndarray, input_sha256: np.ndarray) -> bool:
        """Return whether images can be read now that could not, and all the others as before.

        Raises:
            DatasetError: an image is another one now.
        """
        before = ~self.unreadable & ~unreadable
        changed = np.flatnonzero(before & (self.input_sha256 != input_sha256).any(1))
        if len(changed):
            raise DatasetError(
                f"{self.shard.file}: sample {self.shard.first + changed[0]} is another image now; the shard stays as "
                "it is: explain into another --out"
            )
        return not (unreadable & ~self.unreadable).any() and bool((self.unreadable & ~unreadable).any())


def read_recorded(run: Path, plan: Plan, landed: Collection[int]) -> dict[int, RecordedShard]:
    """Return what the landed shards say, by their index."""
    found = {}
    for shard in plan.shards:
        if shard.index not in landed:
            continue
        with open_checked(run / SHARD_FOLDER / shard.file, plan, shard) as file:
            unreadable = file["status"][...] & Status.UNREADABLE != 0
            # schema 1 does not say: files that were away are among the unreadable ones
            away = file["input_bytes"][...] == UNKNOWN_SIZE if "input_bytes" in file else unreadable
            found[shard.index] = RecordedShard(shard, unreadable, file["input_sha256"][...], away)
    return found


def with_recorded_sizes(plan: Plan, existing: Plan, assembly: Assembly, recorded: Mapping[int, RecordedShard]) -> Plan:
    """Return `plan` with the existing run's fingerprint if nothing else differs than sizes of files that were away.

    The source then says their sizes as the run recorded them: its rows and its fingerprint go together.
    """
    source = assembly.source
    if len(source) != existing.sample_count:
        return plan
    sizes = np.array(source.sizes)
    for each in recorded.values():
        sizes[each.shard.first : each.shard.first + each.shard.count][each.away] = UNKNOWN_SIZE
    columns = [source.meta[name] for name in existing.meta if name in source.meta]
    then = dataset_fingerprint(source.sample_ids, assembly.fingerprinted_labels, sizes.tolist(), columns)
    if then != existing.dataset_fingerprint:
        return plan
    source.sizes = sizes
    return dataclasses.replace(plan, dataset_fingerprint=then)
