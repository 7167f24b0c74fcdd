"""run.h5: the one file that an auditor opens, over all shards."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from batchcam.errors import RunError
from batchcam.store import landing
from batchcam.store.layout import (
    array_shape,
    as_utf8,
    attach_scales,
    create,
    create_group,
    describe,
    new_file,
    write_classes,
    write_header,
    write_scales,
    write_text,
)
from batchcam.store.manifest import FileRecord
from batchcam.store.plan import Plan, Shard
from batchcam.store.reader import open_checked
from batchcam.store.schema import (
    MASTER_COPY_LIMIT,
    MASTER_FILE,
    SHARD_FOLDER,
    SHARD_TABLE,
    VIRTUAL_IN_MASTER,
    Array,
    encode_text,
    sample_arrays,
)


@dataclasses.dataclass(frozen=True)
class Collected:
    """What merging read out of the shards.

    Attributes:
        columns: arrays that run.h5 holds itself, and status, by name, one row per sample of the run.
        weight: classifier weight (K, C).
        bias: classifier bias (K,).
        records: one per shard.
    """

    columns: dict[str, np.ndarray]
    weight: np.ndarray
    bias: np.ndarray
    records: tuple[FileRecord, ...]


def collect(
    run: Path, plan: Plan, shards: Sequence[Shard] | None = None, *, prove: bool = True
) -> Iterator[tuple[Shard, dict[str, np.ndarray], FileRecord]]:
    """Yield each shard with its small columns and its record, and prove on the way that it holds its own samples.

    Args:
        run: the run directory.
        plan: of the run.
        shards: which of its shards; None: all.
        prove: compare each shard's SHA-256 before it is parsed.

    Raises:
        RunError: a shard is missing, changed, unreadable, of another run, or holds other samples than the plan says.
    """
    arrays = [a for a in sample_arrays(plan.maps) if is_copied(a, plan) or a.name == "status"]
    names = [a.name for a in arrays]
    for shard in plan.shards if shards is None else shards:
        path = run / SHARD_FOLDER / shard.file
        digest = landing.read_digest(path)
        if digest is None or not landing.is_own_file(run, f"{SHARD_FOLDER}/{shard.file}"):
            raise RunError(f"{path}: missing, a link, or without its digest; run explain again")
        if prove and landing.file_digest(path) != digest:
            raise RunError(f"{path}: changed after it was written: remove it and its digest, and run explain again")
        with open_checked(path, plan, shard) as file:
            columns = {name: file[name][...] for name in names}
        if not np.array_equal(columns["sample_index"], np.arange(shard.first, shard.first + shard.count)):
            raise RunError(f"{path}: does not hold samples {shard.first} to {shard.first + shard.count - 1}")
        yield shard, columns, FileRecord(shard.file, shard.first, shard.count, path.stat().st_size, digest)


def gather(run: Path, plan: Plan) -> Collected:
    """Read the small columns of all shards into memory: the proof that each sample is there exactly once."""
    columns: dict[str, np.ndarray] = {}
    texts: dict[str, list[np.ndarray]] = {}
    records = []
    for shard, part, record in collect(run, plan):
        records.append(record)
        for name, values in part.items():
            if values.dtype.kind in "SO":
                texts.setdefault(name, []).append(values.astype("S"))
                continue
            if name not in columns:
                columns[name] = np.empty((plan.sample_count, *values.shape[1:]), values.dtype)
            columns[name][shard.first : shard.first + shard.count] = values
    columns.update({name: np.concatenate(parts) for name, parts in texts.items()})
    with open_checked(run / SHARD_FOLDER / plan.shards[0].file, plan, plan.shards[0]) as file:
        return Collected(columns, file["classifier/weight"][...], file["classifier/bias"][...], tuple(records))


def write_master(run: Path, plan: Plan, collected: Collected) -> FileRecord:
    """Land run.h5 with its digest and return its record; an older one is replaced."""
    buffer = io.BytesIO()
    with new_file(buffer) as file:
        write_header(file, plan, 0, plan.sample_count)
        write_scales(file, plan)
        write_classes(file, plan, collected.weight, collected.bias)
        for array in sample_arrays(plan.maps, plan.method):
            if is_copied(array, plan):
                values = collected.columns[array.name]
                values = as_utf8(values) if array.storage == "text" else values
                create(file, array, array_shape(array, plan, plan.sample_count), values.dtype.itemsize)[...] = values
            else:
                _refer(file, plan, array)
        _write_shard_table(file, collected.records)
    image = buffer.getvalue()
    digest = landing.land_with_digest(run / MASTER_FILE, image, replace=True)
    return FileRecord(MASTER_FILE, 0, plan.sample_count, len(image), digest)


def is_copied(array: Array, plan: Plan) -> bool:
    """Return whether run.h5 holds `array` itself instead of referring to the shards."""
    if array.name in VIRTUAL_IN_MASTER:
        return False
    if len(array.dims) == 1:
        return True
    row_bytes = np.dtype(array.dtype).itemsize * int(np.prod(array_shape(array, plan, 1)))
    return row_bytes * plan.sample_count <= MASTER_COPY_LIMIT


def _refer(file: h5py.File, plan: Plan, array: Array) -> None:
    """Create `array` as a virtual dataset over the shards; rows of a missing shard read as the fill value."""
    name, dtype = array.name.encode(), np.dtype(array.dtype)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)  # create_virtual_dataset would put the time into the file
    properties.set_fill_value(np.array(array.fill, dtype))
    for shard in plan.shards:
        shape = array_shape(array, plan, shard.count)
        target = h5py.h5s.create_simple(array_shape(array, plan, plan.sample_count))
        target.select_hyperslab((shard.first, *(0 for _ in shape[1:])), shape)
        properties.set_virtual(target, f"{SHARD_FOLDER}/{shard.file}".encode(), name, h5py.h5s.create_simple(shape))
    space = h5py.h5s.create_simple(array_shape(array, plan, plan.sample_count))
    dataset = h5py.Dataset(h5py.h5d.create(file.id, name, h5py.h5t.py_create(dtype), space, properties))
    attach_scales(file, dataset, array)
    describe(dataset, array)


def _write_shard_table(file: h5py.File, records: Sequence[FileRecord]) -> None:
    create_group(file, SHARD_TABLE)
    write_text(file, f"{SHARD_TABLE}/file", encode_text([r.file for r in records]))
    write_text(file, f"{SHARD_TABLE}/sha256", encode_text([r.sha256 for r in records]))
    for name in ("first", "count", "bytes"):
        values = np.array([getattr(r, name) for r in records], np.int64)
        file.create_dataset(f"{SHARD_TABLE}/{name}", data=values, chunks=(min(len(values), 4096),), fletcher32=True)
