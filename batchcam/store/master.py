"""run.h5: the one file that an auditor opens, over all shards."""

from __future__ import annotations

import functools
import itertools
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import h5py
import numpy as np

from batchcam.errors import RunError, stopped_by
from batchcam.store import landing
from batchcam.store.layout import (
    Columns,
    array_shape,
    as_utf8,
    attach_scales,
    create,
    create_group,
    describe,
    head_bytes,
    new_file,
    stored_bytes,
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
    MOST_TEXT_BYTES,
    SHARD_FOLDER,
    SHARD_TABLE,
    TEXT_CHUNK_ROWS,
    VIRTUAL_IN_MASTER,
    Array,
    encode_text,
)

Collected: TypeAlias = tuple[Shard, dict[str, np.ndarray], FileRecord]
Result = TypeVar("Result")

LOOK_EVERY_S = 0.2
"""Seconds between two looks whether to stop."""

SHARD_ENTRY_BYTES = 1024
"""What run.h5 keeps of a shard: a row of its table, and where the rows of virtual arrays lie."""


def collect(run: Path, plan: Plan, shards: Sequence[Shard] | None = None, *, prove: bool = True) -> Iterator[Collected]:
    """Yield each shard with its small columns and its record, and prove on the way that it holds its own samples.

    Args:
        run: the run directory.
        plan: of the run.
        shards: which of its shards; None: all.
        prove: compare each shard's SHA-256 before it is parsed.

    Raises:
        RunError: a shard is missing, changed, unreadable, of another run, or holds other samples than the plan says.
    """
    arrays = [a for a in plan.arrays if is_copied(a, plan) or a.name == "status"]
    names = [a.name for a in arrays]
    for shard in plan.shards if shards is None else shards:
        path = run / SHARD_FOLDER / shard.file
        digest = landing.read_digest(path)
        if digest is None or not landing.is_own_file(run, f"{SHARD_FOLDER}/{shard.file}"):
            raise RunError(f"{path}: missing, a link, or without its digest; run explain again")
        try:
            size, actual = path.stat().st_size, landing.file_digest(path) if prove else digest
        except OSError as error:
            raise RunError(f"{path}: cannot read: {error.strerror}; see batchcam verify") from error
        if actual != digest:
            raise RunError(f"{path}: changed after it was written: remove it and its digest, and run explain again")
        with open_checked(path, plan, shard) as file:
            columns = {name: _whole(file, name) for name in names}
        if not np.array_equal(columns["sample_index"], np.arange(shard.first, shard.first + shard.count)):
            raise RunError(f"{path}: does not hold samples {shard.first} to {shard.first + shard.count - 1}")
        yield shard, columns, FileRecord(shard.file, shard.first, shard.count, size, digest)


def _whole(file: h5py.File, name: str) -> np.ndarray:
    """Return an array whose structure is proven; h5py's `file[name][...]` takes three times as long for a small one."""
    dataset = h5py.h5d.open(file.id, name.encode())
    values = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values


def write_master(
    run: Path, plan: Plan, seen: Callable[[Columns], None], stop: Callable[[], str | None]
) -> tuple[FileRecord, tuple[FileRecord, ...]]:
    """Land run.h5 with its digest over all shards, which pass through memory one by one; an older one is replaced.

    Args:
        run: the run directory.
        plan: of the run.
        seen: told the small columns of each shard, in their order.
        stop: asked now and then for a reason to stop.

    Returns:
        Record of run.h5, and one per shard.

    Raises:
        RunError: as `collect`, which proves that each sample is there exactly once.
        StoppedEarlyError: `stop` gave a reason.
    """
    return _apart(lambda given_up: _write_master(run, plan, seen, given_up), stop)


def prove_shards(
    run: Path, plan: Plan, seen: Callable[[Columns], None], stop: Callable[[], str | None]
) -> tuple[FileRecord, ...]:
    """Prove the shards as `write_master` does, and write nothing; return a record of each."""
    return _apart(lambda given_up: tuple(record for record, _ in _seen(collect(run, plan), seen, given_up)), stop)


def _apart(work: Callable[[threading.Event], Result], stop: Callable[[], str | None]) -> Result:
    """Return what `work` does in a thread, which is told to give up when there is a reason to stop."""
    given_up = threading.Event()
    # where no signal's exception can strike between HDF5 and its file object: HDF5 does not survive it either
    with ThreadPoolExecutor(1, thread_name_prefix="merge") as apart:
        working = apart.submit(work, given_up)
        try:
            while not wait([working], LOOK_EVERY_S).done:
                if reason := stop():
                    raise stopped_by(reason)
            return working.result()
        except BaseException:
            given_up.set()
            raise


def _seen(
    shards: Iterable[Collected], seen: Callable[[Columns], None], given_up: threading.Event
) -> Iterator[tuple[FileRecord, Columns]]:
    """Yield the record and the columns of each shard after they were told to `seen`."""
    for _, columns, record in shards:
        if given_up.is_set():
            raise RunError("given up")
        seen(columns)
        yield record, columns


