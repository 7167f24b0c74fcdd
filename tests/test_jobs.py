"""The scripts in jobs/: sound shell, and batchcam's exit codes kept."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

JOBS = Path(__file__).parent.parent / "jobs"
SCRIPTS = sorted(JOBS.glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_shellcheck_finds_nothing(script):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_script_stops_at_errors(script):
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize(
    ("explained", "verified", "ended"), [(0, 0, 0), (3, 0, 3), (0, 3, 3), (75, 0, 75), (1, 0, 1), (3, 1, 1)]
)
def test_explain_and_verify_keeps_exit_codes_and_verifies_complete_records_only(tmp_path, explained, verified, ended):
    fake = tmp_path / "batchcam"
    fake.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/log\n[ "$1" = explain ] && exit {explained}\nexit {verified}\n'
    )
    fake.chmod(0o755)
    words = [JOBS / "explain_and_verify.sh", "m.pth", "data", "run dir", "-b", "8"]
    done = subprocess.run(words, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert done.returncode == ended
    log = (tmp_path / "log").read_text().splitlines()
    assert log[0] == "explain m.pth data --out run dir -b 8"
    assert (log[1:] == ["verify run dir"]) == (explained in (0, 3))
