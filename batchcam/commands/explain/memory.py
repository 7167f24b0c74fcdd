"""How much memory images and maps may take on their way through a worker, and what of it goes to whom."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from batchcam.commands.explain.assembly import Assembly
from batchcam.data.decoding_memory import STORED_TIMES
from batchcam.data.loader import Room
from batchcam.errors import ConfigError
from batchcam.job.console import counted, readable_size
from batchcam.job.control_groups import available_memory
from batchcam.job.processes import peak_memory
from batchcam.store.layout import shard_bytes
from batchcam.store.plan import Plan, Shard

SHARE: Final = 0.75
"""Of what is left to this process; the rest is for the network and the loader processes themselves."""

COPIES: Final = 4
"""Of a shard: its rows, its file twice while it is made and landed, and the next one's rows."""

PROCESS_BYTES: Final = 64 * 2**20
"""What a loader process takes for itself."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes for images and maps.

    Attributes:
        shards: for those that are put together and landed.
        waiting: for samples that are ready before the network takes them.
        decoding: for images in loader processes, stored and decoded.
        processes: loader processes that there is memory for, none or at least one.
    """

    shards: int
    waiting: int
    decoding: int
    processes: int

    @property
    def room(self) -> Room:
        """What the loader processes may take."""
        return Room(self.waiting, self.decoding)

    def __str__(self) -> str:
        return (
            f"memory: {readable_size(self.shards)} for shards, {readable_size(self.waiting)} for images that wait, "
            f"{readable_size(self.decoding)} for decoding by {counted(self.processes, 'loader process')}"
        )


def memory_for(
    asked: int | None, plan: Plan, assembly: Assembly, shards_to_make: Sequence[Shard], processes: int
) -> Memory:
    """Divide the memory that `--memory` allows, or else the machine.

    Where not even the largest image would fit beside all the loader processes, there are fewer; but one image is always
    decoded, however large.

    Raises:
        ConfigError: not even a shard and a batch fit.
    """
    total = int(SHARE * max(0, available_memory() - _taken())) if asked is None else asked
    count = min(plan.shard_size, plan.sample_count)
    shards = COPIES * shard_bytes(plan, count)
    batch = min(plan.batch_size, count) * assembly.dataset.sample_bytes
    if shards + batch > total:
        allowed = f"--memory {readable_size(total)}" if asked else f"{readable_size(total)} of memory that are left"
        raise ConfigError(
            f"{allowed}: shards of {counted(count, 'sample')} take {readable_size(shards)}, a batch "
            f"{readable_size(batch)}: say a smaller --shard-size, or fewer --cams, or give more memory"
        )
    sizes = (assembly.source.sizes[np.arange(s.first, s.first + s.count)] for s in shards_to_make)
    image = STORED_TIMES * max((int(each.max()) for each in sizes), default=0)
    for fewer in range(processes, -1, -1):
        waiting = max(batch, min(2 * batch * max(1, fewer), (total - shards) // 2))
        decoding = total - shards - waiting - fewer * PROCESS_BYTES
        if decoding >= image or fewer <= 1:
            break
    return Memory(shards, waiting, max(0, decoding), fewer)


def _taken() -> int:
    """Return the bytes of memory that this process has now and that are no file's; where nothing tells, ever had."""
    if sys.platform != "linux":
        return peak_memory()[0]
    resident, of_files = (int(pages) for pages in Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - of_files) * os.sysconf("SC_PAGE_SIZE")
