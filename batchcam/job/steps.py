"""Steps of a job: commands of batchcam, each a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

from batchcam.errors import EXIT_STOPPED_EARLY, BatchcamError
from batchcam.job.processes import listening
from batchcam.job.stop import reason_to_stop

# this batchcam, whatever PATH says; never what lies in the folder where a job is started, as with -m
BOOT: Final = (
    "import sys; sys.path[:] = filter(None, sys.path); sys.argv[0] = 'batchcam'; from batchcam.cli import main; main()"
)


def batchcam() -> list[str]:
    """Return the words that start this batchcam."""
    return [sys.executable, "-c", BOOT]


class Steps:
    """Runs steps one after the other; a signal, however often it comes, ends the one at work and all that would follow.

    The step gets SIGUSR1, once, which lets a command land its work first: where the whole process group was sent
    SIGTERM, a second one would cut that short. In other threads than the main one there are no handlers.

    Args:
        quiet: whether the steps are to be quiet.
        keep: descriptors that the steps keep open, such as a lock's.
    """

    def __init__(self, quiet: bool, keep: Sequence[int] = ()) -> None:
        self._quiet, self._keep = quiet, keep
        self._asked = False
        self._untold: list[subprocess.Popen[bytes]] = []
        self._listening = listening(self._heard, once=False)

    def __enter__(self) -> Steps:
        self._listening.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.__exit__(None, None, None)

    def run(self, *words: str, output: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> int:
        """Return how a command ended: its exit code, as the shell has it; 75 where the job was asked to stop.

        Args:
            words: of the command line, after `batchcam`.
            output: where stdout and stderr go; None: where this process's go.
            stdout: where stdout goes instead.
        """
        if self.stopped():
            return EXIT_STOPPED_EARLY
        words = (*words, "--quiet") if self._quiet else words
        try:
            code = ended(self.start([*batchcam(), *words], stdout=stdout or output, stderr=output))
        except OSError as error:  # no process or no memory left
            raise BatchcamError(f"batchcam {words[0]}: cannot start: {error.strerror or error}") from error
        return EXIT_STOPPED_EARLY if self.stopped() else code

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program beside those at work, which hears of a signal too.

        Raises:
            OSError: it can't be started.
        """
        child = subprocess.Popen(command, env=environment, stdout=stdout, stderr=stderr, pass_fds=self._keep)
        self._untold.append(child)
        if self.stopped():
            self._pass_on()
        return child

    def stopped(self) -> bool:
        """Return whether the job was asked to stop."""
        return self._asked or reason_to_stop() is not None

    def _heard(self, number: int) -> None:
        self._asked = True
        self._pass_on()

    def _pass_on(self) -> None:
        while self._untold:
            self._untold.pop().send_signal(signal.SIGUSR1)


def parted(stdout: str) -> tuple[str, dict[str, Any]]:
    """Return the text that a step printed for people, and the object of its --json; {} if it had no time for it."""
    text, newline, last = stdout.rstrip("\n").rpartition("\n")
    try:
        said = json.loads(last)
    except ValueError:
        said = None
    return (text + newline, said) if isinstance(said, dict) else (stdout, {})


def ended(child: subprocess.Popen[bytes]) -> int:
    """Wait for a program; return its exit code, as the shell has it."""
    with child:
        code = child.wait()
    return code if code >= 0 else 128 - code
