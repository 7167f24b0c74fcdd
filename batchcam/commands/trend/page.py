"""trend.html: alarms, events, and a chart of each series in the report's manner."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from batchcam.commands.trend.nights import CLASS, GROUP, MEASURES, OVERALL
from batchcam.commands.trend.series import Alarm, Series
from batchcam.commands.trend.summary import TrendSummary
from batchcam.job.console import counted
from batchcam.pictures.html import Markup, definitions, element, foreign, join, page, section, table
from batchcam.pictures.stylesheet import STYLE
from batchcam.pictures.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, grid_step, horizontal, number, plain, svg
from batchcam.record.control_charts import ALARM_LEVEL, WEIGHT, WINDOW
from batchcam.rules import FEWEST_IN_GROUP

WIDTH: Final = 460

MOST_CHARTS: Final = 200
"""Of classes, and of groups; those in alarm, and then those that were, come first."""

TREND_STYLE: Final = """
.limits { fill: rgb(var(--plain) / .18) } .usual { stroke: rgb(var(--plain)); stroke-dasharray: 5 4; fill: none }
.level { stroke: rgb(var(--right)); stroke-width: 1.8; fill: none } .night { fill: rgb(var(--right)) }
.night.alarm { fill: var(--alarm); stroke: var(--page) } .event { stroke: var(--ink); stroke-width: 1 }
"""

EXPLAINED: Final = (
    f"Dots: nights. Line: the level, a weighted mean of the last {WINDOW} nights (each weighs {1 - WEIGHT:g} of the "
    "next one). Dashed: what is usual, the mean of the first nights and of later ones that were no part of an alarm. "
    "Band: limits of the level, from the sampling noise of each night's samples and the variance between nights, which "
    "series tell together as far as they are alike: outside is an alarm, a large red dot. Vertical line: another "
    "checkpoint, with which the baseline begins again unless --one-baseline says otherwise.",
    f"An alarm has a p-value of at most {ALARM_LEVEL:g}, two-sided, corrected by Benjamini–Hochberg for the series "
    "that are judged in that night: overall, of classes and of groups apart.",
    "Accuracy and unreadable samples of a class are of the samples labelled with it, everything else is of those "
    "predicted as it; border share, spread and peak are of the predicted class's raw map. Without a dot: fewer than "
    f"{FEWEST_IN_GROUP} samples.",
)


def trend_page(summary: TrendSummary, series: Sequence[Series]) -> str:
    """Return the page as the text of one HTML file."""
    nights = summary.nights
    events = [nights.index(night) for night in summary.events]
    sections = [
        section("alarms", "Alarms", _alarms(summary)),
        *(
            section(scope, heading, _charts([s for s in series if s.scope == scope], nights, events))
            for scope, heading in ((OVERALL, "Overall"), (GROUP, "Groups"), (CLASS, "Classes"))
            if any(s.scope == scope for s in series)
        ),
        section("method", "How to read this", *(element("p", text) for text in EXPLAINED)),
    ]
    head = element(
        "header",
        element("h1", "Class activation maps: trend over the nights"),
        element(
            "p", f"{counted(len(nights), 'night')}, ", foreign(nights[0]), " to ", foreign(nights[-1]), class_="soft"
        ),
        _state(summary),
    )
    return page("batchcam trend", STYLE + TREND_STYLE, head, element("main", *sections))


def _state(summary: TrendSummary) -> Markup:
    alarms, damaged = len(summary.alarms), summary.findings - len(summary.alarms)
    told = counted(alarms, "alarm") if alarms else "No alarm" if summary.judged else "Nothing is judged"
    told += f" in the newest night: {summary.judged} series judged, {summary.waiting} not yet."
    if damaged:
        told += f" Left out: {counted(damaged, 'damaged run')}."
    if summary.findings or not summary.judged:
        return element("p", told, class_="state alarm", role="alert")
    return element("p", told, class_="state good")


def _alarms(summary: TrendSummary) -> Markup:
    facts: list[tuple[object, object]] = [
        ("flips and similarity against", foreign(summary.reference)),
        *((join(("another checkpoint, ", foreign(n))), element("code", e)) for n, e in summary.events.items()),
        *((join(("left out: ", foreign(path))), foreign(why)) for path, why in summary.left_out.items()),
    ]
    tables = (("In the newest night", summary.alarms), ("Ended since, with their last night", summary.past))
    head = ("series", "night", "since", "level", "usual", "limits", "p")
    shown = (table(caption, head, map(_row, alarms)) for caption, alarms in tables if alarms)
    return join([definitions(facts, class_="facts"), *shown])


def _row(alarm: Alarm) -> tuple[object, ...]:
    limits = f"{plain(alarm.low)} to {plain(alarm.high)}"
    numbers = plain(alarm.level), plain(alarm.centre), limits, f"{alarm.p:.2g}"
    return foreign(alarm.series), foreign(alarm.night), foreign(alarm.since), *numbers


def _charts(series: list[Series], nights: Sequence[str], events: Sequence[int]) -> Markup:
    if len(series) > len(MEASURES):
        series = sorted(series, key=lambda s: (not s.alarms[-1], not s.alarms.any()))
    figures = [
        element("figure", element("figcaption", foreign(each.title)), chart(each, nights, events))
        for each in series[:MOST_CHARTS]
    ]
    rest = len(series) - len(figures)
    more = [element("p", f"{rest} more series in trend.csv.")] if rest > 0 else []
    return join([element("div", *figures, class_="charts"), *more])


def chart(series: Series, nights: Sequence[str], events: Iterable[int]) -> Markup:
    """Return a control chart.

    Args:
        nights: their names.
        events: numbers of nights with another checkpoint.
    """
    shown = np.concatenate([series.values, series.level, series.low, series.high])
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    margin = 0.05 * (high - low) or 0.01
    low, high = low - margin, high + margin
    base, width = HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT

    def x(night: float) -> float:
        return LEFT + width * (night + 0.5) / len(nights)

    def y(value: float) -> float:
        return base - (base - TOP) * (value - low) / (high - low)

    def points(values: np.ndarray, numbers: Iterable[int]) -> str:
        return " ".join(f"{number(x(n))},{number(y(float(values[n])))}" for n in numbers)

    step = grid_step(high - low)
    ticks = [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    parts = [horizontal(y(tick), plain(tick), LEFT, WIDTH - RIGHT) for tick in ticks]
    for stretch in _stretches(np.isfinite(series.level), events):
        band = f"{points(series.high, stretch)} {points(series.low, reversed(stretch))}"
        parts += [
            element("polygon", points=band, class_="limits"),
            element("polyline", points=points(series.centre, stretch), class_="usual"),
            element("polyline", points=points(series.level, stretch), class_="level"),
        ]
    parts += [
        element("line", x1=number(x(n - 0.5)), y1=TOP, x2=number(x(n - 0.5)), y2=base, class_="event") for n in events
    ]
    for n in np.flatnonzero(np.isfinite(series.values)).tolist():
        alarm = bool(series.alarms[n])
        said = f"{nights[n]}: {plain(float(series.values[n]))}{', alarm' if alarm else ''}"
        at = {"cx": number(x(n)), "cy": number(y(float(series.values[n])))}
        dot = "night alarm" if alarm else "night"
        parts.append(element("circle", element("title", said), **at, r=4.5 if alarm else 2, class_=dot))
    last = len(nights) - 1
    names = [(0, "start"), (last, "end")] if last else [(0, "start")]
    parts += [element("text", nights[n][-16:], x=number(x(n)), y=base + 16, text_anchor=anchor) for n, anchor in names]
    alarms = int(series.alarms.sum())
    return svg((HEIGHT - 16, WIDTH), f"{series.title} over {counted(len(nights), 'night')}, {alarms} in alarm", *parts)


def _stretches(known: np.ndarray, events: Iterable[int]) -> list[list[int]]:
    """Return runs of nights that have a level, cut where the checkpoint changes."""
    cuts = {*events}
    found: list[list[int]] = []
    for n in np.flatnonzero(known).tolist():
        if found and n not in cuts and n == found[-1][-1] + 1:
            found[-1].append(n)
        else:
            found.append([n])
    return found
