"""Reasons to stop: the first signal, a time limit, of the whole process or of one piece of work in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from batchcam.errors import StoppedEarlyError
from batchcam.job.console import Progress
from batchcam.job.processes import JOB_SIGNALS
from batchcam.job.stop import Stop, follow, reason_to_stop, stop_if_asked, wait


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda n: n.name)
def test_first_signal_is_only_a_reason_to_stop(number):
    with Stop() as stop:
        assert stop.reason() is None
        os.kill(os.getpid(), number)
        assert stop.reason() == number.name


@pytest.mark.parametrize("number", JOB_SIGNALS)
def test_a_signal_that_comes_as_soon_as_it_is_listened_for_is_heard(monkeypatch, number):
    set_handler = signal.signal

    def set_and_send(wanted, handler):
        former = set_handler(wanted, handler)
        if wanted == number and handler is not former and not sent:
            sent.append(wanted)
            os.kill(os.getpid(), wanted)
        return former

    sent = []
    monkeypatch.setattr(signal, "signal", set_and_send)
    with Stop() as stop:
        assert stop.reason() == signal.Signals(number).name


def test_handlers_are_as_before_after_the_block():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(n) for n in numbers]
    with Stop():
        assert all(signal.getsignal(n) != b for n, b in zip(numbers, before, strict=True))
        os.kill(os.getpid(), signal.SIGUSR1)
    assert [signal.getsignal(n) for n in numbers] == before
    with pytest.raises(ZeroDivisionError), Stop():
        raise ZeroDivisionError
    assert [signal.getsignal(n) for n in numbers] == before


def test_second_signal_of_a_kind_does_what_it_always_did():
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason() == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_signal_of_another_kind_does_not_end_the_process_either():
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason() == "SIGTERM"


def test_second_termination_ends_the_process():
    program = (
        "import os, signal, time; from batchcam.job.stop import Stop\n"
        "with Stop() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print(stop.reason(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(30)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "SIGTERM\n")


def test_time_limit_is_a_reason_to_stop_once_it_is_over(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Stop(60) as stop:
        now = 159.9
        assert stop.reason() is None
        now = 160.0
        assert stop.reason() == "time limit"


def test_time_limit_counts_from_the_making_of_stop(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stop = Stop(60)
    now = 161.0
    with stop:
        assert stop.reason() == "time limit"


def test_signal_outweighs_the_time_limit_as_reason():
    with Stop(0) as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.reason() == "SIGUSR1"


def test_nothing_stops_where_nobody_listens():
    assert reason_to_stop() is None
    stop_if_asked()


def test_the_innermost_stop_knows_what_the_outermost_heard():
    with Stop(), Stop() as inner:
        os.kill(os.getpid(), signal.SIGTERM)
        assert inner.reason() == reason_to_stop() == "SIGTERM"
        with pytest.raises(StoppedEarlyError, match="stopped by SIGTERM; run the same command again"):
            stop_if_asked()
    assert reason_to_stop() is None


def test_a_second_signal_inside_of_two_stops_does_what_it_always_did():
    with Stop(), Stop():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_time_limit_inside_ends_only_what_is_inside(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Stop() as outer:
        now = 130.0
        with Stop(60):
            now = 159.9
            assert reason_to_stop() is None
            now = 160.0  # counted from when the process began
            assert reason_to_stop() == "time limit"
        assert outer.reason() is reason_to_stop() is None


def test_who_follows_another_process_stops_when_that_says_so_and_for_nothing_else():
    said, seen = [], []

    def work() -> None:
        with Stop(0):
            follow(lambda: said[0] if said else None)
            seen.append(reason_to_stop())
            said.append("the end of the work")
            seen.append(reason_to_stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, "the end of the work"]


def test_other_threads_have_time_limits_and_no_handlers():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with Stop(0):
            seen.extend([signal.getsignal(signal.SIGTERM), reason_to_stop()])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, "time limit"]


def test_whatever_shows_progress_is_stopped_at_its_next_block():
    with Stop(), Progress("explain", 3, "images", quiet=True) as progress:
        progress.advance(1)
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(StoppedEarlyError, match="stopped by SIGUSR1"):
            progress.advance(1)


def test_a_wait_ends_soon_after_a_signal():
    with Stop():
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        start = time.monotonic()
        with pytest.raises(StoppedEarlyError):
            wait(60)
        assert time.monotonic() - start < 30


def test_a_wait_without_a_reason_takes_its_time(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    clock = iter([0.0, 0.0, 0.2, 0.4, 0.5, 0.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    wait(0.5)
    assert slept == pytest.approx([0.2, 0.2, 0.1])
