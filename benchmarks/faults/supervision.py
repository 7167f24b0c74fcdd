"""Commands that run while each of their system calls waits for a decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .inject import PROCEED, Call, Supervisor, Verdict, serve
from .warm import HUNG_S, Ended, Warm

NEEDS_SECCOMP = "this kernel or container does not let a process stop another one's system calls"

Decide = Callable[[int, Call], Verdict]
"""Gets a call and how many came before it."""


def proceed(index: int, call: Call) -> Verdict:
    """Let every call happen."""
    return PROCEED


def watched(
    warm: Warm,
    commands: Sequence[Sequence[object]],
    folder: Path,
    decide: Decide,
    look: Callable[[], list[str]] | None = None,
    through_exit: bool = False,
) -> tuple[list[Call], list[Ended], list[str]]:
    """Run commands at the same time.

    Args:
        warm: starts them.
        commands: arguments of batchcam.
        folder: calls on files in it are decided about, whichever command makes them.
        decide: about each call.
        look: called before each call, while the command that makes it stands still.
        through_exit: see `Warm.start`.

    Returns:
        The calls in order; how each command ended; what `look` returned, all in one list.
    """
    calls: list[Call] = []
    seen: list[str] = []

    def each(_: Supervisor, call: Call) -> Verdict:
        seen.extend(look() if look else ())
        calls.append(call)
        return decide(len(calls) - 1, call)

    running = [warm.start(command, watched=True, through_exit=through_exit) for command in commands]
    serve([Supervisor(r.pid, r.listener, folder) for r in running], each, HUNG_S)
    return calls, [warm.wait(r) for r in running], seen
