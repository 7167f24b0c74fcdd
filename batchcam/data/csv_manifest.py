"""A manifest: `path[,label][,id]` and what else, a row for each image; paths are relative to its file."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batchcam.data.labels import LARGEST_LABEL, whole_number
from batchcam.data.samples import UNKNOWN_LABEL, UNKNOWN_SIZE, FileSource, PackedText, Source
from batchcam.data.stored_source import StoredSource
from batchcam.errors import ConfigError, DatasetError, one_line
from batchcam.images.archives import ArchiveError
from batchcam.images.decoding import IMAGE_ENDINGS
from batchcam.images.kinds import table_in
from batchcam.images.manifest_files import SYNONYMS, columns_for, is_of_windows, stored_path
from batchcam.images.members import HolderError
from batchcam.images.passing_faults import passing_fault
from batchcam.images.remote import is_url, joined, read, without_secrets
from batchcam.images.tables import NOTHING_SAID, Reading, Table, TableError, folder_of
from batchcam.rules import array_name

_NOT_KNOWN: Final = frozenset(("", "nan", "<na>", "null", "#n/a", "n/a", "nat"))
"""Labels that are none, in lower case, as spreadsheets and data frames write them."""

NOT_KNOWN_NUMBER: Final = _NOT_KNOWN | {"none", "na", "-"}
"""Among numbers; among names these may be names."""

NO_LABEL_COLUMN: Final = "no column is named label"
"""How a note begins that does not hold where other columns are labels."""

MOST_META: Final = 256
MOST_META_BYTES: Final = 4096
"""Further columns, and bytes of one of their texts or names, that are kept: each takes its place in every shard."""

_LIKE_PATH: Final = re.compile("path|file|image|img|photo|name|id", re.IGNORECASE)
"""What stands in the name of a column that may say where images are."""


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The columns, those besides by the names of their arrays, the line on which each row ends, and what to tell."""

    paths: list[str]
    labels: list[str]
    sample_ids: list[str]
    meta: dict[str, list[str]]
    lines: list[int]
    notes: list[str]


def open_csv(spec: str, file: str, sizes: bool = True, reading: Reading = NOTHING_SAID) -> Source:
    """List the samples of a manifest, CSV, JSON Lines or Parquet, with named columns in any order.

    Labels are class indices when all that are given are whole numbers, else class names, which get their index by
    sorting; which of them numbers are is settled by `match_classes`. The id of a sample is its path as written, unless
    there is a column `id`. A file that does not exist stays a sample, to be reported as unreadable. Other columns are
    `meta` of the source, but for those that no array can hold, which are told of.

    Args:
        sizes: whether to look at each file for its size.
        reading: what the user says of how it is meant.

    Raises:
        DatasetError: the file is no such manifest; the message names the line.
    """
    where = one_line(without_secrets(file))
    with refusing(where), table_in(file, reading) as table:
        rows = _read_rows(where, table, reading)
    labels, class_names, numeric = classes = _classes(where, rows, table.class_names)
    if table.stored is not None:
        return _stored_source(spec, table, reading, rows, classes)
    if reading.root and not is_url(reading.root) and not os.path.isdir(reading.root):
        raise DatasetError(f"--root {reading.root}: no such folder")
    folder = folder_of(file)
    paths = _found(where, folder, rows, reading)
    own_ids = None if rows.sample_ids is paths else rows.sample_ids
    found = _sizes(folder, paths) if sizes else np.full(len(paths), UNKNOWN_SIZE, np.int64)
    if sizes and not reading.suffix and not is_url(joined(folder, paths[0])) and (found == UNKNOWN_SIZE).all():
        _check_suffix(where, folder, paths[0])
    source = FileSource(
        spec,
        folder,
        _packed(paths),
        labels,
        found,
        class_names,
        rows.notes,
        numeric=numeric,
        sample_ids=None if own_ids is None else _packed(own_ids),
    )
    source.meta = _meta(rows)
    # a listing has no signatures: the manifest has to be read again
    source.manifest_sha256 = "" if any(map(_is_secret, paths)) else manifest_digest(file)
    source.several = "" if numeric else _several(where, rows, {*(class_names or ())})
    return source


def open_table(spec: str, table: Table, reading: Reading) -> Source:
    """List the samples of a table that holds its images.

    Raises:
        DatasetError: its rows can't be samples.
    """
    where = one_line(spec)
    rows = _read_rows(where, table, reading)
    return _stored_source(spec, table, reading, rows, _classes(where, rows, table.class_names))


