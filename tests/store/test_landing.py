"""A file appears whole under its final name, or not at all, whatever fails."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from batchcam.errors import EXIT_FAILED, EXIT_STOPPED_EARLY, BatchcamError, StorageFullError
from batchcam.store import landing

CONTENT = np.random.default_rng(0).bytes(100_000)
STEPS = ("open", "write", "fsync", "close", "replace")
CODES = {
    errno.ENOSPC: EXIT_STOPPED_EARLY,
    errno.EDQUOT: EXIT_STOPPED_EARLY,
    errno.EIO: EXIT_FAILED,
    errno.EROFS: EXIT_FAILED,
}


def fail(monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> None:
    """Let one call of the operating system fail; `close` closes first, as the kernel does."""
    real = getattr(os, step)

    def broken(*arguments, **options):
        if step == "close":
            real(*arguments)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(landing.os, step, broken)


@pytest.mark.parametrize("number", CODES, ids=errno.errorcode.get)
@pytest.mark.parametrize("step", STEPS)
def test_land_leaves_nothing_when_a_step_fails(tmp_path: Path, monkeypatch, step: str, number: int) -> None:
    with monkeypatch.context() as patch:
        fail(patch, step, number)
        with pytest.raises(BatchcamError) as raised:
            landing.land(tmp_path / "file", CONTENT)
    assert list(tmp_path.iterdir()) == []
    assert raised.value.exit_code == CODES[number]
    assert isinstance(raised.value, StorageFullError) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert str(tmp_path) in str(raised.value)
    assert isinstance(raised.value.__cause__, OSError)


@pytest.mark.parametrize("step", STEPS)
def test_land_leaves_the_old_file_when_a_step_fails(tmp_path: Path, monkeypatch, step: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        fail(patch, step, errno.ENOSPC)
        with pytest.raises(StorageFullError, match="make room and run the same command again"):
            landing.land(path, CONTENT)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_land_leaves_nothing_when_the_disk_fills_half_way(tmp_path: Path, monkeypatch) -> None:
    real, written = os.write, []

    def fills(descriptor: int, data) -> int:
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(real(descriptor, data[:1000]))
        return written[0]

    monkeypatch.setattr(landing.os, "write", fills)
    with pytest.raises(StorageFullError):
        landing.land(tmp_path / "file", CONTENT)
    assert written == [1000]
    assert list(tmp_path.iterdir()) == []


def test_land_goes_on_after_a_short_write(tmp_path: Path, monkeypatch) -> None:
    real = os.write
    monkeypatch.setattr(landing.os, "write", lambda descriptor, data: real(descriptor, data[:999]))
    landing.land(tmp_path / "file", memoryview(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "data", [CONTENT, bytearray(CONTENT), memoryview(CONTENT), b""], ids=lambda d: type(d).__name__
)
def test_land_writes_what_it_was_given(tmp_path: Path, data) -> None:
    landing.land(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == bytes(data)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_land_syncs_the_file_before_it_has_its_name_and_the_folder_after(tmp_path: Path, monkeypatch) -> None:
    steps = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        real_fsync(descriptor)

    def replace(source, target) -> None:
        steps.append("replace")
        real_replace(source, target)

    monkeypatch.setattr(landing.os, "fsync", fsync)
    monkeypatch.setattr(landing.os, "replace", replace)
    landing.land(tmp_path / "file", CONTENT)
    assert steps == ["file", "replace", "folder"]


def test_land_never_leaves_its_target_absent(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen = []
    for name in ("open", "write", "fsync", "close", "replace"):
        real = getattr(os, name)

        def watched(*arguments, real=real, **options):
            seen.append(path.read_bytes())
            result = real(*arguments, **options)
            seen.append(path.read_bytes())
            return result

        monkeypatch.setattr(landing.os, name, watched)
    landing.land(path, CONTENT)
    assert set(seen) == {b"old", CONTENT}


def test_land_accepts_that_another_worker_landed_the_file_and_cleaned_up(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "file"
    real = os.replace

    def slow(source, target) -> None:
        Path(target).write_bytes(CONTENT)
        landing.remove_stale_partials(tmp_path, ["file"])
        real(source, target)

    monkeypatch.setattr(landing.os, "replace", slow)
    landing.land(path, CONTENT)
    assert path.read_bytes() == CONTENT


def test_land_writes_again_when_another_worker_removes_what_is_under_way(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    real, removed = os.replace, []

    def robbed(source, target) -> None:
        if not removed:
            removed.append(source)
            landing.remove_stale_partials(tmp_path, ["file"])
        real(source, target)

    monkeypatch.setattr(landing.os, "replace", robbed)
    landing.land(path, CONTENT)
    assert len(removed) == 1
    assert path.read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_land_first_leaves_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert landing.land_first(path, b"first")
    assert not landing.land_first(path, b"second")
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_land_first_lets_one_of_many_win(tmp_path: Path) -> None:
    path, won = tmp_path / "file", []
    start = threading.Barrier(8)

    def race(number: int) -> None:
        start.wait()
        if landing.land_first(path, b"%d" % number * 1000):
            won.append(number)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == b"%d" % won[0] * 1000
    assert (len(won), len(list(tmp_path.iterdir()))) == (1, 1)


def test_land_first_works_without_hard_links(tmp_path: Path, monkeypatch) -> None:
    def no_links(*arguments, **options):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(landing.os, "link", no_links)
    assert landing.land_first(tmp_path / "file", b"first")
    assert not landing.land_first(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
@pytest.mark.parametrize("name", ["shard-00000.h5", "mit Leerzeichen é蝶.h5"])
def test_sha256sum_accepts_the_digest_file(tmp_path: Path, name: str) -> None:
    digest, _ = landing.land_own(tmp_path / name, CONTENT)
    assert digest == hashlib.sha256(CONTENT).hexdigest() == landing.read_digest(tmp_path / name)
    check = ["sha256sum", "--strict", "-c", f"{name}.sha256"]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    (tmp_path / name).write_bytes(CONTENT[:-1])
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 1


def test_digest_lands_before_its_file(tmp_path: Path, monkeypatch) -> None:
    landed, real = [], landing.land
    monkeypatch.setattr(landing, "land", lambda path, data: (real(path, data), landed.append(path.name)))
    landing.land_own(tmp_path / "file", CONTENT)
    assert landed == ["file.sha256", "file"]


@pytest.mark.parametrize("order", sorted(set(itertools.permutations("AABB"))), ids="".join)
def test_two_workers_at_once_leave_a_file_and_its_digest_though_their_bytes_differ(
    tmp_path: Path, monkeypatch, order: tuple[str, ...]
) -> None:
    real, turn, left = landing.land, threading.Condition(), list(order)

    def land(path: Path, data: landing.Buffer) -> None:
        """Wait for this worker's turn to land its digest, or its file; what it lands later may come at any time."""
        me = threading.current_thread().name
        with turn:
            assert turn.wait_for(lambda: me not in left or left[0] == me, 60)
            real(path, data)
            if me in left:
                left.remove(me)
            turn.notify_all()

    monkeypatch.setattr(landing, "land", land)
    for _ in range(20):
        left[:] = order
        for entry in tmp_path.iterdir():
            entry.unlink()
        contents = {"A": b"of one GPU", "B": b"of another"}
        threads = [
            threading.Thread(target=landing.land_own, args=(tmp_path / "file", data), name=name)
            for name, data in contents.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        content = (tmp_path / "file").read_bytes()
        assert content in contents.values()
        assert landing.read_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_land_own_lands_again_when_only_the_digest_is_there(tmp_path: Path) -> None:
    (tmp_path / "file.sha256").write_text(landing.digest_line("file", "0" * 64))
    landing.land_own(tmp_path / "file", CONTENT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert landing.read_digest(tmp_path / "file") == hashlib.sha256(CONTENT).hexdigest()


def test_land_own_keeps_a_file_that_is_there(tmp_path: Path) -> None:
    first, _ = landing.land_own(tmp_path / "file", b"first")
    assert landing.land_own(tmp_path / "file", b"second") == (first, None)
    assert (tmp_path / "file").read_bytes() == b"first"
    assert landing.read_digest(tmp_path / "file") == first == hashlib.sha256(b"first").hexdigest()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "0" * 64,
        "0" * 63 + "  file\n",
        "0" * 64 + "  other\n",
        "0" * 64 + " *file\n",
        "0" * 64 + "  file\n\n",
        "G" * 64 + "  file\n",
        "A" * 64 + "  file\n",
        "é" * 32 + "  file\n",
        "0" * 2**20,
    ],
)
def test_read_digest_accepts_only_the_line_that_was_written(tmp_path: Path, line: str) -> None:
    (tmp_path / "file.sha256").write_text(line, encoding="utf-8")
    assert landing.read_digest(tmp_path / "file") is None


