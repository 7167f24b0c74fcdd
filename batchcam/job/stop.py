"""Whether the work should stop: a signal of the scheduler's, Ctrl-C, or a time limit."""

from __future__ import annotations

import contextlib
import contextvars
import signal
import time
from collections.abc import Callable
from typing import Final

from batchcam.errors import stopped_by
from batchcam.job.processes import listening

LOOK_EVERY_S: Final = 0.2
"""Seconds that a wait may go on after a signal: Python's own sleep starts again after one."""

_current: contextvars.ContextVar[Stop | Follower | None] = contextvars.ContextVar("stop", default=None)


class Stop:
    """Knows why the work inside of its `with` should stop; `stop_if_asked` asks the innermost one.

    The outermost one of the main thread listens for `JOB_SIGNALS`, of which the first sets a flag and a second one of
    the same kind does what it always did. In other threads, which can't listen, only time limits count.

    Args:
        time_limit_s: stop after this many seconds, counted from the start of the outermost one.
    """

    def __init__(self, time_limit_s: float | None = None) -> None:
        outer = _current.get()
        self._outer = outer if isinstance(outer, Stop) else None
        self.started: float = self._outer.started if self._outer else time.monotonic()
        self._deadline = None if time_limit_s is None else self.started + time_limit_s
        self._signal: int | None = None
        self._listening = contextlib.nullcontext() if self._outer else listening(self._heard, once=True)

    def __enter__(self) -> Stop:
        self._token = _current.set(self)
        self._listening.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.__exit__(None, None, None)
        _current.reset(self._token)

    def reason(self) -> str | None:
        """Return why to stop, None while there is no reason."""
        if self._signal is not None:
            return signal.Signals(self._signal).name
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "time limit"
        return self._outer.reason() if self._outer else None

    def _heard(self, number: int) -> None:
        self._signal = number


class Follower:
    """Stops when another process says so.

    Args:
        reason: returns why, None while there is no reason.
    """

    def __init__(self, reason: Callable[[], str | None]) -> None:
        self.reason = reason


def follow(reason: Callable[[], str | None]) -> None:
    """Let the work of this thread stop for `reason` from now on, and for nothing else."""
    _current.set(Follower(reason))


def reason_to_stop() -> str | None:
    """Return why the work of this thread should stop, None while there is no reason."""
    stop = _current.get()
    return stop.reason() if stop else None


def stop_if_asked() -> None:
    """Raise StoppedEarlyError if the work of this thread should stop."""
    if reason := reason_to_stop():
        raise stopped_by(reason)


def wait(seconds: float) -> None:
    """Sleep, and look meanwhile whether to stop.

    Raises:
        StoppedEarlyError: there is a reason.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stop_if_asked()
        time.sleep(min(LOOK_EVERY_S, left))