@contextlib.contextmanager
def refusing(where: str) -> Iterator[None]:
    """Raise DatasetError for what is no dataset, or can't be read."""
    try:
        yield
    except (TableError, ArchiveError, HolderError) as error:
        raise DatasetError(f"{where}: {one_line(error)}") from error
    except OSError as error:
        if fault := passing_fault(error):
            raise fault from error
        other = f" {os.path.basename(error.filename)}" if isinstance(error.filename, str) else ""
        other = "" if where.endswith(other.strip()) else one_line(other)
        raise DatasetError(f"{where}: cannot read{other}: {one_line(error.strerror or error)}") from error


def _stored_source(
    spec: str,
    table: Table,
    reading: Reading,
    rows: _Rows,
    classes: tuple[NDArray[np.int64], tuple[str, ...] | None, bool],
) -> Source:
    labels, class_names, numeric = classes
    if table.stored is None:
        raise DatasetError(f"{one_line(spec)}: holds only the paths of its images: name the Parquet file, and --root")
    if reading.root or reading.suffix:
        raise DatasetError(f"{one_line(spec)}: holds its images: leave --root and --suffix out")
    ids = _packed(rows.sample_ids)
    source = StoredSource(spec, ids, labels, table.stored, class_names, rows.notes, numeric=numeric)
    source.meta = _meta(rows)
    source.several = "" if numeric else _several(one_line(spec), rows, {*(class_names or ())})
    source.numbered = table.numbered and rows.sample_ids is rows.paths
    return source


def _meta(rows: _Rows) -> dict[str, PackedText]:
    return {name: _packed(texts) for name, texts in sorted(rows.meta.items())}


def manifest_digest(file: str) -> str:
    """Return the SHA-256 of a manifest, hex.

    Raises:
        DatasetError: it can't be read.
    """
    digest = hashlib.sha256()
    try:
        if is_url(file):
            return hashlib.sha256(read(file)).hexdigest()
        with open(file, "rb", buffering=0) as stream:
            while block := stream.read(2**20):
                digest.update(block)
    except OSError as error:
        raise DatasetError(f"{one_line(without_secrets(file))}: cannot read: {error.strerror}") from error
    return digest.hexdigest()


def _read_rows(where: str, table: Table, reading: Reading) -> _Rows:
    notes = [*table.notes]
    columns = _columns(where, table, reading, notes)
    meta = _meta_columns(table.header, columns, notes)
    rows = _without_secrets(_collect(where, columns, meta, table.rows, notes))
    if not rows.paths:
        raise DatasetError(f"{where}: no samples below the header line: add a line for each image")
    _check_ids(where, rows)
    _keep_storable(rows)
    return rows


def _is_secret(path: str) -> bool:
    return "://" in path and without_secrets(path) != path


def _without_secrets(rows: _Rows) -> _Rows:
    """Return rows whose ids are no URLs with passwords or signatures, and tell of those."""
    if secret := sum(map(_is_secret, rows.paths)):
        rows.notes.append(f"{secret} URLs are recorded without their passwords or signatures")
        if rows.sample_ids is rows.paths:
            return dataclasses.replace(rows, sample_ids=[*map(without_secrets, rows.paths)])
    return rows


def _columns(where: str, table: Table, reading: Reading, notes: list[str]) -> dict[str, int]:
    """Return the index of each column by its name; "" is the number of columns."""
    header, said = table.header, reading.columns if table.columns is None else table.columns
    columns = {"": len(header)}
    for known in SYNONYMS:
        found = columns_for(known, header, said)
        if known in said and not found:
            named = one_line(", ".join(header))
            raise DatasetError(f"{where}: line 1: no column {said[known]}, which --columns names: there are {named}")
        if len(found) > 1:
            listed = ", ".join(one_line(header[index]) for index in found)
            raise DatasetError(f"{where}: line 1: two columns named {known}, or that could be it: {listed}: rename one")
        if found:
            columns[known] = found[0]
            if (name := header[found[0]].strip()).lower() != known and not (table.stored and known == "path"):
                notes.append(f"column {one_line(name)} is taken for {known}")
    if "path" not in columns:
        named = one_line(", ".join(header)) or "nothing"
        raise DatasetError(
            f"{where}: line 1: no column named path: the header needs path[,label][,id], found {named}{_advice(header)}"
        )
    return columns


