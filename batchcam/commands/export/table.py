"""A run's columns with one value a sample, as CSV or Parquet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from batchcam.commands.export.folder import ExportFolder
from batchcam.images.arrow_tables import import_pyarrow
from batchcam.record.measures import (
    CELL_BYTES,
    LOGIT_BYTES,
    ROW_BYTES,
    certainty_measures,
    evidence_measures,
    in_image,
)
from batchcam.record.rows import Advance, class_names, label_text, status_words
from batchcam.record.sigmoid_scores import sigmoid
from batchcam.rules import CERTAINTY, EVIDENCE, PEAK_IN_IMAGE
from batchcam.store.run import Run
from batchcam.store.schema import LABELS

CSV_FILE = "samples.csv"
PARQUET_FILE = "samples.parquet"

NAMES = ("label_name", "prediction_name", "status_name", "input_sha256")
"""Columns beside those of the run: classes and flags by name, the image's digest in hex."""


def write_csv(run: Run, folder: ExportFolder, rows: np.ndarray, advance: Advance) -> None:
    """Write one line for each of the rows: UTF-8, NaN and unknown names as empty cells, no text that is a formula."""
    several = _class_columns(run, run.labels[:0], run.logits[:0]) if run.plan.is_multi_label else ()
    header = (*run.scalar_columns, *several, *_measures(run), *NAMES)
    folder.write_table(CSV_FILE, header, _lines(run, rows, header, advance))


def write_parquet(run: Run, folder: ExportFolder, rows: np.ndarray, advance: Advance) -> None:
    """Write one row for each of the rows, texts as they are, unknown names as nulls."""
    arrow, parquet = import_pyarrow()
    writer: Any = None
    with folder.stream(PARQUET_FILE) as file:
        for columns in _columns(run, rows):
            texts = {name: arrow.array(columns[name], arrow.string()) for name in NAMES}  # none may be known in a block
            part = arrow.table({**columns, **texts})
            writer = writer or parquet.ParquetWriter(file, part.schema)
            writer.write_table(part)
            advance(len(part))
        writer.close()


def _measures(run: Run) -> tuple[str, ...]:
    """Return what is measured of each sample; a softmax means nothing where each class is true or not by itself."""
    return (*EVIDENCE, *PEAK_IN_IMAGE, *(() if run.plan.is_multi_label else CERTAINTY))


def _columns(run: Run, rows: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield the columns of some rows after the others."""
    own = {*run.scalar_columns, "label", "prediction", "input_sha256", "crop_box", "cams", "logits"}
    names = sorted(own | ({LABELS} if run.plan.is_multi_label else set()) | {"cam_class"})
    held = ROW_BYTES + CELL_BYTES * math.prod(run.plan.grid_size) + LOGIT_BYTES * len(run.class_names)
    for _, block in run.blocks(names, rows, held=held):
        columns: dict[str, Any] = {name: block[name] for name in run.scalar_columns}
        if run.plan.is_multi_label:
            columns |= _class_columns(run, block[LABELS], block["logits"])
            columns["label_name"] = [label_text(run, labels) for labels in block[LABELS]]
        else:
            columns["label_name"] = class_names(run, columns["label"])
        measured = evidence_measures(block)
        columns |= measured | in_image(measured, block["crop_box"])
        if not run.plan.is_multi_label:
            columns |= certainty_measures(block["logits"], block["label"])
        columns["prediction_name"] = class_names(run, columns["prediction"])
        columns["status_name"] = [status_words(status) for status in columns["status"].tolist()]
        columns["input_sha256"] = [digest.tobytes().hex() for digest in block["input_sha256"]]
        yield columns


def _class_columns(run: Run, labels: np.ndarray, logits: np.ndarray) -> dict[str, np.ndarray]:
    return run.class_columns("label", labels) | run.class_columns("sigmoid", sigmoid(logits))


def _lines(run: Run, rows: np.ndarray, header: Sequence[str], advance: Advance) -> Iterator[list[object]]:
    for columns in _columns(run, rows):
        for values in zip(*(columns[name] for name in header), strict=True):
            yield [_value(value) for value in values]
        advance(len(columns["status_name"]))


def _value(value: object) -> object:
    if isinstance(value, np.floating):
        return str(value) if np.isfinite(value) else None  # str: as many digits as tell two float32 apart
    return value
