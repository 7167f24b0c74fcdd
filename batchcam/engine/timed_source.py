"""Reads that take too long are given up: the storage behind one sample must not hold up all others."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from typing import Any, Final

from batchcam.engine.images import UnreadableImageError
from batchcam.engine.samples import Source, StoredSample
from batchcam.errors import StoppedEarlyError

MOST_STUCK: Final = 8
"""Reads under way of which nobody expects an answer any more, in one process."""


class HungStorageError(StoppedEarlyError):
    """So many reads hang that the storage, and not the samples, must be the trouble."""

    def __init__(self, message: object = "") -> None:
        """Say so, whatever torch makes of the message on the way from a loader process."""
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
    """Another source, whose samples are unreadable when reading one takes longer than `seconds`.

    A read that hangs can't be ended, only left alone: samples are read by a thread of their own, one a process, and
    a new thread takes the place of one that hangs. None of them keeps the process from ending.
    """

    def __init__(self, source: Source, seconds: float) -> None:
        """Wrap `source`; nothing is started before the first read."""
        super().__init__(source.spec, source.sample_ids, source.labels, source.sizes, source.class_names, source.notes)
        self._source = source
        self._seconds = min(seconds, threading.TIMEOUT_MAX)
        self._reader: _Reader | None = None
        self._stuck: list[_Reader] = []
        self._process = os.getpid()

    def read(self, index: int) -> StoredSample:
        """Read one sample, or give up.

        Raises:
            UnreadableImageError: it took too long, or what the source raises.
            HungStorageError: `MOST_STUCK` earlier reads still hang.
        """
        if self._process != os.getpid():  # threads do not come along into a fork
            self._reader, self._stuck, self._process = None, [], os.getpid()
        if self._reader is None:
            self._stuck = [reader for reader in self._stuck if reader.is_alive()]
            if len(self._stuck) >= MOST_STUCK:
                raise HungStorageError
            self._reader = _Reader(self._source)
            weakref.finalize(self, self._reader.retire)
        try:
            answer = self._reader.ask(index, self._seconds)
        except BaseException as error:  # also an interruption, after which a late answer would be another sample's
            self._reader.retire()
            self._stuck.append(self._reader)
            self._reader = None
            if isinstance(error, queue.Empty):
                raise UnreadableImageError(f"reading took longer than {self._seconds:g} s") from None
            raise
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def rest(self) -> None:
        """End the idle thread; the next read starts another."""
        if self._reader is not None:
            self._reader.retire()
            self._reader.join()
            self._reader = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None, "_stuck": []}


class _Reader:
    """A thread that reads one sample after the other."""

    def __init__(self, source: Source) -> None:
        self._asked: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[StoredSample | BaseException] = queue.SimpleQueue()
        arguments = (source, self._asked, self._answers)
        self._thread = threading.Thread(target=_serve, args=arguments, name="batchcam-reader", daemon=True)
        self._thread.start()
        self.is_alive, self.join = self._thread.is_alive, self._thread.join

    def ask(self, index: int, seconds: float) -> StoredSample | BaseException:
        """Return one sample or what the source raises; raise queue.Empty after so many `seconds`."""
        self._asked.put(index)
        return self._answers.get(timeout=seconds)

    def retire(self) -> None:
        """End the thread as soon as it is done with what it reads."""
        self._asked.put(None)


def _serve(
    source: Source,
    asked: queue.SimpleQueue[int | None],
    answers: queue.SimpleQueue[StoredSample | BaseException],
) -> None:
    while (index := asked.get()) is not None:
        try:
            answers.put(source.read(index))
        except BaseException as error:  # raised again where the sample was asked for
            answers.put(error)
