"""What goes to make room, before a night and when the disk is full; what never goes; what is told."""

from __future__ import annotations

import os
import shutil
import types
from pathlib import Path

import pytest

from batchcam.commands.nightly import retention
from batchcam.store import landing
from batchcam.store.document import seal
from tests.helpers.fake_batchcam import Fake, latest, write_documents

NIGHT = "2026-11-24"
OLD = ("2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23")


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    fake = Fake(tmp_path / "bin")
    fake.set_date(NIGHT)
    return fake


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Four complete runs."""
    for name in OLD:
        write_documents(tmp_path / "runs" / name)
    (tmp_path / "runs" / "latest").symlink_to(OLD[-1])
    return tmp_path / "runs"


@pytest.fixture
def small_disk(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which each run that goes leaves 1,000 bytes."""

    def usage(path: Path) -> types.SimpleNamespace:
        return types.SimpleNamespace(free=1000 * sum(not (runs / name).exists() for name in OLD))

    monkeypatch.setattr(shutil, "disk_usage", usage)


def night(fake: Fake, runs: Path, *options: str) -> tuple[int, str, str]:
    return fake.run("nightly", *options, "model.pth", "photos", runs)


def there(runs: Path) -> set[str]:
    return {path.name for path in runs.iterdir() if path.is_dir() and not path.is_symlink()}


@pytest.mark.parametrize(
    ("need", "gone"), [(0, set()), (500, set(OLD[:1])), (1500, set(OLD[:2])), (9000, set(OLD[:2]))]
)
def test_as_many_old_runs_go_before_a_night_as_it_may_need_and_no_newer_ones(
    fake: Fake, runs: Path, small_disk: None, need: int, gone: set[str]
) -> None:
    fake.set_to_do(need)
    fake.answer(explain=1)
    assert night(fake, runs, "--keep", "3")[0] == 1
    assert set(OLD) - there(runs) == gone
    assert [words[-2:] for words in fake.calls()] == [["--dry-run", "--json"], ["--out", f"{runs}/{NIGHT}"]]


@pytest.mark.parametrize("answers", [{"dry_run": 1}, {}], ids=["explain cannot start", "all are too little"])
def test_no_run_goes_for_nothing(fake: Fake, runs: Path, small_disk: None, answers: dict[str, int]) -> None:
    fake.set_to_do(10**12)
    fake.answer(explain=1, **answers)
    night(fake, runs, "--keep", "1")
    assert there(runs) == {*OLD, NIGHT}
    assert ("not even without" in (runs / f"{NIGHT}.log").read_text()) != bool(answers)


def test_a_disk_that_is_full_is_freed_until_the_night_ends_well(fake: Fake, runs: Path) -> None:
    fake.is_full_while(runs / OLD[1])
    assert night(fake, runs, "--keep", "3") == (0, "", "")
    assert (there(runs), latest(runs)) == ({OLD[2], OLD[3], NIGHT}, NIGHT)
    log = (runs / f"{NIGHT}.log").read_text()
    assert [line for line in log.splitlines() if "to make room" in line] == [
        f"removed {runs / name} to make room" for name in OLD[:2]
    ]


@pytest.mark.parametrize("options", [[], ["--keep", "3"]])
def test_a_disk_that_stays_full_is_told_with_the_oldest_run_and_that_the_next_start_fails(
    fake: Fake, runs: Path, options: list[str]
) -> None:
    fake.is_full_while(runs / OLD[3])
    code, _, stderr = night(fake, runs, *options)
    assert code == 75
    stays = set(OLD) if not options else set(OLD[2:])
    assert there(runs) == {*stays, NIGHT}
    assert "stopped early at explain: the disk is full (exit code 75)" in stderr
    assert "the next start fails too" in stderr
    assert f"The oldest run is {runs / min(stays)}, " in stderr


def test_the_latest_run_is_never_removed_however_old_it_is(fake: Fake, runs: Path) -> None:
    (runs / "latest").unlink()
    (runs / "latest").symlink_to(OLD[0])
    fake.is_full_while(runs / OLD[0])
    assert night(fake, runs, "--keep", "1")[0] == 75
    assert there(runs) == {OLD[0], NIGHT}


