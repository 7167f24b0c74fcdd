"""verify where it cannot start, and where it can: what keeps the checker from working is never a finding."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

VERIFY = (sys.executable, "-m", "batchcam", "verify")


def environment(*first: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*first, ROOT)))}


def libraries(name: str) -> list[str]:
    """Return where the dynamic linker finds a library."""
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    return re.findall(rf"^\s*{re.escape(name)} .* => (.*)$", known, re.MULTILINE)


@pytest.mark.parametrize(
    ("cv2", "cause"),
    [
        ("raise ImportError('libGL.so.1: cannot open shared object file')", "ImportError: libGL.so.1: cannot open"),
        ("import os; os.kill(os.getpid(), 9)", "killed, maybe for want of memory"),
        ("import os; os.abort()", "its process crashed (SIGABRT)"),
    ],
)
def test_a_checker_that_cannot_start_is_a_failure_and_no_finding(
    sound_run: Path, tmp_path: Path, cv2: str, cause: str
) -> None:
    (tmp_path / "cv2.py").write_text(cv2)
    done = subprocess.run([*VERIFY, sound_run, "--json"], env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("batchcam: error: the checker cannot start: ")
    assert cause in line
    assert json.loads(done.stdout) == {"error": line.removeprefix("batchcam: error: "), "exit_code": 1}


def test_verify_needs_no_library_of_a_display(sound_run: Path) -> None:
    if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("may not unshare the mount namespace: root with CAP_SYS_ADMIN can")
    hidden = libraries("libGL.so.1") + libraries("libgthread-2.0.so.0")
    script = 'while [ "$1" != -- ]; do mount --bind /dev/null "$1"; shift; done; shift; exec "$@"'
    hiding = ["unshare", "--mount", "bash", "-ec", script, "bash", *hidden, "--"]
    for library in hidden:
        assert subprocess.run([*hiding, "test", "-s", library]).returncode == 1
    done = subprocess.run([*hiding, *VERIFY, sound_run], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
