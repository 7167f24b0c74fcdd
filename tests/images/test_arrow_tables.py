"""Parquet and Arrow files give the images, labels and ids that pyarrow was given."""

from __future__ import annotations

import json
import pickle

import pytest

from batchcam.images import arrow_tables, huggingface
from batchcam.images.arrow_tables import arrow_table, parquet_table
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.huggingface import open_huggingface
from batchcam.images.members import HolderError
from batchcam.images.tables import NOTHING_SAID, Reading, TableError
from tests.helpers import places
from tests.helpers.places import CLASSES, IMAGES, arrow_images

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write_parquet(path, table, **settings):
    pq.write_table(table, path, **settings)
    return parquet_table([str(path)], settings.pop("reading", NOTHING_SAID))


def write_arrow(path, table, **settings):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema, **settings) as writer:
        writer.write_table(table, max_chunksize=4)
    return arrow_table([str(path)], NOTHING_SAID)


def rows(table):
    return [[*fields] for _, fields in table.rows]


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_images_labels_and_what_else_come_as_they_were_written(tmp_path, write):
    table = write(tmp_path / "x", arrow_images())
    assert [table.stored.read(row) for row in range(len(IMAGES))] == list(IMAGES.values())
    assert ([*table.header], table.class_names) == (["image", "label", "site"], CLASSES)
    assert rows(table)[3] == ["bee/03.png", "1", "s1"]
    assert (table.numbered, table.columns["path"]) == (False, "image")


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
@pytest.mark.parametrize("paths", [[None] * 6, ["same.png"] * 6], ids=["none", "same"])
def test_rows_whose_paths_tell_nothing_are_numbered(tmp_path, write, paths):
    table = write(tmp_path / "x", arrow_images(paths))
    assert (table.numbered, [row[0] for row in rows(table)][:2]) == (True, ["00000", "00001"])


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
def test_a_column_of_bytes_holds_images_and_a_row_without_one_is_that_rows_trouble(tmp_path, write, kind):
    images = pa.array([b"one", None, b"", b"four"], kind)
    table = write(tmp_path / "x", pa.table({"scan": images, "id": ["a", "b", "c", "d"]}))
    assert [table.stored.read(row) for row in (0, 2, 3)] == [b"one", b"", b"four"]
    with pytest.raises(UnreadableImageError, match="its row holds no image"):
        table.stored.read(1)


def test_sizes_are_known_of_arrow_only(tmp_path):
    sizes = [len(content) for content in IMAGES.values()]
    assert write_arrow(tmp_path / "x", arrow_images()).stored.sizes.tolist() == sizes
    assert write_parquet(tmp_path / "y", arrow_images()).stored.sizes.tolist() == [-1] * 6


def test_several_columns_of_images_or_labels_are_refused_unless_one_is_named(tmp_path):
    several = pa.table({"left": [b"1"], "right": [b"2"], "id": ["a"]})
    with pytest.raises(TableError, match="several columns hold images: left, right: say --columns path=left"):
        write_parquet(tmp_path / "x", several)
    table = parquet_table([str(tmp_path / "x")], Reading({"path": "right"}))
    assert (table.stored.read(0), table.notes[0]) == (b"2", "column passed over: left: bytes")
    features = {name: {"names": ["a", "b"], "_type": "ClassLabel"} for name in ("fine", "coarse")}
    labels = pa.table({"image": [b"1"], "fine": [1], "coarse": [0]})
    labels = labels.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    with pytest.raises(TableError, match="several columns of labels: fine, coarse: say --columns label=fine"):
        write_parquet(tmp_path / "y", labels)
    table = parquet_table([str(tmp_path / "y")], Reading({"label": "coarse"}))
    assert (table.columns["label"], table.class_names) == ("coarse", ("a", "b"))


def test_a_column_of_paths_without_bytes_is_a_manifest(tmp_path):
    table = write_parquet(tmp_path / "x", arrow_images().set_column(0, "image", without_bytes()))
    assert (table.stored, rows(table)[0][0]) == (None, "ant/00.png")
    assert "column image holds only paths of the images" in table.notes


def without_bytes():
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": None, "path": path} for path in IMAGES], kind)


def test_row_groups_are_read_one_by_one_and_by_each_process_for_itself(tmp_path, monkeypatch):
    table = write_parquet(tmp_path / "x", arrow_images(), row_group_size=2)
    read = []
    group = type(table.stored)._group
    monkeypatch.setattr(type(table.stored), "_group", lambda *a: read.append(a[1:]) or group(*a))
    for row in (0, 1, 3, 2, 5):
        table.stored.read(row)
    assert read == [(0, 0), (0, 1), (0, 2)]
    copy = pickle.loads(pickle.dumps(table.stored))
    assert copy.read(5) == list(IMAGES.values())[5]
    monkeypatch.setattr(arrow_tables.os, "getpid", lambda: -1)  # a fork
    table.stored.read(5)
    assert read[3:] == [(0, 2), (0, 2)]


def test_a_row_group_that_is_too_large_to_be_held_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_tables, "MOST_GROUP_BYTES", 1000)
    with pytest.raises(TableError, match=r"a row group of [0-9]+ bytes, all of which one image takes to read"):
        write_parquet(tmp_path / "x", arrow_images())


