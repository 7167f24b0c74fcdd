"""Packed ids behave as a list of texts, and files are read without surprises."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchcam.data.samples import UNKNOWN_SIZE, FileSource, PackedText, numbered_ids, packed_ids
from batchcam.errors import DatasetError
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.passing_faults import PassingFaultError

TEXTS = ["a/1.png", "", "ü/雪.png", "x" * 300, "a\\xff"]


def png(path: Path, colour: tuple[int, int, int] = (1, 2, 3)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(stream, "PNG")
    path.write_bytes(stream.getvalue())
    return stream.getvalue()


def source(folder: Path, *names: str) -> FileSource:
    count = len(names)
    paths = PackedText(name.encode() for name in names)
    return FileSource("spec", str(folder), paths, np.zeros(count, np.int64), np.full(count, UNKNOWN_SIZE))


def test_packed_text_is_a_sequence_of_texts() -> None:
    packed = PackedText(text.encode() for text in TEXTS)
    assert list(packed) == TEXTS
    assert [packed[index] for index in range(len(packed))] == TEXTS
    assert packed[-1] == TEXTS[-1]
    assert packed[1:4] == TEXTS[1:4]
    assert packed[::-2] == TEXTS[::-2]
    assert packed.raw(2) == TEXTS[2].encode()
    assert list(pickle.loads(pickle.dumps(packed))) == TEXTS
    with pytest.raises(IndexError):
        packed[5]


def test_no_text_packs_to_nothing() -> None:
    assert list(PackedText([])) == []


def test_bytes_that_are_not_utf8_read_as_escapes() -> None:
    packed = PackedText([b"a\xff.png", b"\xed\xa0\x80"])
    assert list(packed) == ["a\\xff.png", "\\xed\\xa0\\x80"]
    assert packed.raw(0) == b"a\xff.png"


def test_a_million_ids_pickle_as_a_few_objects() -> None:
    ids = numbered_ids(1_000_000, "test/")
    assert (ids[0], ids[999_999]) == ("test/000000", "test/999999")
    # a million pickled texts of their own take two more bytes each at the very least
    assert len(pickle.dumps(ids)) < 11 * 1_000_000 + 8 * 1_000_000 + 1000


def test_numbers_have_five_digits_or_as_many_as_needed() -> None:
    assert list(numbered_ids(2)) == ["00000", "00001"]
    assert numbered_ids(100_000)[-1] == "99999"
    assert numbered_ids(100_001)[-1] == "100000"


def test_own_ids_are_packed_and_numbers_are_digits() -> None:
    assert list(packed_ids(["b", "a", 7, "\ud800"], "here")) == ["b", "a", "7", "\\ud800"]


@pytest.mark.parametrize("ids", [["a", "b", "a"], ["a", 1, "1"], ["a", ""], ["a\0"], ["a", None], [b"a"]])
def test_own_ids_must_be_different_texts(ids: list[object]) -> None:
    with pytest.raises(DatasetError, match=r"^here: sample"):
        packed_ids(ids, "here")


def test_a_file_comes_with_the_digest_of_its_bytes(tmp_path: Path) -> None:
    data = png(tmp_path / "a.png", (9, 8, 7))
    sample = source(tmp_path, "a.png").read(0)
    assert sample.sha256 == hashlib.sha256(data).digest()
    assert isinstance(sample.image, Image.Image)
    assert (sample.image.mode, sample.image.size, sample.image.getpixel((0, 0))) == ("RGB", (4, 3), (9, 8, 7))


def test_a_damaged_file_keeps_its_digest(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nonsense")
    with pytest.raises(UnreadableImageError, match="not an image") as caught:
        source(tmp_path, "a.png").read(0)
    assert caught.value.sha256 == hashlib.sha256(b"nonsense").digest()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Is a directory"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
    ids=["missing", "folder", "pipe", "link to itself"],
)
def test_what_cannot_be_read_is_unreadable_without_a_path(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError) as caught:
        source(tmp_path, "a.png").read(0)
    assert (str(caught.value), caught.value.sha256) == (message, None)


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number), "/somewhere/a.png")

    monkeypatch.setattr("batchcam.images.regular_files.os.open", fail)


def test_a_forbidden_file_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.EACCES)
    with pytest.raises(UnreadableImageError, match=r"^Permission denied$"):
        source(tmp_path, "a.png").read(0)


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN], ids=errno.errorcode.get
)
def test_machine_in_trouble_is_not_blamed_on_the_image(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, number)
    with pytest.raises(PassingFaultError, match=os.strerror(number)):
        source(tmp_path, "a.png").read(0)


def test_a_source_reads_from_another_working_folder_and_after_pickling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    data = png(tmp_path / "data" / "a.png")
    monkeypatch.chdir(tmp_path)
    listed = source(Path("data"), "a.png")
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(listed)).read(0).sha256 == hashlib.sha256(data).digest()


def test_reading_past_the_end_is_an_index_error(tmp_path: Path) -> None:
    with pytest.raises(IndexError):
        source(tmp_path, "a.png").read(1)


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no samples"):
        source(tmp_path)
