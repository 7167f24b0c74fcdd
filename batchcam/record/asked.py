"""Runs for commands that can do with a part of one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchcam.job.console import counted, note
from batchcam.store.opening import open_partial, open_run
from batchcam.store.run import Run

TOLD: Final = 5


def open_asked(path: Path, partial: bool, quiet: bool) -> Run:
    """Open a run; with `partial` without its shards that are gone or damaged, each of which is told.

    Raises:
        RunError: as `open_run`; with `partial` where the plan or the manifest is damaged, or no shard is sound.
    """
    if not partial:
        return open_run(path)
    note("checking every file of the run first", quiet)
    run = open_partial(path)
    for reason in run.lost[:TOLD]:
        note(f"left out: {reason}", quiet=False)
    if len(run.lost) > TOLD:
        note(f"left out: {counted(len(run.lost) - TOLD, 'more file')}; batchcam verify names them", quiet=False)
    return run
