"""trend: one series a night of each measure, charts with limits, and alarms. No torch."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from batchcam.commands.trend.config import TrendConfig
from batchcam.commands.trend.nights import MOST_NAMED, OVERALL, SCOPES, Night
from batchcam.commands.trend.page import trend_page
from batchcam.commands.trend.runs import TREND_VERSION, Found, read_nights
from batchcam.commands.trend.series import Series, alarms_of, follow
from batchcam.commands.trend.summary import PAGE, TrendSummary
from batchcam.config.places import require_outside
from batchcam.errors import ConfigError
from batchcam.job.console import counted, note
from batchcam.record.exposition import Sample, exposition, require_ours
from batchcam.record.names import csv_number, csv_table
from batchcam.record.study import land_study, require_place
from batchcam.rules import FEWEST_IN_GROUP
from batchcam.store import landing
from batchcam.store.bringing import shown

MOST_KEPT: Final = 400_000
"""Values in trend.json, of the newest nights: more would be no document. A class has eleven a night."""

TABLE: Final = "trend.csv"
COLUMNS: Final = ("night", "scope", "name", "measure", "value", "level", "usual", "low", "high", "p", "alarm", "since")


def trend(config: TrendConfig) -> TrendSummary:
    """Tell what moved over many nights.

    Raises:
        ConfigError: there is no night of `--since`, runs are multi-label, or what lies at `--out` or `--prometheus` is
            not ours, or `--out` in a run.
        RunError: runs that are named are of several kinds, or none can be read.
    """
    require_place(config.out, "trend", (PAGE, TABLE), config.overwrite)
    if config.prometheus:
        require_ours(config.prometheus)
    found = Found(config.runs)
    if config.out:
        for path in (*found.plans, *found.left_out, *found.damaged):
            require_outside(config.out, path)
    reference, nights = read_nights(config, found)
    for scope in {*SCOPES} - {*reference.numbers}:
        note(f"no series of each {scope}: there are more than {MOST_NAMED}", config.quiet or config.alarm)
    events = {b.name: b.checkpoint for a, b in itertools.pairwise(nights) if a.checkpoint != b.checkpoint}
    names = [night.name for night in nights]
    restarts = [] if config.one_baseline else [names.index(night) for night in events]
    if config.since is not None:
        if config.since not in names:
            raise ConfigError(f"--since {config.since}: no such night: from {names[0]} to {names[-1]}")
        restarts.append(names.index(config.since))
    series = follow(nights, reference, restarts, config.baseline)
    _tell_missing(nights[-1], series)
    last, judged = len(nights) - 1, sum(bool(np.isfinite(each.p[-1])) for each in series)
    alarms = alarms_of(series, names, last)
    summary = TrendSummary(
        nights=names,
        reference=reference.name,
        events=events,
        judged=judged,
        waiting=sum(bool(np.isfinite(each.values[-1])) for each in series) - judged,
        alarms=alarms,
        past=[a for n in range(last) for a in alarms_of([s for s in series if s.ends_alarm(n)], names, n)],
        left_out={shown(path): reason for path, reason in (found.left_out | found.damaged).items()},
        findings=len(alarms) + len(found.damaged),
        alarm_only=config.alarm,
        out=str(config.out) if config.out else None,
    )
    if config.out:
        files = {PAGE: trend_page(summary, series).encode(), TABLE: _table(names, series)}
        sizes = itertools.accumulate(night.size for night in reversed(nights))
        kept_nights = nights[len(nights) - sum(size <= MOST_KEPT for size in sizes) :]
        content = {
            "reference": reference.digest,
            "reference_run": reference.name,
            "nights": [dataclasses.asdict(night) for night in kept_nights],
        }
        land_study(config.out, "trend", TREND_VERSION, files, content)
    if config.prometheus:
        landing.land(config.prometheus, _metrics(summary, series).encode())
    return summary


def _tell_missing(newest: Night, series: Iterable[Series]) -> None:
    """Say so where the newest night has too few samples for what was judged before it; nothing would alarm."""
    overall = [each for each in series if each.scope == OVERALL and not np.isfinite(each.values[-1])]
    if missing := [each.title for each in overall if np.isfinite(each.p[-2:-1]).any()]:
        why = f"fewer than {FEWEST_IN_GROUP} that count, where the night before was judged"
        note(f"{newest.name}, {counted(newest.samples, 'sample')}: no {', no '.join(missing)}: {why}", quiet=False)


def _table(nights: Sequence[str], series: Iterable[Series]) -> bytes:
    def rows() -> Iterator[tuple[object, ...]]:
        for each in series:
            for night in np.flatnonzero(np.isfinite(each.values)).tolist():
                alarm = int(each.alarms[night])
                since = nights[int(each.since[night])] if alarm else None
                numbers = map(csv_number, each.numbers(night))
                yield nights[night], each.scope, each.name, each.measure, *numbers, alarm, since

    return csv_table(COLUMNS, rows())


def _metrics(summary: TrendSummary, series: Sequence[Series]) -> str:
    """Return the newest night's numbers in Prometheus's text format."""
    night = {"night": summary.nights[-1]}
    metrics: list[tuple[str, str, list[Sample]]] = [
        ("trend_nights", "Nights.", [(night, len(summary.nights))]),
        ("trend_judged", "Series that are judged in the newest night.", [(night, summary.judged)]),
        ("trend_alarms", "Of these, series in alarm.", [(night, len(summary.alarms))]),
    ]
    for name, text, column in (
        ("trend_value", "Of the newest night.", 0),
        ("trend_level", "Weighted mean of the newest nights, which is judged.", 1),
        ("trend_low", "Limit of the level.", 3),
        ("trend_high", "Limit of the level.", 4),
    ):
        newest = (
            ({"scope": each.scope, "name": each.name, "measure": each.measure}, each.numbers(-1)[column])
            for each in series
        )
        metrics.append((name, text, [sample for sample in newest if np.isfinite(sample[1])]))
    return exposition(metrics)
