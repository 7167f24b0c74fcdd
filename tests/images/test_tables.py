"""Tables of any dialect say the same, and what may be meant otherwise is refused."""

from __future__ import annotations

import csv
import json

import pytest

from batchcam.images.kinds import table_in
from batchcam.images.tables import NOTHING_SAID, Reading, TableError, as_text

ROWS = [["path", "label", "site"], ["a, b.jpg", "cät", "1;2"], ["c\td.jpg", "", "x|y"]]


def read(path, reading=NOTHING_SAID):
    with table_in(str(path), reading) as table:
        return [[*table.header], *([*fields] for _, fields in table.rows)], table.notes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize(
    ("name", "separator", "told"),
    [
        ("list.csv", ",", []),
        ("list.csv", ";", ["columns are separated by semicolons"]),
        ("list.csv", "\t", ["columns are separated by tabs"]),
        ("list.csv", "|", ["columns are separated by |"]),
        ("list.tsv", "\t", []),
    ],
)
def test_every_dialect_says_the_same(tmp_path, encoding, name, separator, told):
    with (tmp_path / name).open("w", encoding=encoding, newline="") as file:
        if encoding == "utf-16-le":
            file.write("\ufeff")
        csv.writer(file, delimiter=separator).writerows(ROWS)
    rows, notes = read(tmp_path / name)
    assert rows == ROWS
    assert notes == ["encoding: UTF-16"] * encoding.startswith("utf-16") + told


def test_one_column_is_a_table_whatever_stands_in_its_rows(tmp_path):
    (tmp_path / "list.csv").write_text("path\na;b.jpg\n")
    assert read(tmp_path / "list.csv")[0] == [["path"], ["a;b.jpg"]]


def test_a_header_that_two_separators_cut_into_columns_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("path;x,path\na.jpg;1,b.jpg\n")
    with pytest.raises(TableError, match="columns may be separated by commas or semicolons: save it with commas"):
        read(tmp_path / "list.csv")


def test_the_separator_is_found_by_a_column_that_the_user_names(tmp_path):
    (tmp_path / "list.csv").write_text("scan;dx\na.jpg;1,5\n")
    assert read(tmp_path / "list.csv", Reading({"path": "scan"}))[0] == [["scan", "dx"], ["a.jpg", "1,5"]]


@pytest.mark.parametrize("content", [b"path\ncaf\xe9.jpg\n", "path\na.jpg\n".encode("utf-32")])
def test_another_encoding_is_refused_with_what_to_do(tmp_path, content):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(TableError, match="save it as UTF-8"):
        read(tmp_path / "list.csv")


def test_an_error_of_csv_names_the_line_on_which_it_was_met(tmp_path):
    (tmp_path / "list.csv").write_text('path\na.jpg\n"b"c.jpg\n')
    with pytest.raises(TableError, match="line 3: not CSV"):
        read(tmp_path / "list.csv")


def test_json_lines_are_rows_of_all_keys(tmp_path):
    rows = [{"path": "a.jpg", "label": 1, "ok": True, "box": [1, 2]}, {"path": "é.jpg", "score": 0.5, "label": None}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    assert read(tmp_path / "list.jsonl")[0] == [
        ["path", "label", "ok", "box", "score"],
        ["a.jpg", "1", "true", "[1, 2]", ""],
        ["é.jpg", "", "", "", "0.5"],
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected an object"),
        ("[" * 100_000, "line 2: not JSON"),
        (json.dumps({str(n): n for n in range(1001)}), "line 2: more than 1000 different keys"),
    ],
)
def test_a_line_that_is_no_object_of_json_is_refused(tmp_path, line, message):
    (tmp_path / "list.jsonl").write_text('{"path": "a.jpg"}\n' + line + "\n")
    with pytest.raises(TableError, match=message):
        read(tmp_path / "list.jsonl")


def test_a_value_is_the_text_that_a_csv_file_would_have():
    values = [None, float("nan"), 3, 3.0, "x", False, ["ä"], {"a": 1}, "\ud800é"]
    assert [as_text(value) for value in values] == ["", "", "3", "3.0", "x", "false", '["ä"]', '{"a": 1}', "\\ud800é"]
