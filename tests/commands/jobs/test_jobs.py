"""jobs: the scripts arrive whole, executable where they were, and replace nothing of the user's."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from batchcam.commands.jobs.config import JobsConfig
from batchcam.commands.jobs.jobs import NIGHTLY, JobsSummary, find_jobs, jobs
from batchcam.errors import BatchcamError
from tests.helpers.fake_batchcam import JOBS

NAMES = sorted(os.listdir(JOBS))


def copy_jobs(folder: Path) -> JobsSummary:
    return jobs(JobsConfig(folder))


def executable(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.stat().st_mode & stat.S_IXUSR}


def test_all_scripts_are_copied_and_work_from_there(tmp_path: Path) -> None:
    folder = tmp_path / "my own" / "jobs"
    summary = copy_jobs(folder)
    assert (summary.copied, summary.kept) == (NAMES, [])
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == {
        name: (JOBS / name).read_bytes() for name in NAMES
    }
    assert executable(folder) == executable(JOBS) >= {"nightly.sh", "submit.sh"}
    told = subprocess.run([folder / "nightly.sh", "--help"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("Usage: batchcam nightly")


def test_a_second_copy_adds_what_is_missing_and_touches_nothing_else(tmp_path: Path) -> None:
    copy_jobs(tmp_path)
    (tmp_path / "submit.sh").unlink()
    (tmp_path / "retrain.sh").chmod(0o644)  # as an interruption leaves it
    (tmp_path / "mine.sh").write_text("mine")
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    summary = copy_jobs(tmp_path)
    assert (summary.copied, len(summary.kept)) == (["submit.sh"], len(NAMES) - 1)
    assert executable(tmp_path) == executable(JOBS)
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_script_that_was_adapted_stays_and_no_other_is_copied(tmp_path: Path, run_cli) -> None:
    for name in ("nightly.cron", "submit.sh"):
        (tmp_path / name).write_text("mine")
    code, out, err = run_cli("jobs", tmp_path)
    assert (code, out) == (1, "")
    assert f"{tmp_path}: nightly.cron, submit.sh would be replaced" in err
    assert sorted(os.listdir(tmp_path)) == ["nightly.cron", "submit.sh"]
    assert (tmp_path / "nightly.cron").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path, run_cli) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = run_cli("jobs", tmp_path / "file" / "jobs")
    assert (code, out, len(err.splitlines())) == (1, "", 1)


def test_the_command_tells_what_it_copied_and_what_comes_next(tmp_path: Path, run_cli) -> None:
    code, out, err = run_cli("jobs", tmp_path / "a", "--json")
    head, step, last = out.splitlines()
    assert (code, err) == (0, "")
    assert head == f"{tmp_path}/a: copied {', '.join(NAMES)}"
    assert step.startswith("next: ")
    assert f"{tmp_path}/a/nightly.sh --help" in step
    assert json.loads(last) == {"folder": f"{tmp_path}/a", "copied": NAMES, "kept": [], "exit_code": 0}
    assert run_cli("jobs", tmp_path / "a")[1].startswith(f"{tmp_path}/a: nothing to copy; {len(NAMES)} scripts there")


@pytest.mark.parametrize(
    ("packages", "share"),
    [
        ("env/lib/python3.12/site-packages", "env/share"),
        ("home/.local/lib/python3.12/site-packages", "home/.local/share"),
        ("usr/lib/python3/dist-packages", "usr/share"),
        ("target", "target/share"),
    ],
)
def test_an_installations_scripts_are_found_wherever_pip_puts_them(tmp_path: Path, packages: str, share: str) -> None:
    (tmp_path / packages / "jobs").mkdir(parents=True)  # another project's package
    folder = tmp_path / share / "batchcam/jobs"
    folder.mkdir(parents=True)
    (folder / NIGHTLY).write_text("")
    assert find_jobs(tmp_path / packages) == folder


def test_an_installation_without_scripts_says_so(tmp_path: Path) -> None:
    with pytest.raises(BatchcamError, match="no job scripts in this installation"):
        find_jobs(tmp_path)
