"""trend: one series a night of each measure, charts with limits, and alarms. No torch."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from batchcam.commands.trend.config import TrendConfig
from batchcam.commands.trend.nights import MOST_NAMED, SCOPES, Night, read_night
from batchcam.commands.trend.page import trend_page
from batchcam.commands.trend.series import Alarm, Series, alarms_of, follow
from batchcam.config import require_outside
from batchcam.errors import ConfigError, RunError
from batchcam.job.console import Progress, note
from batchcam.job.cpus import available_cpus
from batchcam.job.crew import crew
from batchcam.record.exposition import Sample, exposition, require_ours
from batchcam.record.names import csv_number, csv_table
from batchcam.record.study import land_study, require_place
from batchcam.store import landing
from batchcam.store.document import read_document
from batchcam.store.manifest import unverified_note
from batchcam.store.opening import open_run
from batchcam.store.plan import Plan, open_plan
from batchcam.store.problem import require_single_label
from batchcam.store.schema import MANIFEST_FILE
from batchcam.store.series import is_series, require_one_kind, require_run, runs_of_series

TREND_VERSION: Final = 1
"""Changes with the names and meanings in the files."""

PAGE, TABLE, DOCUMENT = "trend.html", "trend.csv", "trend.json"
PAIRED: Final = ("flips", "similarity")
COLUMNS: Final = ("night", "scope", "name", "measure", "value", "level", "usual", "low", "high", "p", "alarm", "since")


@dataclasses.dataclass(frozen=True)
class Event:
    """A night whose run is of another checkpoint than the one before."""

    night: str
    checkpoint: str


@dataclasses.dataclass(frozen=True)
class TrendSummary:
    """What moved over the nights.

    Attributes:
        nights: names of the runs, in their order.
        reference: the run that flips and similarity are told against.
        events: where the checkpoint changed.
        judged: series that were judged in the newest night.
        waiting: series that have a value in it, but too few nights before it.
        alarms: of the newest night, the least probable first.
        past: alarms before it that have ended, each as it was in its last night.
        left_out: why runs are left out, by their paths.
        findings: alarms of the newest night, and runs that are damaged.
        alarm_only: whether only alarms are to be told.
        out: folder of the files, None without.
    """

    nights: list[str]
    reference: str
    events: list[Event]
    judged: int
    waiting: int
    alarms: list[Alarm]
    past: list[Alarm]
    left_out: dict[str, str]
    findings: int
    alarm_only: bool
    out: str | None


def trend(config: TrendConfig) -> TrendSummary:
    """Tell what moved over many nights.

    Raises:
        ConfigError: there is no night of `--since`, runs are multi-label, or what lies at `--out` or `--prometheus` is
            not ours, or `--out` in a run.
        RunError: runs are of several kinds, or none can be read.
    """
    require_place(config.out, "trend", (PAGE, TABLE), config.overwrite)
    if config.prometheus:
        require_ours(config.prometheus)
    kept = _kept(config.out)
    found = _Found(config.runs)
    if config.out:
        for path in (*found.plans, *found.left_out, *found.damaged):
            require_outside(config.out, path)
    for path, reason in found.left_out.items():
        note(f"left out: {path}: {reason}", config.quiet or config.alarm)
    reference, of_reference = _reference(config, found, kept)
    nights = _nights(config, found, reference, of_reference, kept)
    for scope in {*SCOPES} - {*of_reference.sums}:
        note(f"no series of each {scope}: there are more than {MOST_NAMED}", config.quiet or config.alarm)
    for reason in found.damaged.values():
        note(f"left out: {reason}", quiet=False)
    events = [Event(b.name, b.checkpoint) for a, b in itertools.pairwise(nights) if a.checkpoint != b.checkpoint]
    names = [night.name for night in nights]
    restarts = [] if config.one_baseline else [names.index(event.night) for event in events]
    if config.since is not None:
        if config.since not in names:
            raise ConfigError(f"--since {config.since}: no such night: from {names[0]} to {names[-1]}")
        restarts.append(names.index(config.since))
    series = follow(nights, of_reference, restarts, config.baseline)
    summary = _summary(config, found, nights, of_reference.name, events, series)
    if config.out:
        files = {PAGE: trend_page(summary, series).encode(), TABLE: _table(nights, series)}
        content = {"reference": of_reference.digest, "nights": [dataclasses.asdict(night) for night in nights]}
        land_study(config.out, "trend", TREND_VERSION, files, content)
    if config.prometheus:
        landing.land(config.prometheus, _metrics(summary, series).encode())
    return summary


class _Found:
    """The runs that were asked for.

    Attributes:
        plans: of those to read, by path, in their order.
        digests: of their manifests.
        left_out: why others are not read.
        damaged: those of them that should be.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.plans: dict[Path, Plan] = {}
        self.digests: dict[Path, str] = {}
        self.left_out: dict[Path, str] = {}
        self.damaged: dict[Path, str] = {}
        for path in paths:
            if is_series(path):
                series = runs_of_series(path)
                self.left_out |= series.left_out
                for run in series.complete:
                    self._take(run)
            elif not path.is_dir():
                raise RunError(f"{path}: neither a run directory nor a folder of runs")
            elif unverified_note(path).exists():
                self.left_out[path] = f"verify has not passed it, says {unverified_note(path).name}"
            elif not (path / MANIFEST_FILE).exists():
                open_plan(path)
                self.left_out[path] = "not complete"
            else:
                self._take(path)
        for path, plan in self.plans.items():
            if plan.is_multi_label:
                require_single_label("trend", path)
        require_one_kind(self.plans)

    def _take(self, path: Path) -> None:
        try:
            plan, self.digests[path] = open_plan(path), _digest(path)
            self.plans[path] = plan
        except RunError as error:
            self.lose(path, error)

    def lose(self, path: Path, error: RunError) -> None:
        """Leave out a run that is damaged."""
        self.plans.pop(path, None)
        self.damaged[path] = str(error)

    @property
    def names(self) -> dict[Path, str]:
        """What the runs to read are called: by their folders, unless two would be one."""
        names = [path.name for path in self.plans]
        return {path: str(path) if names.count(path.name) > 1 else path.name for path in self.plans}


