"""A few cases of each fault class, and proofs that a fault is noticed; `python -m benchmarks.faults` tries them all."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults.classes import CLASSES
from benchmarks.faults.inject import Call, Verdict
from benchmarks.faults.material import LEASE, Job, Watcher, whole
from benchmarks.faults.power import Disk
from benchmarks.faults.registry import Bench, Outcome, table, tried, updated
from benchmarks.faults.supervision import proceed, watched
from benchmarks.faults.warm import Warm

OWN = {"kill", "leases", "terminate", "power", "disk", "soak"}
"""The modules whose fault classes are tried here; others have tests of their own."""

TIMED = "times slower"
"""Whose cases survive in time or not: no matter for a test, beside which others run."""

NAMES = [
    name for name, function in CLASSES.items() if function.__module__.rpartition(".")[2] in OWN and TIMED not in name
]
LIKE_ANOTHER = ("random time", "of 3 workers at each", "is full from one")
"""Tried by others at chosen moments, by workers without shares, and on a disk that is full for real."""

SLOW = [
    name
    for name in NAMES
    if any(word in name for word in ("started cold", "20,000", "shared memory", "refuses", *LIKE_ANOTHER))
]


@pytest.fixture(scope="module")
def warm(tmp_path_factory) -> Iterator[Warm]:
    with Warm(tmp_path_factory.mktemp("warm")) as warm:
        yield warm


@pytest.fixture(scope="module")
def job(warm) -> Job:
    return Job.prepare(warm, 12, 4)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SLOW])
def test_every_case_of_a_fault_class_survives(name, warm, tmp_path):
    survives(name, warm, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_case_of_a_slow_fault_class_survives(name, warm, tmp_path):
    survives(name, warm, tmp_path)


def survives(name: str, warm: Warm, folder: Path) -> None:
    outcome = tried(name, folder, warm, quick=True)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.cases > 0
    assert outcome.failures == {}


@pytest.fixture
def calls(warm, job, tmp_path) -> list[Call]:
    """All calls of one undisturbed explain."""
    if not warm.can_watch:
        pytest.skip("system calls can't be stopped here")
    run = tmp_path / "run"
    calls, (ended,), _ = watched(warm, [job.explain(run)], tmp_path, proceed)
    assert ended.code == 0, ended
    assert whole(run, job.files) == []
    return calls


def test_every_file_is_synced_before_it_gets_its_name_and_its_folder_after(calls, job):
    names = [call.path for call in calls if call.name in ("rename", "link")]
    assert set(names) >= {f"run/{name}" for name in (*job.files, "run.json", "manifest.json")}
    for name in names:
        landed = next(i for i, c in enumerate(calls) if c.name in ("rename", "link") and c.path == name)
        before = [c.name for c in calls[:landed] if c.path == calls[landed].source]
        # a file that waits for its plan has had another name before, which is one of `names`
        assert before in (["open", "write", "fsync", "close"], ["rename"])
        after = [c.name for c in calls[landed + 1 :] if c.path == str(Path(name).parent)]
        assert after[0] == "fsync"


def test_nothing_is_written_under_its_final_name(calls):
    assert {Path(c.path).suffix for c in calls if c.name in ("open", "write")} == {".partial"}


def test_short_count_and_error_reach_the_command(warm, job, tmp_path):
    if not warm.can_watch:
        pytest.skip("system calls can't be stopped here")
    seen: list[Call] = []

    def decide(_: int, call: Call) -> Verdict:
        others = ("sha256", LEASE)
        if call.name != "write" or "shard-00000.h5." not in call.path or any(word in call.path for word in others):
            return Verdict()
        seen.append(call)
        return Verdict(short=1000) if len(seen) == 1 else Verdict(error=errno.EIO)

    _, (ended,), _ = watched(warm, [job.explain(tmp_path / "run")], tmp_path, decide)
    assert [call.size for call in seen] == [seen[0].size, seen[0].size - 1000]
    assert ended.code == 1
    assert ended.output.endswith("shard-00000.h5: cannot write: Input/output error\n")


DAMAGE = {
    "shard cut short": lambda run: (run / "shards/shard-00001.h5").write_bytes(b"\x89HDF\r\n\x1a\n"),
    "shard of another run": lambda run: shutil.copy(run / "shards/shard-00000.h5", run / "shards/shard-00001.h5"),
    "shard without its digest": lambda run: (run / "shards/shard-00001.h5.sha256").unlink(),
    "shard gone": lambda run: (run / "shards/shard-00001.h5").unlink(),
    "half a manifest": lambda run: (run / "manifest.json").write_bytes((run / "manifest.json").read_bytes()[:500]),
    "empty plan": lambda run: (run / "run.json").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_watcher_notices(damage, job, tmp_path):
    run = shutil.copytree(job.reference, tmp_path / "run")
    assert Watcher(run, job.files).look() == []
    damage(run)
    assert Watcher(run, job.files).look() != []


def test_file_left_over_is_noticed(job, tmp_path):
    run = shutil.copytree(job.reference, tmp_path / "run")
    assert whole(run, job.files) == []
    (run / ".run.json.0.partial").touch()
    assert whole(run, job.files) != []


def test_disk_keeps_what_was_synced_only(tmp_path):
    disk = Disk(tmp_path)
    (tmp_path / "new").write_bytes(b"content")
    disk.happened(Call("open", ".new"))
    disk.happened(Call("rename", "new", source=".new"))
    assert (disk.after_power_cut(True), disk.after_power_cut(False)) == ({"new": b""}, {})
    disk.happened(Call("fsync", "."))
    assert disk.after_power_cut(False) == {"new": b""}
    disk.happened(Call("fsync", "new"))
    assert disk.after_power_cut(False) == {"new": b"content"}
    disk.happened(Call("unlink", "new"))
    assert (disk.after_power_cut(True), disk.after_power_cut(False)) == ({}, {"new": b"content"})


def test_table_counts_what_did_not_survive(tmp_path, monkeypatch):
    def class_(bench: Bench) -> Outcome:
        outcome = Outcome("something holds")
        outcome.case("good", [])
        outcome.case("bad", ["it does not hold"])
        return outcome

    monkeypatch.setitem(CLASSES, "a fault", class_)
    outcome = tried("a fault", tmp_path, Warm(tmp_path), quick=True)
    text = table({"a fault": outcome}, "a machine", 60)
    assert "| a fault | 2 | 1 | something holds |" in text
    assert "**2 cases, 1 survived.**" in text


def test_rows_of_one_class_are_replaced_and_the_others_kept():
    few, many = Outcome("few hold", cases=2), Outcome("many hold", cases=30)
    before = table({"a fault": few, "another": many}, "a machine", 60)
    after = table({"a fault": many, "another": many}, "a machine", 60)
    assert updated(before, {"a fault": many, "unknown": few}) == after
