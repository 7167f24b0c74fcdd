"""Processes that share a piece of work tell what they do, and how they end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from itertools import count

import pytest

from batchcam.errors import RunError
from batchcam.job.crew import EndedError, crew


def test_each_process_tells_what_it_does_in_its_order() -> None:
    def work(number: int) -> Iterator[tuple[int, int]]:
        for i in range(3):
            yield os.getpid(), 10 * number + i

    with crew(2, work) as members:
        told = [list(member) for member in members]
    assert [[said for _, said in each] for each in told] == [[0, 1, 2], [10, 11, 12]]
    assert len({pid for each in told for pid, _ in each} | {os.getpid()}) == 3


@pytest.mark.parametrize("error", [RunError("shard: damaged"), MemoryError("too much")])
def test_an_error_of_ours_is_raised_where_the_work_is_read(error: Exception) -> None:
    def work(number: int) -> Iterator[int]:
        yield 1
        raise error

    with crew(1, work) as (member,):
        assert next(member) == 1
        with pytest.raises(type(error), match=str(error)):
            next(member)


@pytest.mark.parametrize(("ending", "code"), [(lambda: os.kill(os.getpid(), 11), -11), (lambda: os._exit(7), 7)])
def test_a_process_that_ends_too_early_is_told_by_how(ending, code: int) -> None:
    def work(number: int) -> Iterator[int]:
        yield 1
        ending()

    with crew(1, work) as (member,):
        assert next(member) == 1
        with pytest.raises(EndedError) as caught:
            next(member)
    assert caught.value.code == code


def test_any_other_error_ends_its_process_and_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    def work(number: int) -> Iterator[int]:
        yield 1
        raise TypeError("a defect")

    with crew(1, work) as (member,), pytest.raises(EndedError):
        list(member)
    assert "TypeError: a defect" in capfd.readouterr().err


def test_processes_end_with_the_block_however_much_they_have_to_tell() -> None:
    pids = []
    with crew(3, lambda number: ((os.getpid(), i) for i in count())) as members:
        pids = [next(member)[0] for member in members]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_signal_of_the_scheduler_leaves_the_ending_to_the_parent() -> None:
    def work(number: int) -> Iterator[int]:
        yield os.getpid()
        time.sleep(0.2)
        yield 2

    with crew(1, work) as (member,):
        os.kill(next(member), signal.SIGTERM)
        assert list(member) == [2]


def test_elsewhere_than_on_linux_this_process_does_all_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with crew(2, lambda number: iter([(number, os.getpid())])) as members:
        assert [list(each) for each in members] == [[(0, os.getpid())], [(1, os.getpid())]]
