"""What a night that did not end well tells a person: what happened, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from batchcam.commands.nightly.retention import size_of
from batchcam.errors import EXIT_FINDINGS, EXIT_STOPPED_EARLY, one_line
from batchcam.job.console import counted, readable_size

AGAIN: Final = "start the same command again today"

SINCE: Final = "--since NIGHT begins its baseline again (in a job: BATCHCAM_SINCE)"

KILLED: Final = 137
"""The exit code, as the shell has it, of what SIGKILL ended: the kernel, where memory is short, or a scheduler."""

ADVICE: Final = {
    ("explain", EXIT_STOPPED_EARLY): "nothing is lost. The next start goes on from the finished shards.",
    ("verify", EXIT_FINDINGS): f"do not use the run. Remove the files that are named and {AGAIN}.",
    "explain": "mend what the error says and start the same command again; finished shards stay. If model or data "
    "changed on purpose since the run was begun, move the run away.",
    "verify": f"the run is complete, but was not verified. S{AGAIN[1:]}.",
    "sign": f"the run is complete and verified, but not signed. S{AGAIN[1:]}.",
    "trend": f"the run is complete and verified, but was not held against the nights before it. S{AGAIN[1:]}.",
    "report": f"the run is complete and verified. For its report {AGAIN}.",
}
"""What to do after a step that failed, by its exit code or whatever that is."""


def advice(step: str, code: int) -> str:
    """Return what to do when a step ended with a code."""
    if code == KILLED:
        return f"it was killed, maybe for want of memory: mend that, and {AGAIN}; finished shards stay."
    return ADVICE.get((step, code), ADVICE[step])


def full_disk_advice(runs: Path, dated: Iterable[Path], keep: int | None) -> str:
    """Return what to do when the disk of `runs` is full.

    Args:
        runs: the folder of runs.
        dated: runs that retention knows, oldest first.
        keep: how many newest complete runs are to stay.
    """
    sizes = {run: size_of(run) for run in dated}
    asked = "and no run that --keep lets go makes room" if keep else "and without --keep N no run is ever removed"
    text = f"make room on the disk of {runs}: it is full, {asked}. Until there is room the next start fails too."
    if not sizes:
        return text
    oldest, size = next(iter(sizes.items()))
    total = f"{counted(len(sizes), 'run')} of {readable_size(sum(sizes.values()))}"
    return f"{text} The oldest run is {oldest}, {readable_size(size)} of {total}."


def wrong_clock(ahead: Sequence[Path], today: str) -> str:
    """Return what to do about runs that are dated after today."""
    which = f"{ahead[0]} is" if len(ahead) == 1 else f"{len(ahead)} runs, {ahead[0]} to {ahead[-1].name}, are"
    return (
        f"batchcam nightly: {which} dated after today, {today}: the clock was wrong then, or is now. Set it if it is, "
        "and move what is dated wrong away: it neither counts for --keep nor is ever removed."
    )


def mail(run: Path, headline: str, to_do: str, latest: str | None, last_lines: Iterable[str]) -> str:
    """Return the text of a mail."""
    head = f"batchcam nightly: {run}: {headline}\n\nWhat to do: {to_do}\nLatest verified run: {latest or 'none'}\n"
    lines = "".join(f"    {line if line.isprintable() else one_line(line)}\n" for line in last_lines)
    return f"{head}Last lines of {run}.log:\n\n{lines}"
