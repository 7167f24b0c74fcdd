"""References that show a run's files as one Zarr store: where each chunk lies, in kerchunk's JSON; no data is copied.

https://fsspec.github.io/kerchunk/spec.html, version 1, of a Zarr 2 store. Paths are relative to the run.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final

import h5py
import numpy as np
from h5py import h5z

from batchcam.commands.export.form import Task
from batchcam.errors import RunError
from batchcam.record.rows import Outcome
from batchcam.store import layout, structure
from batchcam.store.compression import deflate_chunk
from batchcam.store.plan import Plan
from batchcam.store.reader import read
from batchcam.store.schema import CONFIG, MASTER_FILE, SHARD_FOLDER, Array
from batchcam.store.series import require_run

FILE: Final = "references.json"
SHARD_AXIS: Final = "shard"
ROW_AXIS: Final = "row_of_shard"
DEFLATE: Final = {h5z.FILTER_DEFLATE: {"id": "zlib", "level": 1}}
CHECKSUM_BYTES: Final = 4  # Fletcher's, at the end of a chunk


def write(task: Task) -> Outcome:
    """Write the references: columns that run.h5 has lie there, others in the shards; all of a single shard in that.

    Raises:
        RunError: it is a series, or a run without a run.h5.
    """
    run, plan = task.run, task.run.plan
    require_run(run.path, "export --to zarr")
    is_shard = run.path.is_file()
    if not (is_shard or run.complete):
        raise RunError(
            f"{run.path}: not complete: references to its run.h5 can be made when it is; run batchcam explain"
        )
    home, path = run.file(run.shards[0] if is_shard else None), run.path.name if is_shard else MASTER_FILE
    arrays = [*plan.arrays, *plan.class_arrays, *_scales(home, plan)]
    lie_apart = [array for array in arrays if not is_shard and structure.lies_in_shards(home, array, plan)]
    with task.folder.stream(FILE) as content:
        store = _Store(content)
        for array in arrays:
            if array not in lie_apart:
                dataset = home[array.name]
                columns = _Columns(array, dataset, dataset.shape, len(dataset))
                store.refer(columns, dataset, path)
                store.describe(columns)
        apart = _refer_to_shards(task, store, lie_apart)
        store.finish({**layout.header(plan, run.shards[0].first, len(run)), CONFIG: plan.config_text()})
    notes = [f"paths are relative to {run.path.parent if is_shard else run.path}"]
    if apart:
        notes.append(f"{', '.join(apart)}: by {SHARD_AXIS} and {ROW_AXIS}, as a shard is no whole number of chunks")
    return Outcome(len(run), notes=tuple(notes))


def _scales(file: h5py.File, plan: Plan) -> Iterator[Array]:
    """Yield the dimension scales of a file, which hold what follows from the plan."""
    for name, values in layout.scale_values(plan).items():
        if problem := structure.value_problem(file, name, values):
            raise RunError(f"{file.filename}: {name}: {problem}; see batchcam verify")
        yield Array(name, (name,), values.dtype.name, "checked", 0, "positions along this dimension")


def _refer_to_shards(task: Task, store: _Store, arrays: Sequence[Array]) -> list[str]:
    """Write the references to arrays that lie in the shards; return the names of those that have an axis of shards."""
    run, columns = task.run, dict[str, _Columns]()
    for shard in run.shards:
        for array in arrays:
            dataset = run.file(shard)[array.name]
            if array.name not in columns:
                shape = layout.array_shape(array, run.plan, len(run))
                columns[array.name] = _Columns(array, dataset, shape, run.plan.shard_size)
            store.refer(columns[array.name], dataset, f"{SHARD_FOLDER}/{shard.file}", shard.first)
        task.advance(shard.count)
    for each in columns.values():
        store.describe(each)
    return [name for name, each in columns.items() if each.has_shard_axis]


class _Columns:
    """An array over one file or several, and how Zarr cuts its rows.

    Zarr's chunks are all of one size, and each lies in a chunk of HDF5's, of which none goes over the end of a file.
    Where they are compressed and do not fill a file, files are an axis of their own.

    Args:
        first: the array in the first file.
        shape: over all files.
        file_rows: rows of each file but the last.
    """

    def __init__(self, array: Array, first: h5py.Dataset, shape: Sequence[int], file_rows: int) -> None:
        self.array, self.dtype, self.file_rows = array, first.dtype, file_rows
        self.filters, self.stored_rows = _filters(first), first.chunks[0] if first.chunks else 0
        self.is_compressed = h5z.FILTER_DEFLATE in self.filters
        fills = shape[0] == file_rows or file_rows % max(1, self.stored_rows) == 0
        self.has_shard_axis = self.is_compressed and not fills
        self.rows = self.stored_rows if fills or self.is_compressed else math.gcd(self.stored_rows, file_rows)
        leading = [-(-shape[0] // file_rows), file_rows] if self.has_shard_axis else [shape[0]]
        self.shape, self.chunk = [*leading, *shape[1:]], [*(1, self.rows)[-len(leading) :], *shape[1:]]
        self.row_bytes = math.prod(shape[1:]) * self.dtype.itemsize
        self.chunk_bytes = self.rows * self.row_bytes

    def key(self, row: int) -> str:
        """Return the key of the chunk that begins at a row."""
        *shard, row = divmod(row, self.file_rows) if self.has_shard_axis else (row,)
        return ".".join(map(str, (*shard, row // self.rows, *(0 for _ in self.chunk[len(shard) + 1 :]))))

    def pieces(self, dataset: h5py.Dataset) -> Iterator[tuple[int, tuple[int, int] | bytes]]:
        """Yield the row at which each chunk of a file begins, with its offset and size there, or else its content.

        Raises:
            RunError: the array is not stored as in the first file.
        """
        rows, *others = dataset.chunks or [0]
        is_short = rows == len(dataset) < self.stored_rows
        sound = others == [*dataset.shape[1:]] and _filters(dataset) == self.filters
        stored: list[Any] = []
        if sound := sound and (is_short or rows == self.stored_rows):
            dataset.id.chunk_iter(stored.append)
        # of texts, chunks of empty ones are not stored
        whole = self.array.storage == "text" or len(stored) * rows >= len(dataset)
        if not sound or not whole or any(each.filter_mask for each in stored):
            raise RunError(f"{dataset.file.filename}: {self.array.name}: stored in other chunks than batchcam's")
        for each in stored:
            first, offset = each.chunk_offset[0], each.byte_offset
            if self.is_compressed:
                tail = CHECKSUM_BYTES * (h5z.FILTER_FLETCHER32 in self.filters)
                yield first, deflate_chunk(read(dataset, ...), self.rows) if is_short else (offset, each.size - tail)
                continue
            for row in range(first, min(first + rows, len(dataset)), self.rows):
                start = offset + (row - first) * self.row_bytes
                # behind the last row of all, whatever follows in the file stands for rows that Zarr does not show
                if start + self.chunk_bytes <= dataset.file.id.get_filesize():
                    yield row, (start, self.chunk_bytes)
                else:
                    some = read(dataset, slice(row, row + self.rows))
                    yield row, some.tobytes().ljust(self.chunk_bytes, b"\0")


class _Store:
    """The file of references as it grows."""

    def __init__(self, content: BinaryIO) -> None:
        self._content, self._metadata = content, dict[str, Any]()
        self._content.write(b'{"version":1,"refs":{')

    def refer(self, columns: _Columns, dataset: h5py.Dataset, path: str, first: int = 0) -> None:
        """Refer to the rows of an array that a file has, of which `first` is the first."""
        for row, piece in columns.pieces(dataset):
            key = f"{columns.array.name}/{columns.key(first + row)}"
            self._put(key, [path, *piece] if isinstance(piece, tuple) else f"base64:{base64.b64encode(piece).decode()}")

    def describe(self, columns: _Columns) -> None:
        """Say what an array is of which all rows are referred to."""
        array, dims = columns.array, [*columns.array.dims]
        if columns.has_shard_axis:
            dims[:1] = [SHARD_AXIS, ROW_AXIS]
        codecs = {h5z.FILTER_SHUFFLE: {"id": "shuffle", "elementsize": columns.dtype.itemsize}} | DEFLATE
        self._metadata[f"{array.name}/.zarray"] = {
            "zarr_format": 2,
            "shape": columns.shape,
            "chunks": columns.chunk,
            "dtype": columns.dtype.str,
            "order": "C",
            "filters": [codecs[each] for each in columns.filters if each in codecs] or None,
            "compressor": None,
            "fill_value": None,  # xarray would take numbers that equal it for missing ones
        }
        encoding = {"_Encoding": "utf-8"} if columns.dtype.kind == "S" else {}
        self._metadata[f"{array.name}/.zattrs"] = _plain({"_ARRAY_DIMENSIONS": dims, **encoding, **layout.words(array)})

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write what is known of all arrays, and with it the attributes of the whole."""
        for group in ["", *sorted({key.rsplit("/", 2)[0] + "/" for key in self._metadata if key.count("/") > 1})]:
            self._metadata[f"{group}.zgroup"] = {"zarr_format": 2}
        self._metadata[".zattrs"] = _plain(attributes)
        for key, value in self._metadata.items():
            self._put(key, json.dumps(value))
        self._put(".zmetadata", json.dumps({"zarr_consolidated_format": 1, "metadata": self._metadata}))
        self._content.write(b"}}\n")

    def _put(self, key: str, value: str | list[Any]) -> None:
        text = json.dumps({key: value}, separators=(",", ":"))[1:-1]
        self._content.write(f"{text},\n".encode() if key != ".zmetadata" else text.encode())


def _filters(dataset: h5py.Dataset) -> list[int]:
    made = dataset.id.get_create_plist()
    return [made.get_filter(at)[0] for at in range(made.get_nfilters())]


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as JSON has them."""
    return {name: v.tolist() if isinstance(v, (np.ndarray, np.generic)) else v for name, v in attributes.items()}
