"""Whatever is fed, only errors of ours come out; `benchmarks.fuzz` and `benchmarks.faults` feed more."""

from __future__ import annotations

import mmap
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from benchmarks import fuzz, fuzz_targets
from benchmarks.fuzz_targets import TARGETS, try_input

EXAMPLES = {"hdf5": 12, "command line": 25, "task": 20, "annotations": 25, "document": 60, "document bytes": 60}
GROWTH_MB = 400  # torch and torchvision, where a test before did not load them; a leak of 10 MB an input


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_fed_is_read_or_refused(name: str) -> None:
    try_input_once = settings(
        derandomize=True,
        deadline=None,
        database=None,
        max_examples=EXAMPLES.get(name, 30),
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    before = fuzz_targets.resident_bytes()

    @try_input_once
    @given(TARGETS[name].inputs)
    def feed(value: Any) -> None:
        try_input(name, value)

    feed()
    assert (fuzz_targets.resident_bytes() - before) / 1e6 < GROWTH_MB


def enter(monkeypatch: pytest.MonkeyPatch, check: Any, name: str = "document") -> None:
    monkeypatch.setitem(TARGETS, name, fuzz_targets.Target(TARGETS[name].inputs, check, ""))


def test_an_exception_of_another_kind_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(value: object, folder: Path) -> None:
        raise ZeroDivisionError("by zero")

    enter(monkeypatch, check)
    result = fuzz.drawn("document", 5, seed=0)
    assert result.cases == 5
    ((where, what),) = result.failures.items()
    assert "ZeroDivisionError" in where
    assert "by zero" in what


def test_a_hang_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_targets, "HUNG_S", 0.05)
    enter(monkeypatch, lambda value, folder: time.sleep(5))
    assert "HungError" in next(iter(fuzz.drawn("document", 1, seed=0).failures))


def test_memory_that_is_kept_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def keep(value: object, folder: Path) -> None:
        block = mmap.mmap(-1, 40_000_000)  # from the system: malloc would hand out what earlier tests freed
        block[:: mmap.PAGESIZE] = b"x" * len(block[:: mmap.PAGESIZE])
        kept.append(block)

    monkeypatch.setattr(fuzz.Counting, "WARM", 2)
    enter(monkeypatch, keep)
    result = fuzz.drawn("document", 10, seed=0)
    assert result.end_mb - result.start_mb >= 150  # of 320: the system may page out some


@pytest.mark.parametrize(
    ("words", "stderr"),
    [
        (2, "Usage: batchcam\n"),
        (1, "batchcam: error: unexpected KeyError: 'a'; --debug shows where\n"),
        (1, "batchcam: error: a\nsecond line\n"),
        (1, ""),
        (4, "batchcam: error: a\n"),
        (0, "Traceback (most recent call last):\n"),
    ],
)
def test_a_command_that_ends_otherwise_than_documented_is_noticed(
    words: int, stderr: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_targets, "run_command", lambda *_: (words, "", stderr))
    with pytest.raises((AssertionError, IndexError)):
        fuzz_targets.ended("info")


def test_the_fuzzer_tells_what_it_tried() -> None:
    words = [sys.executable, "-m", "benchmarks.fuzz", "--target", "document bytes", "--examples", "20", "--json"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("document bytes: 20 inputs, ")
    assert '"cases": 20' in ended.stdout.splitlines()[-1]
