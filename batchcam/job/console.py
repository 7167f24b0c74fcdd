"""What a person sees while a command works: notes and progress on stderr, nothing when quiet."""

from __future__ import annotations

import contextlib
import sys
import time

from tqdm import tqdm

from batchcam.errors import one_line
from batchcam.job.stop import stop_if_asked

LINE_EVERY_S = 30  # in a log file, where a bar can't move


def note(text: str, quiet: bool) -> None:
    """Print one line for people on stderr; where its file system is full, the work goes on without."""
    if not quiet:
        with contextlib.suppress(OSError):
            tqdm.write(f"batchcam: {one_line(text)}", file=sys.stderr)


def counted(count: int, noun: str) -> str:
    """Return a number of things as people write it: "1 shard", "2 shards"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def readable_size(size: int) -> str:
    """Return a number of bytes as people read it: three digits and a decimal unit."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def readable_time(seconds: float) -> str:
    """Return how long something took or takes as people say it, rounded down: in s, min, h or days."""
    for unit, size, below in (("s", 1, 60), ("min", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < below:
            return f"{int(seconds / size)} {unit}"
    return f"{int(seconds / 86400)} days"


class Progress:
    """A bar with rate and end time on a terminal, a line now and then in a log, nothing when quiet.

    Whatever shows progress can be stopped: by telling of each block done, a loop asks whether to go on.

    Args:
        what: the work, such as "explain".
        total: how many there are.
        unit: what is counted, such as "images".
    """

    def __init__(self, what: str, total: int, unit: str, quiet: bool) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._start = self._printed = time.monotonic()
        self._lines = not quiet and not sys.stderr.isatty()
        show_bar = not quiet and not self._lines
        self._bar = tqdm(
            total=total, desc=what, unit=f" {unit}", disable=not show_bar, file=sys.stderr, dynamic_ncols=True
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._lines and self._printed > self._start:  # a short job stays silent in a log
            self._line()

    def expect(self, count: int) -> None:
        """Add `count` to how many there are."""
        self._total += count
        self._bar.total = self._total

    def advance(self, count: int) -> None:
        """Count `count` more as done, and ask whether to go on.

        Raises:
            StoppedEarlyError: the work should stop.
        """
        self.count(count)
        stop_if_asked()

    def count(self, count: int) -> None:
        """Count `count` more as done."""
        self._done += count
        self._bar.update(count)
        if self._lines and time.monotonic() - self._printed >= LINE_EVERY_S:
            self._line()

    def _line(self) -> None:
        self._printed = time.monotonic()
        rate = self._done / max(1e-9, self._printed - self._start)
        end = time.strftime("%H:%M", time.localtime(time.time() + (self._total - self._done) / rate)) if rate else "?"
        line = f"batchcam: {self._what}: {self._done} of {self._total} {self._unit}, {rate:.1f} a second, done at {end}"
        with contextlib.suppress(OSError):  # as in note
            print(line, file=sys.stderr, flush=True)
