"""A run's columns with one value a sample, as CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from batchcam.commands.export.alike import Alike, alike, notes_of
from batchcam.commands.export.form import Task
from batchcam.images.arrow_tables import import_pyarrow
from batchcam.record.measures import MEASURED, measured_bytes, measured_names, sample_measures
from batchcam.record.rows import Advance, Outcome, class_names, label_text, status_words
from batchcam.record.sigmoid_scores import sigmoid
from batchcam.store.run import Run
from batchcam.store.schema import LABELS

CSV_FILE = "samples.csv"
PARQUET_FILE = "samples.parquet"

NAMES = ("label_name", "prediction_name", "status_name", "input_sha256")
"""Columns beside those of the run: classes and flags by name, the image's digest in hex."""


def write_csv(task: Task) -> Outcome:
    """Write one line for each of the rows: UTF-8, NaN and unknown names as empty cells, no text that is a formula."""
    run, rows = task.run, np.flatnonzero(task.meant)
    several = _class_columns(run, run.labels[:0], run.logits[:0]) if run.plan.is_multi_label else ()
    with alike(run, task.train_run) as found:
        of_none = found(rows[:0], {"label": run.label[:0], "logits": run.logits[:0]})
        header = (*run.scalar_columns, *several, *measured_names(run.plan), *of_none, *NAMES)
        task.folder.write_table(CSV_FILE, header, _lines(run, rows, header, found, task.advance))
    return Outcome(len(rows), len(run) - len(rows), notes=notes_of(run))


def write_parquet(task: Task) -> Outcome:
    """Write one row for each of the rows, texts as they are, unknown names as nulls."""
    arrow, parquet = import_pyarrow()
    run, rows = task.run, np.flatnonzero(task.meant)
    writer: Any = None
    with alike(run, task.train_run) as found, task.folder.stream(PARQUET_FILE) as file:
        for columns in _columns(run, rows, found):
            # no text may be known in a block
            texts = {n: arrow.array(texts, arrow.string()) for n, texts in columns.items() if isinstance(texts, list)}
            part = arrow.table({**columns, **texts})
            writer = writer or parquet.ParquetWriter(file, part.schema)
            writer.write_table(part)
            task.advance(len(part))
        writer.close()
    return Outcome(len(rows), len(run) - len(rows), notes=notes_of(run))


def _columns(run: Run, rows: np.ndarray, found: Alike) -> Iterator[dict[str, Any]]:
    """Yield the columns of some rows after the others."""
    own = {*run.scalar_columns, *MEASURED, "input_sha256", *((LABELS,) if run.plan.is_multi_label else ())}
    for some, block in run.blocks(sorted(own), rows, held=measured_bytes(run.plan)):
        columns: dict[str, Any] = {name: block[name] for name in run.scalar_columns}
        if run.plan.is_multi_label:
            columns |= _class_columns(run, block[LABELS], block["logits"])
            columns["label_name"] = [label_text(run, labels) for labels in block[LABELS]]
        else:
            columns["label_name"] = class_names(run, columns["label"])
        columns |= sample_measures(run.plan, block) | found(some, block)
        columns["prediction_name"] = class_names(run, columns["prediction"])
        columns["status_name"] = [status_words(status) for status in columns["status"].tolist()]
        columns["input_sha256"] = [digest.tobytes().hex() for digest in block["input_sha256"]]
        yield columns


def _class_columns(run: Run, labels: np.ndarray, logits: np.ndarray) -> dict[str, np.ndarray]:
    return run.class_columns("label", labels) | run.class_columns("sigmoid", sigmoid(logits))


def _lines(run: Run, rows: np.ndarray, header: Sequence[str], found: Alike, advance: Advance) -> Iterator[list[object]]:
    for columns in _columns(run, rows, found):
        for values in zip(*(columns[name] for name in header), strict=True):
            yield [_value(value) for value in values]
        advance(len(columns["status_name"]))


def _value(value: object) -> object:
    if isinstance(value, np.floating):
        return str(value) if np.isfinite(value) else None  # str: as many digits as tell two float32 apart
    return value
