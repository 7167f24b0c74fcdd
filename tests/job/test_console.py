"""What people are told on the way never ends the work."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest

from batchcam.job import console
from batchcam.job.console import Progress, counted, note


@contextlib.contextmanager
def full_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let stderr be on a disk that is full: every write fails."""
    with (
        contextlib.suppress(OSError),  # closing it fails as well
        open("/dev/full", "w", buffering=1, encoding="utf-8") as stream,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stderr", stream)
        with pytest.raises(OSError, match="No space left on device"):
            print("a line", file=stream)
        yield


def test_note_goes_on_when_the_log_is_full(monkeypatch):
    done = False
    with full_log(monkeypatch):
        note("a note", quiet=False)
        done = True
    assert done


def test_progress_goes_on_when_the_log_is_full(monkeypatch):
    monkeypatch.setattr(console, "LINE_EVERY_S", 0)
    done = False
    with full_log(monkeypatch), Progress("explain", 2, "images", quiet=False) as progress:
        progress.advance(1)
        progress.advance(1)
        done = True
    assert done


def test_note_is_one_line(capsys):
    note("two\nlines", quiet=False)
    assert capsys.readouterr().err == "batchcam: two lines\n"


@pytest.mark.parametrize(
    ("count", "noun", "text"), [(0, "shard", "0 shards"), (1, "shard", "1 shard"), (2, "class", "2 classes")]
)
def test_one_is_singular(count, noun, text):
    assert counted(count, noun) == text


def test_quiet_says_nothing(capsys):
    note("a note", quiet=True)
    with Progress("explain", 1, "images", quiet=True) as progress:
        progress.advance(1)
    assert capsys.readouterr().err == ""
