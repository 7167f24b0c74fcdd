"""A run as one HDF5 file, complete in itself: what a run of one shard has in it, in the oldest form of the format."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from batchcam.commands.export.form import Task
from batchcam.errors import RunError
from batchcam.record.rows import Outcome
from batchcam.store import layout, schema
from batchcam.store.filling import Filling
from batchcam.store.run import Run

FILE: Final = "run.h5"


def write(task: Task) -> Outcome:
    """Write all arrays and attributes that run.h5 has, and none elsewhere; `open_run` reads it as a shard.

    Of a run of which all samples are there, it is the shard of that run if it had one.
    """
    run, rows = task.run, np.flatnonzero(task.meant)
    plan, first = run.plan, int(run.sample_index[rows[0]])
    if len(rows) == plan.sample_count:
        plan = dataclasses.replace(plan, shard_size=len(rows))
    classifier, notes = _classifier(run)
    names = [array.name for array in plan.arrays]
    with task.folder.stream_hdf5(FILE) as sink, layout.new_file(sink, layout.OLDEST_FORMAT) as file:
        layout.write_header(file, plan, first, len(rows))
        layout.write_scales(file, plan)
        layout.write_classes(file, plan, *classifier)
        filling = Filling(file, plan, len(rows))
        for array in plan.arrays:
            filling.add(array)
        for some, block in run.blocks(names, rows):
            filling.append({name: _stored(run, name, values) for name, values in block.items()})
            sink.require_sound()
            task.advance(len(some))
        filling.finish()
    if len(rows) < plan.sample_count:
        notes.append(f"{len(rows)} of {plan.sample_count} samples: sample_index says which")
    return Outcome(len(rows), len(run) - len(rows), notes=tuple(notes))


def _classifier(run: Run) -> tuple[tuple[np.ndarray, np.ndarray], list[str]]:
    """Return weight and bias of the network, NaN where there are several, and what to tell of them."""
    if len(run.networks) == 1:
        return run.classifier, []
    shape = len(run.class_names), run.plan.channels
    unknown = np.full(shape, np.nan, np.float32), np.full(shape[0], np.nan, np.float32)
    return unknown, ["the runs have several classifiers: classifier/weight and classifier/bias are NaN"]


def _stored(run: Run, name: str, values: np.ndarray) -> np.ndarray:
    """Return values as a file has them."""
    if values.dtype != object:
        return values
    try:
        return schema.encode_text(values.tolist(), run.plan.text_bytes.get(name))
    except ValueError as error:  # what is no UTF-8 is read as escapes, which are longer
        raise RunError(f"{run.path}: {name}: {error}; see batchcam verify") from error
