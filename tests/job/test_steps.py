"""Steps of a job are commands of this batchcam, and a signal ends them in their own way."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batchcam.errors import BatchcamError
from batchcam.job import steps
from batchcam.job.steps import Steps


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a Python program be batchcam."""
    return lambda program: monkeypatch.setattr(steps, "batchcam", lambda: [sys.executable, "-c", program])


def test_a_step_is_a_command_of_this_batchcam_whatever_lies_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "click.py").write_text("raise RuntimeError('not this one')")
    (tmp_path / "batchcam").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    with Steps(quiet=False) as running, (tmp_path / "out").open("wb") as output:
        assert running.run("--version", output=output) == 0
        assert running.run("no-such-command", output=output) == 2
    assert "batchcam, version " in (tmp_path / "out").read_text()


@pytest.mark.parametrize(("program", "code"), [("exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_an_exit_code_is_the_shells(pretend: Callable[[str], None], program: str, code: int) -> None:
    pretend(f"import sys; {program}")
    with Steps(quiet=False) as running:
        assert running.run("explain") == code


def test_a_quiet_jobs_steps_are_quiet(pretend: Callable[[str], None]) -> None:
    pretend("import sys; sys.exit(sys.argv[1:] == ['explain', '--quiet'])")
    with Steps(quiet=True) as running:
        assert running.run("explain") == 1


def test_a_step_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "batchcam", lambda: ["/no/such/program"])
    with Steps(quiet=False) as running, pytest.raises(BatchcamError, match="batchcam explain: cannot start: No such"):
        running.run("explain")


LISTENING = """
import pathlib, signal, sys, time
heard = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, lambda n, f: heard.append(n))
pathlib.Path(sys.argv[1]).touch()
while not heard:
    time.sleep(0.01)
time.sleep(0.1)
pathlib.Path(sys.argv[1]).write_text(" ".join(signal.Signals(n).name for n in set(heard)))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_even_twice_reaches_the_step_as_sigusr1_and_nothing_starts_after_it(
    pretend: Callable[[str], None], tmp_path: Path, number: int
) -> None:
    pretend(LISTENING)
    heard, before = tmp_path / "heard", signal.getsignal(number)

    def kill_when_it_listens() -> None:
        deadline = time.monotonic() + 60
        while not heard.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(2):  # as timeout(1) does: to the process, then to its group
            os.kill(os.getpid(), number)

    killer = threading.Thread(target=kill_when_it_listens)
    with Steps(quiet=False) as running:
        killer.start()
        assert running.run(str(heard)) == 75
        killer.join()
        assert running.stopped()
        assert running.run("/proc/no/file/can/be/here") == 75
    assert heard.read_text() == "SIGUSR1"
    assert signal.getsignal(number) == before
