"""File names, columns and tables from a run's texts, which are untrusted."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import BinaryIO, Final

import numpy as np

from batchcam.errors import ConfigError, escaped
from batchcam.rules import array_name

COMPONENT_BYTES: Final = 180  # of the 255 that file systems allow; the rest is for endings and temporary names
PATH_BYTES: Final = 900
DEPTH: Final = 8
STEM_BYTES: Final = 80
FORBIDDEN: Final = frozenset('\\:*?"<>|,~')
"""What file systems, shells or the metadata files take for something else; ~ marks replaced names."""

DEVICES: Final = frozenset(
    ("con", "prn", "aux", "nul", "conin$", "conout$", *(p + n for p in ("com", "lpt") for n in "0123456789¹²³"))
)
"""Names that Windows keeps for devices, whatever ending follows."""

FORMULA: Final = re.compile(r"\s*[=+\-@＝＋－＠]")
HIDDEN_FORMULA: Final = re.compile(rf';(?=[\s"]*{FORMULA.pattern})')
"""A formula where a spreadsheet is set to take a semicolon for the end of a cell."""

MARK: Final = "'"
"""Starts a cell that is not the text itself but holds escapes; spreadsheets take what follows for text."""


def safe_name(sample_id: str, ending: str, folds_case: bool = False) -> str:
    """Return the sample id as a relative path without `ending` that stays below its folder.

    An id that is a plain relative path stays as it is. Any other becomes one name: its letters and digits, ~ and a
    digest of the id. Two ids never share a file, and a name depends on nothing but its id.

    Args:
        sample_id: any text.
        ending: what is appended to the name, such as ".png".
        folds_case: the file system takes names for one that differ in case or Unicode form only.
    """
    parts = sample_id.split("/")
    plain = all(map(_is_plain, parts)) and len(parts) <= DEPTH and len(sample_id.encode(errors="replace")) <= PATH_BYTES
    # a folder of this name would lie where the file of another id has to go
    plain = plain and not any(part.casefold().endswith(ending) for part in parts[:-1])
    if folds_case:
        plain = plain and sample_id == unicodedata.normalize("NFC", sample_id.casefold())
    if plain:
        return sample_id
    stem = re.sub(r"[^\w.-]+", "_", sample_id).encode(errors="replace")[:STEM_BYTES].decode(errors="ignore")
    stem = stem.strip("._-") or "sample"
    digest = hashlib.sha256(sample_id.encode(errors="surrogatepass")).hexdigest()[:32]
    return f"{'_' if _is_device(stem) else ''}{stem}~{digest}"


def _is_plain(part: str) -> bool:
    return (
        bool(part)
        and part.isprintable()
        and not FORBIDDEN & set(part)
        and not part.startswith((".", "-", " "))
        and not part.endswith((".", " "))
        and len(part.encode()) <= COMPONENT_BYTES
        and not _is_device(part)
    )


def _is_device(name: str) -> bool:
    return name.partition(".")[0].rstrip().casefold() in DEVICES


def cell(text: str) -> str:
    r"""Return a text as a cell that no spreadsheet runs as a formula, on one line, from which the text comes back.

    Most texts stay as they are. One that starts like a formula or with an apostrophe, holds a character that does not
    print, or a semicolon before what would be a formula, becomes an apostrophe and the text with escapes as in a
    Python string: \n, \x1b, \u202e, \\ for a backslash, \x3b for such a semicolon.
    """
    exact = text.isprintable() and not (text.startswith(MARK) or FORMULA.match(text) or HIDDEN_FORMULA.search(text))
    if exact:
        return text
    safe = "".join(c if c.isprintable() and c != "\\" else escaped(c) for c in text)
    return MARK + HIDDEN_FORMULA.sub(r"\\x3b", safe)


def text_of(written: str) -> str:
    """Return the text of which `cell` made a cell; what somebody else began with an apostrophe stays as it is."""
    if not written.startswith(MARK):
        return written
    try:
        return written[1:].encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError:
        return written


def csv_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a CSV table, see `write_csv`."""
    data = io.BytesIO()
    write_csv(data, header, rows)
    return data.getvalue()


def write_csv(content: BinaryIO, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV table in UTF-8: a header line; texts as `cell` has them, None an empty cell."""
    # encoded as it grows: as one text, a million rows with a rare character take four times the room
    text = io.TextIOWrapper(content, "utf-8", "backslashreplace", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([cell(v) if isinstance(v, str) else v for v in row] for row in rows)
    text.detach()


def csv_number(value: float) -> str | None:
    """Return a number as a cell, empty where it is not finite."""
    return f"{value:.6g}" if np.isfinite(value) else None


def stored_columns(wanted: Iterable[str], there: Iterable[str], whose: object) -> list[str]:
    """Return the names under which columns of a manifest are stored; each may be given as the manifest has it.

    Raises:
        ConfigError: a column is not there.
    """
    known, found = [*there], []
    for name in wanted:
        stored = next((each for each in (name, array_name(name)) if each in known), None)
        if stored is None:
            told = f"it has {', '.join(known)}" if known else "it has none: only a manifest's further columns are kept"
            raise ConfigError(f"{whose}: no column {name!r}; {told}")
        found.append(stored)
    return found
