"""Who plans a run, and which shard a worker makes next: those of its share, then those that other workers have left."""

from __future__ import annotations

import collections
import contextlib
import math
import random
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from batchcam.job import stop
from batchcam.job.console import counted, note
from batchcam.job.leases import Leases, lease_path
from batchcam.store import landing
from batchcam.store.plan import Shard
from batchcam.store.schema import PARTIAL_SUFFIX, PLAN_FILE, SHARD_FOLDER
from batchcam.store.shard import ShardNames, has_landed

LOOK_FIRST_S: Final = 0.05
LOOK_EVERY_S: Final = 5.0
"""Seconds between two looks at what others hold: the first pause, doubled up to the longest one."""

LOOK_PER_HELD_S: Final = 0.02
"""The longest pause is so long for each shard that others hold: as many workers may be waiting for these."""

LEASES_LOOKED_AT: Final = 8
"""Of so many shards that others hold, drawn at random, a look takes in whether the holder is alive."""

PATIENCE: Final = 2.0
LEAST_PATIENCE_S: Final = 2.0
"""When nothing else is left, how long another worker may hold a shard, in times of what this one takes; at least."""


class Claims:
    """The shards of one worker, each claimed when its turn comes; use it with `with`, which gives back what is left.

    A shard that another worker holds is passed over. When nothing else is left, the worker waits for those: one comes
    free when its holder stops, has ended or gives no sign of life, or takes far longer than this worker would. Of other
    workers' shares it waits for none before it has made a shard, and so knows how long that takes.

    Args:
        own: shards of this worker's share that are to be made.
        again: indices of those among them that have landed already.
        others: returns shards of other shares to help with; called once, when the worker's own are made or held.
    """

    def __init__(
        self,
        run: Path,
        own: Sequence[Shard],
        again: Collection[int],
        others: Callable[[], Sequence[Shard]],
        leases: Leases,
        quiet: bool,
    ) -> None:
        self.leases, self._run, self._again, self._quiet = leases, run, again, quiet
        self._own = {shard.index for shard in own}
        self._others: Callable[[], Sequence[Shard]] | None = others
        self._queue = collections.deque(own)
        self._passed: list[Shard] = []
        self._ready: collections.deque[Shard] = collections.deque()
        self._begun: dict[int, Shard] = {}
        self._overtaken: set[int] = set()
        self._took_s: list[float] = []
        self._made_by_others = 0
        self._looked = time.monotonic()

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *_: object) -> None:
        self.leases.release_all()
        if self._made_by_others:
            note(f"{self._made_by_others} of the shards to do were done by other workers meanwhile", self._quiet)

    def __iter__(self) -> Iterator[Shard]:
        """Claim and yield one shard after the other, until all that are left are held by others."""
        while shard := self._next():
            self._begun[shard.index] = shard
            yield shard

    def wait(self) -> bool:
        """Wait until there may be a shard to make; return whether there is, or all have landed or are others'."""
        pause = LOOK_FIRST_S
        while not (self._ready or self._queue or self._help() or self._come_free()):
            if not self._passed:
                return False
            if pause < LOOK_EVERY_S <= 2 * pause:
                note(f"waiting for {counted(len(self._passed), 'shard')} that other workers hold", self._quiet)
            stop.wait(pause)
            pause = min(2 * pause, max(LOOK_EVERY_S, LOOK_PER_HELD_S * len(self._passed)))
        return True

    @property
    def own_samples(self) -> int:
        """How many samples the shards of this worker's share have that it has not begun."""
        return sum(shard.count for shard in (*self._ready, *self._queue) if self.is_own(shard))

    def is_own(self, shard: Shard) -> bool:
        """Return whether a shard is of this worker's share."""
        return shard.index in self._own

    def is_overtaken(self, shard: Shard) -> bool:
        """Return whether another worker was seen to have landed a shard that this one had begun."""
        return shard.index in self._overtaken

    def look_whether_overtaken(self, shard: Shard) -> bool:
        """Return the same of a shard that is not full yet; look now and then."""
        if time.monotonic() - self._looked >= LOOK_EVERY_S:
            self._looked = time.monotonic()
            if shard.index in self._begun and self._is_made(shard):
                self._overtaken.add(shard.index)
                self._give_up(shard)
        return self.is_overtaken(shard)

    def finish(self, shard: Shard) -> None:
        """Give back a shard that has landed, or that is to stay as it is."""
        self._begun.pop(shard.index, None)
        if (took_s := self.leases.release(self._path(shard))) is not None:
            self._took_s.append(took_s)

    def begin_again(self) -> None:
        """Yield once more what was begun and has not landed."""
        self._ready.extend(self._begun.values())
        self._begun.clear()

    def _next(self) -> Shard | None:
        if self._ready:
            return self._ready.popleft()
        while self._queue or self._help():
            shard = self._queue.popleft()
            if self._claim(shard):
                return shard
        return None

    def _help(self) -> bool:
        """Queue what other workers may leave; once."""
        if self._others:
            others, self._others = self._others(), None
            unasked = _unasked(others, ShardNames(self._run)) if others else set()
            self._queue.extend(shard for shard in others if shard not in unasked)
            self._passed += unasked
        return bool(self._queue)

    def _come_free(self) -> bool:
        """Claim one of the shards that others held."""
        if not self._passed:
            return False
        patience_s = max(LEAST_PATIENCE_S, PATIENCE * statistics.median(self._took_s)) if self._took_s else math.inf
        names = ShardNames(self._run)
        passed = [shard for shard in self._passed if self.is_own(shard) or self._took_s]
        unasked = _unasked(passed, names)
        self._passed = []
        for shard in passed:
            if names.has(shard) and shard.index not in self._again:
                self._give_up(shard)
            elif self._ready or shard in unasked:
                self._passed.append(shard)
            elif self._claim(shard, patience_s):
                self._ready.append(shard)
        return bool(self._ready)

    def _claim(self, shard: Shard, patience_s: float = math.inf) -> bool:
        """Claim a shard that has not landed; pass it over if another worker holds it."""
        if not self._is_made(shard):
            if not self.leases.claim(self._path(shard), patience_s):
                self._passed.append(shard)
                return False
            if not self._is_made(shard):  # by who held it until just now
                return True
        self._give_up(shard)
        return False

    def _give_up(self, shard: Shard) -> None:
        """Leave a shard as another worker has made it."""
        self._begun.pop(shard.index, None)
        self.leases.release(self._path(shard))
        self._made_by_others += 1

    def _is_made(self, shard: Shard) -> bool:
        return shard.index not in self._again and has_landed(self._run, shard)

    def _path(self, shard: Shard) -> Path:
        return self._run / SHARD_FOLDER / shard.file


