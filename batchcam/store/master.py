"""run.h5: the one file that an auditor opens, over all shards."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeAlias, TypeVar

import h5py
import numpy as np

from batchcam.errors import RunError, stopped_by
from batchcam.store import landing, layout, schema
from batchcam.store.filling import Filling
from batchcam.store.former import FormerRows
from batchcam.store.manifest import FileRecord, ShardSum
from batchcam.store.plan import Plan, Shard
from batchcam.store.reader import open_checked, open_structured, read_whole
from batchcam.store.shard_table import ShardTable, write_table
from batchcam.store.stamps import Stamps

Collected: TypeAlias = tuple[Shard, layout.Columns, int, str]
"""A shard, its columns, its bytes and its digest."""

Result = TypeVar("Result")

LOOK_EVERY_S = 0.2
"""Seconds between two looks whether to stop."""

SHARD_ENTRY_BYTES = 1024
"""What run.h5 keeps of a shard: a row of its table, and where the rows of virtual arrays lie."""


@dataclasses.dataclass(frozen=True)
class Proof:
    """How shards are proven.

    Attributes:
        stamps: of those that need not be read again.
        former: a run.h5 that is proven, over shards of which some have been made again since; rows of the others are
            taken from it.
        threads: that compute digests, of shards that come later.
    """

    stamps: Stamps
    former: Path | None = None
    threads: int = 1


def collect(
    run: Path,
    plan: Plan,
    shards: Sequence[Shard] | None = None,
    proof: Proof | None = None,
    look: landing.Look = landing.unheeding,
) -> Iterator[Collected]:
    """Yield each shard with its small columns, its size and digest, and prove on the way that it holds its own samples.

    Args:
        shards: which of its shards; None: all.
        proof: how each shard's SHA-256 is proven before it is parsed; None: not at all.
        look: called now and then; raises to give up.

    Raises:
        RunError: a shard is missing, changed, unreadable, of another run, or holds other samples than the plan says.
    """
    arrays = [a for a in plan.arrays if is_copied(a, plan) or a.name == "status"]
    names = [a.name for a in arrays]
    late = {a.name for a in arrays if a.storage == "text"} - set(plan.text_bytes)

    def proven(shard: Shard) -> tuple[Shard, int, str]:
        return shard, *_proven(run, shard, proof.stamps if proof else None, look)

    with contextlib.ExitStack() as opened:
        former = _opened(proof.former, plan, opened) if proof and proof.former else None
        threads = proof.threads if proof else 1
        for shard, size, digest in _ahead(proven, plan.shards if shards is None else shards, threads):
            look()
            path = run / schema.SHARD_FOLDER / shard.file
            if former and former.has(shard, size, digest):
                columns = former.columns(shard, path)
            else:
                with open_checked(path, plan, shard) as file:
                    columns = {name: _texts(file, name) if name in late else read_whole(file, name) for name in names}
            if not np.array_equal(columns["sample_index"], np.arange(shard.first, shard.first + shard.count)):
                raise RunError(f"{path}: does not hold samples {shard.first} to {shard.first + shard.count - 1}")
            yield shard, columns, size, digest


def _opened(former: Path, plan: Plan, opened: contextlib.ExitStack) -> FormerRows | None:
    """Return what a former run.h5 tells, None where it holds other arrays than one of now would."""
    try:
        file = opened.enter_context(open_structured(former, plan, None))
    except RunError:  # as when another worker that merged has cleaned up
        return None
    return FormerRows.of(file, plan, [a for a in plan.arrays if is_copied(a, plan)])


def _proven(run: Path, shard: Shard, stamps: Stamps | None, look: landing.Look) -> tuple[int, str]:
    """Return size and digest of a shard that is proven to have it; without `stamps`, that is said to."""
    path = run / schema.SHARD_FOLDER / shard.file
    digest = landing.read_digest(path)
    if digest is None or not landing.is_own_file(run, f"{schema.SHARD_FOLDER}/{shard.file}"):
        raise RunError(f"{path}: missing, a link, or without its digest; run explain again")
    try:
        size = stamps.prove(path, digest, look) if stamps else path.stat().st_size
    except OSError as error:
        raise RunError(f"{path}: cannot read: {error.strerror}; see batchcam verify") from error
    if size is None:
        raise RunError(f"{path}: changed after it was written: remove it and its digest, and run explain again")
    return size, digest


def _ahead(work: Callable[[Shard], Result], shards: Iterable[Shard], threads: int) -> Iterator[Result]:
    """Yield what `work` gives of each shard, in their order; threads are some shards ahead."""
    pool, waiting = ThreadPoolExecutor(threads, thread_name_prefix="prove"), collections.deque[Future[Result]]()
    try:
        for shard in shards:
            waiting.append(pool.submit(work, shard))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _texts(file: h5py.File, name: str) -> np.ndarray:
    """Return texts as objects of type bytes: one that is long makes the others no wider."""
    dataset = file[name]
    step = dataset.chunks[0]
    parts = [dataset[start : start + step].tolist() for start in range(0, len(dataset), step)]
    return np.array(list(itertools.chain.from_iterable(parts)), object)


def write_master(
    run: Path, plan: Plan, seen: Callable[[layout.Columns], None], stop: Callable[[], str | None], proof: Proof
) -> tuple[FileRecord, ShardSum]:
    """Land run.h5 with its digest over all shards, which pass through memory one by one; an older one is replaced.

    Args:
        seen: told the small columns of each shard, in their order.
        stop: asked now and then for a reason to stop.
        proof: as `collect` takes it.

    Returns:
        Record of run.h5, and what the manifest states of the shards.

    Raises:
        RunError: as `collect`, which proves that each sample is there exactly once.
        StoppedEarlyError: `stop` gave a reason.
    """
    return _apart(lambda look: _write_master(run, plan, collect(run, plan, None, proof, look), seen, look), stop)


def prove_shards(
    run: Path, plan: Plan, seen: Callable[[layout.Columns], None], stop: Callable[[], str | None], proof: Proof
) -> ShardSum:
    """Prove the shards as `write_master` does, and write nothing; return what the manifest states of them."""

    def prove(look: landing.Look) -> ShardSum:
        table = ShardTable.empty(plan)
        collections.deque(_seen(collect(run, plan, None, proof, look), table, seen), maxlen=0)
        return table.stated(plan)

    return _apart(prove, stop)


def _apart(work: Callable[[landing.Look], Result], stop: Callable[[], str | None]) -> Result:
    """Return what `work` does in a thread; what it is given to call raises once there is a reason to stop."""
    given_up = threading.Event()

    def look() -> None:
        if given_up.is_set():
            raise RunError("given up")

    # where no signal's exception can strike between HDF5 and its file object: HDF5 does not survive it either
    with ThreadPoolExecutor(1, thread_name_prefix="merge") as apart:
        working = apart.submit(work, look)
        try:
            while not wait([working], LOOK_EVERY_S).done:
                if reason := stop():
                    raise stopped_by(reason)
            return working.result()
        except BaseException:
            given_up.set()
            raise


def _seen(
    shards: Iterable[Collected], table: ShardTable, seen: Callable[[layout.Columns], None]
) -> Iterator[layout.Columns]:
    """Yield the columns of each shard after it was entered into `table`, and they were told to `seen`."""
    for shard, columns, size, digest in shards:
        table.set(shard, size, digest)
        seen(columns)
        yield columns


def _write_master(
    run: Path, plan: Plan, shards: Iterator[Collected], seen: Callable[[layout.Columns], None], look: landing.Look
) -> tuple[FileRecord, ShardSum]:
    table = ShardTable.empty(plan)
    first = next(shards)  # proven, so that its classifier can be read
    with open_checked(run / schema.SHARD_FOLDER / first[0].file, plan, first[0]) as file:
        weight, bias = file["classifier/weight"][...], file["classifier/bias"][...]
    with landing.stream(run / schema.MASTER_FILE, look=look) as sink, layout.new_file(sink) as file:
        layout.write_header(file, plan, 0, plan.sample_count)
        layout.write_scales(file, plan)
        layout.write_classes(file, plan, weight, bias)
        copies = Filling(file, plan, plan.sample_count)
        for array in plan.arrays:
            if is_copied(array, plan):
                copies.add(array)
            elif schema.has_references(len(plan.shards)):
                _refer(file, plan, array)
        for columns in _seen(itertools.chain([first], shards), table, seen):
            copies.append(columns)
            sink.require_sound()
        copies.finish(look)
        write_table(file, plan, table)
    return FileRecord(schema.MASTER_FILE, 0, plan.sample_count, sink.size, sink.sha256), table.stated(plan)


def is_copied(array: schema.Array, plan: Plan) -> bool:
    """Return whether run.h5 holds `array` itself instead of referring to the shards."""
    if schema.stays_in_shards(array.name, len(plan.shards)):
        return False
    if len(array.dims) == 1:
        return True
    row_bytes = np.dtype(array.dtype).itemsize * int(np.prod(layout.array_shape(array, plan, 1)))
    return row_bytes * plan.sample_count <= schema.MASTER_COPY_LIMIT


def master_bytes(plan: Plan) -> int:
    """Return about how many bytes run.h5 takes at most."""
    copied = [array for array in plan.arrays if is_copied(array, plan)]
    columns = sum(layout.stored_bytes(array, plan, plan.sample_count) for array in copied)
    return columns + layout.head_bytes(plan) + SHARD_ENTRY_BYTES * len(plan.shards)


def _refer(file: h5py.File, plan: Plan, array: schema.Array) -> None:
    """Create `array` as a virtual dataset over the shards; rows of a missing shard read as the fill value."""
    name, dtype = array.name.encode(), np.dtype(array.dtype)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)  # create_virtual_dataset would put the time into the file
    properties.set_fill_value(np.array(array.fill, dtype))
    for shard in plan.shards:
        shape = layout.array_shape(array, plan, shard.count)
        target = h5py.h5s.create_simple(layout.array_shape(array, plan, plan.sample_count))
        target.select_hyperslab((shard.first, *(0 for _ in shape[1:])), shape)
        properties.set_virtual(
            target, f"{schema.SHARD_FOLDER}/{shard.file}".encode(), name, h5py.h5s.create_simple(shape)
        )
    space = h5py.h5s.create_simple(layout.array_shape(array, plan, plan.sample_count))
    dataset = h5py.Dataset(h5py.h5d.create(file.id, name, h5py.h5t.py_create(dtype), space, properties))
    layout.attach_scales(file, dataset, array)
    layout.describe(dataset, array)
