"""One shard: filled batch by batch in memory, landed whole."""

from __future__ import annotations

import collections
import dataclasses
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from batchcam.store import landing, layout
from batchcam.store.bringing import elsewhere
from batchcam.store.compression import deflate_chunk
from batchcam.store.plan import Plan, Shard
from batchcam.store.schema import DIGEST_SUFFIX, SHARD_FOLDER, Array, encode_text, map_chunk_rows
from batchcam.store.stamps import stamp_of_landed

PENDING_BYTES = 16 * 2**20
"""Uncompressed maps that may wait for a compressing thread; two chunks may, however large."""


@dataclasses.dataclass(frozen=True)
class LandedShard:
    """A shard as it lies on disk.

    Attributes:
        stamp: of the file, None where another worker was quicker.
    """

    shard: Shard
    stamp: str | None


class ShardBuilder:
    """Collects the rows of one shard and turns them into the bytes of an HDF5 file.

    Args:
        weight: classifier weight, float32 (K, C).
        bias: classifier bias, float32 (K,).
        compressors: threads that compress maps while later batches are computed.
    """

    def __init__(
        self, plan: Plan, shard: Shard, weight: np.ndarray, bias: np.ndarray, compressors: ThreadPoolExecutor
    ) -> None:
        self.plan = plan
        self.shard = shard
        self.rows = 0
        self._weight, self._bias = weight, bias
        self._compressors = compressors
        self._arrays = plan.arrays
        self._columns: dict[str, np.ndarray] = {}
        self._texts: dict[str, list[str]] = {}
        for array in self._arrays:
            if array.storage == "text":
                self._texts[array.name] = []
            elif array.storage != "deflate":
                self._columns[array.name] = np.empty(layout.array_shape(array, plan, shard.count), array.dtype)
        self._map_chunk_rows = map_chunk_rows(shard.count, *plan.input_size)
        self._map_rest: np.ndarray | None = None
        self._most_pending = 2
        self._map_chunks: list[Future[bytes]] = []
        self._pending: collections.deque[Future[bytes]] = collections.deque()

    def append(self, columns: layout.Columns, texts: dict[str, list[str]]) -> None:
        """Add the rows of one batch.

        Args:
            columns: arrays of the schema by name, each with one row per sample; not to be changed afterwards.
            texts: the same for text arrays.

        Raises:
            ValueError: a column is missing, unknown, or of the wrong shape or type.
        """
        self._require_fit(columns, texts)
        stop = self.rows + len(columns["sample_index"])
        if stop > self.shard.count:
            raise ValueError(f"{stop} rows for a shard of {self.shard.count}")
        for array in self._arrays:
            if array.storage == "text":
                self._texts[array.name] += texts[array.name]
            elif array.storage == "deflate":
                self._append_maps(columns[array.name])
            else:
                self._columns[array.name][self.rows : stop] = columns[array.name]
        self.rows = stop

    def image(self) -> bytes:
        """Return the bytes of the finished shard.

        Raises:
            ValueError: rows are missing.
        """
        if self.rows != self.shard.count:
            raise ValueError(f"{self.shard.file}: {self.rows} of {self.shard.count} rows")
        if self._map_rest is not None and len(self._map_rest):
            self._submit(self._map_rest)
        buffer = io.BytesIO()
        with layout.new_file(buffer) as file:
            layout.write_header(file, self.plan, self.shard.first, self.shard.count)
            layout.write_scales(file, self.plan)
            layout.write_classes(file, self.plan, self._weight, self._bias)
            for array in self._arrays:
                self._write_array(file, array)
        return buffer.getvalue()

    def _require_fit(self, columns: layout.Columns, texts: dict[str, list[str]]) -> None:
        wanted = {a.name for a in self._arrays if a.storage != "text"}
        if set(columns) != wanted or set(texts) != set(self._texts):
            different = (set(columns) ^ wanted) | (set(texts) ^ set(self._texts))
            raise ValueError(
                f"columns are not those of the schema; missing or too many: {', '.join(sorted(different))}"
            )
        rows = len(columns["sample_index"])
        for array in self._arrays:
            shape = layout.array_shape(array, self.plan, rows)
            if array.storage == "text":
                if len(texts[array.name]) != rows:
                    raise ValueError(f"{array.name}: {len(texts[array.name])} texts for {rows} rows")
                continue
            values = columns[array.name]
            if values.shape != shape or values.dtype != array.dtype:
                raise ValueError(f"{array.name}: {values.dtype} {values.shape}, schema wants {array.dtype} {shape}")

    def _append_maps(self, maps: np.ndarray) -> None:
        size = self._map_chunk_rows
        self._most_pending = max(2, PENDING_BYTES // (size * maps[:1].nbytes))
        if self._map_rest is not None and len(self._map_rest):
            maps = np.concatenate([self._map_rest, maps])
        whole = len(maps) - len(maps) % size
        for start in range(0, whole, size):
            self._submit(maps[start : start + size])
        self._map_rest = maps[whole:].copy()

    def _submit(self, rows: np.ndarray) -> None:
        while self._pending and (self._pending[0].done() or len(self._pending) >= self._most_pending):
            self._pending.popleft().result()
        future = self._compressors.submit(deflate_chunk, rows, self._map_chunk_rows)
        self._pending.append(future)
        self._map_chunks.append(future)

    def _write_array(self, file: h5py.File, array: Array) -> None:
        shape = layout.array_shape(array, self.plan, self.shard.count)
        if array.storage == "text":
            # error lines are as long as they happen to be
            texts = encode_text(self._texts[array.name], self.plan.text_bytes.get(array.name))
            layout.write_texts(layout.create(file, array, shape, texts.dtype.itemsize), texts)
        elif array.storage == "deflate":
            dataset = layout.create(file, array, shape)
            for i, chunk in enumerate(self._map_chunks):
                dataset.id.write_direct_chunk((i * self._map_chunk_rows, 0, 0), chunk.result())
        else:
            layout.create(file, array, shape)[...] = self._columns[array.name]


class ShardWriter:
    """Lands shards in the background, one at a time, while the next one is computed.

    Use it with `with`: on a clean exit everything submitted has landed; on an exception the shard that is being
    landed still finishes, and nothing that was incomplete gets a final name.

    Args:
        weight: classifier weight, float32 (K, C).
        bias: classifier bias, float32 (K,).
        threads: threads that compress maps.
        on_landed: called with each shard that has landed, by the thread that landed it.
    """

    def __init__(
        self,
        run: Path,
        plan: Plan,
        weight: np.ndarray,
        bias: np.ndarray,
        threads: int = 2,
        on_landed: Callable[[Shard], None] = lambda shard: None,
    ) -> None:
        self.landed: list[LandedShard] = []
        self.busy_s = 0.0
        self._folder = run / SHARD_FOLDER
        self._plan, self._weight, self._bias = plan, weight, bias
        self._on_landed = on_landed
        self._compressors = ThreadPoolExecutor(threads, thread_name_prefix="compress")
        self._lander = ThreadPoolExecutor(1, thread_name_prefix="land")
        self._landing: Future[LandedShard] | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._lander.shutdown()
            self._compressors.shutdown(cancel_futures=True)
        landing_now, self._landing = self._landing, None
        if landing_now and not landing_now.exception():
            self.landed.append(landing_now.result())

    def builder(self, shard: Shard) -> ShardBuilder:
        """Return an empty builder for `shard`."""
        return ShardBuilder(self._plan, shard, self._weight, self._bias, self._compressors)

    def submit(self, builder: ShardBuilder, replace: bool = False) -> None:
        """Land a full shard in the background; wait first for the one before it, and raise what went wrong with it.

        Args:
            replace: whether it takes the place of one that is there, instead of leaving that.
        """
        self.wait()
        self._landing = self._lander.submit(self._land, builder, replace)

    def wait(self) -> None:
        """Wait until what was submitted has landed; raise what went wrong."""
        landing_now, self._landing = self._landing, None
        if landing_now:
            self.landed.append(landing_now.result())

    def _land(self, builder: ShardBuilder, replace: bool) -> LandedShard:
        start = time.perf_counter()
        image = builder.image()
        path = self._folder / builder.shard.file
        digest, inode = landing.land_own(path, image, replace)
        stamp = None if inode is None else stamp_of_landed(path, digest, inode)
        self.busy_s += time.perf_counter() - start
        self._on_landed(builder.shard)
        return LandedShard(builder.shard, stamp)


def has_landed(run: Path, shard: Shard) -> bool:
    """Return whether `shard` lies in `run` with its digest."""
    path = run / SHARD_FOLDER / shard.file
    return path.exists() and landing.read_digest(path) is not None


class ShardNames:
    """What lies in the shard folder of a run, by one listing of its names and nothing else.

    Attributes:
        names: all of them, of leases too.
    """

    def __init__(self, run: Path) -> None:
        folder = run / SHARD_FOLDER
        self.names = frozenset(os.listdir(folder) if folder.is_dir() and not folder.is_symlink() else ())

    def has(self, shard: Shard) -> bool:
        """Return whether `shard` lies there beside a file for its digest."""
        return shard.file in self.names and shard.file + DIGEST_SUFFIX in self.names


def landed_shards(run: Path, plan: Plan, looked_at: Callable[[int], bool] = lambda index: True) -> set[int]:
    """Return the indices of the shards that lie in `run` with their digest.

    Args:
        looked_at: of which shards, by index, the digest is read: a copy that was broken off may have left an empty one.
            Of none of a run that lies elsewhere, where a million files are not asked for at once.
    """
    names, folder = ShardNames(run), run / SHARD_FOLDER
    listed = (shard for shard in plan.shards if names.has(shard))
    if elsewhere(run):
        return {shard.index for shard in listed}
    return {s.index for s in listed if not looked_at(s.index) or landing.read_digest(folder / s.file) is not None}
