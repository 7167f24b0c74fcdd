"""A CSV manifest lists what it says, and errors name the line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from batchcam.data.csv_manifest import open_csv
from batchcam.data.samples import FileSource
from batchcam.errors import DatasetError
from batchcam.images.decoding import UnreadableImageError


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
        ("path,label\na.png,1\n\nb.png,-1\n", "line 4: label -1: class indices start at 0"),
        ("path,label\na.png,99999999999999999999\n", "line 2: label 9{20}"),
        ("path\na.png\nb.png\na.png\n", "line 4: id 'a.png' is already on line 2"),
        ("path,id\na.png,x\nb.png,x\n", "line 3: id 'x' is already on line 2"),
        ("path,label\n,1\n", "line 2: path and id must not be empty"),
        ('path,label\na.png,"x"y\n', "line 2: not CSV"),
        ('path,label\na.png,"x\n', "line 2: not CSV"),
        (b"path\n\xff.png\n", "not UTF-8"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=f"list.csv: {message}") as caught:
        manifest(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [str(2**31), "9" * 30, "9" * 5000, "-1", "-" + "9" * 5000])
def test_numbers_that_no_class_has_are_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(DatasetError, match=r"line 2: label [-0-9]{1,40}: class indices start at 0"):
        manifest(tmp_path, f"path,label\n1.png,{label}\n")


def test_zeros_before_a_class_index_do_not_count(tmp_path: Path) -> None:
    source = manifest(tmp_path, f"path,label\n1.png,{'0' * 5000}7\n2.png,+07\n3.png,-0\n")
    assert list(source.labels) == [7, 7, 0]


def test_nul_characters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="line 2"):
        manifest(tmp_path, "path\na\0.png\n")
