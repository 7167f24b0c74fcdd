"""How all sections of a report write numbers, text from data, and distributions."""

from __future__ import annotations

import math
from typing import Final

from batchcam.commands.report import charts
from batchcam.pictures.html import Markup, element, foreign, join
from batchcam.record.distribution import Distribution
from batchcam.record.intervals import Interval
from batchcam.record.metrics import brackets, rate_text

NONE: Final = "–"
NOT_RECORDED: Final = "not recorded"
HISTOGRAM_BINS: Final = 20


def share(value: float | None) -> str:
    """Return a share from 0 to 1, or a correlation, as text, a dash where there is none."""
    return NONE if value is None or math.isnan(value) else f"{value:.3f}".replace("-", "−")


def rate(value: float | None) -> str:
    """Return a share as text that reads as all or nothing only where it is, a dash where there is none."""
    return NONE if value is None else rate_text(value)


def bounded(text: str, interval: Interval | None, *more: object) -> Markup:
    """Return a cell of a number with its interval below; `more` follows the number."""
    told = brackets(interval)
    return element("td", text, *more, element("small", f" {told}") if told else None)


def in_brackets(level: float) -> Markup:
    """Return what stands in brackets below numbers, with a link to how that is made."""
    link = element("a", f"{100 * level:g}% interval", href="#intervals")
    return join((" In brackets stands the ", link, " of the number."))


def small(value: float | None) -> str:
    """Return a small number as text, a dash where there is none."""
    return NONE if value is None else f"{value:.2g}"


def percent(value: float | None) -> str:
    """Return per cent as text, a dash where there are none."""
    return NONE if value is None else f"{value:.1f}%"


def signed(value: float | None, digits: int = 3) -> str:
    """Return a change as text with its sign, a dash where there is none; what rounds to nothing is +0."""
    if value is None or math.isnan(value):
        return NONE
    return f"{round(value, digits) or 0.0:+.{digits}f}".replace("-", "−")


def stated(value: object) -> Markup:
    """Return a value from data as markup; not recorded where there is none."""
    return foreign(NOT_RECORDED if value is None else value, longest=300)


def stated_cell(value: object) -> Markup:
    """Return a value from data as a cell of text."""
    return element("td", stated(value), class_="text")


def histogram(values: Distribution, name: str, kind: str, what: str, low: float | None = None) -> Markup:
    """Return a histogram of a group of samples, with its size and median.

    Args:
        values: of the group.
        kind: CSS class of its bars.
        what: the values are.
        low: where it begins, a tenth of one; default: with the smallest value that there can be.
    """
    counts, span = values.histogram(HISTOGRAM_BINS, low), (values.low if low is None else low, values.high)
    middle = f", median {share(values.quantile(0.5))}" if len(values) else ""
    title = f"{name}: {len(values):,} samples{middle}"
    chart = charts.histogram(counts, *span, what, kind, f"Histogram of {what}, predictions {title}")
    return element("figure", element("figcaption", f"{name[0].upper()}{title[1:]}"), chart)
