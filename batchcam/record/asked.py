"""Runs for commands that can do with a part of one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchcam.errors import called
from batchcam.job.console import counted, note
from batchcam.store.opening import open_partial, open_run
from batchcam.store.run import Run

TOLD: Final = 5


def open_asked(path: Path, partial: bool, quiet: bool) -> Run:
    """Open a run, and tell how a series was put together; with `partial` without files that are gone or damaged.

    Each of these is told, too.

    Raises:
        RunError: as `open_run`; with `partial` where the plan or the manifest is damaged, or no shard is sound.
    """
    if partial:
        note("checking every file of the run first", quiet)
    run = open_partial(path) if partial else open_run(path)
    for remark in run.remarks:
        note(remark, quiet)
    for reason in run.lost[:TOLD]:
        note(f"left out: {called(reason)}", quiet=False)
    if len(run.lost) > TOLD:
        note(f"left out: {counted(len(run.lost) - TOLD, 'more file')}; batchcam verify names them", quiet=False)
    return run
