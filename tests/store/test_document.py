"""A document is read as it was sealed, or refused: every changed byte shows, and no content breaks the reader."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from batchcam.errors import RunError
from batchcam.store.document import DIGEST_KEY, canonical, read_document, seal

CONTENT = {"name": "蝶 é 🦓", "numbers": [1, 2.5, -3e-9, True, None], "nested": {"b": {"x": 1}, "a": []}, "": ""}


def written(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "run.json"
    path.write_bytes(raw)
    return path


def sealed_by_hand(text: str) -> bytes:
    """A document whose digest is right for JSON that no writer of ours would write."""
    digest = hashlib.sha256(canonical(json.loads(text)).encode()).hexdigest()
    return f'{text.rstrip()[:-1]}, "{DIGEST_KEY}": "{digest}"}}\n'.encode()


def test_document_is_read_as_it_was_sealed(tmp_path: Path) -> None:
    assert read_document(written(tmp_path, seal(CONTENT))) == CONTENT


def test_sealed_document_is_json_that_people_can_read() -> None:
    text = seal(CONTENT).decode()
    assert json.loads(text)[DIGEST_KEY] == hashlib.sha256(canonical(CONTENT).encode()).hexdigest()
    assert "蝶 é 🦓" in text
    assert text.count("\n") > 10


def test_seal_does_not_depend_on_the_order_of_keys() -> None:
    assert seal({"a": 1, "b": {"c": 2, "d": 3}}) == seal({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_every_flipped_byte_is_refused(tmp_path: Path, mask: int) -> None:
    sound = seal(CONTENT)
    for position in range(len(sound)):
        raw = bytearray(sound)
        raw[position] ^= mask
        with pytest.raises(RunError):
            read_document(written(tmp_path, bytes(raw)))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    sound = seal(CONTENT)
    for length in range(len(sound)):
        with pytest.raises(RunError):
            read_document(written(tmp_path, sound[:length]))


@pytest.mark.parametrize("extra", [b" ", b"\n", b"\0", b"{}"])
def test_anything_before_or_after_is_refused(tmp_path: Path, extra: bytes) -> None:
    for raw in (seal(CONTENT) + extra, extra + seal(CONTENT)):
        with pytest.raises(RunError):
            read_document(written(tmp_path, raw))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "utf-8-sig"])
def test_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(RunError):
        read_document(written(tmp_path, seal(CONTENT).decode().encode(encoding)))


def test_a_second_key_of_the_same_name_is_refused(tmp_path: Path) -> None:
    sound = seal({"a": 1})
    assert read_document(written(tmp_path, sound)) == {"a": 1}
    with pytest.raises(RunError, match="changed after it was written"):
        read_document(written(tmp_path, sound.replace(b' "a": 1', b' "a": 2,\n "a": 1')))


@pytest.mark.parametrize("text", ['{"a":1}', '{"a": 1.0}', '{"a": 1e0}', '{"\\u0061": 1}'])
def test_other_ways_to_write_the_same_content_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RunError, match="changed after it was written"):
        read_document(written(tmp_path, sealed_by_hand(text)))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"9" * 10_000 + b"}",
        b'{"document_sha256": 1}',
        b'{"document_sha256": {"a": NaN}}',
        *(b'{"a": ' + b"[" * depth + b"]" * depth + b"}" for depth in (100, 300, 500, 900, 990, 2000, 200_000)),
        *(b'{"a":' * depth + b"1" + b"}" * depth for depth in (300, 900, 200_000)),
    ],
    ids=lambda raw: f"{raw[:20]!r}-{len(raw)}",
)
def test_what_is_no_document_of_ours_is_refused(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(RunError) as raised:
        read_document(written(tmp_path, raw))
    assert "run.json" in str(raised.value)


def test_paths_that_are_not_utf8_survive(tmp_path: Path) -> None:
    content = {"path": os.fsdecode(b"caf\xe9/\xff.pth")}
    raw = seal(content)
    raw.decode("utf-8")
    assert read_document(written(tmp_path, raw)) == content


def test_numbers_that_json_does_not_know_are_not_sealed() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        seal({"a": float("nan")})


def test_absent_document_is_told_apart_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_document(tmp_path / "run.json")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        read_document(tmp_path / "file" / "run.json")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, make) -> None:
    make(tmp_path / "run.json")
    with pytest.raises(RunError, match="not a file"):
        read_document(tmp_path / "run.json")


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = written(tmp_path, b"{")
    os.truncate(path, 2**31)
    with pytest.raises(RunError, match="not a file of at most"):
        read_document(path)
