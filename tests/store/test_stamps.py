"""A stamp stands for the bytes of a file until anything has touched it."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batchcam.store import landing
from batchcam.store.stamps import Stamps, stamp_of_landed

CONTENT = bytes(range(256)) * 20
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that has landed some time ago."""
    (tmp_path / "shard.h5").write_bytes(CONTENT)
    time.sleep(0.02)  # the clock of a file system goes on by a few milliseconds
    return tmp_path / "shard.h5"


@pytest.fixture(name="read")
def _read(monkeypatch) -> list[str]:
    """The names of files whose bytes are read."""
    read, real = [], landing.digest_of
    monkeypatch.setattr(
        landing, "digest_of", lambda file, look: (read.append(Path(file.name).name), real(file, look))[1]
    )
    return read


def prove(path: Path, stamps: Stamps, digest: str = DIGEST) -> int | None:
    return stamps.prove(path, digest, landing.unheeding)


def left_by_proof(path: Path) -> list[str]:
    first = Stamps()
    assert prove(path, first) == len(CONTENT)
    return first.new


def test_a_file_that_was_proven_is_not_read_again(path: Path, read: list[str]) -> None:
    left = left_by_proof(path)
    again = Stamps(left)
    assert (prove(path, again), read, len(left), again.new) == (len(CONTENT), ["shard.h5"], 1, [])


def test_what_lands_and_what_is_proven_have_the_same_stamp(tmp_path: Path, read: list[str]) -> None:
    digest, inode = landing.land_own(tmp_path / "shard.h5", CONTENT, replace=False)
    assert inode is not None
    left = stamp_of_landed(tmp_path / "shard.h5", digest, inode)
    assert left
    assert (prove(tmp_path / "shard.h5", Stamps([left])), read) == (len(CONTENT), [])


def test_without_trust_a_proven_file_is_read_and_leaves_nothing_new(path: Path, read: list[str]) -> None:
    stamps = Stamps(left_by_proof(path), trusted=False)
    assert (prove(path, stamps), prove(path, stamps), stamps.new) == (len(CONTENT), len(CONTENT), [])
    assert len(read) == 2  # to be proven at first, and without trust; then it was this process that proved it


def in_place(path: Path, content: bytes) -> None:
    """Overwrite the bytes of a file, as a program does that takes its times back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def copied(path: Path) -> None:
    """Put a copy in place of a file, with its times, as `rsync -a` does."""
    shutil.copy2(path, path.with_name("copy"))
    os.replace(path.with_name("copy"), path)


TOUCHED: dict[str, tuple[Callable[[Path], object], bool]] = {
    "a bit flipped in place": (lambda path: in_place(path, b"\x01" + CONTENT[1:]), False),
    "cut short": (lambda path: in_place(path, CONTENT[:-1]), False),
    "longer": (lambda path: in_place(path, CONTENT + b"\0"), False),
    "emptied and written again": (lambda path: (path.write_bytes(b""), path.write_bytes(CONTENT)), True),
    "a copy": (copied, True),
    "its mode": (lambda path: path.chmod(0o600), True),
    "a second name": (lambda path: os.link(path, path.with_name("second")), True),
}


@pytest.mark.parametrize("how", TOUCHED)
def test_a_file_that_was_touched_is_read_again(path: Path, read: list[str], how: str) -> None:
    left = left_by_proof(path)
    touch, sound = TOUCHED[how]
    touch(path)
    assert prove(path, Stamps(left)) == (len(CONTENT) if sound else None)
    assert len(read) == 2


def test_a_stamp_is_of_one_name_and_one_digest(path: Path, read: list[str]) -> None:
    left = left_by_proof(path)
    assert prove(path, Stamps(left), "0" * 64) is None
    other = path.rename(path.with_name("other.h5"))
    assert prove(other, Stamps(left)) == len(CONTENT)
    assert read == ["shard.h5", "shard.h5", "other.h5"]


def test_what_another_worker_has_put_in_the_place_of_a_file_gets_no_stamp(tmp_path: Path) -> None:
    path = tmp_path / "shard.h5"
    digest, inode = landing.land_own(path, CONTENT, replace=False)
    assert inode is not None
    landing.land(path, CONTENT)
    assert stamp_of_landed(path, digest, inode) is None
    path.unlink()
    assert stamp_of_landed(path, digest, inode) is None


def test_reading_a_large_file_can_be_given_up(tmp_path: Path) -> None:
    path = tmp_path / "shard.h5"
    with path.open("wb") as file:
        file.truncate(64 * 2**20)
    looks = []

    def look() -> None:
        looks.append(None)
        if len(looks) == 3:
            raise InterruptedError

    stamps = Stamps()
    with pytest.raises(InterruptedError):
        stamps.prove(path, DIGEST, look)
    assert (len(looks), stamps.new) == (3, [])
