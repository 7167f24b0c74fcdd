"""Leases: one holder at a time, taken over from the dead and the late, and never needed."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batchcam.job import leases as leases_module
from batchcam.job.leases import LONGEST, STALE_S, WORDLESS_S, Leases, lease_path, leased
from batchcam.store import landing
from batchcam.store.schema import PARTIAL_SUFFIX


def worker(name: str = "one", dead: str = "", told: list[OSError] | None = None) -> Leases:
    """Return the leases of a worker that knows the one called `dead` to have ended."""

    def has_ended(holder: Mapping[str, Any]) -> bool:
        return bool(dead) and holder.get("name") == dead

    return Leases({"name": name}, (told if told is not None else []).append, PARTIAL_SUFFIX, has_ended)


def lease_on(shard: Path, generation: int = 0) -> Path:
    return lease_path(shard, generation, PARTIAL_SUFFIX)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return tmp_path / "shard-00007.h5"


def age(path: Path, seconds: float) -> None:
    """Set a file's time back by so many seconds."""
    made = path.stat().st_mtime
    os.utime(path, (made - seconds, made - seconds))


def pretend_since(lease: Path, seconds: float) -> None:
    """Let a lease say that it was taken so many seconds ago."""
    content = json.loads(lease.read_text())
    lease.write_text(json.dumps({**content, "since": content["since"] - seconds}))


def test_one_of_many_workers_gets_a_lease(shard):
    team = [worker(str(number)) for number in range(16)]
    with ThreadPoolExecutor(len(team)) as pool:
        assert sum(pool.map(lambda each: each.claim(shard), team)) == 1


def test_a_lease_given_back_is_free(shard):
    first, second = worker(), worker()
    assert first.claim(shard)
    assert not second.claim(shard)
    assert first.release(shard) is not None
    assert list(shard.parent.iterdir()) == []
    assert second.claim(shard)
    assert first.release(shard) is None  # not its own any more
    assert not worker().claim(shard)


def test_all_leases_of_a_worker_are_given_back_at_once(shard):
    first = worker()
    first.claim(shard)
    first.claim(shard.with_name("shard-00008.h5"))
    first.release_all()
    assert list(shard.parent.iterdir()) == []


def test_a_lease_is_a_temporary_file_of_what_is_to_land(shard):
    worker().claim(shard)
    assert [final for _, final in landing.partials(shard.parent)] == [shard.name]
    landing.remove_stale_partials(shard.parent, [shard.name])
    assert list(shard.parent.iterdir()) == []


def test_what_a_worker_leaves_that_is_killed_while_it_looks_at_the_clock_is_cleaned_up_too(shard, monkeypatch):
    worker().claim(shard)
    monkeypatch.setattr(leases_module.Leases, "_note_time", lambda *_: os._exit(9))
    child = os.fork()
    if child == 0:
        worker().claim(shard)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(list(shard.parent.iterdir())) == 2
    landing.remove_stale_partials(shard.parent, [shard.name])
    assert list(shard.parent.iterdir()) == []


def test_the_lease_of_a_process_that_has_ended_is_taken_over_by_one_worker_and_by_nobody_after(shard):
    worker("dead").claim(shard)
    assert not worker().claim(shard)
    team = [worker(str(number), dead="dead") for number in range(16)]
    with ThreadPoolExecutor(len(team)) as pool:
        assert sum(pool.map(lambda each: each.claim(shard), team)) == 1


def test_a_lease_that_was_taken_over_from_the_dead_and_given_back_is_free(shard):
    worker("dead").claim(shard)
    second = worker("two", dead="dead")
    assert second.claim(shard)
    second.release(shard)
    assert worker("three", dead="dead").claim(shard)


@pytest.mark.parametrize(("silent_s", "free"), [(STALE_S - 30, False), (STALE_S + 30, True)])
def test_a_holder_without_a_sign_of_life_counts_as_dead_after_a_while(shard, silent_s, free):
    worker().claim(shard)
    age(lease_on(shard), silent_s)
    assert worker().claim(shard) is free


