"""Tables that name images: CSV in its dialects and JSON Lines, each a header and rows of texts."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, NamedTuple, TextIO

from batchcam.images import remote
from batchcam.images.manifest_files import columns_for
from batchcam.images.members import Stored

_SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "|"}

MOST_COLUMNS: Final = 1000
"""Keys that the objects of JSON Lines have together."""


class TableError(Exception):
    """A file that is no such table; the message says on which line and why."""


class Reading(NamedTuple):
    """What the user says of how a table is meant.

    Attributes:
        columns: what a column of the table is here called, path, label or id, by what it is there.
        root: folder that paths start from, absolute or a URL; "" for that of the table's file.
        suffix: what each path lacks, such as ".jpg".
    """

    columns: Mapping[str, str] = {}
    root: str = ""
    suffix: str = ""

    def path(self, written: str) -> str:
        """Return where a file lies that a table names so."""
        return remote.joined(self.root, written + self.suffix)


NOTHING_SAID: Final = Reading()


class Table(NamedTuple):
    """Images, each a row.

    Attributes:
        rows: the number of the line on which each ends, and its fields; to be gone through once.
        notes: how it was read, a line each.
        stored: the images by the number of their row; None where a column says in which files they are.
        class_names: by class index, where labels are class indices that the table names.
        numbered: whether paths only count the rows, which have no ids of their own.
        columns: `Reading.columns` as they are meant here; None: as the user says.
    """

    header: Sequence[str]
    rows: Iterator[tuple[int, Sequence[str]]]
    notes: list[str]
    stored: Stored | None = None
    class_names: tuple[str, ...] | None = None
    numbered: bool = False
    columns: Mapping[str, str] | None = None


@contextlib.contextmanager
def text_table(file: str, reading: Reading) -> Iterator[Table]:
    """Open a .csv, .tsv or .jsonl file.

    Raises:
        TableError: it is none, also while its rows are read.
        OSError: it can't be read.
    """
    try:
        with (
            io.BytesIO(remote.read(file)) if remote.is_url(file) else open(file, "rb") as content,
            io.TextIOWrapper(content, encoding=(encoding := _encoding(content)), newline="") as stream,
        ):
            notes = ["encoding: UTF-16"] if encoding == "utf-16" else []
            name = remote.address(file).lower()
            if name.endswith(".jsonl"):
                yield _json_lines(stream, notes)
            else:
                yield from _separated(stream, name.endswith(".tsv"), reading, notes)
    except UnicodeDecodeError as error:
        raise TableError(
            "neither UTF-8 nor marked as UTF-16, but another encoding, such as Windows-1252: save it as UTF-8, such as "
            "by iconv -f WINDOWS-1252 -t UTF-8"
        ) from error


def as_text(value: Any) -> str:
    """Return a value of JSON or Arrow as a CSV file would have it: "" for none, lists and tables as JSON."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # JSON may hold half a character
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (bool, list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def numbers(count: int, prefix: str = "") -> Iterator[str]:
    """Yield ids such as "test/00012" for samples that have no names of their own."""
    width = max(5, len(str(count - 1)))
    return (f"{prefix}{index:0{width}d}" for index in range(count))


def _encoding(content: BinaryIO) -> str:
    head = content.read(4)
    content.seek(0)
    # UTF-32 begins with the same two bytes
    return "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") and head[2:] != b"\0\0" else "utf-8-sig"


def _separated(stream: TextIO, tabs: bool, reading: Reading, notes: list[str]) -> Iterator[Table]:
    separator = "\t" if tabs else _separator(stream, reading)
    if separator != "," and not tabs:
        notes.append(f"columns are separated by {_SEPARATORS[separator]}")
    reader = csv.reader(stream, strict=True, delimiter=separator)
    try:
        yield Table(next(reader, []), ((reader.line_num, fields) for fields in reader if fields), notes)
    except csv.Error as error:
        raise TableError(f"line {reader.line_num}: not CSV: {error}") from error


def _separator(stream: TextIO, reading: Reading) -> str:
    """Return what separates the columns: that by which the header has a path, else that of the most columns."""
    line = stream.readline()
    stream.seek(0)
    headers: dict[tuple[str, ...], str] = {}
    for separator in _SEPARATORS:
        with contextlib.suppress(csv.Error):
            headers.setdefault(tuple(next(csv.reader([line], delimiter=separator), [])), separator)
    found = [separator for header, separator in headers.items() if columns_for("path", header, reading.columns)]
    if len(found) > 1:
        told = " or ".join(_SEPARATORS[each] for each in found)
        raise TableError(f"line 1: columns may be separated by {told}: save it with commas")
    return found[0] if found else headers[max(headers, key=len, default=())] if headers else ","


def _json_lines(stream: TextIO, notes: list[str]) -> Table:
    found: list[tuple[int, dict[str, Any]]] = []
    header: dict[str, None] = {}
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TableError(f"line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise TableError(f"line {number}: expected an object of JSON, such as {{'path': 'a.jpg', 'label': 'cat'}}")
        header |= dict.fromkeys(row)
        if len(header) > MOST_COLUMNS:
            raise TableError(f"line {number}: more than {MOST_COLUMNS} different keys so far")
        found.append((number, row))
    names = list(header)
    return Table(
        [*map(as_text, names)], ((number, [as_text(row.get(name)) for name in names]) for number, row in found), notes
    )


def folder_of(file: str) -> str:
    """Return the folder that the paths of a table start from, where nobody names another."""
    return os.path.dirname(remote.address(remote.absolute(file)))
