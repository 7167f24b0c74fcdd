"""The process: signals, streams and threads before anything else is imported, and its end."""

from __future__ import annotations

import io
import os
import sys

from batchcam.job.processes import ignore_job_signals
from batchcam.job.stop import Stop


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its exit code.

    Args:
        arguments: of a call inside of another program; None: the process's own.
    """
    with Stop():
        _open_missing_streams()
        _escape_what_streams_lack()
        _let_threads_sleep()
        from batchcam.cli.ending import exit_code  # a tenth of a second, more on a file server

        code = exit_code(arguments)
    if arguments is None:
        ignore_job_signals()  # all is done, but ending takes a while where torch is loaded
    sys.exit(code)


def _let_threads_sleep() -> None:
    """Make torch's idle threads sleep; spinning, they take the CPU from what they wait for on a machine that is busy.

    Before torch is imported: OpenMP reads it once. Beside one busy program, two threads on two CPUs explain a third
    faster so, and as fast as ever on a quiet machine.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _open_missing_streams() -> None:
    """Open what a scheduler closed: else the next file that is opened becomes stdout or stderr."""
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _escape_what_streams_lack() -> None:
    """Print characters that the terminal's encoding lacks as escapes, instead of failing after the work is done."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
