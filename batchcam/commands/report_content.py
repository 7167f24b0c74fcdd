"""What a report shows, and how all of its sections write numbers and text from data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from batchcam import charts
from batchcam.commands.info import RunInfo
from batchcam.commands.report_facts import Facts
from batchcam.commands.report_pictures import Picture
from batchcam.html import Markup, element, foreign
from batchcam.pictures import State

NONE: Final = "–"

ODD: Final = {
    "non-finite": (
        "Non-finite numbers",
        "A NaN or an infinity came out of the network: there is no prediction, or no map, to show.",
    ),
    "constant": (
        "Constant maps",
        "Every cell says the same, so the map says nothing about where. The original is shown alone.",
    ),
    "no-positive": (
        "No positive evidence",
        "No cell speaks for the predicted class: it won by its bias, or by the least evidence against it. "
        "The brightest place of such an overlay is only the least negative.",
    ),
    "border-only": (
        "Evidence at the border only",
        "All positive evidence lies in the outermost ring of cells: often background, a frame, a watermark or padding.",
    ),
}
"""Heading and explanation for each kind of odd map."""

WITHOUT_ORIGINAL: Final = {
    State.CHANGED: "the image is no longer the one that was explained",
    State.UNREADABLE: "the image can't be shown as the network saw it",
    State.MISSING: "the image is not at hand",
}
"""Why a sample is shown without its original."""

HISTOGRAM_BINS: Final = 20


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything that a report shows.

    Attributes:
        about: what the run is and who made it.
        facts: the numbers.
        manifest_sha256: digest of manifest.json, None while the run is incomplete.
        mistakes: wrong predictions, the most confident first.
        hits: right predictions, the least confident first.
        odd: samples by kind of odd map, keys of ODD.
        counts: how many samples there are of each kind, under the names of `odd`, "mistakes" and "hits".
        unreadable: id, label and error of each unreadable sample.
    """

    about: RunInfo
    facts: Facts
    manifest_sha256: str | None
    mistakes: Sequence[Picture]
    hits: Sequence[Picture]
    odd: dict[str, Sequence[Picture]]
    counts: dict[str, int]
    unreadable: Sequence[tuple[str, str, str]]


def share(value: float | None) -> str:
    """Return a share from 0 to 1 as text, a dash where there is none."""
    return NONE if value is None or math.isnan(value) else f"{value:.3f}"


def small(value: float | None) -> str:
    """Return a small number as text, a dash where there is none."""
    return NONE if value is None else f"{value:.2g}"


def stated(value: object) -> Markup:
    """Return a value from data as markup, a dash where there is none."""
    return foreign(NONE if value is None else value, longest=300)


def stated_cell(value: object) -> Markup:
    """Return a value from data as a cell of text."""
    return element("td", stated(value), class_="text")


def groups(facts: Facts) -> list[tuple[str, str, np.ndarray]]:
    """Return name, CSS class and samples of the groups that distributions are shown for, where there are any."""
    groups = [
        ("right", "right", facts.right),
        ("wrong", "wrong", facts.wrong),
        ("without a label", "plain", facts.predicted & ~facts.judged),
    ]
    return [group for group in groups if group[2].any()]


def histogram(values: np.ndarray, name: str, kind: str, what: str) -> Markup:
    """Return a histogram of the finite values of a group of samples, with its size and median.

    Args:
        values: from 0 to 1, (n,).
        name: of the group.
        kind: CSS class of its bars.
        what: the values are.
    """
    values = values[np.isfinite(values)]
    counts = np.histogram(np.clip(values, 0, 1), HISTOGRAM_BINS, (0, 1))[0].tolist()
    middle = f", median {np.median(values):.3f}" if len(values) else ""
    title = f"{name}: {len(values):,} samples{middle}"
    chart = charts.histogram(counts, 0, 1, what, kind, f"Histogram of {what}, predictions {title}")
    return element("figure", element("figcaption", f"{name[0].upper()}{title[1:]}"), chart)
