"""A CSV manifest lists what it says, and errors name the line."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from batchcam.data.csv_manifest import open_csv
from batchcam.data.samples import FileSource
from batchcam.data.sources import open_source
from batchcam.errors import ConfigError, DatasetError
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.tables import Reading
from tests.helpers import places


def manifest(tmp_path: Path, text: str | bytes) -> FileSource:
    file = tmp_path / "list.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_csv("spec", str(file))


def test_names_become_sorted_classes_and_paths_become_ids(tmp_path: Path) -> None:
    listed = manifest(tmp_path, "path,label\nx/1.png,dog\n2.png,cat\n3.png,\n4.png,7\n")
    assert list(listed.sample_ids) == ["x/1.png", "2.png", "3.png", "4.png"]
    assert listed.class_names == ("7", "cat", "dog")
    assert listed.labels.tolist() == [2, 1, -1, 0]


def test_whole_numbers_are_class_indices_without_names(tmp_path: Path) -> None:
    listed = manifest(tmp_path, "path,label\n1.png,3\n2.png,\n3.png, 0 \n4.png,07\n")
    assert listed.class_names is None
    assert listed.labels.tolist() == [3, -1, 0, 7]


@pytest.mark.parametrize("text", ["path\n1.png\n", "path,label\n1.png,\n", "path,other\n1.png,x\n"])
def test_no_labels_are_not_known(tmp_path: Path, text: str) -> None:
    listed = manifest(tmp_path, text)
    assert (listed.labels.tolist(), listed.class_names) == ([-1], None)


def test_columns_come_in_any_order_with_others_between(tmp_path: Path) -> None:
    listed = manifest(tmp_path, "camera,ID, Label ,path\nnorth,first,1,a.png\nsouth,second,0,a.png\n")
    assert list(listed.sample_ids) == ["first", "second"]
    assert listed.labels.tolist() == [1, 0]


def test_byte_order_mark_line_ends_quotes_and_blank_lines_are_csv(tmp_path: Path) -> None:
    listed = manifest(tmp_path, b'\xef\xbb\xbfpath,label\r\n"a, ""b"".png",caf\xc3\xa9\r\n\r\n"two\nlines.png",x\r\n')
    assert list(listed.sample_ids) == ['a, "b".png', "two\nlines.png"]
    assert listed.class_names == ("café", "x")


def test_files_are_found_beside_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ü").mkdir()
    Image.new("RGB", (5, 4)).save(tmp_path / "ü/1.png")
    monkeypatch.chdir("/")
    listed = manifest(tmp_path, "path,id\nü/1.png,one\ngone.png,two\n.,three\n")
    data = (tmp_path / "ü/1.png").read_bytes()
    assert listed.sizes.tolist() == [len(data), -1, -1]
    assert listed.read(0).sha256 == hashlib.sha256(data).digest()
    with pytest.raises(UnreadableImageError, match=r"^No such file or directory$"):
        listed.read(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,1\n", r"line 1: no column named path: .* found file, label"),
        ("", "line 1: no column named path: .* found nothing"),
        ("path,path\na,b\n", "line 1: two columns named path"),
        ("path,label\n", "no samples below the header line"),
        ("path,label\na.png,1\nb.png\n", "line 3: 1 fields, the header has 2"),
        ("path,label\na.png,1\nb.png,1,2\n", "line 3: 3 fields"),
        ("filename,image,label\na,b,1\n", "line 1: two columns named path, or that could be it: filename, image"),
        ("path,id\na.png,x\nb.png,x\n", "line 3: id 'x' is already on line 2"),
        ("path,label\n,1\n", "line 2: path and id must not be empty"),
        ('path,label\na.png,"x"y\n', "line 2: not CSV"),
        ('path,label\na.png,"x\n', "line 2: not CSV"),
        (b"path\n\xff.png\n", "neither UTF-8 nor marked as UTF-16, .*: save it as UTF-8"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=f"list.csv: {message}") as caught:
        manifest(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("labels", "several"), [(("cat", "dog", "dog; cat"), "dog; cat"), (("0", "2", "0,2"), "0,2")])
def test_a_label_that_is_several_is_told_with_its_line(tmp_path: Path, labels: tuple[str, ...], several: str) -> None:
    listed = manifest(tmp_path, "path,label\n" + "".join(f'{i}.png,"{label}"\n' for i, label in enumerate(labels)))
    assert re.search(f"list.csv: line 4: label {several} is several labels", listed.several)
    assert manifest(tmp_path, "path,label\na.png,cat\n").several == ""


@pytest.mark.parametrize("label", [str(2**31), "-1", "-1.0"])
def test_whole_numbers_that_no_class_index_has_stay_names(tmp_path: Path, label: str) -> None:
    listed = manifest(tmp_path, f"path,label\n1.png,{label}\n2.png,0\n")
    assert (set(listed.class_names), listed.numeric) == ({label, "0"}, True)


def test_zeros_before_a_class_index_do_not_count(tmp_path: Path) -> None:
    source = manifest(tmp_path, f"path,label\n1.png,{'0' * 5000}7\n2.png,+07\n3.png,-0\n")
    assert list(source.labels) == [7, 7, 0]


def test_nul_characters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="line 2"):
        manifest(tmp_path, "path\na\0.png\n")


@pytest.mark.parametrize("nothing", ["", "nan", "NaN", "<NA>", "NULL", "#N/A", " "])
def test_labels_that_tables_write_for_nothing_are_not_known_and_counted(tmp_path: Path, nothing: str) -> None:
    for known, names in (("cat", ("cat",)), ("1.0", None)):
        listed = manifest(tmp_path, f"path,label\n1.png,{known}\n2.png,{nothing}\n")
        assert (listed.labels.tolist()[1], listed.class_names) == (-1, names)
        assert listed.notes == ("1 of 2 samples have no label",)


def test_none_is_nothing_among_numbers_and_a_name_among_names(tmp_path: Path) -> None:
    assert manifest(tmp_path, "path,label\n1.png,1\n2.png,None\n").labels.tolist() == [1, -1]
    assert manifest(tmp_path, "path,label\n1.png,mild\n2.png,None\n").class_names == ("None", "mild")


@pytest.mark.parametrize("header", ["filename,class", "Image,Diagnosis", "file_path,target", "image_path,category"])
def test_columns_under_other_common_names_are_taken_and_told(tmp_path: Path, header: str) -> None:
    listed = manifest(tmp_path, f"{header}\na.png,cat\n")
    assert (list(listed.sample_ids), listed.class_names) == (["a.png"], ("cat",))
    path, label = header.split(",")
    assert listed.notes == (f"column {path} is taken for path", f"column {label} is taken for label")


def test_a_column_of_its_own_name_goes_before_others(tmp_path: Path) -> None:
    listed = manifest(tmp_path, "filename,path,class,label\na.png,b.png,cat,dog\n")
    assert (list(listed.sample_ids), listed.class_names) == (["b.png"], ("dog",))
    assert {name: list(texts) for name, texts in listed.meta.items()} == {"filename": ["a.png"], "class": ["cat"]}
    assert listed.notes == ()


def test_what_could_have_been_the_label_is_named(tmp_path: Path) -> None:
    (note,) = manifest(tmp_path, "path,cat,dog\na.png,1,0\n").notes
    assert note == "no column is named label, so that no sample has one: cat, dog"


def test_further_columns_are_kept_as_they_are_written_by_sorted_names(tmp_path: Path) -> None:
    listed = manifest(tmp_path, 'site,path, Größe ,label\n"a, b",1.png, 07 ,cat\n,2.png,"x\ny",dog\n')
    assert list(listed.meta) == ["Größe", "site"]
    assert [list(texts) for texts in listed.meta.values()] == [[" 07 ", "x\ny"], ["a, b", ""]]
    assert listed.notes == ()


@pytest.mark.parametrize(
    ("column", "name"),
    [("km/h", r"km\x2fh"), ("a\\b", r"a\\b"), ("a\tb", r"a\x09b"), (".", r"\x2e"), ("..", ".."), ("a.b", "a.b")],
    ids=["slash", "backslash", "tab", "dot", "dots", "dotted"],
)
def test_a_column_is_called_as_an_array_can_be(tmp_path: Path, column: str, name: str) -> None:
    assert list(manifest(tmp_path, f"path,{column}\n1.png,x\n").meta) == [name]


@pytest.mark.parametrize(
    ("header", "fields", "told"),
    [
        (",path,label", "0,1.png,cat", "column passed over: (no name): it needs a name"),
        ("path,label,x,x", "1.png,cat,0,1", "column passed over: x: named 2 times"),
        (f"path,label,{'x' * 4097}", "1.png,cat,0", f"column passed over: {'x' * 40}: too long a name"),
        ("path,label,x", f"1.png,cat,{'é' * 2049}", "column passed over: x: line 2 has 4098 bytes, more than the 4096"),
        ("path,label,x", "1.png,cat,a\0b", "column passed over: x: line 2 has a NUL character"),
        (
            "path,label," + ",".join(map(str, range(257))),
            "1.png,cat" + ",0" * 257,
            "257 further columns are passed over",
        ),
    ],
    ids=["no name", "twice", "long name", "long text", "nul", "many"],
)
def test_columns_that_no_array_can_hold_are_passed_over_and_named(
    tmp_path: Path, header: str, fields: str, told: str
) -> None:
    listed = manifest(tmp_path, f"{header}\n{fields}\n")
    assert listed.meta == {}
    (note,) = listed.notes
    assert note.startswith(told)


def test_paths_of_windows_are_found_with_slashes_and_told(tmp_path: Path) -> None:
    (tmp_path / "Äpfel").mkdir()
    Image.new("RGB", (5, 4)).save(tmp_path / "Äpfel/1.png")
    listed = manifest(tmp_path, "path,label\nÄpfel\\1.png,a\nÄpfel\\2.png,a\n")
    assert list(listed.sample_ids) == ["Äpfel\\1.png", "Äpfel\\2.png"]
    assert listed.read(0).image.size == (5, 4)
    assert listed.notes == (
        "1 of 2 paths are written with backslashes, as on Windows, and found with slashes",
        "1 of 2 paths are written with backslashes, as on Windows, and found neither so nor with slashes",
    )


@pytest.mark.parametrize(("on_disk", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_files_are_found_in_the_unicode_form_that_they_have(tmp_path: Path, on_disk: str, written: str) -> None:
    name = unicodedata.normalize(on_disk, "Café")
    Image.new("RGB", (5, 4)).save(tmp_path / f"{name}.png")
    listed = manifest(tmp_path, f"path\n{unicodedata.normalize(written, name)}.png\n")
    assert listed.read(0).image.size == (5, 4)
    assert listed.sizes.tolist() == [(tmp_path / f"{name}.png").stat().st_size]
    assert listed.notes == ("1 of 1 paths are found in another Unicode form than they are written in",)


def files(tmp_path: Path, *names: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)


def test_columns_root_and_suffix_say_how_a_manifest_is_meant(tmp_path: Path) -> None:
    files(tmp_path, "scans/7.png")
    (tmp_path / "list.csv").write_text("image_id;dx;site\n7;melanoma;B\n")
    reading = Reading({"path": "image_id", "label": "dx"}, str(tmp_path / "scans"), ".png")
    listed = open_csv("spec", str(tmp_path / "list.csv"), reading=reading)
    assert (list(listed.sample_ids), listed.class_names, list(listed.meta)) == (["7"], ("melanoma",), ["site"])
    assert listed.read(0).image.size == (4, 4)


@pytest.mark.parametrize(
    ("text", "reading", "message"),
    [
        ("image_id,dx\n7,a\n", Reading(), r"found image_id, dx: say --columns path=image_id, with --root and --suffix"),
        ("Image Index,y\n7,a\n", Reading(), r"say --columns 'path=Image Index', with"),
        ("path,label\n,a\n", Reading(), r"line 2: path and id must not be empty .*: fill in, or take the line out"),
        ("scan_name,diagnosis\n7,a\n", Reading(), r"say --columns path=scan_name,label=diagnosis"),
        ("x,y\n7,a\n", Reading(), r"found x, y$"),
        ("path,dx\n7,a\n", Reading({"label": "dy"}), "no column dy, which --columns names: there are path, dx"),
        ("path\nscans/7\n", Reading(), r"none of its files is there, but scans/7\.png: say --suffix \.png"),
        ("path\n7.png\n", Reading(root="/no/such"), "--root /no/such: no such folder"),
    ],
)
def test_a_manifest_that_needs_more_words_is_refused_with_them(
    tmp_path: Path, text: str, reading: Reading, message: str
) -> None:
    files(tmp_path, "scans/7.png")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        open_csv("spec", str(tmp_path / "list.csv"), reading=reading)


def test_a_line_of_separators_alone_is_passed_over_and_told(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label,site\n1.png,a,x\n,,\n, ,\n2.png,b,y\n")
    source = open_csv("spec", str(tmp_path / "list.csv"))
    assert list(source.sample_ids) == ["1.png", "2.png"]
    assert "2 lines passed over that hold nothing but separators" in source.notes


def test_a_drive_of_windows_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\nC:\\scans\\7.png\n")
    with pytest.raises(ConfigError, match=r"line 2: C:\\scans\\7\.png has a drive of Windows"):
        open_csv("spec", str(tmp_path / "list.csv"))
    for data in ("C:\\scans", "d:/scans"):
        with pytest.raises(ConfigError, match="a drive of Windows, which is not here"):
            open_source(data)


def test_a_list_of_labels_is_several(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"path": "a.png", "label": ["cat"]}\n')
    assert 'line 1: label ["cat"] is several labels' in open_csv("spec", str(tmp_path / "list.jsonl")).several


@pytest.mark.parametrize(("label", "index"), [(1, 1), (-1, -1), (None, -1)])
def test_labels_of_a_table_that_names_its_classes_are_their_indices(
    tmp_path: Path, label: int | None, index: int
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = places.arrow_images()
    labels = [label, 2, 0, 0, 0, 0]
    parquet.write_table(table.set_column(1, table.schema.field(1), [labels]), tmp_path / "x.parquet")
    listed = open_csv("spec", str(tmp_path / "x.parquet"))
    assert (listed.labels.tolist()[:2], listed.class_names, listed.numeric) == ([index, 2], places.CLASSES, False)
    parquet.write_table(table.set_column(1, table.schema.field(1), [[9, *labels[1:]]]), tmp_path / "y.parquet")
    with pytest.raises(DatasetError, match="label 9 is none of its 3 classes"):
        open_csv("spec", str(tmp_path / "y.parquet"))
