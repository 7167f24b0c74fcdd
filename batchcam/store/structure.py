"""Is an HDF5 file built as the schema says? Asked before its content is read, without opening anything outside of it.

A run may come from someone else, with digests that are right. HDF5 follows soft, external and user-defined links, reads
other files in place of a dataset's own bytes, loads filters from a folder of plugins and fills any shape a file claims;
none of this occurs in a run, so each is told from the file's metadata and refused.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5p, h5s, h5t, h5z

from batchcam.errors import RunError
from batchcam.store import schema
from batchcam.store.layout import array_shape
from batchcam.store.plan import Plan, Shard

Problem = tuple[str, str]
"""An array, and what is wrong with it."""

PIECE_BYTES = 2**30
"""Bytes of a compressed row or chunk, which are unfolded as a whole: a float32 map of plan.PIXEL_LIMIT pixels."""

DEFLATE_RATIO = 1032
"""Deflate makes nothing smaller than this, so that a file's size bounds what it can unfold to."""

FILTERS = {
    "checked": {h5z.FILTER_FLETCHER32},
    "text": {h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE},
    "deflate": {h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE},
    "sparse": {h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE, h5z.FILTER_FLETCHER32},
}
"""What may stand between an array and its bytes, by storage, each once."""

ELSEWHERE = "missing, or keeps its content elsewhere"


def require(file: h5py.File, plan: Plan, shard: Shard | None, path: Path) -> None:
    """Raise RunError unless what a reader takes from this shard, or run.h5 (None), is built as the schema says."""
    run_id, *samples = identity(file)
    first, count = _samples(plan, shard)
    if run_id != plan.run_id:
        raise RunError(f"{path}: belongs to another run; see batchcam verify")
    if samples != [first, count]:
        raise RunError(f"{path}: not this run's file of samples {first} to {first + count - 1}; see batchcam verify")
    for array, problem in problems(file, plan, shard):
        raise RunError(f"{path}: {array}: {problem}; see batchcam verify")


def identity(file: h5py.File) -> tuple[object, object, object]:
    """Return run id, first sample and sample count as the file states them; None for what it does not."""
    run_id, first, count = (attribute(file, name) for name in ("run_id", "first_sample", "sample_count"))
    return run_id, first, count


def problems(file: h5py.File, plan: Plan, shard: Shard | None) -> Iterator[Problem]:
    """Yield what is wrong with the arrays of a shard, or of run.h5 itself (None): names, types, shapes, storage.

    Nothing yielded: they can be read, and unfold to no more than a multiple of the file's size. Arrays of run.h5 that
    lie in the shards are left to `virtual_problem`: nobody reads them through run.h5.
    """
    _, count = _samples(plan, shard)
    arrays = [*plan.arrays, *plan.class_arrays]
    yield from array_problems(
        file, [a for a in arrays if shard is not None or not lies_in_shards(file, a, plan)], plan, count
    )
    if problem := _config_problem(file):
        yield schema.CONFIG, problem


def array_problems(file: h5py.File, arrays: Sequence[schema.Array], plan: Plan, count: int) -> Iterator[Problem]:
    """Yield what is wrong with `arrays` of a file of `count` samples, all of whose bytes lie in it."""
    sizes: dict[str, dict[str, int]] = {storage: {} for storage in FILTERS}
    for array in arrays:
        shape = array_shape(array, plan, count)
        dataset = _dataset(file, array.name)
        problem = _problem(dataset, array, shape, plan) if dataset else ELSEWHERE
        if problem:
            yield array.name, problem
        elif dataset:
            sizes[array.storage][array.name] = math.prod(shape) * dataset.item_bytes
    for storage, each in sizes.items():
        most = file.id.get_filesize() * (1 if storage == "checked" else DEFLATE_RATIO)
        if sum(each.values()) > most:
            yield max(each, key=each.__getitem__), f"{sum(each.values())} bytes, of which the file can hold {most}"


def lies_in_shards(file: h5py.File, array: schema.Array, plan: Plan) -> bool:
    """Return whether run.h5 leaves an array to the shards that it may leave to them; none of them is opened."""
    left = array.name in schema.VIRTUAL_IN_MASTER or (array.dims[0] == "sample_index" and len(array.dims) > 1)
    return left and (_dataset(file, array.name, virtual=True) is not None or _is_left_out(file, array, plan))


def _is_left_out(file: h5py.File, array: schema.Array, plan: Plan) -> bool:
    """Return whether run.h5 does not even refer to an array, as there are too many shards for that."""
    return not schema.has_references(len(plan.shards)) and not file.id.links.exists(array.name.encode())


def is_own_group(file: h5py.File, name: str) -> bool:
    """Return whether `name` is a group of this file, and no link to one."""
    return isinstance(_open(file.id, name.encode()), h5g.GroupID)


