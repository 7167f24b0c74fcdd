"""Runs for commands that can do with a part of one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchcam.console import counted, note
from batchcam.store.opening import open_rest, open_run
from batchcam.store.run import Run

TOLD: Final = 5


def open_asked(path: Path, partial: bool) -> tuple[Run, int]:
    """Open a run; with `partial` without the files that are gone or damaged. Return it and how many these are.

    Raises:
        RunError: as `open_run`; with `partial` only where no shard is sound.
    """
    if not partial:
        return open_run(path), 0
    run, lost = open_rest(path)
    for reason in lost[:TOLD]:
        note(f"left out: {reason}", quiet=False)
    if len(lost) > TOLD:
        note(f"left out: {counted(len(lost) - TOLD, 'more file')}; batchcam verify names them", quiet=False)
    return run, len(lost)
