"""Processes that share one piece of work, forked from this one; each tells this one something, again and again."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any

from batchcam.errors import BatchcamError
from batchcam.job.processes import die_with_parent, ignore_job_signals


class EndedError(Exception):
    """A process of the crew ended before its work did.

    Attributes:
        code: its exit code; negative: the signal that ended it.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"a process ended with code {code}")
        self.code = code


@contextlib.contextmanager
def crew(count: int, work: Callable[[int], Iterator[Any]]) -> Iterator[list[Iterator[Any]]]:
    """Give out what `count` processes tell, each of which iterates over `work` of its number.

    None is far ahead of who reads what it tells: it waits while a pipe is full. All end with the block. Elsewhere than
    on Linux this process does it all: Windows knows no fork, and macOS's own libraries may not survive one.

    Args:
        count: of processes.
        work: yields what can be pickled. Errors of ours, and want of memory, are raised where it is read;
            any other ends the process, which is an EndedError there.
    """
    if sys.platform != "linux":
        yield [work(number) for number in range(count)]
        return
    members: list[_Member] = []
    try:
        for number in range(count):
            members.append(_Member(number, work, members))
        yield [member.told() for member in members]
    finally:
        for member in members:
            member.end()


class _Member:
    """A process of the crew, as its parent sees it."""

    _stream: Connection
    _process: int

    def __init__(self, number: int, work: Callable[[int], Iterator[Any]], others: Sequence[_Member]) -> None:
        if sys.platform == "win32":
            raise NotImplementedError
        self._stream, stream = Pipe(duplex=False)
        parent = os.getpid()
        with warnings.catch_warnings():  # of threads, whose locks the work has to do without
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process = os.fork()
        if not self._process:
            for each in (self, *others):  # else it keeps alive what another one writes to nobody
                each._stream.close()
            _work(number, work, stream, parent)
        stream.close()

    def told(self) -> Iterator[Any]:
        while True:
            try:
                kind, value = self._stream.recv()
            except (EOFError, ConnectionError):
                raise EndedError(self.end()) from None
            if kind == "raised":
                raise value
            if kind == "done":
                return
            yield value

    def end(self) -> int:
        """Wait for its end, which comes soon as nobody reads; return its exit code."""
        self._stream.close()
        if self._process:
            _, status = os.waitpid(self._process, 0)
            self._process, self._code = 0, os.waitstatus_to_exitcode(status)
        return self._code


def _work(number: int, work: Callable[[int], Iterator[Any]], stream: Connection, parent: int) -> None:
    """Do a member's work and end this process, which may not return into what its parent was doing."""
    code = 1
    try:
        die_with_parent(parent)
        ignore_job_signals()  # the parent hears them too
        try:
            for each in work(number):
                stream.send(("told", each))
            stream.send(("done", None))
        except (BatchcamError, MemoryError) as error:
            stream.send(("raised", error))
        code = 0
    except BrokenPipeError:
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