def _advice(header: Sequence[str]) -> str:
    """Return the option that would say which columns are which, as far as their names tell."""
    labels = columns_for("label", header, {})
    paths = [i for i, name in enumerate(header) if i not in labels and _LIKE_PATH.search(name)]
    if not paths:
        return ""
    label = f",label={one_line(header[labels[0]].strip())}" if len(labels) == 1 else ""
    said = shlex.quote(f"path={one_line(header[paths[0]].strip())}{label}")
    return f": say --columns {said}, with --root and --suffix where need be"


def _meta_columns(header: Sequence[str], columns: dict[str, int], notes: list[str]) -> dict[str, int]:
    """Return the index of each further column by the name of its array; tell of those that can't have one."""
    known = {index for name, index in columns.items() if name}
    others = {index: array_name(name) for index, name in enumerate(header) if index not in known}
    if others and "label" not in columns:
        notes.append(f"{NO_LABEL_COLUMN}, so that no sample has one: {_named(others.values())}")
    if len(others) > MOST_META:
        notes.append(f"{len(others)} further columns are passed over: at most {MOST_META} are kept")
        return {}
    kept = {name: index for index, name in others.items()}
    for name, count in Counter(others.values()).items():
        if not name or count > 1 or len(name.encode()) > MOST_META_BYTES:
            why = "it needs a name" if not name else f"named {count} times" if count > 1 else "too long a name"
            notes.append(f"column passed over: {_named([name])}: {why}")
            del kept[name]
    return kept


def _keep_storable(rows: _Rows) -> None:
    """Pass over, and tell of, further columns with a text that no array of a run can hold."""
    for name, texts in list(rows.meta.items()):
        for text, line in zip(texts, rows.lines, strict=True):
            size = len(text.encode())
            if size > MOST_META_BYTES or "\0" in text:
                why = (
                    "a NUL character"
                    if "\0" in text
                    else f"{size} bytes, more than the {MOST_META_BYTES} that are kept"
                )
                rows.notes.append(f"column passed over: {_named([name])}: line {line} has {why}")
                del rows.meta[name]
                break


def _named(names: Iterable[str]) -> str:
    return ", ".join(one_line(name)[:40] or "(no name)" for name in names)


def _collect(
    where: str,
    columns: dict[str, int],
    meta_columns: dict[str, int],
    numbered: Iterator[tuple[int, Sequence[str]]],
    notes: list[str],
) -> _Rows:
    paths: list[str] = []
    labels: list[str] = []
    sample_ids: list[str] = []
    meta: dict[str, list[str]] = {name: [] for name in meta_columns}
    rows = _Rows(paths, labels, sample_ids if "id" in columns else paths, meta, [], notes)
    blank = 0
    for line, fields in numbered:
        if not any(map(str.strip, fields)):
            blank += 1
            continue
        if len(fields) != columns[""]:
            raise DatasetError(f"{where}: line {line}: {len(fields)} fields, the header has {columns['']}")
        rows.lines.append(line)
        paths.append(fields[columns["path"]])
        if "label" in columns:
            labels.append(fields[columns["label"]].strip())
        if "id" in columns:
            sample_ids.append(fields[columns["id"]])
        for name, index in meta_columns.items():
            meta[name].append(fields[index])
    if blank:
        notes.append(f"{blank} lines passed over that hold nothing but separators")
    return rows


def _check_ids(where: str, rows: _Rows) -> None:
    first_line: dict[str, int] = {}
    for path, sample_id, line in zip(rows.paths, rows.sample_ids, rows.lines, strict=True):
        if not path or not sample_id or "\0" in path or "\0" in sample_id:
            raise DatasetError(
                f"{where}: line {line}: path and id must not be empty or hold NUL characters: fill in, or "
                "take the line out"
            )
        earlier = first_line.setdefault(sample_id, line)
        if earlier != line:
            raise DatasetError(
                f"{where}: line {line}: id {sample_id!r} is already on line {earlier}: "
                "remove one, or add a column id with a different value for each line"
            )