def value_problem(file: h5py.File, name: str, values: np.ndarray) -> str | None:
    """Return what is wrong with a small dataset of the schema that must hold `values`."""
    dataset = _dataset(file, name)
    if not dataset:
        return ELSEWHERE
    text = dataset.is_text and values.dtype.kind == "S" and dataset.item_bytes <= schema.MOST_TEXT_BYTES
    sound = dataset.shape == values.shape and (text or dataset.kind == _type_of(values.dtype.str))
    if not sound or _storage_problem(dataset, "text" if text else "checked", values.shape):
        return "not what follows from run.json"
    return None if np.array_equal(h5py.Dataset(dataset.opened)[()], values) else "not what follows from run.json"


def column(file: h5py.File, name: str, dtype: np.dtype[Any], rows: int) -> np.ndarray | None:
    """Return a dataset of one value a row, None where it is not built as the schema says; texts of at most dtype."""
    dataset = _dataset(file, name)
    text = dtype.kind == "S"
    if not dataset or dataset.shape != (rows,) or rows * dataset.item_bytes > DEFLATE_RATIO * file.id.get_filesize():
        return None
    fits = dataset.is_text and dataset.item_bytes <= dtype.itemsize if text else dataset.kind == _type_of(dtype.str)
    if not fits or _storage_problem(dataset, "text" if text else "checked", (rows,)):
        return None
    return np.asarray(h5py.Dataset(dataset.opened)[()])


def virtual_problem(file: h5py.File, array: schema.Array, plan: Plan) -> str | None:
    """Return what is wrong with an array of run.h5 that lies in the shards; reads none of them."""
    if _is_left_out(file, array, plan):
        return None
    dataset = _dataset(file, array.name, virtual=True)
    # before its shape is asked for: HDF5 may look into the sources to find it
    if not dataset or not _refers_to_shards(dataset.storage, array, plan):
        return "keeps its content in other files than the run's shards"
    shape = array_shape(array, plan, plan.sample_count)
    if dataset.shape != shape:
        return f"shape {dataset.shape}, schema wants {shape}"
    return None if dataset.kind == _type_of(array.dtype) else f"type {_described(dataset.kind)}, not {array.dtype}"


def attribute(file: h5py.File, name: str) -> str | int | None:
    """Return an attribute of the root group that is a fixed-length text or an integer, None when it is neither."""
    encoded = name.encode()
    if not h5a.exists(file.id, encoded):
        return None
    each = h5a.open(file.id, encoded)
    kind = each.get_type()
    if each.get_space().get_simple_extent_type() != h5s.SCALAR or kind.get_size() > schema.MOST_TEXT_BYTES:
        return None
    if isinstance(kind, h5t.TypeStringID) and not kind.is_variable_str():
        text = np.empty((), f"S{kind.get_size()}")
        each.read(text, mtype=kind)  # HDF5 converts no UTF-8 to what numpy calls S
        return bytes(text[()]).decode("utf-8", "replace")
    if isinstance(kind, h5t.TypeIntegerID):
        number = np.empty((), np.int64)
        each.read(number)
        return int(number)
    return None


def config_text(file: h5py.File) -> bytes:
    """Return the plan of a shard as JSON text.

    Raises:
        ValueError: it holds none.
    """
    if problem := _config_problem(file):
        raise ValueError(f"{schema.CONFIG}: {problem}")
    return bytes(file[schema.CONFIG][()])


def class_names(file: h5py.File) -> np.ndarray:
    """Return the class names of a shard whose plan is not known yet, encoded.

    Raises:
        ValueError: it holds none.
    """
    dataset = _dataset(file, schema.CLASS_NAME.name)
    shape = dataset.shape if dataset else None
    if not dataset or not dataset.is_text or not shape or len(shape) != 1:
        raise ValueError(f"{schema.CLASS_NAME.name}: not fixed-length texts of this file")
    limit = min(PIECE_BYTES, DEFLATE_RATIO * file.id.get_filesize())
    if _storage_problem(dataset, "text", shape) or shape[0] * dataset.item_bytes > limit:
        raise ValueError(f"{schema.CLASS_NAME.name}: not stored as the schema says")
    return np.asarray(h5py.Dataset(dataset.opened)[...])


class _Dataset:
    """A dataset that hard links lead to and whose bytes lie in this file, unless it is virtual."""

    def __init__(self, opened: h5d.DatasetID, storage: h5p.PropDCID) -> None:
        self.opened, self.storage, self.kind = opened, storage, opened.get_type()

    @property
    def shape(self) -> tuple[int, ...] | None:
        """None: a null dataspace."""
        space = self.opened.get_space()
        shape: tuple[int, ...] = space.get_simple_extent_dims()
        return None if not shape and space.get_simple_extent_type() == h5s.NULL else shape

    @property
    def item_bytes(self) -> int:
        return int(self.kind.get_size())

    @property
    def is_text(self) -> bool:
        return isinstance(self.kind, h5t.TypeStringID) and not self.kind.is_variable_str()


