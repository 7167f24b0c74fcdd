"""What is written piece by piece lands whole, with its digest, or leaves what was there."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from batchcam.errors import BatchcamError, RunError, StorageFullError
from batchcam.store import landing, sink
from tests.store.test_landing import CODES, STEPS, fail

CONTENT = np.random.default_rng(0).bytes(5 * sink.BLOCK_BYTES + 7)


def put(path: Path, error: BaseException | None = None) -> sink.Sink:
    with landing.stream(path) as stream:
        stream.seek(sink.BLOCK_BYTES)
        stream.write(CONTENT[sink.BLOCK_BYTES :])
        stream.seek(0)
        stream.write(CONTENT[: sink.BLOCK_BYTES])
        if error:
            raise error
    return stream


@pytest.fixture(autouse=True)
def _few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let some blocks reach the disk before the end."""
    monkeypatch.setattr(sink, "BLOCKS", 2)


def test_content_lands_with_its_digest(tmp_path: Path) -> None:
    stream = put(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert landing.read_digest(tmp_path / "file") == stream.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert stream.size == len(CONTENT)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "file.sha256"]


@pytest.mark.parametrize("last", ["ours", "theirs"])
def test_another_workers_file_at_the_same_time_leaves_one_with_its_own_digest(
    tmp_path: Path, monkeypatch, last
) -> None:
    path, real, replace, landed = tmp_path / "file", landing._land_digest, os.replace, []
    theirs = hashlib.sha256(b"theirs").hexdigest()

    def land_digest(path: Path, digest: str) -> None:
        real(path, digest)
        if not landed:
            real(path, theirs)
            path.write_bytes(b"theirs")
        landed.append(digest)

    def replaced(source: Path, target: Path) -> None:
        replace(source, target)
        if target == path and last == "theirs":
            path.write_bytes(b"theirs")

    with monkeypatch.context() as patch:
        patch.setattr(landing, "_land_digest", land_digest)
        patch.setattr(landing.os, "replace", replaced)
        stream = put(path)
    assert path.read_bytes() == (CONTENT if last == "ours" else b"theirs")
    assert landing.read_digest(path) == stream.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert stream.size == path.stat().st_size


def test_content_replaces_a_file_that_is_there(tmp_path: Path) -> None:
    landing.land_own(tmp_path / "file", b"old")
    put(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert landing.read_digest(tmp_path / "file") == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("number", CODES, ids=errno.errorcode.get)
@pytest.mark.parametrize("step", [*STEPS, "pread", "lseek"])
def test_nothing_is_left_when_a_step_fails(tmp_path: Path, monkeypatch, step: str, number: int) -> None:
    with monkeypatch.context() as patch:
        fail(patch, step, number)
        with pytest.raises(BatchcamError) as raised:
            put(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
    assert raised.value.exit_code == CODES[number]
    assert isinstance(raised.value, StorageFullError) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert str(tmp_path) in str(raised.value)
    assert isinstance(raised.value.__cause__, OSError)


@pytest.mark.parametrize("step", [*STEPS, "pread", "lseek"])
def test_the_old_file_stays_when_a_step_fails(tmp_path: Path, monkeypatch, step: str) -> None:
    landing.land_own(tmp_path / "file", b"old")
    with monkeypatch.context() as patch:
        fail(patch, step, errno.ENOSPC)
        with pytest.raises(StorageFullError, match="make room and run the same command again"):
            put(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "file.sha256"]


@pytest.mark.parametrize("error", [RunError("shard 3: changed"), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
def test_the_old_file_stays_when_its_writer_gives_up(tmp_path: Path, error: BaseException) -> None:
    landing.land_own(tmp_path / "file", b"old")
    with pytest.raises(type(error)) as raised:
        put(tmp_path / "file", error)
    assert raised.value is error
    assert (tmp_path / "file").read_bytes() == b"old"
    assert landing.read_digest(tmp_path / "file") == hashlib.sha256(b"old").hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "file.sha256"]


def test_the_error_of_the_disk_is_told_rather_than_what_followed(tmp_path: Path, monkeypatch) -> None:
    fail(monkeypatch, "write", errno.ENOSPC)
    with pytest.raises(StorageFullError):
        put(tmp_path / "file", RuntimeError("HDF5 is lost"))


def test_the_file_has_its_digest_and_is_synced_before_it_has_its_name(tmp_path: Path, monkeypatch) -> None:
    steps = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        steps.append("folder" if name == tmp_path.name else name.rpartition(".")[0].rpartition(".")[0])
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        steps.append(target.name)
        real_replace(source, target)

    monkeypatch.setattr(landing.os, "fsync", fsync)
    monkeypatch.setattr(landing.os, "replace", replace)
    put(tmp_path / "file")
    assert steps == [".file", ".file.sha256", "file.sha256", "folder", "file", "folder"]


def test_content_lands_although_another_worker_removes_what_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with landing.stream(path) as stream:
        stream.write(CONTENT)
        assert [final for _, final in landing.partials(tmp_path)] == ["file"]
        landing.remove_stale_partials(tmp_path, ["file"])
    assert path.read_bytes() == CONTENT
    assert landing.read_digest(path) == stream.sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "file.sha256"]
