"""The scripts in jobs/: sound shell, batchcam's exit codes kept, links that always point to something."""

from __future__ import annotations

import os
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
