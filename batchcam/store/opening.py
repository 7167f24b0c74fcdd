"""From a path to a run that can be read: what is there of it, and what proves its files."""

from __future__ import annotations

import copyreg
import dataclasses
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchcam.errors import RunError
from batchcam.store import landing, structure
from batchcam.store.files import RunFiles
from batchcam.store.manifest import Manifest, stated_manifest
from batchcam.store.places import local
from batchcam.store.plan import Plan, Shard, open_plan
from batchcam.store.reader import decode, open_hdf5, require_digest
from batchcam.store.run import Run
from batchcam.store.schema import MASTER_FILE, SHARD_FOLDER
from batchcam.store.series import Series, is_series, runs_of_series
from batchcam.store.shard import landed_shards

ROWS_PER_BYTE = 64
"""A run that claims more samples for its bytes on disk is refused; honest rows take more than 100 bytes each."""


def open_run(path: str | os.PathLike[str], *, prove: bool = True, partial: bool = False) -> Run:
    """Open a run directory, a single shard, or a series of runs for reading.

    Args:
        path: run directory, complete or still being written, a file `shard-NNNNN.h5`, or a folder whose subfolders are
            complete runs of one kind of network: then a `Series`. Also a URL of one that fsspec knows, or a zip file.
        prove: compare the SHA-256 of each file with the recorded one before it is read for the first time: about
            20 ms for a shard of 30 MiB. Without, a shard that was edited with an HDF5 library is read as it is.
        partial: give every sample of the plan its row, whatever is left of the run: `Run.missing` tells which rows
            hold fill values because their shard is absent or, if `prove`, damaged. All shards are proven at once.

    Raises:
        RunError: it is none of these, a plan or manifest is damaged, a shard is gone from a complete run (unless
            `partial`), or nothing has landed yet; the runs of a folder are of several kinds, or none is complete.
            Reading raises it for a file that is damaged or another run's.

    Example:
        >>> with batchcam.open_run("runs/monday") as run:
        ...     print(run[0].prediction, run.cam(0, "cat").max())
    """
    path = local(Path(path))
    if path.is_file():
        return _open_shard(path, prove)
    if is_series(path):
        return _open_series(path, functools.partial(open_run, prove=prove, partial=partial))
    found = _look(path, prove, partial)
    if found.manifest and found.gone and not partial:
        raise _gone(path, found.plan, len(found.gone))
    if partial:
        absent = frozenset(s.index for s in found.gone) | _damaged(found).keys()
        return Run(path, found.plan, found.plan.shards, bool(found.manifest), found.files, absent)
    return Run(path, found.plan, found.landed, bool(found.manifest), found.files)


def open_partial(path: Path) -> Run:
    """Open a run without its shards that are gone or damaged; `Run.lost` tells what is wrong with each.

    Every shard is proven first. A damaged run.h5 is done without, and among the lost.

    Raises:
        RunError: as `open_run`, but for these files; or no shard is sound.
    """
    if path.is_file():
        return open_run(path)
    if is_series(path):
        return _open_series(path, open_partial)
    found = _look(path, prove=True, partial=True)
    damaged = _damaged(found)
    sound = [s for s in found.landed if s.index not in damaged]
    lost = [str(error) for error in damaged.values()]
    if found.manifest:
        lost += [f"{path / SHARD_FOLDER / s.file}: it, or its .sha256, is gone from a complete run" for s in found.gone]
        try:
            found.files.master()
        except RunError as error:
            lost.append(str(error))
    return Run(path, found.plan, sound, bool(found.manifest) and not lost, found.files, lost=lost)


