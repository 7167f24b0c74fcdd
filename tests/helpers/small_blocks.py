"""Runs read in blocks of few rows, as large runs are."""

from __future__ import annotations

import functools

import pytest

from batchcam.store.run import Run


def small_blocks(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    """Let every block of rows take at most `budget` bytes, or one row."""
    monkeypatch.setattr(Run, "blocks", functools.partialmethod(Run.blocks, budget=budget))
