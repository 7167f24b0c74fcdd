"""Verdicts in a CSV file: what is written comes back, whatever a spreadsheet made of it in between."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas
import pytest

from batchcam.errors import BatchcamError, RunError
from batchcam.record.verdicts import COLUMNS, Verdict, append_verdict, read_verdicts, sheet_of
from batchcam.rules import VERDICTS

HOSTILE = ("=cmd|' /C calc'!A0", "+1", "a\nb", "'quoted", 'say "no"', "a;=b", "ü,\u202e", " spaces ")


def verdict(sample_id: str = "a.png", **said: str) -> Verdict:
    return Verdict("r" * 64, sample_id, "d" * 64, "cat", "dog", "drawn at random", "12.5", **said)


def read(path: Path, content: bytes) -> list[Verdict]:
    path.write_bytes(content)
    return [*read_verdicts(path, VERDICTS)]


@pytest.mark.parametrize("text", HOSTILE)
def test_verdicts_come_back_from_their_sheet_and_no_cell_is_a_formula(text: str, tmp_path: Path) -> None:
    said = [verdict(text, verdict="unclear", reviewer="ann", comment=text), verdict("b.png")]
    assert read(tmp_path / "v.csv", sheet_of(said)) == said
    cells = [c for row in csv.reader(io.StringIO(sheet_of(said).decode("utf-8-sig"))) for c in row]
    assert not [c for c in cells if c.lstrip()[:1] in ("=", "+", "-", "@") and c.lstrip()]


def test_verdicts_come_back_from_what_a_german_spreadsheet_saves(tmp_path: Path) -> None:
    said = [verdict(verdict="unclear", reviewer="Jürgen", comment="so; oder so"), verdict("b.png")]
    rows = [*csv.DictReader(io.StringIO(sheet_of(said).decode("utf-8-sig")))]
    rows[0] |= {"verdict": " Unclear", "weight": "12,5"}
    saved = io.StringIO(newline="")
    writer = csv.DictWriter(
        saved, [*COLUMNS[::-1], "Spalte"], delimiter=";", quoting=csv.QUOTE_ALL, lineterminator="\r\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    found = read(tmp_path / "v.csv", b"\xef\xbb\xbf" + (saved.getvalue() + ";;\r\n").encode())
    assert [(v.verdict, v.reviewer, v.comment) for v in found] == [("unclear", "Jürgen", "so; oder so"), ("", "", "")]


def test_a_sheet_opens_in_pandas(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_bytes(sheet_of([verdict("ü.png", verdict="unclear")]))
    table = pandas.read_csv(tmp_path / "v.csv")
    assert [*table] == [*COLUMNS]
    assert (table.sample_id[0], table.weight[0]) == ("ü.png", 12.5)


def test_appending_makes_the_file_and_keeps_what_is_there(tmp_path: Path) -> None:
    path, first, second = tmp_path / "v.csv", verdict(verdict="unclear", reviewer="a"), verdict("b.png", comment="x\ny")
    append_verdict(path, first)
    append_verdict(path, second)
    assert [*read_verdicts(path, VERDICTS)] == [first, second]
    path.write_bytes(path.read_bytes()[:-1])  # a machine that went down
    append_verdict(path, first)
    assert [*read_verdicts(path, VERDICTS)] == [first, second, first]


def test_appending_goes_on_with_a_sheet(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_bytes(sheet_of([verdict()]))
    append_verdict(tmp_path / "v.csv", verdict("b.png"))
    assert [v.sample_id for v in read_verdicts(tmp_path / "v.csv", VERDICTS)] == ["a.png", "b.png"]


def test_appending_to_another_file_is_refused_and_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RunError, match=r"v\.csv: does not begin as batchcam's verdicts do"):
        append_verdict(tmp_path / "v.csv", verdict())
    assert (tmp_path / "v.csv").read_text() == "a,b\n1,2\n"


HEAD = "run_id,sample_id,input_sha256,verdict,comment\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its first line has to name run_id, sample_id, input_sha256, verdict"),
        (b"run_id,verdict,verdict\n", "has to name sample_id, input_sha256, verdict, each once"),
        ((HEAD + "r,a,d,maybe,\n").encode(), "v.csv:2: verdict 'maybe': none of right-reasons, wrong-reasons, unclear"),
        ((HEAD + "r,a,d,unclear,so, or so\n").encode(), "v.csv:2: 6 cells under 5 columns: quote a comment's commas"),
        ((HEAD + 'r,a,d,unclear,"\n').encode(), "not CSV: unexpected end of data"),
        (HEAD.encode() + b"r,a,d,unclear,f\xfcr\n", "not in UTF-8: save it as 'CSV UTF-8'"),
    ],
    ids=["empty", "columns", "word", "cells", "quote", "encoding"],
)
def test_what_is_no_sheet_is_refused_by_file_and_line(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(BatchcamError, match="(?s)" + message.replace(".", r"\.")):
        read(tmp_path / "v.csv", content)
