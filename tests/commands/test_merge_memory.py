"""Merging takes no more memory for a larger run."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from batchcam.store import landing
from batchcam.store.plan import Plan, write_plan
from batchcam.store.schema import SHARD_FOLDER
from batchcam.store.shard import ShardBuilder

PEAK = """
import re, sys
from pathlib import Path
from batchcam.commands.merge import merge

def peak_kb():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = peak_kb()
merge(Path(sys.argv[1]))
print(before, peak_kb())
"""

SHARD = 10_000
COPIED_BYTES = 200
"""What run.h5 copies of each sample, at least."""


def land_like(run: Path, plan: Plan, rows) -> None:
    """Write a run whose shards all have the same rows, other ids apart; each row has a line of error, as if unreadable.

    The hardest case: run.h5 can't place lines of error before it knows the longest.
    """
    write_plan(run, plan, {})
    errors = [f"{i} is not an image: {'truncated ' * (i % 5)}" for i in range(SHARD)]
    with ThreadPoolExecutor(1) as compressors:
        for shard in plan.shards:
            index = np.arange(shard.first, shard.first + SHARD)
            builder = ShardBuilder(plan, shard, rows.weight, rows.bias, compressors)
            builder.append(
                {**rows.columns, "sample_index": index}, {"sample_id": [f"{i:09d}" for i in index], "error": errors}
            )
            landing.land_own(run / SHARD_FOLDER / shard.file, builder.image())


def growth_while_merging(run: Path) -> float:
    """Return by how many MB a process grows that merges."""
    ended = subprocess.run([sys.executable, "-c", PEAK, run], capture_output=True, text=True, check=True)
    before, after = map(int, ended.stdout.split())
    return (after - before) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_run(tmp_path: Path, make_plan, make_rows) -> None:
    class_names = tuple(f"class {k}" for k in range(10))
    options = {"shard_size": SHARD, "maps": "none", "grid_size": (1, 1), "channels": 10, "class_names": class_names}
    rows = make_rows(make_plan(sample_count=SHARD, **options))
    grown = []
    for shards in (20, 60):  # what the smaller one copies fills the blocks that a Sink keeps
        run = tmp_path / f"{shards} shards"
        land_like(run, make_plan(sample_count=SHARD * shards, **options), rows)
        grown.append(growth_while_merging(run))
    assert grown[1] - grown[0] < 8 < 40 * SHARD * COPIED_BYTES / 1e6 / 4
