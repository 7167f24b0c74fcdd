"""Who is making which file of a run just now, so that hardly anything is made twice; nothing is wrong without it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from batchcam.store.landing import temporary_path
from batchcam.store.schema import PARTIAL_SUFFIX

BEAT_S: Final = 20
"""Seconds between two signs of life."""

STALE_S: Final = 180
"""Seconds without one after which a holder counts as dead: network file systems show a file's time a minute late."""

LONGEST: Final = 4096
"""Bytes of a lease that are read."""


@dataclasses.dataclass(frozen=True)
class _Held:
    path: Path
    since: float


class Leases:
    """The leases of this process on files that it makes.

    A lease is a temporary file of the file that is to land: whoever cleans up removes it too. It is created only where
    it is not there, which one worker succeeds in. Taking over a lease makes one of the next generation beside it,
    instead of replacing it, so that again one worker succeeds. Its time is the sign of life, and is compared with times
    of the same file system only. Where a lease can't be made, the work goes on without.

    Args:
        holder: who this process is.
        has_ended: tells of another holder whether it is known to have ended.
        warn: called once, with why there are no leases.
    """

    def __init__(
        self,
        holder: Mapping[str, Any],
        has_ended: Callable[[Mapping[str, Any]], bool],
        warn: Callable[[str], None],
    ) -> None:
        self._holder, self._has_ended, self._warn = holder, has_ended, warn
        self._held: dict[Path, _Held] = {}
        self._clock: float | None = None  # of the file system, when ours is zero
        self._warned = False

    def claim(self, path: Path, patience_s: float = math.inf) -> bool:
        """Take the lease on `path` unless another worker has it; return whether this one has it now.

        Args:
            path: of the file to land, not its lease.
            patience_s: seconds after which it is taken over from a worker that lives.
        """
        generation = 0
        while not self._create(lease := lease_path(path, generation)):
            if self._counts(path, lease, patience_s):
                return False
            generation += 1
        self._held[path] = _Held(lease, time.monotonic())
        return True

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
            if not self._warned:
                self._warned = True
                self._warn(f"{lease.parent}: no leases: {error.strerror}; workers may do some shards twice")
            return True
        with contextlib.suppress(OSError), open(descriptor, "wb", buffering=0) as file:
            since = self._note_time(descriptor)
            file.write(json.dumps({**self._holder, "since": since}).encode())
        return True

    def _counts(self, path: Path, lease: Path, patience_s: float) -> bool:
        """Return whether a lease that is there is still to be respected."""
        try:
            content, touched = _read(lease)
            now = self._now(path)
        except OSError:  # given back just now, or nothing to judge it by
            return True
        since = content.get("since")
        age = now - (since if isinstance(since, float) else touched)
        return not (self._has_ended(content) or now - touched > STALE_S or age > patience_s)

    def _now(self, path: Path) -> float:
        """Return the file system's time, if need be by a temporary file of `path`."""
        if self._clock is None:
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL_SUFFIX) as probe:
                return self._note_time(probe.fileno())
        return time.monotonic() + self._clock

    def _note_time(self, descriptor: int) -> float:
        """Return the time of a file that was made just now."""
        made = os.fstat(descriptor).st_mtime
        self._clock = made - time.monotonic()
        return made


def lease_path(path: Path, generation: int) -> Path:
    """Return the name of a lease on the file that is to land under `path`."""
    return temporary_path(path, f"lease-{generation}")


def _read(lease: Path) -> tuple[dict[str, Any], float]:
    """Return what a lease says, nothing where that is damaged, and its time."""
    descriptor = os.open(lease, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        text = file.read(LONGEST) if stat.S_ISREG(status.st_mode) else b""
    try:
        content = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        content = {}
    return content if isinstance(content, dict) else {}, status.st_mtime
