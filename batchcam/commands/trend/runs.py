"""Which runs trend reads, and what is known of each: from the run, or from an earlier trend of the same folder."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from batchcam.commands.trend.config import TrendConfig
from batchcam.commands.trend.nights import GROUP, Night, has_columns, kind_of, read_night
from batchcam.errors import RunError
from batchcam.job.console import Progress, counted, note
from batchcam.job.cpus import available_cpus
from batchcam.job.crew import crew
from batchcam.record.groups import grouped_by
from batchcam.store import landing
from batchcam.store.bringing import shown
from batchcam.store.document import read_document
from batchcam.store.manifest import unverified_note
from batchcam.store.opening import open_run
from batchcam.store.plan import Plan, differences, open_plan
from batchcam.store.problem import require_single_label
from batchcam.store.run import Run
from batchcam.store.schema import MANIFEST_FILE
from batchcam.store.series import is_series, require_run, runs_of_series

TREND_VERSION: Final = 2
"""Changes with the names and meanings in the files."""

DOCUMENT: Final = "trend.json"
PAIRED: Final = ("flips", "similarity")


class Found:
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
        others = {path: _differing(plan, self.plans[newest], newest) for path, plan in self.plans.items()}
        others = {path: differing for path, differing in others.items() if differing}
        for path, differing in others.items():
            if path in named:
                raise RunError(f"{path}: {differing}; name runs of one kind")
            del self.plans[path]
        self.left_out |= others
        if others and len(self.plans) == 1:
            note(f"{newest} is the first of its kind: all is new in it, and nothing is judged", quiet=False)

    def lose(self, path: Path, error: RunError) -> None:
        """Leave out a run that is damaged."""
        self.plans.pop(path, None)
        self.damaged[path] = str(error)

    @property
    def none_read(self) -> str:
        """Why there is no night."""
        path, why = next(iter((self.damaged | self.left_out).items()))
        return f"{path}: no run can be read: {why}"

    @property
    def names(self) -> dict[Path, str]:
        """What the runs to read are called: by their folders, unless two would be one."""
        names = {path: path.resolve().name for path in self.plans}
        several = collections.Counter(names.values())
        return {path: shown(path) if several[name] > 1 else name for path, name in names.items()}


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


def read_nights(config: TrendConfig, found: Found) -> tuple[Night, list[Night]]:
    """Return the reference, and what is known of each night in their order, also of those whose runs are gone.

    Raises:
        ConfigError: the newest run lacks a column of the groups.
        RunError: none can be read, or the reference is of another kind.
    """
    quiet = config.quiet or config.alarm
    if lacking := [path for path, plan in found.plans.items() if not has_columns(plan, config.group_by)]:
        *_, newest = found.plans
        grouped_by(config.group_by, found.plans[newest].meta, newest)
        note(f"no groups of {counted(len(lacking), 'run')}, such as {lacking[-1]}: no column of --group-by", quiet)
    kept = _kept(config.out)
    path, reference = _reference(config, found, kept)
    nights = _nights(config, found, path, reference, kept)
    for left, reason in found.left_out.items():
        note(f"left out: {left}: {reason}", quiet)
    for reason in found.damaged.values():
        note(f"left out: {reason}", quiet=False)
    if not nights:
        raise RunError(found.none_read)
    return reference, nights


def _reference(config: TrendConfig, found: Found, kept: Mapping[str, Any]) -> tuple[Path, Night]:
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
            told = (
                f"the reference was {kept['reference_run']}, which is not among RUNS: flips and similarity begin again"
            )
            note(f"{told}, against {reference.name}", config.quiet or config.alarm)
        return path, reference
    raise RunError(found.none_read)


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


def _nights(config: TrendConfig, found: Found, path: Path, reference: Night, kept: Mapping[str, Any]) -> list[Night]:
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
