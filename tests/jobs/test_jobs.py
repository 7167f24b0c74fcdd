"""The scripts in jobs/: sound shell, batchcam's exit codes kept, links that always point to something."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.fake_batchcam import JOBS, Fake

SCRIPTS = sorted([*JOBS.glob("*.sh"), *JOBS.glob("*.sbatch")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_shellcheck_finds_nothing(script):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(["shellcheck", "-x", script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_script_stops_at_errors(script):
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize(
    ("explained", "verified", "ended"), [(0, 0, 0), (3, 0, 3), (0, 3, 3), (75, 0, 75), (1, 0, 1), (3, 1, 1)]
)
def test_explain_and_verify_keeps_exit_codes_and_verifies_complete_records_only(tmp_path, explained, verified, ended):
    fake = Fake(tmp_path / "bin")
    fake.answer(explain=explained, verify=verified)
    run = str(tmp_path / "run dir")
    code, _, _ = fake.run("explain_and_verify.sh", "m.pth", "data", run, "-b", "8")
    assert code == ended
    calls = fake.calls()
    assert calls[0] == ["explain", "m.pth", "data", "--out", run, "-b", "8"]
    assert (calls[1:] == [["verify", run]]) == (explained in (0, 3))


def test_a_link_points_to_something_at_every_moment(tmp_path):
    for name in ("one place", "another"):
        (tmp_path / name).mkdir()
    link = tmp_path / "latest one"
    link.symlink_to("another")
    turns = 'source "$1"; for i in $(seq 50); do point "$2" "one place"; point "$2" another; done'
    with subprocess.Popen(["bash", "-c", turns, "bash", JOBS / "common.sh", link]) as turning:
        seen = set()
        while turning.poll() is None:
            seen.add(os.readlink(link))
            assert link.is_dir()
    assert turning.returncode == 0
    assert seen == {"one place", "another"}
    assert sorted(os.listdir(tmp_path)) == ["another", "latest one", "one place"]


LOCKS = 'source "$1"; lock "$2"; echo locked; sleep "${3:-0}"'


def lock(folder: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Lock a folder for a moment."""
    words = ["bash", "-c", LOCKS, "a-job", JOBS / "common.sh", folder, *more]
    return subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.fixture
def no_locks(tmp_path) -> Callable[[int], str]:
    """Pretend a flock that fails with an exit code; return what PATH is then."""

    def pretend(code: int) -> str:
        program = tmp_path / "bin" / "flock"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\nexit {code}\n")
        program.chmod(0o755)
        return f"{program.parent}:/usr/bin:/bin"

    return pretend


@pytest.mark.parametrize("code", [1, 64, 65, 69, 71, 75, 127])
def test_flock_that_fails_is_told_with_what_to_do_and_nobody_is_said_to_be_at_work(tmp_path, no_locks, code):
    done = lock(tmp_path, PATH=no_locks(code))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"a-job: not started: flock could not lock {tmp_path}/.lock (exit code {code})." in done.stderr
    assert "LOCKDIR=" in done.stderr
    assert "at work" not in done.stderr


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_folder_is_locked_by_one_at_a_time_and_another_folder_is_free(tmp_path, elsewhere):
    for name in ("runs", "others", "locks"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("runs")
    environment = {"LOCKDIR": str(tmp_path / "locks")} if elsewhere else {}
    words = ["bash", "-c", LOCKS, "first", JOBS / "common.sh", tmp_path / "runs", "60"]
    with subprocess.Popen(
        words, env={**os.environ, **environment}, stdout=subprocess.PIPE, start_new_session=True
    ) as first:
        first.stdout.readline()
        second, other = (lock(tmp_path / name, **environment) for name in ("link", "others"))
        os.killpg(first.pid, signal.SIGKILL)
    assert second.returncode == 75
    assert re.fullmatch(rf"a-job: not started: process {first.pid} on .* is at work in .*/link\n", second.stderr)
    assert other.stdout == "locked\n"
    assert (tmp_path / "runs" / ".lock").exists() != elsewhere
    deadline = time.monotonic() + 60
    while not (again := lock(tmp_path / "runs", **environment)).stdout and time.monotonic() < deadline:
        time.sleep(0.05)  # the killed shell's own processes have the lock until they end
    assert again.stdout == "locked\n"
