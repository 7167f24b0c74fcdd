"""A series: complete runs of one kind of network in one folder, read one after the other as if they were one run."""

from __future__ import annotations

import copyreg
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from batchcam.errors import RunError, one_line
from batchcam.store.files import OpenFiles
from batchcam.store.manifest import unverified_note
from batchcam.store.plan import Plan, differences
from batchcam.store.reader import READ_BYTES, split
from batchcam.store.run import Rows, Run
from batchcam.store.schema import MANIFEST_FILE, PLAN_FILE, Array

KIND: Final = (
    *("class_names", "method", "control", "grid_size", "input_size", "cams", "maps", "problem_type", "thresholds"),
    "has_offset",
)
"""Fields of the plan in which the runs of a series agree: what a row's arrays are, and what their numbers mean."""

FRAME: Final = ("pad", "bits", "range", "traced")
"""Of the preprocessing, likewise: how an image is to be read and shown."""

TOLD: Final = (
    *("checkpoint_sha256", "weights_key", "architecture", "architecture_options", "target_layer", "channels"),
    *("preprocessing", "precision", "engine", "identity", "training_known", "schema_version", "features"),
)
"""Fields in which they may differ, and it is told."""

SHOWN: Final = 5
"""Runs that are left out and named in a line."""

ID_BYTES: Final = 16
"""Of a sample id's digest: enough that no two ids have one, whoever chose them."""

MOST_OPEN: Final = 200
"""Files of all runs kept open at once: run.h5 of each of a hundred runs has its place from column to column."""

QUICK_BYTES: Final = 8
"""Of digests that are all different mostly: then no id stands twice, and the others need not be made."""

Kept: TypeAlias = "tuple[np.ndarray | None, ...]"
"""Rows of each run, ascending; None: all of them."""