def _dataset(file: h5py.File, name: str, virtual: bool = False) -> _Dataset | None:
    """Return the dataset at `name`, None unless hard links lead there and its bytes lie in this file."""
    here: Any = file.id
    for part in name.encode().split(b"/"):
        here = _open(here, part)
    if not isinstance(here, h5d.DatasetID):
        return None
    storage = here.get_create_plist()
    if (storage.get_layout() == h5d.VIRTUAL) != virtual or storage.get_external_count():
        return None
    return _Dataset(here, storage)


def _open(group: Any, name: bytes) -> Any:
    """Return the object that a hard link leads to, None when there is none: other links may lead out of the file."""
    try:
        if not isinstance(group, h5g.GroupID) or group.links.get_info(name).type != h5l.TYPE_HARD:
            return None
    except RuntimeError:  # no such name
        return None
    return h5o.open(group, name)


def _samples(plan: Plan, shard: Shard | None) -> tuple[int, int]:
    return (0, plan.sample_count) if shard is None else (shard.first, shard.count)


def _problem(dataset: _Dataset, array: schema.Array, shape: tuple[int, ...], plan: Plan) -> str | None:
    if dataset.shape != shape:
        return f"shape {dataset.shape}, schema wants {shape}"
    if array.dtype == "text" and not dataset.is_text:
        return f"type {_described(dataset.kind)}, schema wants fixed-length text"
    if array.dtype != "text" and dataset.kind != _type_of(array.dtype):
        return f"type {_described(dataset.kind)}, schema wants {array.dtype}"
    longest = plan.text_bytes.get(array.name, schema.MOST_TEXT_BYTES)
    if array.dtype == "text" and dataset.item_bytes > min(longest, schema.MOST_TEXT_BYTES):
        return f"texts of {dataset.item_bytes} bytes"
    row_bytes = math.prod(shape[1:]) * dataset.item_bytes
    if array.storage != "checked" and row_bytes > PIECE_BYTES:
        return f"rows of {row_bytes} bytes: more than this batchcam reads"
    return _storage_problem(dataset, array.storage, shape)


def _storage_problem(dataset: _Dataset, storage: str, shape: tuple[int, ...]) -> str | None:
    made = dataset.storage
    filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
    if len(set(filters)) != len(filters) or not set(filters) <= FILTERS[storage]:
        return "needs a filter that the schema does not have here"
    if made.get_layout() == h5d.CHUNKED:
        chunk = made.get_chunk()
        larger = any(c > max(1, n) for c, n in zip(chunk, shape, strict=True))
        if larger or (storage != "checked" and math.prod(chunk) * dataset.item_bytes > PIECE_BYTES):
            return f"chunks of shape {chunk}"
    return None


def _config_problem(file: h5py.File) -> str | None:
    dataset = _dataset(file, schema.CONFIG)
    if not dataset:
        return ELSEWHERE
    fixed = dataset.is_text and dataset.shape == ()
    if not fixed or dataset.storage.get_nfilters() or dataset.item_bytes > file.id.get_filesize():
        return "not one fixed-length text"
    return None


@functools.cache
def _type_of(dtype: str) -> h5t.TypeID:
    return h5t.py_create(np.dtype(dtype))


def _described(kind: h5t.TypeID) -> str:
    classes = {
        h5t.INTEGER: "integer", h5t.FLOAT: "float", h5t.STRING: "text", h5t.COMPOUND: "compound", h5t.ENUM: "enum",
        h5t.REFERENCE: "reference", h5t.VLEN: "variable length", h5t.OPAQUE: "opaque", h5t.ARRAY: "array",
        h5t.BITFIELD: "bit field", h5t.TIME: "time",
    }  # fmt: skip
    return f"{classes.get(kind.get_class(), 'unknown')} of {kind.get_size()} bytes"


def _refers_to_shards(storage: h5p.PropDCID, array: schema.Array, plan: Plan) -> bool:
    """Return whether a virtual dataset is made of the plan's shards, each as a whole, in their order."""
    if storage.get_virtual_count() != len(plan.shards):
        return False
    name = array.name
    for place, shard in enumerate(plan.shards):
        shape = array_shape(array, plan, shard.count)
        here, there = storage.get_virtual_vspace(place), storage.get_virtual_srcspace(place)
        last = (shard.first + shard.count - 1, *(n - 1 for n in shape[1:]))
        if (
            storage.get_virtual_filename(place) != f"{schema.SHARD_FOLDER}/{shard.file}"
            or storage.get_virtual_dsetname(place) != name
            or there.get_select_type() != h5s.SEL_ALL
            or here.get_select_npoints() != math.prod(shape)
            or here.get_select_bounds() != ((shard.first, *(0 for _ in shape[1:])), last)
        ):
            return False
    return True
