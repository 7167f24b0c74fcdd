"""Samples of WebDataset have ids, labels and images wherever their parts lie."""

from __future__ import annotations

import json

import pytest

from batchcam.images.decoding import UnreadableImageError
from batchcam.images.tables import Reading, TableError
from batchcam.images.webdataset import open_webdataset
from tests.helpers.places import write_tar

SHARDS = [
    [
        ("a/0.jpg", b"zero"),
        ("a/0.cls", b" 2\n"),
        ("a/0.json", json.dumps({"site": "b", "age": 7, "__key__": "other"}).encode()),
        ("a/0.seg.txt", b"..."),
    ],
    [("1.x.PNG", b"one"), ("1.cls", b"0"), (".hidden", b""), ("2.cls", b"1"), ("1.json", b"[]")],
]


@pytest.fixture
def pattern(tmp_path):
    for number, members in enumerate(SHARDS):
        write_tar(tmp_path / f"s-{number:03d}.tar", members)
    return f"{tmp_path}/s-{{000..001}}.tar"


def test_a_sample_is_a_row_with_what_its_parts_say(pattern):
    table = open_webdataset(pattern, Reading())
    assert [*table.header] == ["__key__", ".cls", "site", "age"]
    assert [[*fields] for _, fields in table.rows] == [["a/0", "2", "b", "7"], ["1", "0", "", ""], ["2", "1", "", ""]]
    assert [table.stored.read(row) for row in (0, 1)] == [b"zero", b"one"]
    assert table.columns == {"path": "__key__", "label": ".cls"}


def test_a_sample_without_an_image_is_a_row_that_cannot_be_read(pattern):
    table = open_webdataset(pattern, Reading())
    with pytest.raises(UnreadableImageError, match="the tars hold no image of its key"):
        table.stored.read(2)
    assert table.notes == [
        "parts of samples ignored: 2, .hidden, .seg.txt",
        "samples whose .json is no object, and says nothing: 1",
        "samples without an image: 1, such as '2'",
    ]


def test_a_label_may_stand_in_the_json(pattern):
    assert open_webdataset(pattern, Reading({"label": "site"})).columns["label"] == "site"


@pytest.mark.parametrize(
    ("given", "names"),
    [("s-{000..001}.tar", 2), ("s-{001,000}.tar", 2), ("s-*.tar", 2), ("s-000.tar", 1), ("{s,t}-{0..0}00.tar", None)],
)
def test_a_pattern_names_its_files(pattern, tmp_path, given, names):
    if names is None:
        with pytest.raises(TableError, match=r"1 of 2 files are not there: .*t-000\.tar"):
            open_webdataset(f"{tmp_path}/{given}", Reading())
    else:
        assert len(open_webdataset(f"{tmp_path}/{given}", Reading()).stored.holders) == names


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a/0.jpg", b"")], "key 'a/0' has another image already, in this tar or an earlier one"),
        ([("9.jpg", b""), ("9.png", b"")], "key '9' has another image already"),
        ([("a/0.cls", b"5")], "key 'a/0' has two different '.cls'"),
        ([("8.cls", b"x" * (2**20 + 1))], "'8'.cls: more than 1048576 bytes"),
    ],
)
def test_what_belongs_to_two_samples_is_refused(pattern, tmp_path, members, message):
    write_tar(tmp_path / "s-001.tar", members)
    with pytest.raises(TableError, match=message):
        open_webdataset(pattern, Reading())


@pytest.mark.parametrize("given", ["nothing-*.tar", "s-000.tar,s-000.tar", "{s-000,s-000}.tar", "s-{0..9999999}.tar"])
def test_a_pattern_of_no_files_or_of_one_twice_is_refused(pattern, tmp_path, given):
    with pytest.raises(TableError, match=r"no such files|not there|twice"):
        open_webdataset(f"{tmp_path}/{given}", Reading())


def test_tars_without_images_are_refused(tmp_path):
    write_tar(tmp_path / "x.tar", [("0.wav", b""), ("0.cls", b"1")])
    with pytest.raises(TableError, match="no images in it: looked for"):
        open_webdataset(f"{tmp_path}/x.tar", Reading())


def test_a_range_that_runs_backwards_is_told(tmp_path):
    with pytest.raises(TableError, match="names no files: its range runs backwards"):
        open_webdataset(f"{tmp_path}/t-{{003..000}}.tar", Reading())
