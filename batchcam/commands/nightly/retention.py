"""Which old runs go: those older than the newest complete ones, but for the latest and those that are kept."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from batchcam.commands.nightly.config import LATEST, TREND
from batchcam.config.texts import read_option_file
from batchcam.errors import BatchcamError, ConfigError
from batchcam.store.document import read_document
from batchcam.store.manifest import holds_images, unverified_note
from batchcam.store.schema import PLAN_FILE

KEEP_FILE: Final = "keep"
LAST_DAY: Final = datetime.date.max.isoformat()
REPORT: Final = ".html"
LOG: Final = ".log"
"""What follows a run's name in names of files beside it."""
GONE: Final = ".removed-"  # half removed, a run would look like an interrupted one


def dated_runs(runs: Path, until: str) -> list[Path]:
    """Return the runs that are named by a day up to `until`, oldest first.

    Those of later days were made by a clock that was wrong, or this one is: they neither count nor go.
    """
    names = (path.parent.name for path in runs.glob(f"????-??-??/{PLAN_FILE}"))
    return [runs / name for name in sorted(names) if is_day(name) and name <= until and not (runs / name).is_symlink()]


def future_runs(runs: Path, today: str) -> list[Path]:
    """Return the runs that are named by a day after `today`, oldest first."""
    return [run for run in dated_runs(runs, LAST_DAY) if run.name > today]


def is_day(name: str) -> bool:
    """Return whether a name is a day's, such as 2026-11-24."""
    try:
        return bool(re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", name)) and bool(datetime.date.fromisoformat(name))
    except ValueError:
        return False


def surplus(run: Path, keep: int) -> list[Path]:
    """Return the runs, oldest first, that go when `run` is complete and the `keep` newest such ones are to stay.

    A run that verify has not passed, or of which most images could not be read, does not count.
    """
    kept = kept_names(run.parent) | _reference(run.parent)
    older = [path for path in dated_runs(run.parent, run.name) if path != run]
    complete = 1
    while older and complete < keep:
        complete += _counts(older.pop())
    return [path for path in older if path.name not in kept and not _is_latest(path)]


def _counts(run: Path) -> bool:
    return holds_images(run) and not unverified_note(run).exists()


def mark(run: Path, verified: bool) -> None:
    """Note beside a run whether verify has passed it; a run without a note counts as verified, as older ones do."""
    note = unverified_note(run)
    with contextlib.suppress(OSError):  # of a full disk or lost rights the steps are going to tell
        if verified:
            note.unlink(missing_ok=True)
        else:
            note.touch()


def kept_names(runs: Path) -> set[str]:
    """Return the names of the runs that somebody keeps: the lines of RUNS/keep.

    Raises:
        ConfigError: it can't be read, or a line names nothing.
    """
    file = runs / KEEP_FILE
    if not file.exists():
        return set()
    names = {line.strip().rstrip("/") for line in read_option_file(file, "the list").splitlines()} - {""}
    for name in sorted(names):
        if not is_day(name) and not os.path.lexists(runs / name):
            raise ConfigError(f"{file}: {name!r} names no run; write a name a line, such as 2026-11-24")
    return names


def _reference(runs: Path) -> set[str]:
    """Return the name of the run that trend holds the others against, which would begin again without it."""
    try:
        return {read_document(runs / TREND / f"{TREND}.json")["reference_run"]}
    except (OSError, BatchcamError, KeyError):
        return set()


def beside(run: Path, suffix: str) -> Path:
    """Return the path of a file that lies beside a run and has its name."""
    return run.with_name(run.name + suffix)


def remove(run: Path) -> None:
    """Remove a run and what lies beside it.

    Raises:
        BatchcamError: it is another user's, who did not leave the right to the group; then all of it stays.
    """
    for folder in (run, *(path for path in run.rglob("*") if path.is_dir())):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise BatchcamError(f"{run}: too old, but may not be removed: its owner can say chmod -R g+w {run}")
    gone = run.with_name(f"{GONE}{run.name}")
    try:
        run.rename(gone)
        shutil.rmtree(gone)
        for file in (beside(run, REPORT), beside(run, LOG), unverified_note(run)):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise BatchcamError(f"{error.filename}: cannot remove: {error.strerror or error}") from error


def finish_removals(runs: Path) -> None:
    """Remove what an interruption left of runs that were being removed."""
    for gone in runs.glob(f"{GONE}????-??-??"):
        shutil.rmtree(gone, ignore_errors=True)


def size_of(run: Path) -> int:
    """Return the bytes that the files of a run take."""
    return sum(_sizes(run))


def _sizes(run: Path) -> Iterator[int]:
    for path in run.rglob("*"):
        try:
            yield path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue


def _is_latest(run: Path) -> bool:
    link = run.with_name(LATEST)
    return link.exists() and link.samefile(run)
