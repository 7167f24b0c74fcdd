"""trend: one series a night of each measure, charts with limits, and alarms. No torch."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from batchcam.commands.trend.config import TrendConfig
from batchcam.commands.trend.nights import GROUP, MOST_NAMED, OVERALL, SCOPES, Night, has_columns, kind_of, read_night
from batchcam.commands.trend.page import trend_page
from batchcam.commands.trend.series import Alarm, Series, alarms_of, follow
from batchcam.config import require_outside
from batchcam.errors import ConfigError, RunError
from batchcam.job.console import Progress, counted, note
from batchcam.job.cpus import available_cpus
from batchcam.job.crew import crew
from batchcam.record.exposition import Sample, exposition, require_ours
from batchcam.record.groups import grouped_by
from batchcam.record.names import csv_number, csv_table
from batchcam.record.study import land_study, require_place
from batchcam.rules import FEWEST_IN_GROUP
from batchcam.store import landing
from batchcam.store.document import read_document
from batchcam.store.manifest import unverified_note
from batchcam.store.opening import open_run
from batchcam.store.plan import Plan, differences, open_plan
from batchcam.store.problem import require_single_label
from batchcam.store.run import Run
from batchcam.store.schema import MANIFEST_FILE
from batchcam.store.series import is_series, require_run, runs_of_series

TREND_VERSION: Final = 1
"""Changes with the names and meanings in the files."""

MOST_KEPT: Final = 400_000
"""Values in trend.json, of the newest nights: more would be no document. A class has eleven a night."""

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
    kept, found = _kept(config.out), _Found(config.runs)
    if config.out:
        for path in (*found.plans, *found.left_out, *found.damaged):
            require_outside(config.out, path)
    if lacking := [path for path, plan in found.plans.items() if not has_columns(plan, config.group_by)]:
        *_, newest = found.plans
        grouped_by(config.group_by, found.plans[newest].meta, newest)
        told = f"no groups of {counted(len(lacking), 'run')}, such as {lacking[-1]}: no column of --group-by"
        note(told, config.quiet or config.alarm)
    path, reference = _reference(config, found, kept)
    nights = _nights(config, found, path, reference, kept)
    for path, reason in found.left_out.items():
        note(f"left out: {path}: {reason}", config.quiet or config.alarm)
    for reason in found.damaged.values():
        note(f"left out: {reason}", quiet=False)
    for scope in {*SCOPES} - {*reference.numbers}:
        note(f"no series of each {scope}: there are more than {MOST_NAMED}", config.quiet or config.alarm)
    events = [Event(b.name, b.checkpoint) for a, b in itertools.pairwise(nights) if a.checkpoint != b.checkpoint]
    names = [night.name for night in nights]
    if not names:
        raise RunError(_none_read(found))
    restarts = [] if config.one_baseline else [names.index(event.night) for event in events]
    if config.since is not None:
        if config.since not in names:
            raise ConfigError(f"--since {config.since}: no such night: from {names[0]} to {names[-1]}")
        restarts.append(names.index(config.since))
    series = follow(nights, reference, restarts, config.baseline)
    _tell_missing(nights, series)
    summary = _summary(config, found, names, reference.name, events, series)
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
        places: set[Path] = set()
        for path in paths:
            if is_series(path):
                series = runs_of_series(path)
                self.left_out |= series.left_out
                runs = series.complete
            elif not path.is_dir():
                raise RunError(f"{path}: neither a run directory nor a folder of runs")
            elif unverified_note(path).exists():
                runs, self.left_out[path] = (), f"verify has not passed it, says {unverified_note(path).name}"
            elif not (path / MANIFEST_FILE).exists():
                open_plan(path)
                runs, self.left_out[path] = (), "not complete"
            else:
                runs = (path,)
            for run in runs:
                if run.resolve() not in places:
                    self._take(run)
                places.add(run.resolve())
        if self.plans:
            self._require_one_kind([path for path in paths if path in self.plans])

    def _take(self, path: Path) -> None:
        try:
            plan, self.digests[path] = open_plan(path), _digest(path)
            self.plans[path] = plan
        except RunError as error:
            self.lose(path, error)

    def _require_one_kind(self, named: Sequence[Path]) -> None:
        """Leave out runs of another kind than the newest one's, or refuse those that were named one by one."""
        *_, newest = self.plans
        if self.plans[newest].is_multi_label:
            require_single_label("trend", newest)
        for path, plan in [*self.plans.items()]:
            if differing := _differing(plan, self.plans[newest], newest):
                if path in named:
                    raise RunError(f"{path}: {differing}; name runs of one kind")
                del self.plans[path]
                self.left_out[path] = differing

    def lose(self, path: Path, error: RunError) -> None:
        """Leave out a run that is damaged."""
        self.plans.pop(path, None)
        self.damaged[path] = str(error)

    @property
    def names(self) -> dict[Path, str]:
        """What the runs to read are called: by their folders, unless two would be one."""
        names = {path: path.resolve().name for path in self.plans}
        several = collections.Counter(names.values())
        return {path: str(path) if several[name] > 1 else name for path, name in names.items()}


