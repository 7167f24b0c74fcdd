"""A folder is worked in by one job at a time, with and without locks of the file system."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from batchcam.errors import BatchcamError, StoppedEarlyError
from batchcam.job.leases import STALE_S, lease_path
from batchcam.job.lock import LOCK_FILE, NO_LOCKS, locked
from batchcam.job.processes import this_process

SINCE = time.mktime((2026, 11, 24, 2, 30, 0, 0, 0, -1))

HOLD = """
import sys, pathlib
from batchcam.job.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that works in a folder."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout
    assert process.stdout.readline() == "locked\n"
    return process


def text_of(pid: int) -> str:
    """What a lock says of a process of this machine."""
    return json.dumps({**this_process(), "pid": pid, "since": SINCE})


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_folder_is_locked_by_one_at_a_time_and_another_folder_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    for name in ("runs", "others", "locks"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("runs")
    if elsewhere:
        monkeypatch.setenv("LOCKDIR", str(tmp_path / "locks"))
    first = holder(tmp_path / "runs")
    try:
        with pytest.raises(StoppedEarlyError) as refused, locked(tmp_path / "link"):
            pass
        assert re.fullmatch(
            rf"not started: process {first.pid} on .+, since [-0-9]+ [:0-9]+, is at work in .*/link", str(refused.value)
        )
        with locked(tmp_path / "others"):
            pass
        assert (tmp_path / "runs" / LOCK_FILE).exists() != elsewhere
    finally:
        end(first)
    with locked(tmp_path / "runs"):
        pass


def test_a_child_that_inherits_the_lock_keeps_others_out_and_nobody_dead_is_said_to_be_at_work(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    with locked(tmp_path) as descriptors:
        child = subprocess.Popen(["sleep", "60"], pass_fds=descriptors)
    (tmp_path / LOCK_FILE).write_text(text_of(dead.pid))
    try:
        with (
            pytest.raises(StoppedEarlyError, match="another job, or a command that outlived process"),
            locked(tmp_path),
        ):
            pass
    finally:
        child.kill()
        child.wait()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("number", NO_LOCKS, ids=lambda n: errno.errorcode[n])
def test_a_lease_takes_the_place_of_a_lock_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    told = rf"process {os.getpid()} on .* is at work"
    with locked(tmp_path), pytest.raises(StoppedEarlyError, match=told), locked(tmp_path):
        pass
    assert os.listdir(tmp_path) == [LOCK_FILE]


@pytest.fixture
def lease(tmp_path: Path, no_flock: None) -> Path:
    """A lease that a job on another machine has."""
    path = lease_path(tmp_path / "lock", 0)
    path.write_text(json.dumps({"host": "elsewhere", "pid": 4711, "since": SINCE}))
    return path


def test_a_lease_without_a_sign_of_life_is_taken_over(tmp_path: Path, lease: Path) -> None:
    told = "process 4711 on elsewhere, since 2026-11-24 02:30:00, is at work in "
    with pytest.raises(StoppedEarlyError, match=told), locked(tmp_path):
        pass
    dead_since = time.time() - STALE_S - 60
    os.utime(lease, (dead_since, dead_since))
    told = rf"process {os.getpid()} on .* is at work"
    with locked(tmp_path), pytest.raises(StoppedEarlyError, match=told), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_lease_of_a_dead_process_of_this_machine_is_taken_over_at_once(tmp_path: Path, lease: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    lease.write_text(text_of(dead.pid))
    told = rf"process {os.getpid()} on .* is at work"
    with locked(tmp_path), pytest.raises(StoppedEarlyError, match=told), locked(tmp_path):
        pass


def test_a_lease_of_another_container_that_has_this_ones_name_is_respected(tmp_path: Path, lease: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    lease.write_text(text_of(dead.pid).replace("pid:[", "pid:[9"))
    told = rf"not started: process {dead.pid} on .*, since 2026-11-24 02:30:00, is at work in "
    with pytest.raises(StoppedEarlyError, match=told), locked(tmp_path):
        pass


def test_a_lease_that_cannot_be_made_is_no_lock(
    tmp_path: Path, no_flock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: str | Path, *rest: int) -> int:
        if "lease" in str(path):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return real(path, *rest)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BatchcamError, match="cannot lock: Disk quota exceeded"), locked(tmp_path):
        pass


def test_any_other_fault_of_a_lock_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    told = r"not started: .*/\.lock: cannot lock: .*LOCKDIR="
    with pytest.raises(BatchcamError, match=told) as refused, locked(tmp_path):
        pass
    assert "at work" not in str(refused.value)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("shared", [False, True])
def test_what_is_made_has_the_rights_for_the_group_that_the_folder_has(
    tmp_path: Path, umask: int, shared: bool
) -> None:
    tmp_path.chmod(0o2770 if shared else 0o700)
    before = os.umask(umask)
    try:
        with locked(tmp_path):
            (tmp_path / "run").mkdir()
        (tmp_path / "later").mkdir()
    finally:
        os.umask(before)
    for name, rights in (("run", 0o777 & ~(umask & ~0o070 if shared else umask)), ("later", 0o777 & ~umask)):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) & 0o777 == rights
    assert bool((tmp_path / LOCK_FILE).stat().st_mode & 0o020) == shared


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")

AS_USER = """
import os, pathlib, sys
from batchcam.errors import BatchcamError
from batchcam.job.lock import locked
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[3])); os.umask(int(sys.argv[4], 8))
try:
    with locked(pathlib.Path(sys.argv[1])):
        pathlib.Path(sys.argv[1], sys.argv[3]).mkdir()
        print("worked")
except BatchcamError as error:
    print(error)
"""


@needs_root
@pytest.mark.parametrize("umask", ["022", "027", "077"])
@pytest.mark.parametrize("shared", [False, True])
def test_two_members_of_a_group_both_work_or_the_second_is_told_what_to_do(umask: str, shared: bool) -> None:
    with TemporaryDirectory(dir="/tmp") as place:  # others may enter it, unlike pytest's own
        Path(place).chmod(0o755)
        runs = Path(place, "runs")
        runs.mkdir()
        os.chown(runs, 4711, 4700)
        runs.chmod(0o2770 if shared else 0o777 & ~int(umask, 8))

        def work(user: int) -> str:
            words = [sys.executable, "-c", AS_USER, str(runs), "4700", str(user), umask]
            return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

        assert work(4711) == "worked"
        second = work(4712)
        assert second == "worked" if shared else re.fullmatch(r".*may not write there.*chmod g\+rwxs .*/runs", second)
