"""A run's columns with one value a sample, as CSV or Parquet."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from batchcam.commands.export.folder import ExportFolder
from batchcam.errors import BatchcamError
from batchcam.record.rows import Advance, Outcome, class_names, status_words
from batchcam.store.run import Run

CSV_FILE = "samples.csv"
PARQUET_FILE = "samples.parquet"

NAMES = ("label_name", "prediction_name", "status_name", "input_sha256")
"""Columns beside those of the run: classes and flags by name, the image's digest in hex."""


def write_csv(run: Run, folder: ExportFolder, advance: Advance) -> Outcome:
    """Write one line for each sample: UTF-8, NaN and unknown names as empty cells, no text that is a formula."""
    columns = _columns(run)
    header = [*columns]
    folder.write_table(CSV_FILE, header, _lines([columns[name] for name in header], advance))
    return Outcome(len(run))


def write_parquet(run: Run, folder: ExportFolder, advance: Advance) -> Outcome:
    """Write one row for each sample, texts as they are, unknown names as nulls.

    Raises:
        BatchcamError: pyarrow is not installed.
    """
    arrow, parquet = import_pyarrow()
    buffer = io.BytesIO()
    parquet.write_table(arrow.table(_columns(run)), buffer)
    folder.write(PARQUET_FILE, buffer.getvalue())
    advance(len(run))
    return Outcome(len(run))


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its module for Parquet, which batchcam does not install.

    Raises:
        BatchcamError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise BatchcamError("Parquet needs pyarrow: pip install pyarrow") from error


def _columns(run: Run) -> dict[str, Any]:
    columns: dict[str, Any] = {name: run[name][:] for name in run.scalar_columns}
    columns["label_name"] = class_names(run, columns["label"])
    columns["prediction_name"] = class_names(run, columns["prediction"])
    columns["status_name"] = [status_words(status) for status in columns["status"].tolist()]
    columns["input_sha256"] = [digest.tobytes().hex() for digest in run.input_sha256[:]]
    return columns


def _lines(columns: list[Any], advance: Advance) -> Iterator[list[object]]:
    for values in zip(*columns, strict=True):
        yield [_value(value) for value in values]
        advance(1)


def _value(value: object) -> object:
    if isinstance(value, np.floating):
        return str(value) if np.isfinite(value) else None  # str: as many digits as tell two float32 apart
    return value
