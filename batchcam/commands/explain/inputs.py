"""Are the images of a run still those that it has recorded? Asked of a few before anything is added to it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np

from batchcam.commands.explain.assembly import Assembly
from batchcam.data.timed_source import rest
from batchcam.errors import RunError
from batchcam.images.decoding import UnreadableImageError
from batchcam.rules import Status
from batchcam.store.files import RunFiles
from batchcam.store.plan import Plan
from batchcam.store.run import Run

MOST_LOOKED_AT: Final = 8
"""Images, spread over the rows; each may lie in a shard of its own, which has to be opened."""


def require_same_inputs(run: Path, plan: Plan, assembly: Assembly, landed: Collection[int]) -> None:
    """Refuse to go on with a run some of whose images, of those looked at, are others now.

    What can't be read on either side says nothing: verify and the work itself tell of it.

    Raises:
        RunError: the message names the first.
    """
    shards = [s for s in plan.shards if s.index in landed]
    differing, looked_at = [], 0
    with Run(run, plan, shards, False, RunFiles(run, plan, None)) as record:
        for row in np.unique(np.linspace(0, len(record) - 1, MOST_LOOKED_AT, dtype=np.int64)) if shards else ():
            try:
                if record.status[row] & Status.UNREADABLE:
                    continue
                index, then = int(record.sample_index[row]), record.input_sha256[row].tobytes()
                now = assembly.source.read(index).sha256
            except (RunError, UnreadableImageError):
                continue
            looked_at += 1
            if then != now:
                differing.append(index)
    rest(assembly.source)
    if differing:
        first = assembly.source.sample_ids[differing[0]]
        raise RunError(
            f"{run}: {len(differing)} of {looked_at} images looked at are others than those that were explained, first "
            f"{first}: choose another --out"
        )