def test_read_digest_accepts_neither_a_folder_nor_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "file.sha256").mkdir()
    os.mkfifo(tmp_path / "pipe.sha256")
    assert landing.read_digest(tmp_path / "file") is None
    assert landing.read_digest(tmp_path / "pipe") is None


def test_stale_partials_go_and_those_of_files_not_landed_stay(tmp_path: Path) -> None:
    names = {
        ".shard-00000.h5.00112233aabbccdd.partial": False,
        ".shard-00000.h5.sha256.00112233aabbccdd.partial": False,
        ".shard-00001.h5.00112233aabbccdd.partial": True,
        ".shard-00001.h5.sha256.00112233aabbccdd.partial": True,
        "shard-00000.h5": True,
        "shard-00000.h5.sha256": True,
        ".hidden": True,
        "shard-00000.h5.partial": True,
    }
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    landing.remove_stale_partials(tmp_path, ["shard-00000.h5"])
    assert {p.name for p in tmp_path.iterdir()} == {name for name, stays in names.items() if stays}


def test_partials_tell_the_name_that_they_were_meant_for(tmp_path: Path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(landing.os, "replace", lambda *_: seen.extend(landing.partials(tmp_path)))
    landing.land(tmp_path / "shard-00000.h5", CONTENT)
    ((path, final),) = seen
    assert (path.parent, final) == (tmp_path, "shard-00000.h5")


def test_make_folder_tells_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BatchcamError, match="cannot write"):
        landing.make_folder(tmp_path / "file" / "run")
    landing.make_folder(tmp_path / "a" / "b")
    landing.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_make_folder_syncs_the_folders_that_hold_new_ones(tmp_path: Path, monkeypatch) -> None:
    synced = []
    monkeypatch.setattr(
        landing.os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    landing.make_folder(tmp_path / "a" / "b")
    assert synced == [str(tmp_path / "a"), str(tmp_path)]
    landing.make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2


def test_land_works_where_folders_know_no_sync(tmp_path: Path, monkeypatch) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(landing.os, "fsync", fsync)
    landing.land(tmp_path / "file", CONTENT)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_land_into_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(BatchcamError, match="No such file or directory"):
        landing.land(tmp_path / "absent" / "file", CONTENT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_make_folder_works_in_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    box = tmp_path / "box"
    box.mkdir(mode=0o333)
    landing.make_folder(box / "run")
    assert (box / "run").is_dir()


def test_a_link_points_to_something_at_every_moment(tmp_path: Path) -> None:
    for name in ("one place", "another"):
        (tmp_path / name).mkdir()
    link, seen, ended = tmp_path / "latest one", set(), threading.Event()
    landing.point(link, "another")

    def look() -> None:
        while not ended.is_set():
            seen.add(os.readlink(link))
            assert link.is_dir()

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(100):
        landing.point(link, "one place")
        landing.point(link, "another")
    ended.set()
    looking.join()
    assert seen <= {"one place", "another"}
    assert seen
    assert sorted(os.listdir(tmp_path)) == ["another", "latest one", "one place"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_that_can_not_rename_is_told_to_be_one_and_keeps_nothing(tmp_path, monkeypatch, number):
    def replace(old: object, new: object) -> None:
        raise OSError(number, os.strerror(number), str(old), None, str(new))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(BatchcamError, match=r"files can't be renamed here \(.*\), as where object storage") as caught:
        landing.land(tmp_path / "file", b"content")
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert list(tmp_path.iterdir()) == []