def _differing(plan: Plan, newest: Plan, path: Path) -> str:
    differing = differences(kind_of(plan), kind_of(newest))
    return f"of another kind than {path.name} (here): {', '.join(differing.values())}" if differing else ""


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
    asked, names = config.reference, found.names
    if asked is not None:
        require_run(asked, "--reference")
        path = next((own for own in names if own.resolve() == asked.resolve()), asked)
        *_, newest = found.plans or [path]
        if differing := _differing(open_plan(path), open_plan(newest), newest):
            raise RunError(f"--reference {path}: {differing}")
        with open_run(path) as run:
            return path, _read(path, names.get(path, path.resolve().name), run, _digest(path), config.group_by)
    before = [path for path in names if found.digests[path] == kept.get("reference")]
    for path in dict.fromkeys((*before, *names)):
        try:
            with open_run(path) as run:
                reference = _read(path, names[path], run, found.digests[path], config.group_by)
        except RunError as error:
            found.lose(path, error)
            continue
        if kept and reference.digest != kept["reference"]:
            told = f"the reference was {kept['reference_run']}, which is gone: flips and similarity begin again"
            note(f"{told}, against {reference.name}", config.quiet or config.alarm)
        return path, reference
    raise RunError(_none_read(found))


def _none_read(found: _Found) -> str:
    path, why = next(iter((found.damaged | found.left_out).items()))
    return f"{path}: no run can be read: {why}"


def _read(path: Path, name: str, reference: Run, of_reference: str, columns: Sequence[str]) -> Night:
    with open_run(path) as run:
        return read_night(run, name, (_digest(path), of_reference), reference, columns)


def _digest(run: Path) -> str:
    try:
        return landing.file_digest(run / MANIFEST_FILE)
    except OSError as error:
        raise RunError(f"{run / MANIFEST_FILE}: cannot read: {error.strerror}") from error


def _read_all(names: Mapping[Path, str], reference: Path, columns: Sequence[str]) -> Iterator[Night | RunError]:
    """Yield each night in its order, or why its run can't be read, from as many processes as there are CPUs."""
    processes = min(len(names), available_cpus())

    def work(number: int) -> Iterator[Night | RunError]:
        with open_run(reference) as other:
            digest = _digest(reference)
            for path, name in [*names.items()][number::processes]:
                try:
                    yield _read(path, name, other, digest, columns)
                except RunError as error:
                    yield error

    with crew(processes, work) as members:
        for place in range(len(names)):
            yield next(members[place % processes])


def _nights(config: TrendConfig, found: _Found, path: Path, reference: Night, kept: Mapping[str, Any]) -> list[Night]:
    """Return what is known of each night, in their order, also of those whose runs are gone."""
    stated = [Night(**night) for night in kept.get("nights", [])]
    before = [night for night in stated if night.kind == reference.kind]
    if len(before) < len(stated):
        told = f"{counted(len(stated) - len(before), 'night')} of {DOCUMENT}, of other classes, grid or method"
        note(f"left out: {told}", config.quiet or config.alarm)
    names, columns = found.names, [*config.group_by]
    same = {(night.name, night.digest, night.reference, *night.group_by): night for night in before}
    known = {run: same.get((name, found.digests[run], reference.digest, *columns)) for run, name in names.items()}
    known |= {path: reference} if path in names else {}
    unread = {run: name for run, name in names.items() if not known[run]}
    with Progress("read", len(unread), "runs", config.quiet or config.alarm) as progress:
        for run, night in zip(unread, _read_all(unread, path, columns), strict=True):
            if isinstance(night, RunError):
                found.lose(run, night)
            else:
                known[run] = night
            progress.advance(1)
    nights = [night for night in known.values() if night]
    taken = {*names.values(), *(run.name for run in (*found.left_out, *found.damaged))}
    gone = [_meant(night, reference.digest, columns) for night in before if night.name not in taken]
    in_order = [*names.values()] == sorted(names.values())
    return sorted([*gone, *nights], key=lambda night: night.name) if in_order else [*gone, *nights]


def _meant(night: Night, reference: str, columns: list[str]) -> Night:
    """Return a night whose run is gone, without what it says of another reference, or of other groups."""
    numbers = {scope: names for scope, names in night.numbers.items() if scope != GROUP or night.group_by == columns}
    if night.reference != reference:
        numbers = {
            scope: {name: {m: v for m, v in by.items() if m not in PAIRED} for name, by in names.items()}
            for scope, names in numbers.items()
        }
    return dataclasses.replace(night, numbers=numbers)


def _tell_missing(nights: Sequence[Night], series: Iterable[Series]) -> None:
    """Say so where the newest night has too few samples for what was judged before it; nothing would alarm."""
    missing = [
        each.title
        for each in series
        if each.scope == OVERALL and not np.isfinite(each.values[-1]) and np.isfinite(each.p[-2:-1]).any()
    ]
    if missing:
        night = nights[-1]
        told = f"{night.name}, {counted(night.samples, 'sample')}: no {', no '.join(missing)}"
        note(f"{told}: fewer than {FEWEST_IN_GROUP} that count, where the night before was judged", quiet=False)


def _summary(
    config: TrendConfig,
    found: _Found,
    nights: list[str],
    reference: str,
    events: list[Event],
    series: list[Series],
) -> TrendSummary:
    last = len(nights) - 1
    alarms = alarms_of(series, nights, last)
    judged = sum(bool(np.isfinite(each.p[last])) for each in series)
    return TrendSummary(
        nights=nights,
        reference=reference,
        events=events,
        judged=judged,
        waiting=sum(bool(np.isfinite(each.values[last])) for each in series) - judged,
        alarms=alarms,
        past=[a for n in range(last) for a in alarms_of([s for s in series if s.ends_alarm(n)], nights, n)],
        left_out={str(path): reason for path, reason in (found.left_out | found.damaged).items()},
        findings=len(alarms) + len(found.damaged),
        alarm_only=config.alarm,
        out=str(config.out) if config.out else None,
    )


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
