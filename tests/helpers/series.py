"""A run, and the same rows as a series of runs: what one says, the other has to say too."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from batchcam.commands.merge import merge
from batchcam.store.manifest import task_file, write_task
from batchcam.store.plan import Plan
from tests.helpers.run_pairs import make_rows
from tests.helpers.synthetic import Rows, fingerprinted, land_shards, synthetic_plan

COUNTS = (8, 7, 6)
"""Samples of each night; the whole run's shards end elsewhere."""


def land_run(folder: Path, plan: Plan, rows: Rows) -> Path:
    """Write a complete run with these rows."""
    land_shards(folder, fingerprinted(plan, rows), rows)
    write_task(folder, task_file(0), {"task": "0/1", "started": "2026-01-02T03:04:05Z", "outcome": "done"})
    merge(folder)
    return folder


def part_of(rows: Rows, places: slice) -> Rows:
    """Some of the rows, as a run of their own has them."""
    columns = {name: values[places] for name, values in rows.columns.items()}
    columns["sample_index"] = np.arange(len(columns["label"]))
    return Rows(columns, {name: texts[places] for name, texts in rows.texts.items()}, rows.weight, rows.bias)


def land_night(folder: Path, rows: Rows, **changes: Any) -> Path:
    """Write a complete run with all of these rows, in one shard."""
    return land_run(folder, synthetic_plan(sample_count=len(rows.columns["label"]), shard_size=21, **changes), rows)


def whole_and_series(folder: Path, seed: int = 0, **changes: Any) -> tuple[Path, Path]:
    """Write a run of 21 samples, and the same samples as the runs of three nights."""
    plan, rows = make_rows(seed, shard_size=10, **changes)
    land_run(folder / "whole", plan, rows)
    ends = np.cumsum((0, *COUNTS)).tolist()
    for night, (start, stop) in enumerate(itertools.pairwise(ends), 1):
        part = part_of(rows, slice(start, stop))
        land_run(
            folder / "nights" / f"night-{night}",
            dataclasses.replace(plan, sample_count=stop - start, shard_size=3, dataset_fingerprint="d" * 64),
            part,
        )
    return folder / "whole", folder / "nights"
