"""From a path to a run that can be read: what is there of it, and what proves its files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from batchcam.errors import RunError
from batchcam.store import landing, structure
from batchcam.store.files import Proof, RunFiles
from batchcam.store.manifest import Manifest, read_manifest
from batchcam.store.plan import Plan, Shard, not_a_run, read_plan
from batchcam.store.reader import decode, open_hdf5, require_digest
from batchcam.store.run import Run
from batchcam.store.schema import MASTER_FILE, SHARD_FOLDER
from batchcam.store.shard import landed_shards

ROWS_PER_BYTE = 64
"""A run that claims more samples for its bytes on disk is refused; honest rows take more than 100 bytes each."""


def open_run(path: str | os.PathLike[str], *, prove: bool = True, partial: bool = False) -> Run:
    """Open a run directory, or a single shard, for reading.

    Args:
        path: run directory, complete or still being written, or a file `shard-NNNNN.h5`.
        prove: compare the SHA-256 of each file with the recorded one before it is read for the first time: about
            20 ms for a shard of 30 MiB. Without, a shard that was edited with an HDF5 library is read as it is.
        partial: give every sample of the plan its row, whatever is left of the run: `Run.missing` tells which rows
            hold fill values because their shard is absent or, if `prove`, damaged. All shards are proven at once.

    Raises:
        RunError: it is neither, its plan or manifest is damaged, a shard is gone from a complete run (unless
            `partial`), or nothing has landed yet. Reading raises it for a file that is damaged or another run's.

    Example:
        >>> with batchcam.open_run("runs/monday") as run:
        ...     print(run[0].prediction, run.cam(0, "cat").max())
    """
    path = Path(path)
    if path.is_file():
        return _open_shard(path, landing.read_digest if prove else None)
    try:
        plan = read_plan(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise not_a_run(path) from error
    try:
        manifest = read_manifest(path, plan)
    except FileNotFoundError:
        manifest = None
    landed = landed_shards(path, plan)
    gone = frozenset(s.index for s in plan.shards if s.index not in landed)
    if manifest and gone and not partial:
        raise RunError(f"{path}: {len(gone)} shards are gone from a complete run; see batchcam verify")
    if len(gone) == len(plan.shards):
        raise RunError(f"{path}: no shard has landed yet; run explain")
    proof = (_stated_by(manifest, path) if manifest else landing.read_digest) if prove else None
    _require_plausible(path, plan.sample_count, _size(path, plan, landed))
    files = RunFiles(path, plan, proof)
    if partial:
        absent = gone | _damaged(files, [s for s in plan.shards if s.index in landed])
        return Run(path, plan, plan.shards, bool(manifest), files, absent)
    return Run(path, plan, [s for s in plan.shards if s.index in landed], bool(manifest), files)


def _size(run: Path, plan: Plan, landed: set[int]) -> int:
    """Return the bytes of run.h5, or of the landed shards while there is none."""
    names = [MASTER_FILE, *(f"{SHARD_FOLDER}/{s.file}" for s in plan.shards if s.index in landed)]
    sizes = ((run / name).stat().st_size for name in names if landing.is_own_file(run, name))
    return next(sizes, 0) if landing.is_own_file(run, MASTER_FILE) else sum(sizes)


def _stated_by(manifest: Manifest, run: Path) -> Proof:
    digests = {run / SHARD_FOLDER / record.file: record.sha256 for record in manifest.shards}
    digests[run / MASTER_FILE] = manifest.master.sha256
    return digests.get


def _damaged(files: RunFiles, shards: Sequence[Shard]) -> frozenset[int]:
    """Return the indices of the shards that can't be opened.

    Raises:
        RunError: none can.
    """
    found: dict[int, RunError] = {}
    for shard in shards:
        try:
            files.shard(shard)
        except RunError as error:
            found[shard.index] = error
    if len(found) == len(shards):
        files.close()
        raise next(iter(found.values()))
    return frozenset(found)


def _open_shard(path: Path, proof: Proof | None) -> Run:
    digest = proof(path) if proof else None
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
    return Run(path, plan, [Shard(first // plan.shard_size, first, count)], False, RunFiles(path, plan, None))


def _require_plausible(path: Path, rows: int, size: int) -> None:
    """Raise RunError for more rows than `size` bytes could hold even if most shards are gone: rows take memory."""
    if rows > ROWS_PER_BYTE * size:
        raise RunError(f"{path}: tells of {rows} samples, with {size} bytes to show for them; see batchcam verify")
