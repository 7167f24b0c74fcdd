"""Runs with hostile and special samples, and desks over them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchcam.commands.merge import merge
from batchcam.commands.view.book import Book
from batchcam.commands.view.desk import Desk
from batchcam.commands.view.movement import Movement
from batchcam.commands.view.table import read_table
from batchcam.pictures.originals import open_originals
from batchcam.store.opening import open_run
from tests.helpers.report_pages import HOSTILE_IDS
from tests.helpers.synthetic import land_shards, synthetic_plan, synthetic_rows, synthetic_run

IDS = (
    *HOSTILE_IDS,
    *("javascript:alert(1)", "<svg/onload=alert(1)>", "';alert(1)//", "{{7*7}}", "${7*7}", "%2e%2e%2fetc%2fpasswd"),
    *("a&sample=b", "a#b?c=d", "a;b=c", "a+b c", " ", "..", ".", "\\\\host\\share", "C:\\con", "-rf", "=1+1", "\u0301"),
    *("a\u2028b", "\u200f\u200e", "ﬀ", "İ", "ß", "é", "<!--", "]]>", "</script>", "[.*+?^$", "__proto__", "🦓👩‍🚀.png"),
)
"""More than thirty ids that somebody might hope are more than text."""


@pytest.fixture(scope="package")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose ids and class names are hostile."""
    run = tmp_path_factory.mktemp("view") / "hostile"
    names = ("<b>bold</b>", "\u202eevil", "a\x1b[31m", '"quoted" onclick="x"', "__proto__")
    plan = synthetic_plan(class_names=names, sample_id_bytes=1000, sample_count=len(IDS), shard_size=20)
    rows = synthetic_rows(plan)
    rows.texts["sample_id"] = list(IDS)
    rows.texts["error"][3] = "<script>alert('error')</script>"
    land_shards(run, plan, rows)
    merge(run)
    return run


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 200 samples."""
    run = tmp_path_factory.mktemp("view") / "run"
    synthetic_run(run, sample_count=200, shard_size=64)
    return run


@pytest.fixture(scope="package")
def open_desk() -> Iterator[Callable[..., Desk]]:
    """Return a function that opens a desk over a run, and waits until all columns are read."""
    with contextlib.ExitStack() as stack:

        def make(path: Path, against: Path | None = None, verdicts: Path | None = None) -> Desk:
            run = stack.enter_context(open_run(path))
            old = Movement(stack.enter_context(open_run(against)), run, against) if against else None
            book = Book(verdicts, run, "ann") if verdicts else None
            desk = stack.enter_context(Desk(run, read_table(run, True), open_originals(run, None), old, book))
            desk.measuring.join()
            return desk

        yield make
