"""Sample ids are untrusted: no name made of them leaves the folder, meets another, or acts in a spreadsheet."""

from __future__ import annotations

import csv
import io
import itertools
import unicodedata
from pathlib import Path

import pytest

from batchcam.commands.export.folder import ExportFolder
from batchcam.errors import RunError
from batchcam.record.names import cell, csv_number, csv_table, safe_name

HOSTILE = [
    *("", ".", "..", "/", "../../etc/passwd", "/abs", "a/../b", "a//b", "./a", "a/", "a/.", ".hidden", "a/.hidden"),
    *(
        "a\0b",
        "a\nb",
        "a\rb",
        "a\tb",
        "a\x1b[31mb",
        "a\u202eb",
        "\udcffb",
        "C:\\x",
        "\\\\server\\share",
        "-rf",
        "~root",
    ),
    *("x" * 300, "é" * 150, "/".join("abcdefghijkl"), "a b ", " a", "a.", "a,b", 'a"b', "a|b", "a?b", "a*b", "a~b"),
    *("a:b", "a;b", "$(id)", "`id`", "%2e%2e/x", "x.png/y", "x.PNG/y", "x", "a_b", "a b"),
]


@pytest.mark.parametrize("sample_id", HOSTILE, ids=ascii)
def test_a_name_is_a_relative_path_that_stays_below_its_folder(sample_id: str, tmp_path: Path) -> None:
    name = safe_name(sample_id, ".png")
    parts = f"{name}.png".split("/")
    assert all(part not in ("", ".", "..") and not part.startswith((".", "-")) for part in parts)
    assert all(len(part.encode()) <= 255 - len(".0123456789abcdef.partial") for part in parts)
    assert name.isprintable()
    assert (tmp_path / f"{name}.png").resolve().is_relative_to(tmp_path.resolve())


def test_hostile_ids_never_share_a_file_and_none_is_anothers_folder(tmp_path: Path) -> None:
    names = [f"{safe_name(each, '.png')}.png" for each in HOSTILE]
    assert len(set(names)) == len(HOSTILE)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with (tmp_path / name).open("x"):
            pass
    assert sum(p.is_file() for p in tmp_path.rglob("*")) == len(HOSTILE)


@pytest.mark.parametrize(
    "sample_id", ["cat/0001.png", "蝶/фото 1.jpg", "a/b/c.d_e-f", "val/ILSVRC2012_val_00000001.JPEG"]
)
def test_a_plain_path_keeps_its_name(sample_id: str) -> None:
    assert safe_name(sample_id, ".npy") == sample_id


def test_a_name_depends_on_its_id_alone_and_cannot_be_forged_by_another_id() -> None:
    replaced = safe_name("a,b", ".npy")
    assert replaced == safe_name("a,b", ".npy")
    assert safe_name(replaced, ".npy") != replaced


def test_names_differ_in_more_than_case_and_unicode_form_where_the_file_system_folds_them() -> None:
    ids = ["Cat.png", "cat.png", "CAT.png", "é.png", unicodedata.normalize("NFD", "é.png"), "É.png", "ß", "ss"]
    folded = {unicodedata.normalize("NFC", safe_name(each, ".png", folds_case=True).casefold()) for each in ids}
    assert len(folded) == len(ids)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"], ids=ascii)
def test_a_cell_starts_no_formula(text: str) -> None:
    assert cell(text).startswith("'")
    assert cell(text).isprintable()


def test_a_cell_shows_what_is_not_printable_as_escapes() -> None:
    assert cell("a\nb\x1b[31m\u2028é 🦓\ud800") == "'a\\nb\\x1b[31m\\u2028é 🦓\\ud800"


@pytest.mark.parametrize("name", ["../x", "/x", "a/../x", "a//x", "", "a/\0", "."])
def test_the_folder_refuses_what_is_no_name(name: str, tmp_path: Path) -> None:
    folder = ExportFolder(tmp_path / "out", {})
    with pytest.raises(ValueError, match="no path below"):
        folder.write(name, b"")


def test_a_link_in_the_folder_does_not_lead_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = ExportFolder(tmp_path / "out", {})
    (tmp_path / "out" / "maps").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="leads out"):
        folder.write("maps/deeper/a.png", b"x")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_in_a_files_place_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"mine")
    folder = ExportFolder(tmp_path / "out", {})
    (tmp_path / "out" / "a.png").symlink_to(tmp_path / "target")
    assert not folder.has("a.png")
    folder.write("a.png", b"new")
    assert ((tmp_path / "out" / "a.png").read_bytes(), (tmp_path / "target").read_bytes()) == (b"new", b"mine")


def test_what_a_killed_export_left_is_removed_once_its_file_has_landed(tmp_path: Path) -> None:
    folder = ExportFolder(tmp_path / "out", {})
    left = tmp_path / "out" / f".a.png.{'0' * 16}.partial"
    left.write_bytes(b"half")
    folder.write("a.png", b"x")
    folder.finish()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "export.json"]


def test_all_pairs_of_ids_that_differ_in_replaced_characters_have_names_of_their_own() -> None:
    ids = ["".join(each) for each in itertools.product(",|?*\n\0", repeat=3)]
    assert len({safe_name(each, ".npy") for each in ids}) == len(ids)


def test_a_table_reads_back_and_runs_no_formula() -> None:
    rows = [["=1+1", 2, None], ["ä;b", csv_number(0.123456789), csv_number(float("nan"))]]
    table = csv_table(["name", "x", "y"], rows)
    assert b"\r" not in table
    assert list(csv.reader(io.StringIO(table.decode()))) == [
        ["name", "x", "y"],
        ["'=1+1", "2", ""],
        ["ä;b", "0.123457", ""],
    ]
