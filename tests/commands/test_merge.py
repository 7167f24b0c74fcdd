"""What merge reads, and what it takes the word of the run's tasks and of earlier merges for."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest

from batchcam.commands import merge as merge_module
from batchcam.commands.merge import merge
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import RunError, StoppedEarlyError
from batchcam.job.stop import Stop
from batchcam.store import landing, master, schema
from batchcam.store.manifest import read_stamps, read_tasks, task_file, write_task
from batchcam.store.plan import Plan
from tests.helpers import damage
from tests.helpers.synthetic import Rows, land_shards, shard_image, stamp_of, synthetic_plan, synthetic_rows

SHARDS = [f"shard-0000{i}.h5" for i in range(3)]


@pytest.fixture(name="read")
def _read(monkeypatch) -> list[str]:
    """The names of the shards whose bytes are read to be proven."""
    read, real = [], landing.digest_of

    def digest_of(content, look=landing.unheeding):
        if Path(str(content.name)).name in SHARDS:
            read.append(Path(content.name).name)
        return real(content, look)

    monkeypatch.setattr(landing, "digest_of", digest_of)
    monkeypatch.setattr(merge_module, "available_cpus", lambda: 1)
    return read


def waiting(seconds: float) -> Iterator[None]:
    """Yield again and again, for no longer than that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.01)


def unmerge(run: Path) -> Path:
    for name in ("run.h5", "run.h5.sha256", "manifest.json"):
        (run / name).unlink()
    return run


def make_again(run: Path, plan: Plan, rows: Rows, index: int) -> None:
    """Lose a shard of a complete run, and make it again, as explain does."""
    for name in ("manifest.json", "run.h5"):
        landing.set_aside(run / name)
    (run / "run.h5.sha256").unlink()
    shard = plan.shards[index]
    landing.land_own(run / "shards" / shard.file, shard_image(plan, shard, rows), replace=True)


def merged_elsewhere(run: Path) -> bytes:
    """run.h5 as it is made of nothing but the shards."""
    elsewhere = Path(shutil.copytree(run, run.with_name("elsewhere")))
    for path in (*elsewhere.glob("*run.h5*"), *elsewhere.glob("*manifest*")):
        path.unlink()
    merge(elsewhere)
    return (elsewhere / "run.h5").read_bytes()


def test_merge_reads_no_shard_again_that_a_task_has_left_as_it_wrote_it(make_run, read: list[str]) -> None:
    run = make_run()
    before = (run / "run.h5").read_bytes()
    merge(unmerge(run))
    assert read == []
    assert (run / "run.h5").read_bytes() == before
    assert not list(run.glob("task-merge-*"))


def test_merge_reads_the_shards_of_a_copy_once(finished_run: Path, read: list[str]) -> None:
    before = (finished_run / "run.h5").read_bytes()
    for _ in range(2):
        merge(unmerge(finished_run))
        assert read == SHARDS
        assert (finished_run / "run.h5").read_bytes() == before
    assert len(list(finished_run.glob("task-merge-*.json"))) == 1
    assert [task["task"] for task in read_tasks(finished_run)] == ["0/1"]
    assert verify(VerifyConfig(finished_run, quiet=True)).found == []