def _classes(
    where: str, rows: _Rows, known: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], tuple[str, ...] | None, bool]:
    """Return the label of each row, int64 (n,), the class names where these are names, and whether they are numbers.

    Args:
        known: the class names where labels are their indices.
    """
    count = len(rows.paths)
    given = {label for label in rows.labels if label.lower() not in NOT_KNOWN_NUMBER}
    numbers = {label: whole_number(label) for label in given}
    numeric = bool(given) and None not in numbers.values()
    if not numeric:
        given = {label for label in rows.labels if label.lower() not in _NOT_KNOWN}
    if known is not None:
        values, names, numeric = _indices(where, numbers, known), known, False
    elif numeric and all(0 <= (number or 0) <= LARGEST_LABEL for number in numbers.values()):
        values, names = {label: number or 0 for label, number in numbers.items()}, None
    else:
        names = tuple(sorted(given)) or None
        values = {name: index for index, name in enumerate(names or ())}
    labels = np.fromiter((values.get(label, UNKNOWN_LABEL) for label in rows.labels), np.int64, len(rows.labels))
    if unknown := int((labels < 0).sum()):
        rows.notes.append(f"{unknown} of {count} samples have no label")
    return labels if rows.labels else np.full(count, UNKNOWN_LABEL, np.int64), names, numeric


def _indices(where: str, numbers: Mapping[str, int | None], names: Sequence[str]) -> dict[str, int]:
    """Return the class index of each label that is one; -1 is none."""
    for label, number in numbers.items():
        if number is None or not UNKNOWN_LABEL <= number < len(names):
            raise DatasetError(f"{where}: label {label:.40} is none of its {len(names)} classes")
    return {label: number for label, number in numbers.items() if number is not None}


def _several(where: str, rows: _Rows, given: set[str]) -> str:
    """Return what `Source.several` says."""
    for label, line in zip(rows.labels, rows.lines, strict=False):
        parts = [part.strip() for part in label.replace(";", ",").split(",")]
        is_list = label.startswith("[") and label.endswith("]")
        if is_list or "|" in label or (len(parts) > 1 and all(part in given for part in parts)):
            return (
                f"{where}: line {line}: label {label:.40} is several labels (multi-label), and a sample has one here: "
                "--problem-type multi-label reads them where each is a class of the network"
            )
    return ""


def _found(where: str, folder: str, rows: _Rows, reading: Reading) -> list[str]:
    """Return where the files lie, and tell where that is not as written."""
    written = rows.paths
    if reading.root or reading.suffix:
        written = [reading.path(path) for path in rows.paths]
    for path, line in zip(rows.paths, rows.lines, strict=True):
        if is_of_windows(path) and not os.path.lexists(os.path.join(folder, path)):
            raise ConfigError(
                f"{where}: line {line}: {one_line(path):.80} has a drive of Windows, which is not here: write paths as "
                "this machine has them"
            )
    paths = [stored_path(folder, path) for path in written]
    changed = [(path, found) for path, found in zip(written, paths, strict=True) if path != found]
    slashed = sum("\\" in path and "\\" not in found for path, found in changed)
    missing = sum(
        "\\" in path and not is_url(path) and not os.path.lexists(os.path.join(folder, path)) for path in paths
    )
    for count, what in (
        (slashed, "are written with backslashes, as on Windows, and found with slashes"),
        (len(changed) - slashed, "are found in another Unicode form than they are written in"),
        (missing, "are written with backslashes, as on Windows, and found neither so nor with slashes"),
    ):
        if count:
            rows.notes.append(f"{count} of {len(paths)} paths {what}")
    return paths if changed else written


def _check_suffix(where: str, folder: str, path: str) -> None:
    """Refuse paths of which the first leads to a file only with an ending."""
    for ending in IMAGE_ENDINGS:
        if os.path.isfile(os.path.join(folder, path + ending)):
            raise DatasetError(
                f"{where}: none of its files is there, but {one_line(path)}{ending}: say --suffix {ending}"
            )


def _packed(texts: list[str]) -> PackedText:
    return PackedText(text.encode() for text in texts)


def _sizes(folder: str, paths: list[str]) -> NDArray[np.int64]:
    return np.fromiter((_size(joined(folder, path)) for path in paths), np.int64, len(paths))


def _size(path: str) -> int:
    if is_url(path):
        return UNKNOWN_SIZE
    try:
        status = os.stat(path)
    except OSError:
        return UNKNOWN_SIZE
    return status.st_size if stat.S_ISREG(status.st_mode) else UNKNOWN_SIZE
