"""What people say of samples that they looked at: a CSV file that spreadsheets keep, and that grows line by line."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from batchcam.errors import BatchcamError, RunError
from batchcam.record.names import csv_table, text_of
from batchcam.store.landing import write_error

SEPARATORS: Final = (",", ";", "\t")
"""Of cells; spreadsheets write a semicolon where the comma is for decimals."""

BOM: Final = "\ufeff".encode()
"""Without it Excel takes UTF-8 for another encoding, and saves what it made of it."""

NEEDED: Final = ("run_id", "sample_id", "input_sha256", "verdict")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What one person says of one sample; but for `where` its fields are the columns of the file, in their order.

    Attributes:
        run_id: of the run that was looked at.
        sample_id: in it.
        input_sha256: digest of the image, hex.
        prediction, label: names of classes, "" for none.
        reason: why the sample was drawn, "" if it was not.
        weight: how many samples of the run it stands for, "" if it was not drawn.
        verdict: one of the words agreed on, "": none yet.
        reviewer: who says so.
        comment: in free words.
        where: file and line.
    """

    run_id: str
    sample_id: str
    input_sha256: str
    prediction: str = ""
    label: str = ""
    reason: str = ""
    weight: str = ""
    verdict: str = ""
    reviewer: str = ""
    comment: str = ""
    where: str = dataclasses.field(default="", compare=False)


COLUMNS: Final = tuple(field.name for field in dataclasses.fields(Verdict) if field.name != "where")
_HEADER: Final = csv_table(COLUMNS, ())


def sheet_of(verdicts: Iterable[Verdict]) -> bytes:
    """Return the file that holds these verdicts, for a spreadsheet."""
    return BOM + csv_table(COLUMNS, map(_cells, verdicts))


def has_verdicts(path: Path) -> bool:
    """Return whether a file begins as those that `append_verdict` adds to, or False for an empty one.

    Raises:
        RunError: something else lies there.
    """
    with path.open("rb") as file:
        head = file.read(len(BOM + _HEADER)).removeprefix(BOM)
    if head and not head.startswith(_HEADER):
        raise RunError(f"{path}: does not begin as batchcam's verdicts do; name another file: review reads both")
    return bool(head)


def append_verdict(path: Path, verdict: Verdict) -> None:
    """Add a verdict to a file, which is made if it is not there; of one reviewer's on a sample the last one counts.

    Raises:
        RunError: something else lies there.
        BatchcamError: it can't be written.
    """
    line = csv_table(COLUMNS, [_cells(verdict)])[len(_HEADER) :]
    try:
        with path.open("a+b") as file:
            if has_verdicts(path):
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else b"\n" + line  # a write that was cut short
            else:
                line = _HEADER + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(path, error) from error


def read_verdicts(path: Path, words: Sequence[str]) -> Iterator[Verdict]:
    """Yield the lines of a file: in UTF-8, columns in any order, between commas, semicolons or tabs.

    Args:
        words: that a verdict can be; one written in other cases is taken for it.

    Raises:
        BatchcamError: it can't be read, is no such file, or says another word; the message names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BatchcamError(f"{path}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BatchcamError(f"{path}: not in UTF-8: save it as 'CSV UTF-8'") from error
    first = text.partition("\n")[0]
    separator = max(SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader, ())]
        missing = [name for name in NEEDED if header.count(name) != 1]
        if missing:
            raise BatchcamError(f"{path}: its first line has to name {', '.join(missing)}, each once")
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if any(cells[len(header) :]):
                raise BatchcamError(
                    f"{where}: {len(cells)} cells under {len(header)} columns: quote a comment's commas"
                )
            if any(map(str.strip, cells)):
                yield _verdict(dict(zip(header, cells, strict=False)), words, where)
    except csv.Error as error:
        raise BatchcamError(f"{path}:{reader.line_num}: not CSV: {error}") from error


def _cells(verdict: Verdict) -> tuple[str, ...]:
    return tuple(getattr(verdict, name) for name in COLUMNS)


def _verdict(cells: dict[str, str], words: Sequence[str], where: str) -> Verdict:
    values = {name: text_of(cells.get(name, "")) for name in COLUMNS}
    said = values["verdict"].strip().casefold()
    word = next((word for word in ("", *words) if word.casefold() == said), None)
    if word is None:
        others = "others are those of draw.json beside it, or of review --verdicts"
        raise BatchcamError(f"{where}: verdict {said!r}: none of {', '.join(words)}; {others}")
    return Verdict(**values | {"verdict": word, "reviewer": values["reviewer"].strip()}, where=where)