def overwritten(path: Path) -> None:
    status = path.stat()
    damage.flip(path, status.st_size // 2)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(path: Path) -> None:
    shutil.copy2(path, path.with_name("copy"))
    overwritten(path.with_name("copy"))
    os.replace(path.with_name("copy"), path)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("change", [overwritten, replaced, truncated])
def test_merge_finds_a_shard_that_changed_after_it_had_landed(make_run, change: Callable[[Path], None]) -> None:
    run = make_run()
    change(unmerge(run) / "shards" / SHARDS[1])
    with pytest.raises(RunError, match=r"shard-00001\.h5: changed after it was written"):
        merge(run)
    assert not (run / "manifest.json").exists()


def cut_short(record: Path) -> None:
    record.write_bytes(record.read_bytes()[:-100])


def edited(record: Path) -> None:
    record.write_bytes(record.read_bytes().replace(b'"samples": 21', b'"samples": 22'))


@pytest.mark.parametrize(
    "change",
    [
        cut_short,
        edited,
        Path.unlink,
        lambda record: damage.edit_document(record, stamps=[]),
        lambda record: damage.edit_document(record, stamps={"a": "b"}),
        lambda record: damage.edit_document(record, stamps=[1, 2, 3]),
    ],
    ids=["cut short", "edited", "gone", "empty", "another type", "numbers"],
)
def test_merge_reads_shards_for_which_no_sound_record_stands(make_run, read, change: Callable[[Path], None]) -> None:
    run = make_run()
    (record,) = run.glob("task-*.json")
    change(record)
    merge(unmerge(run))
    assert read == SHARDS


def test_with_prove_merge_finds_what_a_forged_record_hides_as_verify_does(make_run, read: list[str]) -> None:
    run = make_run()
    overwritten(run / "shards" / SHARDS[2])
    write_task(run, task_file(1), {"stamps": [stamp_of(run / "shards" / SHARDS[2])]})
    merge(unmerge(run))
    assert {finding.file for finding in verify(VerifyConfig(run, quiet=True)).found} == {f"shards/{SHARDS[2]}"}
    with pytest.raises(RunError, match=r"shard-00002\.h5: changed after it was written"):
        merge(run, prove=True)
    assert read == SHARDS


def test_with_prove_merge_reads_all_and_leaves_no_second_record(make_run, read: list[str]) -> None:
    run = make_run()
    assert merge(run, prove=True).kept
    assert read == SHARDS
    assert not list(run.glob("task-merge-*"))


def test_a_merge_that_was_stopped_does_not_read_again_what_it_has_proven(
    finished_run: Path, read: list[str], monkeypatch
) -> None:
    class Stopped(Stop):
        def reason(self) -> str | None:
            return "SIGTERM" if len(read) == 3 else None

    def endless(content, look) -> str:
        digest = real(content, look)
        if content.name.endswith(SHARDS[2]):
            for _ in waiting(60):
                look()
        return digest

    before, real = (finished_run / "run.h5").read_bytes(), landing.digest_of
    unmerge(finished_run)
    with monkeypatch.context() as patched:
        patched.setattr(landing, "digest_of", endless)
        with Stopped(), pytest.raises(StoppedEarlyError, match="stopped by SIGTERM"):
            merge(finished_run)
    merge(finished_run)
    assert read == [*SHARDS, SHARDS[2]]
    assert (finished_run / "run.h5").read_bytes() == before
    assert verify(VerifyConfig(finished_run, quiet=True)).found == []


def test_a_merge_that_is_killed_has_noted_before_what_it_has_proven(finished_run: Path, monkeypatch) -> None:
    left, real, noted = read_stamps(finished_run), master.write_table, 0

    def write_table(*arguments) -> None:
        nonlocal noted
        for _ in waiting(60):
            if (noted := len(read_stamps(finished_run) - left)) == len(SHARDS):
                break
        real(*arguments)

    monkeypatch.setattr(merge_module, "NOTE_EVERY_S", 0)
    monkeypatch.setattr(master, "write_table", write_table)
    merge(unmerge(finished_run))
    assert noted == len(SHARDS)


def test_merge_reads_a_copy_of_a_complete_run_and_leaves_nothing_in_it(finished_run: Path, read: list[str]) -> None:
    before = {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()}
    assert merge(finished_run).kept
    assert read == SHARDS
    assert {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()} == before


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The names of the shards that are opened for all of their columns."""
    opened, real = [], master.open_checked
    monkeypatch.setattr(master, "open_checked", lambda *each: opened.append(each[0].name) or real(*each))
    return opened


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("referred", [10_000, 2], ids=["status in shards", "status in run.h5"])
def test_after_one_shard_was_made_again_the_rows_of_the_others_come_from_the_former_run_h5(
    tmp_path: Path, monkeypatch, opened: list[str], index: int, referred: int
) -> None:
    monkeypatch.setattr(schema, "REFERRED_SHARDS", referred)
    run, plan, rows = tmp_path / "run", synthetic_plan(), synthetic_rows(synthetic_plan())
    rows.texts["error"][8 * index] = "the longest error of all, and in one shard only"
    land_shards(run, plan, rows)
    merge(run)
    changed = synthetic_rows(plan, seed=1)
    made_again = Rows(changed.columns, changed.texts, rows.weight, rows.bias)
    make_again(run, plan, made_again, index)
    opened.clear()
    merge(run)
    assert set(opened) == {SHARDS[0], SHARDS[index]}  # the first one has the classifier
    assert opened.count(SHARDS[0]) == (2 if index == 0 else 1)
    assert (run / "run.h5").read_bytes() == merged_elsewhere(run)
    assert not list(run.glob(".*"))


def flipped(run: Path) -> None:
    damage.flip(landing.aside(run / "run.h5"), -2000)


def replaced_with_its_digest(run: Path) -> None:
    """A column edited, and the manifest that was set aside left as it is."""
    with h5py.File(landing.aside(run / "run.h5"), "r+") as file:
        file["label"][9] = 4


def gone(run: Path) -> None:
    landing.aside(run / "manifest.json").unlink()


@pytest.mark.parametrize("change", [flipped, replaced_with_its_digest, gone])
def test_a_former_run_h5_is_not_used_unless_its_manifest_proves_it(
    tmp_path: Path, opened: list[str], change: Callable[[Path], None]
) -> None:
    run, plan, rows = tmp_path / "run", synthetic_plan(), synthetic_rows(synthetic_plan())
    land_shards(run, plan, rows)
    merge(run)
    expected = (run / "run.h5").read_bytes()
    make_again(run, plan, rows, 1)
    change(run)
    opened.clear()
    merge(run)
    assert opened == [SHARDS[0], *SHARDS]
    assert (run / "run.h5").read_bytes() == expected
    assert not list(run.glob(".*"))
