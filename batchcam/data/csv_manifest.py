"""A CSV manifest: `path[,label][,id]`, a line for each image, paths relative to the CSV file."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import stat
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from batchcam.data.samples import UNKNOWN_LABEL, UNKNOWN_SIZE, FileSource, PackedText
from batchcam.errors import DatasetError, one_line

_INTEGER = re.compile(r"[+-]?[0-9]+")
_LARGEST_LABEL = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The columns that count, and the line on which each row ends."""

    paths: list[str]
    labels: list[str]
    sample_ids: list[str]
    lines: list[int]


def open_csv(spec: str, file: str) -> FileSource:
    """List the samples of a CSV manifest, UTF-8 with a header line; columns in any order, others ignored.

    Labels are class indices when all that are given are whole numbers, else class names, which get their index by
    sorting. The id of a sample is its path as written, unless there is a column `id`. A file that does not exist
    stays a sample, to be reported as unreadable.

    Raises:
        DatasetError: the file is no such manifest; the message names the line.
    """
    rows = _read_rows(file)
    folder = os.path.dirname(os.path.abspath(file))
    labels, class_names = _class_indices(file, rows)
    own_ids = rows.sample_ids is not rows.paths
    return FileSource(
        spec,
        folder,
        _packed(rows.paths),
        labels,
        np.fromiter((_size(os.path.join(folder, path)) for path in rows.paths), np.int64, len(rows.paths)),
        class_names,
        sample_ids=_packed(rows.sample_ids) if own_ids else None,
    )


def _read_rows(file: str) -> _Rows:
    where = one_line(file)
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            try:
                columns = _columns(where, next(reader, []))
                rows = _collect(where, columns, ((reader.line_num, fields) for fields in reader))
            except csv.Error as error:
                raise DatasetError(f"{where}: line {reader.line_num}: not CSV: {error}") from error
    except OSError as error:
        raise DatasetError(f"{where}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{where}: not UTF-8 text: save the manifest as UTF-8") from error
    if not rows.paths:
        raise DatasetError(f"{where}: no samples below the header line: add a line for each image")
    _check_ids(where, rows)
    return rows


def _columns(where: str, header: Sequence[str]) -> dict[str, int]:
    """Return the index of each column by its name; "" is the number of columns."""
    names = [name.strip().lower() for name in header]
    for known in ("path", "label", "id"):
        if names.count(known) > 1:
            raise DatasetError(f"{where}: line 1: two columns named {known}: rename one")
    if "path" not in names:
        found = one_line(", ".join(header)) or "nothing"
        raise DatasetError(f"{where}: line 1: no column named path: the header needs path[,label][,id], found {found}")
    return {"": len(names)} | {name: index for index, name in enumerate(names) if name in ("path", "label", "id")}


def _collect(where: str, columns: dict[str, int], numbered: Iterator[tuple[int, list[str]]]) -> _Rows:
    paths: list[str] = []
    labels: list[str] = []
    sample_ids: list[str] = []
    rows = _Rows(paths, labels, sample_ids if "id" in columns else paths, [])
    for line, fields in numbered:
        if not fields:  # a blank line
            continue
        if len(fields) != columns[""]:
            raise DatasetError(f"{where}: line {line}: {len(fields)} fields, the header has {columns['']}")
        rows.lines.append(line)
        paths.append(fields[columns["path"]])
        if "label" in columns:
            labels.append(fields[columns["label"]].strip())
        if "id" in columns:
            sample_ids.append(fields[columns["id"]])
    return rows


def _check_ids(where: str, rows: _Rows) -> None:
    first_line: dict[str, int] = {}
    for path, sample_id, line in zip(rows.paths, rows.sample_ids, rows.lines, strict=True):
        if not path or not sample_id or "\0" in path or "\0" in sample_id:
            raise DatasetError(f"{where}: line {line}: path and id must not be empty or hold NUL characters")
        earlier = first_line.setdefault(sample_id, line)
        if earlier != line:
            raise DatasetError(
                f"{where}: line {line}: id {sample_id!r} is already on line {earlier}: "
                "remove one, or add a column id with a different value for each line"
            )


def _class_indices(file: str, rows: _Rows) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Return the label of each row, int64 (n,), and the class names where labels are names."""
    labels = rows.labels or [""] * len(rows.paths)
    given = {label for label in labels if label}
    if all(_INTEGER.fullmatch(label) for label in given):
        for label, line in zip(labels, rows.lines, strict=True):
            if label and not 0 <= _whole(label) <= _LARGEST_LABEL:
                raise DatasetError(
                    f"{file}: line {line}: label {label:.40}: class indices start at 0; "
                    "leave the field empty when the label is not known"
                )
        values = {label: _whole(label) for label in given}
        names = None
    else:
        names = tuple(sorted(given))
        values = {name: index for index, name in enumerate(names)}
    values[""] = UNKNOWN_LABEL
    return np.fromiter((values[label] for label in labels), np.int64, len(labels)), names


def _whole(label: str) -> int:
    """Return a label that is a whole number; of more digits than a class index has, one that is too large."""
    digits = label.lstrip("+-").lstrip("0") or "0"
    number = int(digits) if len(digits) <= len(str(_LARGEST_LABEL)) else _LARGEST_LABEL + 1
    return -number if label.startswith("-") else number


def _packed(texts: list[str]) -> PackedText:
    return PackedText(text.encode() for text in texts)


def _size(path: str) -> int:
    try:
        status = os.stat(path)
    except OSError:
        return UNKNOWN_SIZE
    return status.st_size if stat.S_ISREG(status.st_mode) else UNKNOWN_SIZE