def test_a_row_group_that_is_damaged_is_its_images_trouble(tmp_path):
    write_parquet(tmp_path / "x", arrow_images(), row_group_size=2, compression="gzip", use_dictionary=False)
    content = bytearray((tmp_path / "x").read_bytes())
    start = pq.ParquetFile(tmp_path / "x").metadata.row_group(1).column(0).data_page_offset
    content[start : start + 8] = b"\xff" * 8  # the header of its first page
    (tmp_path / "x").write_bytes(content)
    stored = parquet_table([str(tmp_path / "x")], NOTHING_SAID).stored
    with pytest.raises(UnreadableImageError, match="row group 1 of x is damaged"):
        stored.read(2)
    assert stored.read(5) == list(IMAGES.values())[5]


def test_a_file_that_was_replaced_is_no_images_trouble(tmp_path):
    table = write_parquet(tmp_path / "x", arrow_images())
    pq.write_table(arrow_images().slice(1), tmp_path / "x")
    with pytest.raises(HolderError, match="was changed since it was listed"):
        table.stored.read(0)


@pytest.mark.parametrize("opened", [parquet_table, arrow_table])
@pytest.mark.parametrize("content", [b"", b"PAR1" * 20, bytes(100)], ids=["empty", "magic", "zeros"])
def test_a_file_of_another_kind_is_refused(tmp_path, opened, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(TableError, match=r"not (Parquet|Arrow), or damaged|no column of images"):
        opened([str(tmp_path / "x")], NOTHING_SAID)


def test_compressed_arrow_is_refused(tmp_path):
    table = pa.table({"image": [bytes(10_000)] * 4})
    with pytest.raises(TableError, match="write it without compression"):
        write_arrow(tmp_path / "x", table, options=pa.ipc.IpcWriteOptions(compression="zstd"))


def test_files_of_other_columns_are_no_parts_of_one_table(tmp_path):
    pq.write_table(arrow_images(), tmp_path / "x")
    pq.write_table(arrow_images().drop_columns("site"), tmp_path / "y")
    with pytest.raises(TableError, match="y has other columns than the file before it"):
        parquet_table([str(tmp_path / "x"), str(tmp_path / "y")], NOTHING_SAID)


@pytest.mark.parametrize("write", [places.hub, places.saved])
def test_a_split_is_named_unless_there_is_only_one(tmp_path, write):
    spec = write(tmp_path).removeprefix("hf:")
    for words in (spec, f"{spec}:test"):
        assert len(rows(open_huggingface(words, NOTHING_SAID))) == len(IMAGES)
    with pytest.raises(TableError, match="no split train: say one of its splits, test"):
        open_huggingface(f"{spec}:train", NOTHING_SAID)


def test_several_splits_are_told_apart(tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    for split in ("train", "validation"):
        pq.write_table(arrow_images(), folder / f"{split}.parquet")
    with pytest.raises(TableError, match="say one of its splits, train, validation"):
        open_huggingface(str(folder), NOTHING_SAID)
    table = open_huggingface(f"{folder}:validation", Reading({"id": "label"}))
    assert len(rows(table)) == len(IMAGES)


def test_parts_that_are_missing_are_told(tmp_path):
    spec = places.hub(tmp_path).removeprefix("hf:")
    (tmp_path / "hub" / "data" / "test-00000-of-00002.parquet").unlink()
    with pytest.raises(TableError, match="split test: 1 of 2 parts are there"):
        open_huggingface(spec, NOTHING_SAID)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ('{"_data_files": [{"filename": "../../x.arrow"}]}', "is no name of a file beside it"),
        ('{"_data_files": [{"filename": 3}]}', "is no name of a file beside it"),
        ('{"_data_files": [], "_split": 1}', "of rows that are selected by other files"),
        ('{"_data_files": [{"filename": "a"}], "_indices_files": [{}]}', r"save it by flatten_indices\(\)"),
        ("[]", "no object of JSON"),
        ("{", "not JSON"),
    ],
)
def test_a_state_that_leads_elsewhere_or_nowhere_is_refused(tmp_path, state, message):
    spec = places.saved(tmp_path).removeprefix("hf:")
    (tmp_path / "saved" / "test" / huggingface._STATE_FILE).write_text(state)
    with pytest.raises(TableError, match=message):
        open_huggingface(spec, NOTHING_SAID)


def test_a_folder_of_something_else_is_no_dataset_of_hugging_face(tmp_path):
    for words in (str(tmp_path), f"{tmp_path}/nothing"):
        with pytest.raises(TableError, match=r"no such folder|nothing that save_to_disk or the hub writes"):
            open_huggingface(words, NOTHING_SAID)


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_a_table_without_rows_has_no_samples(tmp_path, write):
    assert rows(write(tmp_path / "x", arrow_images().slice(0, 0))) == []


def test_texts_that_are_none_are_refused(tmp_path):
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    with pytest.raises(TableError, match="damaged"):
        write_parquet(tmp_path / "x", pa.table({"path": broken}))