def _write_master(
    run: Path, plan: Plan, seen: Callable[[Columns], None], given_up: threading.Event
) -> tuple[FileRecord, tuple[FileRecord, ...]]:
    shards, records = collect(run, plan), []
    first = next(shards)  # proven, so that its classifier can be read
    with open_checked(run / SHARD_FOLDER / first[0].file, plan, first[0]) as file:
        weight, bias = file["classifier/weight"][...], file["classifier/bias"][...]
    with landing.stream(run / MASTER_FILE) as sink, new_file(sink) as file:
        write_header(file, plan, 0, plan.sample_count)
        write_scales(file, plan)
        write_classes(file, plan, weight, bias)
        copies = _Copies(file, plan)
        for record, columns in _seen(itertools.chain([first], shards), seen, given_up):
            copies.append(columns)
            sink.require_sound()
            records.append(record)
        copies.finish()
        _write_shard_table(file, records)
    return FileRecord(MASTER_FILE, 0, plan.sample_count, sink.size, sink.sha256), tuple(records)


def is_copied(array: Array, plan: Plan) -> bool:
    """Return whether run.h5 holds `array` itself instead of referring to the shards."""
    if array.name in VIRTUAL_IN_MASTER:
        return False
    if len(array.dims) == 1:
        return True
    row_bytes = np.dtype(array.dtype).itemsize * int(np.prod(array_shape(array, plan, 1)))
    return row_bytes * plan.sample_count <= MASTER_COPY_LIMIT


def master_bytes(plan: Plan) -> int:
    """Return about how many bytes run.h5 takes at most."""
    copied = [array for array in plan.arrays if is_copied(array, plan)]
    columns = sum(stored_bytes(array, plan, plan.sample_count) for array in copied)
    return columns + head_bytes(plan) + SHARD_ENTRY_BYTES * len(plan.shards)


class _Copies:
    """The arrays that run.h5 holds itself, created in full size and filled with the rows of shard after shard."""

    def __init__(self, file: h5py.File, plan: Plan) -> None:
        self._columns: dict[str, _Column] = {}
        self._late: list[_LateTexts] = []
        for array in plan.arrays:
            if not is_copied(array, plan):
                _refer(file, plan, array)
            elif array.storage == "text" and array.name not in plan.text_bytes:
                late = _LateTexts(file, plan, array)
                self._late.append(late)
                self._columns[array.name] = _Column(late.keep, TEXT_CHUNK_ROWS)
            else:
                width = min(plan.text_bytes.get(array.name, 1), MOST_TEXT_BYTES)
                dataset = _create(file, plan, array, width)
                self._columns[array.name] = _Column(_Filling(dataset).write, dataset.chunks[0])

    def append(self, columns: Columns) -> None:
        for name, column in self._columns.items():
            column.append(columns[name])

    def finish(self) -> None:
        for column in self._columns.values():
            column.flush()
        for late in self._late:
            late.write()


class _Column:
    """Cuts rows, which come in any number, into chunks of `chunk_rows` for `write`; each is written once, and whole."""

    def __init__(self, write: Callable[[np.ndarray], None], chunk_rows: int) -> None:
        self._write, self._chunk_rows = write, chunk_rows
        self._parts: list[np.ndarray] = []
        self._count = 0

    def append(self, rows: np.ndarray) -> None:
        while len(rows):
            part = rows[: self._chunk_rows - self._count]
            rows = rows[len(part) :]
            self._parts.append(part)
            self._count += len(part)
            if self._count == self._chunk_rows:
                self.flush()

    def flush(self) -> None:
        if self._parts:
            self._write(np.concatenate(self._parts))
        self._parts, self._count = [], 0


class _Filling:
    """Writes rows into a dataset, each call below the last."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset, self._row = dataset, 0

    def write(self, rows: np.ndarray) -> None:
        stop = self._row + len(rows)
        self._dataset[self._row : stop] = as_utf8(rows) if rows.dtype.kind == "S" else rows
        self._row = stop


class _LateTexts:
    """Texts as wide as the longest of all: they wait, compressed, until that is known; most are empty."""

    def __init__(self, file: h5py.File, plan: Plan, array: Array) -> None:
        self._create = functools.partial(_create, file, plan, array)
        self._waiting: list[tuple[np.dtype[Any], bytes]] = []

    def keep(self, rows: np.ndarray) -> None:
        self._waiting.append((rows.dtype, zlib.compress(rows.tobytes(), 1)))

    def write(self) -> None:
        width = max(dtype.itemsize for dtype, _ in self._waiting)
        filling = _Filling(self._create(width))
        for dtype, texts in self._waiting:
            filling.write(np.frombuffer(zlib.decompress(texts), dtype).astype(f"S{width}"))


def _create(file: h5py.File, plan: Plan, array: Array, text_width: int) -> h5py.Dataset:
    """Create `array` for all samples; return it without the cache (8 MiB since HDF5 2.0) that collects its chunks."""
    create(file, array, array_shape(array, plan, plan.sample_count), text_width)
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(0, 0, 1.0)
    return h5py.Dataset(h5py.h5d.open(file.id, array.name.encode(), access))


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
    chunks = (min(len(records), TEXT_CHUNK_ROWS),)
    for name in ("first", "count", "bytes"):
        values = np.array([getattr(r, name) for r in records], np.int64)
        file.create_dataset(f"{SHARD_TABLE}/{name}", data=values, chunks=chunks, fletcher32=True)
