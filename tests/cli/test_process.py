"""A signal is heard from the first line on: before options are read, before torch is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from batchcam.errors import EXIT_STOPPED_EARLY

SIGNALLED = """
import os, signal, sys

class Sends:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{signal})

sys.meta_path.insert(0, Sends())
sys.argv = ["batchcam", "train", {data!r}, "--out", {out!r}]
from batchcam.cli import main
main()
"""


@pytest.mark.parametrize(
    ("module", "signal"),
    [("batchcam.cli.ending", "SIGTERM"), ("click", "SIGINT"), ("batchcam.commands.train.train", "SIGUSR1")],
)
def test_a_signal_during_the_imports_ends_with_75_and_one_line_before_any_work(
    tmp_path: Path, module: str, signal: str
) -> None:
    out = tmp_path / "model.pth"
    code = SIGNALLED.format(module=module, signal=signal, data=str(tmp_path / "none"), out=str(out))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == EXIT_STOPPED_EARLY, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"batchcam: error: stopped by {signal}; run the same command again to go on")
    assert list(tmp_path.iterdir()) == []
