"""Reads that take too long are given up: the storage behind one sample must not hold up all others."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final

from batchcam.data.samples import Read, Source, StoredSample, T
from batchcam.errors import StoppedEarlyError
from batchcam.images.decoding import UnreadableImageError
from batchcam.job.stop import stop_if_asked

LONGEST_STEP_S: Final = 0.5
"""Seconds between two looks at a read, and whether to stop; it may last so much longer than its limit."""

MOST_STUCK: Final = 8
"""Reads under way of which nobody expects an answer any more, in one process."""

_start_anew: ContextVar[Callable[[], None]] = ContextVar("start_anew", default=lambda: None)


def start_clock_anew() -> None:
    """Tell whoever times this thread's read that it waits for something that is not the sample's."""
    _start_anew.get()()


class HungStorageError(StoppedEarlyError):
    """So many reads hang that the storage, and not the samples, must be the trouble."""

    def __init__(self, message: object = "") -> None:
        """Say so; a copy from a loader process comes with its message."""
        super().__init__(
            f"{MOST_STUCK} reads of samples hang: is the dataset's storage still there? "
            "run the same command again when it is"
        )


def timed(source: Source, seconds: float) -> Source:
    """Return `source` with reads that are given up after `seconds`; as it is for 0."""
    return TimedSource(source, seconds) if seconds else source


def rest(source: Source) -> None:
    """End the thread that reads for `source`, which would make a fork unsafe; the next read starts another."""
    if isinstance(source, TimedSource):
        source.rest()


class TimedSource(Source):
    """Another source, whose samples are unreadable when one takes longer than `seconds`.

    A read that hangs can't be ended, only left alone: samples are read, and made ready, by a thread of their own, one a
    process, and a new thread takes the place of one that hangs. None of them keeps the process from ending.
    """

    def __init__(self, source: Source, seconds: float) -> None:
        """Wrap `source`; nothing is started before the first read."""
        super().__init__(
            source.spec, source.sample_ids, source.labels, source.sizes, source.class_names, source.notes,
            source.empty_classes, source.numeric,
        )  # fmt: skip
        self.code, self.decoding, self.digests_of = source.code, source.decoding, source.digests_of
        self.paths, self.numbered = source.paths, source.numbered
        self.meta, self.manifest_sha256 = source.meta, source.manifest_sha256
        self.several, self.multi_hot = source.several, source.multi_hot
        self.inner = source
        self.seconds = seconds
        self._reader: _Reader | None = None
        self._stuck: list[_Reader] = []
        self._process = os.getpid()

    def read(self, index: int) -> StoredSample:
        """Read one sample, or give up.

        Raises:
            UnreadableImageError: it took too long, or what the source raises.
            HungStorageError: `MOST_STUCK` earlier reads still hang.
        """
        return self.each([index], _as_read)[0]

    def each(self, indices: Sequence[int], load: Callable[[int, Read], T]) -> list[T]:
        """Load samples in the other thread, all at one go: handing over each would cost a tenth of a small one's time.

        Raises:
            HungStorageError: `MOST_STUCK` earlier reads still hang.
            StoppedEarlyError: the work should stop; what is being read is left alone.
        """
        loaded: list[T] = []
        while len(loaded) < len(indices):
            reader = self._ready()
            try:
                failure = reader.ask(indices[len(loaded) :], load, self.seconds)
            except BaseException as error:  # also an interruption, after which late answers would be other samples'
                self._leave(reader)
                if not isinstance(error, _LateError):
                    raise
                late = len(loaded) + error.position
                loaded += reader.take()
                if len(loaded) == late:  # unless it has arrived just now
                    loaded.append(load(indices[late], self._refuse))
            else:
                if failure is not None:
                    raise failure
                loaded += reader.take()
        return loaded

    def rest(self) -> None:
        """End the idle thread; the next read starts another."""
        if self._reader is not None:
            self._reader.retire()
            self._reader.join()
            self._reader = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None, "_stuck": []}

    def _ready(self) -> _Reader:
        """Return a thread that waits for work."""
        if self._process != os.getpid():  # threads do not come along into a fork
            self._reader, self._stuck, self._process = None, [], os.getpid()
        if self._reader is None:
            self._stuck = [reader for reader in self._stuck if reader.is_alive()]
            if len(self._stuck) >= MOST_STUCK:
                raise HungStorageError
            self._reader = _Reader(self.inner.read)
            weakref.finalize(self, self._reader.retire)
        return self._reader

    def _leave(self, reader: _Reader) -> None:
        reader.retire()
        self._stuck.append(reader)
        self._reader = None

    def _refuse(self, index: int) -> StoredSample:
        raise UnreadableImageError(f"reading took longer than {self.seconds:g} s")


class _LateError(Exception):
    """A sample takes too long."""

    def __init__(self, position: int) -> None:
        """Say which, of those that were asked for."""
        super().__init__(position)
        self.position = position


class _Reader:
    """A thread that loads samples."""

    def __init__(self, read: Read) -> None:
        self._done: list[Any] = []
        self._read = read
        self._position = self._waits = 0
        self._retired = False
        self._asked: queue.SimpleQueue[tuple[Sequence[int], Callable[[int, Read], Any]] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        thread = threading.Thread(target=self._serve, name="batchcam-reader", daemon=True)
        thread.start()
        self.is_alive, self.join = thread.is_alive, thread.join

    def ask(self, indices: Sequence[int], load: Callable[[int, Read], Any], seconds: float) -> BaseException | None:
        """Load samples, to be taken; return what ended the work early, None if nothing did.

        Raises:
            _LateError: a sample takes longer than so many `seconds`.
            StoppedEarlyError: the work should stop.
        """
        self._done, self._position, self._waits = [], 0, 0
        self._asked.put((indices, load))
        # in steps, each of which counts for no more than it was to last: a job may be suspended for hours
        step = min(LONGEST_STEP_S, seconds / 8)
        waited, seen = 0.0, (0, 0)
        while True:
            try:
                return self._answers.get(timeout=step)
            except queue.Empty:
                stop_if_asked()
                waited = waited + step if (self._position, self._waits) == seen else 0.0
            seen = self._position, self._waits
            if waited >= seconds:
                raise _LateError(seen[0])

    def take(self) -> list[Any]:
        """Return what has been loaded since `ask`, in order, and keep none of it."""
        taken, self._done = self._done, []
        return taken

    def retire(self) -> None:
        """End the thread as soon as it is done with the sample that it loads."""
        self._retired = True
        self._asked.put(None)

    def _serve(self) -> None:
        _start_anew.set(self._wait)
        while (asked := self._asked.get()) is not None:
            self._answers.put(self._work(*asked))
            del asked  # it leads to the source, whose end is this thread's

    def _wait(self) -> None:
        self._waits += 1

    def _work(self, indices: Sequence[int], load: Callable[[int, Read], Any]) -> BaseException | None:
        try:
            for position, index in enumerate(indices):
                if self._retired:
                    break
                self._position = position
                self._done.append(load(index, self._read))
        except BaseException as error:  # raised again where the samples were asked for
            return error
        return None


def _as_read(index: int, read: Read) -> StoredSample:
    return read(index)
