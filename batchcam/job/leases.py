"""Who is at work on a file or folder: a lease, which says so and shows signs of life, until its holder is done or dead.

Nothing that is right depends on it: where leases can't be had, or two have one, work is done twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from batchcam.job import processes

BEAT_S: Final = 20
"""Seconds between two signs of life."""

STALE_S: Final = 180
"""Seconds without one after which a holder counts as dead: network file systems show a file's time a minute late."""

WORDLESS_S: Final = 10
"""The same, of one that was killed before it had said who it is."""

LONGEST: Final = 4096
"""Bytes of a lease that are read."""


@dataclasses.dataclass(frozen=True)
class _Held:
    path: Path
    since: float


class Leases:
    """The leases of this process.

    A lease is created only where it is not there, which one process succeeds in. Taking over a lease makes one of the
    next generation beside it, instead of replacing it, so that again one process succeeds. Its time is the sign of
    life, and is compared with times of the same file system only.

    Args:
        holder: who this process is, as `processes.this_process` says it, or more.
        refused: called once, with why leases can't be made; unless it raises, the work goes on without.
        suffix: how names of leases end.
        has_ended: tells of another holder whether it is known to have ended.
    """

    def __init__(
        self,
        holder: Mapping[str, Any],
        refused: Callable[[OSError], None],
        suffix: str = "",
        has_ended: Callable[[Mapping[str, Any]], bool] = processes.has_ended,
    ) -> None:
        self._holder, self._refused, self._suffix, self._has_ended = holder, refused, suffix, has_ended
        self._held: dict[Path, _Held] = {}
        self._clock: float | None = None  # of the file system, when ours is zero
        self._told = False

    def claim(self, path: Path, patience_s: float = math.inf) -> bool:
        """Take the lease on `path` unless another process has it; return whether this one has it now.

        Args:
            path: what is to be made or worked in, not its lease.
            patience_s: seconds after which it is taken over from a process that lives.
        """
        generation = 0
        while not self._create(lease := lease_path(path, generation, self._suffix)):
            if self._counts(path, lease, patience_s):
                return False
            generation += 1
        self._held[path] = _Held(lease, time.monotonic())
        return True

    def holder(self, path: Path) -> Mapping[str, Any]:
        """Return what the newest lease on `path` says of its holder; nothing where there is none."""
        found: Mapping[str, Any] = {}
        with contextlib.suppress(OSError):
            for generation in itertools.count():
                found = read_holder(lease_path(path, generation, self._suffix))
        return found

    def release(self, path: Path) -> float | None:
        """Give back the lease on `path`; return how many seconds it was held, None if it was not."""
        held = self._held.pop(path, None)
        if held is None:
            return None
        with contextlib.suppress(OSError):
            held.path.unlink(missing_ok=True)
        return time.monotonic() - held.since

    def release_all(self) -> None:
        """Give back what is held."""
        for path in list(self._held):
            self.release(path)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Give signs of life while the block runs, in a thread: a batch or a merge may take longer than they may."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_S):
                for held in list(self._held.values()):
                    with contextlib.suppress(OSError):  # gone with the clean-up of a complete run
                        os.utime(held.path)

        thread = threading.Thread(target=beat, name="leases", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _create(self, lease: Path) -> bool:
        """Return whether `lease` was not there, and is now; or can't be, which is told."""
        try:
            descriptor = os.open(lease, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return False
        except OSError as error:
            if not self._told:
                self._told = True
                self._refused(error)
            return True
        with contextlib.suppress(OSError), open(descriptor, "wb", buffering=0) as file:
            since = self._note_time(descriptor)
            file.write(json.dumps({**self._holder, "since": since}).encode())
        return True

    def _counts(self, path: Path, lease: Path, patience_s: float) -> bool:
        """Return whether a lease that is there is still to be respected."""
        try:
            status = lease.lstat()
            if not stat.S_ISREG(status.st_mode):  # none of ours
                return False
            content, touched, now = read_holder(lease), status.st_mtime, self._now(path, lease.suffix)
        except OSError:  # given back just now, or nothing to judge it by
            return True
        since = content.get("since")
        age = now - (since if isinstance(since, float) else touched)
        stale = now - touched > (STALE_S if content else WORDLESS_S)
        return not (self._has_ended(content) or stale or age > patience_s)

    def _now(self, path: Path, suffix: str) -> float:
        """Return the file system's time, if need be by a file whose name looks like a lease's on `path`."""
        if self._clock is None:
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=suffix) as probe:
                return self._note_time(probe.fileno())
        return time.monotonic() + self._clock

    def _note_time(self, descriptor: int) -> float:
        """Return the time of a file that was made just now."""
        made = os.fstat(descriptor).st_mtime
        self._clock = made - time.monotonic()
        return made


def lease_path(path: Path, generation: int, suffix: str = "") -> Path:
    """Return the name of a lease on `path`."""
    return path.with_name(f".{path.name}.lease-{generation}{suffix}")


def leased(name: str, suffix: str = "") -> tuple[str, int] | None:
    """Return of the name of a lease what it is on, and its generation; None of any other name."""
    found = re.fullmatch(rf"\.(.+)\.lease-([0-9]+){re.escape(suffix)}", name)
    return (found[1], int(found[2])) if found else None


def read_holder(lease: Path) -> dict[str, Any]:
    """Return what a file says of the process that wrote it; nothing where that is damaged.

    Raises:
        OSError: it can't be read.
    """
    descriptor = os.open(lease, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        text = file.read(LONGEST) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    try:
        content = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        content = {}
    return content if isinstance(content, dict) else {}
