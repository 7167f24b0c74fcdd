"""--on-end: a command of the user's that is told how the night ended."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from batchcam.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_STOPPED_EARLY, one_line

TIMEOUT_S: Final = 300


def outcome(code: int) -> str:
    """Return how a night ended, in a word."""
    return {EXIT_DONE: "done", EXIT_FINDINGS: "findings", EXIT_STOPPED_EARLY: "stopped"}.get(code, "failed")


def tell(command: str, run: Path, code: int) -> str | None:
    """Run a command by the shell, with how the night ended in its environment; return what went wrong with it."""
    told = {"NIGHT_OUTCOME": outcome(code), "NIGHT_EXIT_CODE": str(code), "NIGHT_RUN": str(run)}
    try:
        done = subprocess.run(
            ["sh", "-c", command], env={**os.environ, **told}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=TIMEOUT_S, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return one_line(error)
    return f"--on-end ended with exit code {done.returncode}: {one_line(done.stdout)}" if done.returncode else None