def test_the_clock_of_the_machine_does_not_matter(shard, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    worker().claim(shard)
    assert not worker().claim(shard)
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert not worker().claim(shard, patience_s=1000)


def test_a_lease_held_longer_than_others_have_patience_is_taken_over_by_one_of_them(shard):
    worker().claim(shard)
    pretend_since(lease_on(shard), 100)
    assert not worker().claim(shard, patience_s=110)
    assert not worker().claim(shard)
    assert sum(worker().claim(shard, patience_s=90) for _ in range(3)) == 1


def test_signs_of_life_keep_a_lease(shard, monkeypatch):
    monkeypatch.setattr(leases_module, "BEAT_S", 0.01)
    first = worker()
    first.claim(shard)
    lease = lease_on(shard)
    age(lease, STALE_S + 30)
    before = lease.stat().st_mtime
    with first.beating():
        deadline = time.monotonic() + 60
        while lease.stat().st_mtime == before and time.monotonic() < deadline:
            time.sleep(0.01)
    assert not worker().claim(shard)
    assert not [thread for thread in threading.enumerate() if thread.name == "leases"]


def test_signs_of_life_outlive_a_lease_that_a_clean_up_has_removed(shard, monkeypatch):
    monkeypatch.setattr(leases_module, "BEAT_S", 0.001)
    first, other = worker(), shard.with_name("shard-00008.h5")
    first.claim(shard)
    first.claim(other)
    lease_on(shard).unlink()
    age(lease_on(other), STALE_S)
    before = lease_on(other).stat().st_mtime
    with first.beating():
        deadline = time.monotonic() + 60
        while lease_on(other).stat().st_mtime == before and time.monotonic() < deadline:
            time.sleep(0.01)
    assert not lease_on(shard).exists()
    assert lease_on(other).stat().st_mtime > before


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC, errno.EACCES, errno.ENOSYS])
def test_where_no_lease_can_be_made_the_work_goes_on_and_that_is_told_once(shard, monkeypatch, error):
    def refuse(*_: object, **__: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(leases_module.os, "open", refuse)
    told: list[OSError] = []
    first = worker(told=told)
    assert first.claim(shard)
    assert first.claim(shard.with_name("shard-00008.h5"))
    assert [each.errno for each in told] == [error]
    first.release_all()


NONSENSE = [b"", b"{", b"[1]", b"\xff", b"[" * LONGEST]


@pytest.mark.parametrize(
    ("content", "silent_s"), [*((each, WORDLESS_S) for each in NONSENSE), (b'{"since": "x", "pid": []}', STALE_S)]
)
def test_a_lease_that_says_nonsense_is_respected_for_a_while(shard, content, silent_s):
    lease = lease_on(shard)
    lease.write_bytes(content)
    age(lease, silent_s - 5)
    assert not worker().claim(shard)
    age(lease, silent_s + 5)
    assert worker().claim(shard)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)])
def test_what_is_no_file_under_a_leases_name_is_overcome_at_once_by_one_worker(shard, make):
    make(lease_on(shard))
    assert worker().claim(shard)
    assert not worker().claim(shard)
    assert lease_on(shard, 1).exists()


def test_the_newest_lease_tells_who_has_it(shard):
    assert worker().holder(shard) == {}
    worker("dead").claim(shard)
    second = worker("two", dead="dead")
    second.claim(shard)
    assert worker().holder(shard)["name"] == "two"
    second.release(shard)
    assert worker().holder(shard)["name"] == "dead"


def test_a_name_tells_what_a_lease_is_on(shard):
    assert leased(lease_on(shard, 12).name, PARTIAL_SUFFIX) == (shard.name, 12)
    assert leased(lease_path(shard, 3).name) == (shard.name, 3)
    for name in (shard.name, f".{shard.name}.0123456789abcdef.partial", f".{shard.name}.lease-x.partial"):
        assert leased(name, PARTIAL_SUFFIX) is None
