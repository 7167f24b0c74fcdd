"""Arrays of an HDF5 file that are created in full size, and filled with rows that come in any number."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from batchcam.store import landing, layout, schema
from batchcam.store.compression import deflate_chunk
from batchcam.store.plan import Plan


class Filling:
    """The arrays of `file` that are filled with `count` rows, in their order."""

    def __init__(self, file: h5py.File, plan: Plan, count: int) -> None:
        self._file, self._plan, self._count = file, plan, count
        self._columns: dict[str, _Column] = {}
        self._late: list[_LateTexts] = []

    def add(self, array: schema.Array) -> None:
        """Create `array`; one of texts whose length nothing states, at the end."""
        create = functools.partial(_create, self._file, self._plan, array, self._count)
        widths = self._plan.text_bytes
        if array.storage == "text" and array.name not in widths:
            late = _LateTexts(create)
            self._late.append(late)
            self._columns[array.name] = _Column(late.keep, schema.TEXT_CHUNK_ROWS)
        else:
            dataset = create(min(widths.get(array.name, 1), schema.MOST_TEXT_BYTES))
            self._columns[array.name] = _Column(_Rows(dataset, array.storage).write, dataset.chunks[0])

    def append(self, columns: layout.Columns) -> None:
        """Fill the next rows, each array from the column of its name."""
        for name, column in self._columns.items():
            column.append(columns[name])

    def finish(self, look: landing.Look = landing.unheeding) -> None:
        """Write what waits for more rows; `look` is called now and then, and may raise to give up."""
        for column in self._columns.values():
            column.flush()
        for late in self._late:
            late.write(look)


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


class _Rows:
    """Writes rows into a dataset, each call below the last."""

    def __init__(self, dataset: h5py.Dataset, storage: schema.Storage) -> None:
        self._dataset, self._storage, self._row = dataset, storage, 0

    def write(self, rows: np.ndarray) -> None:
        stop = self._row + len(rows)
        if self._storage == "text":
            layout.write_texts(self._dataset, rows, self._row)
        elif self._storage == "deflate":
            place = (self._row, *(0 for _ in rows.shape[1:]))
            self._dataset.id.write_direct_chunk(place, deflate_chunk(rows, self._dataset.chunks[0]))
        else:
            self._dataset[self._row : stop] = rows
        self._row = stop


class _LateTexts:
    """Texts as wide as the longest of all: they wait, compressed, until that is known; most are empty."""

    def __init__(self, create: Callable[[int], h5py.Dataset]) -> None:
        self._create = create
        self._waiting: list[tuple[int, np.dtype[Any], bytes]] = []
        self._row = 0

    def keep(self, rows: np.ndarray) -> None:
        texts = np.array(rows.tolist(), "S")
        if (texts != b"").any():
            self._waiting.append((self._row, texts.dtype, zlib.compress(texts.tobytes(), 1)))
        self._row += len(rows)

    def write(self, look: landing.Look) -> None:
        width = max((dtype.itemsize for _, dtype, _ in self._waiting), default=1)
        dataset = self._create(width)
        for row, dtype, texts in self._waiting:
            look()
            layout.write_texts(dataset, np.frombuffer(zlib.decompress(texts), dtype).astype(f"S{width}"), row)


def _create(file: h5py.File, plan: Plan, array: schema.Array, count: int, text_width: int) -> h5py.Dataset:
    """Create `array`; return it without the cache (8 MiB since HDF5 2.0) that collects its chunks."""
    layout.create(file, array, layout.array_shape(array, plan, count), text_width)
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(0, 0, 1.0)
    return h5py.Dataset(h5py.h5d.open(file.id, array.name.encode(), access))