def open_again(path: str, prove: bool, run_id: str, shards: tuple[int, ...], kept: dict[str, Any]) -> Run:
    """Open a run with the rows that it had where it was pickled, however many shards have landed since.

    Args:
        prove: as for `open_run`.
        shards: indices of those whose rows it had.
        kept: what else its constructor was given.

    Raises:
        RunError: as `open_run`, or another run lies there now; reading raises it for a shard that is gone.
    """
    place = local(Path(path))
    if place.is_file():
        run = open_run(place, prove=prove)
    else:
        found = _look(place, prove)
        run = Run(place, found.plan, [s for s in found.plan.shards if s.index in shards], files=found.files, **kept)
    if run.plan.run_id != run_id or tuple(s.index for s in run.shards) != shards:
        raise RunError(f"{place}: not what was there when it was opened; open it again")
    return run


copyreg.pickle(Run, lambda run: (open_again, run.opened))


@dataclasses.dataclass(frozen=True)
class _Found:
    """A run directory: what it is to hold, which of its shards are there, and its files."""

    plan: Plan
    manifest: Manifest | None
    landed: list[Shard]
    gone: list[Shard]
    files: RunFiles


def _open_series(path: Path, open_: Callable[[Path], Run]) -> Series:
    found = runs_of_series(path)
    return Series(path, map(open_, found.complete), found.told)


def _look(path: Path, prove: bool, partial: bool = False) -> _Found:
    plan = open_plan(path)
    manifest = stated_manifest(path, plan)
    indices = landed_shards(path, plan)
    if not indices and manifest:
        raise _gone(path, plan, len(plan.shards))
    if not indices:
        raise RunError(f"{path}: no shard has landed yet; run explain")
    _require_plausible(path, plan.sample_count, _size(path, plan, indices))
    landed, gone = ([s for s in plan.shards if (s.index in indices) is there] for there in (True, False))
    return _Found(plan, manifest, landed, gone, RunFiles(path, plan, prove, manifest, partial))


def _gone(path: Path, plan: Plan, count: int) -> RunError:
    return RunError(f"{path}: {count} of {len(plan.shards)} shards gone from a complete run; see batchcam verify")


def _size(run: Path, plan: Plan, landed: set[int]) -> int:
    """Return the bytes of run.h5, or of the landed shards while there is none."""
    names = [MASTER_FILE, *(f"{SHARD_FOLDER}/{s.file}" for s in plan.shards if s.index in landed)]
    sizes = ((run / name).stat().st_size for name in names if landing.is_own_file(run, name))
    return next(sizes, 0) if landing.is_own_file(run, MASTER_FILE) else sum(sizes)


def _damaged(run: _Found) -> dict[int, RunError]:
    """Return what is wrong with each shard that can't be opened, by its index."""
    found: dict[int, RunError] = {}
    for shard in run.landed:
        try:
            run.files.shard(shard)
        except RunError as error:
            found[shard.index] = error
    if len(found) == len(run.landed):
        run.files.close()
        raise next(iter(found.values()))
    return found


def _open_shard(path: Path, prove: bool) -> Run:
    digest = landing.read_digest(path) if prove else None
    if digest:
        require_digest(path, digest)
    try:
        with open_hdf5(path) as file:
            content = json.loads(structure.config_text(file))
            names = decode(structure.class_names(file))
            _, first, count = structure.identity(file)
        plan = Plan.from_dict({**content, "class_names": names})
        if not isinstance(first, int) or not isinstance(count, int) or not 0 <= first < first + count:
            raise ValueError("its samples are not told")
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise RunError(f"{path}: not a shard of batchcam: {error}") from error
    _require_plausible(path, count, path.stat().st_size)
    files = RunFiles(path, plan, prove, proven=[path])
    return Run(path, plan, [Shard(first // plan.shard_size, first, count)], False, files)


def _require_plausible(path: Path, rows: int, size: int) -> None:
    """Raise RunError for more rows than `size` bytes could hold even if most shards are gone: rows take memory."""
    if rows > ROWS_PER_BYTE * size:
        raise RunError(f"{path}: tells of {rows} samples, with {size} bytes to show for them; see batchcam verify")
