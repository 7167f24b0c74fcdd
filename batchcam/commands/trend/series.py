"""What the nights tell together: a chart of each measure of each scope, and what is in alarm."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from batchcam.commands.trend.nights import MEASURES, OVERALL, SCOPES, Night
from batchcam.record.control_charts import change_point, judge, rate_of


@dataclasses.dataclass(frozen=True)
class Series:
    """One measure over the nights, of everything, of a class or of a group; arrays are (nights,), NaN: none.

    Attributes:
        scope: of `SCOPES`.
        name: of the class or the group.
        measure: of `MEASURES`.
        values: as people read them.
        level: weighted mean of the last nights, which is judged.
        centre: what is usual.
        low, high: limits of the level.
        p: corrected for the series that were judged in that night.
        alarms: bool.
        since: for each night the number of the one at which the series is likeliest to have changed, -1: no alarm.
    """

    scope: str
    name: str
    measure: str
    values: np.ndarray
    level: np.ndarray
    centre: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    alarms: np.ndarray
    since: np.ndarray

    @property
    def title(self) -> str:
        """What it is, such as "class fox: accuracy"."""
        text = MEASURES[self.measure].text
        return f"{self.scope} {self.name}: {text}" if self.name else text

    def numbers(self, night: int) -> list[float]:
        """Return what it is in a night: value, level, centre, low, high, p."""
        columns = (self.values, self.level, self.centre, self.low, self.high, self.p)
        return [float(column[night]) for column in columns]

    def ends_alarm(self, night: int) -> bool:
        """Return whether it was in alarm in a night, and no longer in the one after it."""
        return bool(self.alarms[night] and not self.alarms[night + 1])


@dataclasses.dataclass(frozen=True)
class Alarm:
    """A series whose level is farther from what is usual than chance explains: a night of `Series`.

    Attributes:
        series: its title.
        value: of that night alone.
    """

    night: str
    scope: str
    name: str
    measure: str
    series: str
    value: float
    level: float
    centre: float
    low: float
    high: float
    p: float
    since: str


def follow(nights: Sequence[Night], reference: Night, restarts: Sequence[int], baseline: int) -> list[Series]:
    """Return the charts of all series that have a value in any night.

    Args:
        nights: in their order.
        reference: the one whose populations the nights' are held against.
        restarts: nights with which a new baseline begins.
        baseline: nights that are not judged.
    """
    keys = [
        (scope, name, measure)
        for scope in SCOPES
        for name in dict.fromkeys(name for night in nights for name in night.numbers.get(scope, {}))
        for measure, about in MEASURES.items()
        if about.of or scope == OVERALL
    ]
    table = np.array([[night.value(*key, reference) for night in nights] for key in keys]).reshape(-1, len(nights), 3)
    some = np.isfinite(table[..., 0]).any(1)
    keys, table = [key for key, kept in zip(keys, some, strict=True) if kept], table[some]
    families = np.array([SCOPES.index(scope) for scope, *_ in keys], np.int64)
    charts = judge(table[..., 1], table[..., 2], families, restarts, baseline)
    found = []
    for row, key in enumerate(keys):
        values, judged, variances = table[row].T
        centre, half, alarms = charts.centre[row], charts.half_width[row], charts.alarms[row]
        shown = np.array([charts.level[row], centre, centre - half, centre + half])
        level, centre, low, high = rate_of(shown, variances) if MEASURES[key[2]].is_rate else shown
        since = _changes(judged, variances, alarms, restarts)
        found.append(Series(*key, values, level, centre, low, high, charts.p[row], alarms, since))
    return found


def _changes(values: np.ndarray, variances: np.ndarray, alarms: np.ndarray, restarts: Sequence[int]) -> np.ndarray:
    since = np.full(len(values), -1)
    for night in np.flatnonzero(alarms).tolist():
        start = max((each for each in restarts if each <= night), default=0)
        known = start + np.flatnonzero(np.isfinite(values[start : night + 1]))
        since[night] = known[change_point(values[known], variances[known])]
    return since


def alarms_of(series: Iterable[Series], nights: Sequence[str], night: int) -> list[Alarm]:
    """Return what is in alarm in a night, the least probable first."""
    found = []
    for each in series:
        if each.alarms[night]:
            key, since = (each.scope, each.name, each.measure, each.title), nights[int(each.since[night])]
            value, level, centre, low, high, p = each.numbers(night)
            found.append(Alarm(nights[night], *key, value, level, centre, low, high, p, since))
    return sorted(found, key=lambda alarm: alarm.p)
