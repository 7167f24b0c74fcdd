"""The scripts in jobs/: sound shell, batchcam's exit codes kept."""

from __future__ import annotations

import shutil
import subprocess

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
    code, _, _ = fake.script("explain_and_verify.sh", "m.pth", "data", run, "-b", "8")
    assert code == ended
    calls = fake.calls()
    assert calls[0] == ["explain", "m.pth", "data", "--out", run, "-b", "8"]
    assert (calls[1:] == [["verify", run]]) == (explained in (0, 3))