def _kept(out: Path | None) -> dict[str, Any]:
    """Return what an earlier trend says of its nights."""
    if out is None:
        return {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        content = read_document(out / DOCUMENT)
        if content.get("trend_version") == TREND_VERSION:
            return content
    return {}


def _reference(config: TrendConfig, found: _Found, kept: Mapping[str, Any]) -> tuple[Path, Night]:
    """Return the run that the others are told against: as asked, as before, or the first one that can be read."""
    if config.reference is not None:
        require_run(config.reference, "--reference")
        require_one_kind({**found.plans, config.reference: open_plan(config.reference)})
        return config.reference, _read(config.reference, config.reference, config.reference.name, config.group_by)
    before = [path for path in found.plans if found.digests[path] == kept.get("reference")]
    for path in dict.fromkeys((*before, *found.plans)):
        try:
            return path, _read(path, path, found.names[path], config.group_by)
        except RunError as error:
            found.lose(path, error)
    raise RunError(f"no run can be read: {next(iter(found.damaged.values()), 'none is complete')}")


def _read(path: Path, reference: Path, name: str, columns: Sequence[str]) -> Night:
    with open_run(path) as run, open_run(reference) as other:
        return read_night(run, name, (_digest(path), _digest(reference)), other, columns)


def _digest(run: Path) -> str:
    try:
        return landing.file_digest(run / MANIFEST_FILE)
    except OSError as error:
        raise RunError(f"{run / MANIFEST_FILE}: cannot read: {error.strerror}") from error


def _read_all(names: Mapping[Path, str], reference: Path, columns: Sequence[str]) -> Iterator[Night | RunError]:
    """Yield each night in its order, or why its run can't be read, from as many processes as there are CPUs."""
    processes = min(len(names), available_cpus())

    def work(number: int) -> Iterator[Night | RunError]:
        for path, name in [*names.items()][number::processes]:
            try:
                yield _read(path, reference, name, columns)
            except RunError as error:
                yield error

    with crew(processes, work) as members:
        for place in range(len(names)):
            yield next(members[place % processes])


def _nights(
    config: TrendConfig, found: _Found, reference: Path, of_reference: Night, kept: Mapping[str, Any]
) -> list[Night]:
    """Return what is known of each night, in their order, also of those whose runs are gone."""
    stated = kept.get("nights", [])
    before = [Night(**night) for night in stated if night["kind"] == of_reference.kind]
    if len(before) < len(stated):
        note(
            f"left out: {len(stated) - len(before)} nights of {DOCUMENT}, of other classes, grid or method", quiet=False
        )
    alike = operator.attrgetter("name", "digest", "reference", "group_by")
    known = {path: of_reference for path in found.plans if path.resolve() == reference.resolve()}
    for path, name in found.names.items():
        wanted = (name, found.digests[path], of_reference.digest, [*config.group_by])
        known.update((path, night) for night in before if alike(night) == wanted)
    names = found.names
    unread = {path: name for path, name in names.items() if path not in known}
    with Progress("read", len(unread), "runs", config.quiet or config.alarm) as progress:
        for path, night in zip(unread, _read_all(unread, reference, config.group_by), strict=True):
            if isinstance(night, RunError):
                found.lose(path, night)
            else:
                known[path] = night
            progress.advance(1)
    nights = [known[path] for path in names if path in known]
    taken = {*names.values(), *(path.name for path in (*found.left_out, *found.damaged))}
    gone = [_unpaired(night, of_reference.digest) for night in before if night.name not in taken]
    is_sorted = [*names.values()] == sorted(names.values())
    return sorted([*gone, *nights], key=lambda night: night.name) if is_sorted else [*gone, *nights]


def _unpaired(night: Night, reference: str) -> Night:
    """Return a night whose run is gone, without what it says of another reference."""
    if night.reference == reference:
        return night
    sums = {
        scope: {name: {m: v for m, v in by.items() if m not in PAIRED} for name, by in names.items()}
        for scope, names in night.sums.items()
    }
    return dataclasses.replace(night, sums=sums)


def _summary(
    config: TrendConfig,
    found: _Found,
    nights: Sequence[Night],
    reference: str,
    events: list[Event],
    series: list[Series],
) -> TrendSummary:
    last = len(nights) - 1
    alarms = alarms_of(series, nights, last)
    past = [
        alarm for night in range(last) for alarm in alarms_of([s for s in series if s.ends_alarm(night)], nights, night)
    ]
    judged = sum(bool(np.isfinite(each.p[last])) for each in series)
    return TrendSummary(
        nights=[night.name for night in nights],
        reference=reference,
        events=events,
        judged=judged,
        waiting=sum(bool(np.isfinite(each.values[last])) for each in series) - judged,
        alarms=alarms,
        past=past,
        left_out={str(path): reason for path, reason in (found.left_out | found.damaged).items()},
        findings=len(alarms) + len(found.damaged),
        alarm_only=config.alarm,
        out=str(config.out) if config.out else None,
    )


def _table(nights: Sequence[Night], series: Iterable[Series]) -> bytes:
    def rows() -> Iterator[tuple[object, ...]]:
        for each in series:
            for number in np.flatnonzero(np.isfinite(each.values)).tolist():
                columns = (each.values, each.level, each.centre, each.low, each.high, each.p)
                numbers = [csv_number(float(column[number])) for column in columns]
                since = nights[int(each.since[number])].name if each.alarms[number] else None
                alarm = int(each.alarms[number])
                yield nights[number].name, each.scope, each.name, each.measure, *numbers, alarm, since

    return csv_table(COLUMNS, rows())


def _metrics(summary: TrendSummary, series: Sequence[Series]) -> str:
    """Return the newest night's numbers in Prometheus's text format."""
    labels = [{"scope": each.scope, "name": each.name, "measure": each.measure} for each in series]
    shown = {
        "trend_value": ("Of the newest night.", "values"),
        "trend_level": ("Weighted mean of the newest nights, which is judged.", "level"),
        "trend_low": ("Limit of the level.", "low"),
        "trend_high": ("Limit of the level.", "high"),
    }
    counts = {
        "trend_nights": ("Nights.", len(summary.nights)),
        "trend_judged": ("Series that are judged in the newest night.", summary.judged),
        "trend_alarms": ("Of these, series in alarm.", len(summary.alarms)),
    }
    counted: list[tuple[str, str, list[Sample]]] = [
        (name, text, [({"night": summary.nights[-1]}, value)]) for name, (text, value) in counts.items()
    ]
    for name, (text, column) in shown.items():
        newest = [float(getattr(each, column)[-1]) for each in series]
        told: list[Sample] = [(label, value) for label, value in zip(labels, newest, strict=True) if np.isfinite(value)]
        counted.append((name, text, told))
    return exposition(counted)
