"""A run as a notebook shows it: one small table of HTML, every text in it escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batchcam.errors import RunError, one_line
from batchcam.rules import CONTROLS, identity_words
from batchcam.store.bringing import shown
from batchcam.store.manifest import read_manifest
from batchcam.store.plan import Plan

LONGEST = 200
"""Characters of one fact: a run of a thousand classes names the first ones."""


def page(path: Path, plan: Plan, state: str, arrays: Sequence[tuple[str, tuple[int, ...], np.dtype[Any], str]]) -> str:
    """Return what a run is, and a line for each of its arrays, as HTML.

    Args:
        state: how much of it is there.
        arrays: name, shape, type and meaning of each.
    """
    samples = arrays[0][1][0]
    control = "" if plan.control == CONTROLS[0] else f", control {plan.control}"
    facts = {
        "run": f"{shown(path)} ({state})",
        "samples": f"{samples:,}{_accuracy(path, plan) if state == 'complete' else ''}",
        "classes": f"{len(plan.class_names):,}: {', '.join(plan.class_names[:LONGEST])}",
        "network": f"{plan.architecture}, {plan.target_layer}",
        "method": f"{plan.method}{control}; identity: {identity_words(plan.method, plan.identity)}",
    }
    rows = [f"{_name(name)}{_cell(text, 3)}" for name, text in facts.items()]
    rows += [
        f"{_name('.' + name)}{_cell(' × '.join(map(str, shape)))}{_cell(dtype)}{_cell(meaning)}"
        for name, shape, dtype, meaning in arrays
    ]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _name(text: str) -> str:
    return f'<th scope="row" style="text-align: left">{text}</th>'


def _cell(text: object, columns: int = 1) -> str:
    line = one_line(text)
    short = line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
    return f'<td colspan="{columns}" style="text-align: left">{html.escape(short)}</td>'


def _accuracy(path: Path, plan: Plan) -> str:
    """Return how many predictions of a complete run are right: its manifest states it, and no row has to be read."""
    try:
        totals = read_manifest(path, plan).totals
    except (OSError, RunError):
        return ""
    return f", {totals['correct']} of {totals['labelled']} labelled predicted right" if totals.get("labelled") else ""