def test_runs_that_somebody_keeps_are_never_removed(fake: Fake, runs: Path) -> None:
    (runs / "keep").write_text(f"{OLD[1]}/\n\n2026-01-01\n")
    assert night(fake, runs, "--keep", "1") == (0, "", "")
    assert there(runs) == {OLD[1], NIGHT}


@pytest.mark.parametrize("content", ["2026-11-2\n", "\0", "2026-11-20 2026-11-21"])
def test_a_list_of_runs_to_keep_that_names_none_is_refused_before_the_night(
    fake: Fake, runs: Path, content: str
) -> None:
    (runs / "keep").write_text(content)
    code, _, stderr = night(fake, runs, "--keep", "1")
    assert (code, fake.calls(), there(runs)) == (2, [], set(OLD))
    assert f"{runs / 'keep'}: " in stderr
    assert "write a name a line" in stderr


@pytest.mark.parametrize("code", [1, 3, 75], ids=["can't check", "findings", "stopped"])
def test_a_complete_run_that_verify_has_not_passed_does_not_count_among_the_newest(
    fake: Fake, runs: Path, code: int
) -> None:
    fake.answer(verify=code)
    assert night(fake, runs, "--keep", "2")[0] == code
    fake.answer(verify=0)
    fake.set_date("2026-11-25")
    assert night(fake, runs, "--keep", "2") == (0, "", "")
    assert there(runs) == {OLD[3], NIGHT, "2026-11-25"}
    fake.set_date("2026-11-26")
    assert night(fake, runs, "--keep", "2") == (0, "", "")
    assert there(runs) == {"2026-11-25", "2026-11-26"}
    assert not list(runs.glob("*.unverified"))


def test_a_run_that_verify_passes_in_the_second_start_of_its_day_counts(fake: Fake, runs: Path) -> None:
    fake.answer(verify=75)
    night(fake, runs)
    assert (runs / f"{NIGHT}.unverified").exists()
    fake.answer(verify=0)
    assert night(fake, runs, "--keep", "2") == (0, "", "")
    assert not (runs / f"{NIGHT}.unverified").exists()
    fake.set_date("2026-11-25")
    night(fake, runs, "--keep", "2")
    assert there(runs) == {NIGHT, "2026-11-25"}


def test_a_night_that_is_killed_before_it_verifies_leaves_a_run_that_does_not_count(fake: Fake, runs: Path) -> None:
    fake.answer(explain=137)  # as the night itself, with a run that another worker completes meanwhile
    night(fake, runs)
    write_documents(runs / NIGHT)
    fake.answer(explain=0)
    fake.set_date("2026-11-25")
    night(fake, runs, "--keep", "2")
    assert there(runs) == {OLD[3], NIGHT, "2026-11-25"}


def test_a_night_that_makes_no_run_leaves_no_mark(fake: Fake, runs: Path) -> None:
    (fake.folder / "nothing-new").touch()
    assert night(fake, runs, "--incremental") == (0, "", "")
    assert not list(runs.glob("*.unverified"))


def test_a_run_of_another_user_stays_whole_and_is_told(fake: Fake, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access, theirs = os.access, runs / OLD[0] / "shards"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != theirs and access(path, mode))
    code, _, stderr = night(fake, runs, "--keep", "1")
    assert code == 0
    assert there(runs) == {OLD[0], NIGHT}
    assert stderr.splitlines() == [
        f"batchcam nightly: {runs / OLD[0]}: too old, but may not be removed: its owner can say "
        f"chmod -R g+w {runs / OLD[0]}"
    ]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("2026-11-24", True), ("2026-02-30", False), ("2026-13-01", False), ("20261124", False), ("2026-11-٢٤", False)],
)
def test_a_day_is_one_of_the_calendar(name: str, is_one: bool) -> None:
    assert retention.is_day(name) == is_one


def test_the_run_that_trend_holds_the_others_against_does_not_go(fake: Fake, runs: Path) -> None:
    landing.make_folder(runs / "trend")
    landing.land(runs / "trend" / "trend.json", seal({"reference_run": OLD[0]}))
    assert night(fake, runs, "--keep", "2")[0] == 0
    assert there(runs) == {"trend", OLD[0], OLD[3], NIGHT}