@dataclasses.dataclass(frozen=True)
class RunsFound:
    """Runs in the subfolders of a folder.

    Attributes:
        complete: those that have a manifest, in order of name.
        left_out: why each other one is no part of a series.
    """

    complete: tuple[Path, ...]
    left_out: Mapping[Path, str]

    @property
    def told(self) -> str:
        """The first runs that are left out, each with the reason, in one line; "" if there are none."""
        texts = [f"{path.name} ({reason})" for path, reason in self.left_out.items()]
        return ", ".join([*texts[:SHOWN], *([f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else [])])


def find_runs(folder: Path, unverified: bool = False) -> RunsFound:
    """Return the runs in the subfolders of `folder`, of which links are none, as they would count a run twice.

    Args:
        folder: where they lie.
        unverified: also those that verify has not passed, says the note beside them.

    Raises:
        RunError: the folder can't be listed.
    """
    try:
        subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise RunError(f"{folder}: {error.strerror}") from error
    complete, left_out = [], {}
    for path in subfolders:
        if not os.access(path, os.X_OK):
            left_out[path] = "may not be looked into"
        elif path.is_symlink():
            if _is_there(path, PLAN_FILE) and path.resolve().parent != folder.resolve():
                left_out[path] = "a link to another folder"
        elif not _is_there(path, MANIFEST_FILE):
            if _is_there(path, PLAN_FILE):
                left_out[path] = "not complete"
        elif unverified_note(path).exists() and not unverified:
            left_out[path] = f"verify has not passed it, says {unverified_note(path).name}"
        else:
            complete.append(path)
    return RunsFound(tuple(complete), left_out)


def runs_of_series(folder: Path, unverified: bool = False) -> RunsFound:
    """Return the runs of a series, as `find_runs` does.

    Raises:
        RunError: none is complete, or the folder can't be listed.
    """
    found = find_runs(folder, unverified)
    if not found.complete:
        raise RunError(f"{folder}: holds no complete run: {found.told}; name one of them, or finish it by explain")
    return found


def is_series(path: Path) -> bool:
    """Return whether `path` is a folder of runs, and no run itself."""
    if not path.is_dir() or _is_there(path, PLAN_FILE) or _is_there(path, MANIFEST_FILE):
        return False
    found = find_runs(path)
    return bool(found.complete or any(_is_there(run, PLAN_FILE) for run in found.left_out))


def require_run(path: Path, purpose: str) -> None:
    """Raise RunError for a series where one run is wanted for `purpose`."""
    if is_series(path):
        found = find_runs(path)
        newest = (*found.left_out, *found.complete)[-1]
        raise RunError(f"{path}: a series of runs: {purpose} takes one of them, such as {newest}")


def require_one_kind(plans: Mapping[Path, Plan]) -> None:
    """Refuse runs that can't be read as one.

    Args:
        plans: by run directory, oldest first.

    Raises:
        RunError: the message names two runs, and in what they differ.
    """
    if not plans:
        return
    *others, newest = plans
    for other in others:
        if differing := differences(*(_kind(plans[run]) for run in (other, newest))):
            raise RunError(
                f"{other} (there) and {newest} (here) can't be read as a series: {', '.join(differing.values())}; "
                "name one of them, or give each kind a folder of its own"
            )


def _kind(plan: Plan) -> dict[str, Any]:
    content = plan.to_dict()
    frame = {key: plan.preprocessing.get(key) for key in FRAME} | {"image_channels": plan.image_channels}
    return {field: content.get(field) for field in KIND} | frame


def _is_there(folder: Path, name: str) -> bool:
    return os.path.lexists(folder / name)


class Series(Run):
    """Complete runs in one folder, opened for reading as one: it offers what a `Run` offers, over all of their rows.

    The rows are those of the first run, then those of the second, and so on, in order of the runs' names. Where a
    sample id stands in several runs, the newest row that could be read counts. `sample_index` is the position in the
    series.

    Attributes:
        path: the folder.
        plan: what the runs have in common, as the newest has it; its run id follows from theirs.
    """

    def __init__(self, path: Path, runs: Iterable[Run], left_out: str, kept: Kept | None = None) -> None:
        """Take over opened runs.

        Args:
            path: the folder.
            runs: at least one, in order of name.
            left_out: which runs of the folder are no part of it, and why; "" if none is.
            kept: rows of each run that the series has, None for all; default: of each sample the newest.

        Raises:
            RunError: they can't be read as one.
        """
        self._places = OpenFiles(MOST_OPEN)
        try:
            self._runs = tuple(self._shared(run) for run in runs)
            require_one_kind({run.path: run.plan for run in self._runs})
            self._kept = _newest(self._runs) if kept is None else kept
        except RunError:
            self.close()
            raise
        counts = (len(run if own is None else own) for run, own in zip(self._runs, self._kept, strict=True))
        self._starts = np.cumsum([0, *counts])
        self._rows_by_id = None
        self.path, self.plan = path, _common(self._runs, len(self))
        self.class_names = self.plan.class_names
        self.shards = tuple(shard for run in self._runs for shard in run.shards)
        self.complete = all(run.complete for run in self._runs)
        self.absent, self.lost = frozenset(), tuple(reason for run in self._runs for reason in run.lost)
        self._arrays = {a.name: a for a in self.plan.arrays}
        self._left_out = left_out
        self.remarks = tuple(self._remarks())

    def __repr__(self) -> str:
        return f"<batchcam series {self.path}: {len(self)} samples, {len(self.class_names)} classes, {self.state}>"

    @property
    def runs(self) -> tuple[Run, ...]:
        return self._runs

    @property
    def opened(self) -> tuple[Any, ...]:
        return Path(os.path.abspath(self.path)), self._runs, self._left_out, self._kept

    @property
    def shard_counts(self) -> tuple[int, int]:
        there, planned = zip(*(run.shard_counts for run in self._runs), strict=True)
        return sum(there), sum(planned)

    @property
    def state(self) -> str:
        return f"{len(self._runs)} runs, {super().state}"

    @property
    def missing(self) -> np.ndarray:
        pairs = zip(self._runs, self._kept, strict=True)
        return np.concatenate([run.missing if own is None else run.missing[own] for run, own in pairs])

    @property
    def classifier(self) -> tuple[np.ndarray, np.ndarray]:
        if len(self.networks) > 1:
            raise RunError(f"{self.path}: its runs have several classifiers: take that of each of `runs`")
        return self._runs[-1].classifier

    def close(self) -> None:
        self._places.close()

    def run_of(self, row: int) -> tuple[Run, int]:
        """Return the run that holds a row of the series, and its row there.

        Raises:
            IndexError: there is no such row.
        """
        row = self._valid(row)
        place = int(self._owners(row))
        return self._runs[place], int(self._own(place, np.array(row)))

    def blocks(
        self, names: Sequence[str], rows: Rows | None = None, budget: int = READ_BYTES, held: int = 0
    ) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        wanted = self._wanted(names, rows)
        for part in split(wanted, self._owners(wanted)):
            place, done = int(self._owners(part[0])), 0
            for some, block in self._runs[place].blocks(names, self._own(place, part), budget, held):
                here = part[done : done + len(some)]
                if "sample_index" in block:
                    block["sample_index"] = here
                yield here, block
                done += len(some)

    def _row_of(self, array: Array, row: int, rest: tuple[Any, ...]) -> Any:
        run, own = self.run_of(row)
        return np.int64(self._valid(row)) if array.name == "sample_index" else run._row_of(array, own, rest)

    def _own(self, place: int, rows: np.ndarray) -> np.ndarray:
        """Return rows of the series as the run at `place`, which holds them, numbers its own."""
        kept, own = self._kept[place], rows - self._starts[place]
        return np.asarray(own if kept is None else kept[own])

    def _shared(self, run: Run) -> Run:
        run._files.share(self._places)
        return run

    def _remarks(self) -> Iterator[str]:
        if self._left_out:
            yield f"left out of the series: {self._left_out}"
        if twice := sum(map(len, self._runs)) - len(self):
            yield f"{twice} rows of samples that stand in several runs left out: the newest that could be read counts"
        *others, newest = (run.plan.to_dict() for run in self._runs)
        differing = {field for other in others for field in differences(other, newest)}
        if partial := {name for run in self._runs for name in run.plan.meta} - set(self.plan.meta):
            yield f"columns that not all of the runs have left out: {one_line(', '.join(sorted(partial)))}"
        if told := [field.replace("_", " ") for field in TOLD if field in differing]:
            yield f"the runs differ in {', '.join(told)}"


copyreg.pickle(Series, lambda series: (Series, series.opened))


def _common(runs: Sequence[Run], count: int) -> Plan:
    """Return the plan of the newest run, with what holds for `count` rows of all of them.

    Its run id follows from theirs: where they have one checkpoint its digest stands, otherwise one over all of theirs.
    """
    plans = [run.plan for run in runs]
    networks = [f"{plan.checkpoint_sha256} {plan.weights_key}" for plan in plans]
    return dataclasses.replace(
        plans[-1],
        checkpoint_sha256=plans[-1].checkpoint_sha256 if len({*networks}) == 1 else _digest(networks),
        dataset_fingerprint=_digest(plan.run_id for plan in plans),
        dataset_code={},
        first_inputs={},
        sample_count=count,
        sample_id_bytes=max(plan.sample_id_bytes for plan in plans),
        identity=all(plan.identity for plan in plans),
        training_known=all(plan.training_known for plan in plans),
        features=plans[-1].features if len({(plan.features, plan.channels) for plan in plans}) == 1 else "",
        schema_version=min(plan.schema_version for plan in plans),
        meta={name: max(plan.meta[name] for plan in plans) for name in _meta_of_all(plans)},
    )


def _meta_of_all(plans: Sequence[Plan]) -> list[str]:
    """Return the further columns that all of the runs have."""
    return sorted(set.intersection(*(set(plan.meta) for plan in plans)))


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _newest(runs: Sequence[Run]) -> Kept:
    """Return the rows of each run to keep: of each sample id the newest that could be read, else the newest."""
    quick = np.sort(_id_digests(runs, QUICK_BYTES).view(np.uint64))
    if (quick[1:] != quick[:-1]).all():
        return tuple(None for _ in runs)
    digests = _id_digests(runs, ID_BYTES)
    order = np.argsort(np.concatenate([_readable(run) for run in runs]), kind="stable")[::-1]
    _, newest = np.unique(digests[order], return_index=True)
    kept = np.concatenate([run.missing for run in runs])  # their ids are not known
    kept[order[newest]] = True
    return tuple(map(np.flatnonzero, np.split(kept, np.cumsum([len(run) for run in runs])[:-1])))


def _id_digests(runs: Iterable[Run], size: int) -> np.ndarray:
    """Return a digest of each sample id, (n,), which takes a tenth of what the ids take or less."""
    blocks = (block["sample_id"] for run in runs for _, block in run.blocks(("sample_id",)))
    digests = [b"".join(hashlib.blake2b(i.encode(), digest_size=size).digest() for i in ids) for ids in blocks]
    return np.frombuffer(b"".join(digests), f"V{size}")


def _readable(run: Run) -> np.ndarray:
    return np.concatenate([block["error"] == "" for _, block in run.blocks(("error",))])
