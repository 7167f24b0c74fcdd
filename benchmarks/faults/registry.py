"""The fault classes, what each gave, and the table of them."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .warm import Warm


@dataclasses.dataclass
class Outcome:
    """What one fault class gave.

    Attributes:
        checked: what a case has to pass, in a sentence.
        cases: how many were tried.
        failures: what went wrong, a line each, by the case's name.
        skipped: why no case could be tried on this machine.
        note: a measurement to show with the counts.
    """

    checked: str
    cases: int = 0
    failures: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    skipped: str = ""
    note: str = ""

    def case(self, name: str, wrong: Sequence[str]) -> None:
        """Count a case; it survived if nothing is `wrong`."""
        self.cases += 1
        if wrong:
            self.failures[f"{name} ({self.cases})"] = list(wrong)

    @property
    def survived(self) -> int:
        """How many cases passed."""
        return self.cases - len(self.failures)


@dataclasses.dataclass
class Bench:
    """Where the cases of one fault class work.

    Attributes:
        folder: an empty folder, on a file system in memory where there is one.
        warm: starts commands.
        quick: a few cases of each kind instead of all.
    """

    folder: Path
    warm: Warm
    quick: bool

    def few(self, quick: int, full: int) -> int:
        """Return how many cases to try."""
        return quick if self.quick else full

    @contextmanager
    def fresh(self, name: str) -> Iterator[Path]:
        """Give a folder that is not there yet, and remove it afterwards."""
        path = self.folder / name
        yield path
        shutil.rmtree(path, ignore_errors=True)


FaultClass = Callable[[Bench], Outcome]
CLASSES: dict[str, FaultClass] = {}
"""Fault classes by the name that the table shows, in the table's order."""


def fault_class(name: str) -> Callable[[FaultClass], FaultClass]:
    """Enter a function into the table under `name`."""

    def enter(function: FaultClass) -> FaultClass:
        CLASSES[name] = function
        return function

    return enter


def tried(name: str, folder: Path, warm: Warm, quick: bool) -> Outcome:
    """Try one fault class in a new folder below `folder`."""
    place = folder / "bench"
    place.mkdir()
    try:
        return CLASSES[name](Bench(place, warm, quick))
    finally:
        shutil.rmtree(place, ignore_errors=True)


TABLE_HEAD = """# What batchcam survives

Faults tried for real on {machine}: `python -m benchmarks.faults` makes this table again in about {minutes} minutes.
A case survives when everything under *what is checked* holds.

| fault | cases | survived | what is checked | measured |
|---|--:|--:|---|---|
"""

TABLE_FOOT = """
**0 cases, 0 survived.**

How: a seccomp filter stops the command at each system call that creates, writes, syncs, renames or removes a file, and
we kill the process there, or let the call fail, or let it write less than it was given. Most commands are forked from a
process that has imported torch already and call `batchcam.cli.main`; those *started cold* are not. Networks and images
are tiny. Files lie in memory (tmpfs) where there is one; the power cut is simulated from the order of the calls.
Not tried: a real power cut, NFS, Lustre, GPFS, a GPU.
"""


def table(outcomes: Mapping[str, Outcome], machine: str, seconds: float) -> str:
    """Return the table in Markdown."""
    head = TABLE_HEAD.format(machine=machine, minutes=round(seconds / 60))
    return _with_total(head + "".join(_row(name, outcome) for name, outcome in outcomes.items()) + TABLE_FOOT)


def updated(text: str, outcomes: Mapping[str, Outcome]) -> str:
    """Return the table `text` with the rows of some classes replaced."""
    rows = {_row_name(line): line for line in text.splitlines(keepends=True)}
    for name, outcome in outcomes.items():
        text = text.replace(rows[name], _row(name, outcome)) if name in rows else text
    return _with_total(text)


def _row(name: str, outcome: Outcome) -> str:
    counts = f"{outcome.cases} | {outcome.survived}" if not outcome.skipped else "– | –"
    return f"| {name} | {counts} | {outcome.skipped or outcome.checked} | {outcome.note} |\n"


def _row_name(line: str) -> str:
    return line.partition(" | ")[0].removeprefix("| ")


def _with_total(text: str) -> str:
    counts = re.findall(r"^\| .* \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    cases, survived = sum(int(each) for each, _ in counts), sum(int(each) for _, each in counts)
    return re.sub(r"\*\*\d+ cases, \d+ survived\.\*\*", f"**{cases} cases, {survived} survived.**", text)