def _unasked(shards: Sequence[Shard], names: ShardNames) -> set[Shard]:
    """Return those that others hold, but for a few drawn at random: looking at each lease of a thousand takes long."""
    held = [s for s in shards if lease_path(Path(s.file), 0, PARTIAL_SUFFIX).name in names.names]
    return set(random.Random().sample(held, max(0, len(held) - LEASES_LOOKED_AT)))


@contextlib.contextmanager
def planning(run: Path, leases: Leases, quiet: bool) -> Iterator[None]:
    """Let the first worker that enters plan a run, and the others wait at the door until it has, or has given up.

    Where there is a plan by then, they have nothing to list. Where there is none, each finds out for itself why.
    """
    plan, pause = run / PLAN_FILE, LOOK_FIRST_S
    made = landing.make_folder(run)
    while not leases.claim(plan) and not plan.exists() and lease_path(plan, 0, PARTIAL_SUFFIX).exists():
        if pause < LOOK_EVERY_S <= 2 * pause:
            note(f"waiting for another worker, which lists the dataset and plans {run}", quiet)
        stop.wait(pause)
        pause = min(2 * pause, LOOK_EVERY_S)
    try:
        with leases.beating():
            yield
    finally:
        leases.release(plan)
        for folder in made:
            with contextlib.suppress(OSError):  # nothing was planned: as it was
                folder.rmdir()
