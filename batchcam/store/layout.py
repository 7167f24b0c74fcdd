"""HDF5 objects of the schema: datasets with their filters, dimension scales and words, for shards and run.h5 alike."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import h5py
import numpy as np

from batchcam.rules import Status
from batchcam.store import schema
from batchcam.store.plan import Plan
from batchcam.store.sink import Sink
from batchcam.version import version

Columns = Mapping[str, np.ndarray]

TEXTS_OF_PLAN = ("checkpoint_sha256", "dataset_fingerprint", "architecture", "target_layer", "method", "control")
"""Fields of the plan that each file says too, as attributes."""

WORDS_BYTES = 2**16
"""Units, meanings, names of dimensions and HDF5's own structures; measured are 46 kB."""

FILE_FORMAT: Final = (h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
"""HDF5 1.10 file format: metadata with checksums; readers with HDF5 1.10 can't open newer formats."""

OLDEST_FORMAT: Final = (h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_V18)
"""Each object in the oldest form that holds it, as readers want that are no HDF5 library; without checksums."""

TEXT_FILTERS: Final[Mapping[str, Any]] = {"compression": "gzip", "compression_opts": 4, "shuffle": True}


def new_file(buffer: io.BytesIO | Sink, versions: tuple[int, int] = FILE_FORMAT) -> h5py.File:
    """Return a new HDF5 file inside `buffer`: HDF5 itself never touches a disk, whose errors it does not survive."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_libver_bounds(*versions)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, buffer)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)  # h5py.File before 3.15 puts the time into the root group
    return h5py.File(h5py.h5f.create(b"memory", h5py.h5f.ACC_TRUNC, fcpl=creation, fapl=access))


def create_group(file: h5py.File, name: str) -> None:
    """Create a group without the time of its creation, which h5py before 3.15 always stores."""
    creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    h5py.h5g.create(file.id, name.encode(), gcpl=creation)


def set_text(attributes: h5py.AttributeManager, name: str, text: str) -> None:
    """Store a fixed-length UTF-8 attribute; fixed, since HDF5 keeps no checksum over variable-length text."""
    encoded = text.encode()
    attributes.create(name, encoded, dtype=h5py.string_dtype("utf-8", max(1, len(encoded))))


def header(plan: Plan, first: int, count: int) -> dict[str, str | np.int64]:
    """Return the root attributes: identity of the run, samples of this file, words on units and sign."""
    numbers = {"schema_version": plan.schema_version, "schema_min_reader": plan.schema_min_reader}
    numbers |= {"first_sample": first, "sample_count": count}
    return {
        "batchcam_version": version(),
        "run_id": plan.run_id,
        **{name: getattr(plan, name) for name in TEXTS_OF_PLAN},
        **({schema.PROBLEM_TYPE: plan.problem_type} if plan.is_multi_label else {}),
        **(schema.OFFSET_WORDS if plan.has_offset else schema.ROOT_WORDS if plan.exact else schema.GRADIENT_WORDS),
        **{name: np.int64(number) for name, number in numbers.items() if number is not None},
    }


def write_header(file: h5py.File, plan: Plan, first: int, count: int) -> None:
    """Write the root attributes, see `header`."""
    set_attributes(file.attrs, header(plan, first, count))


def set_attributes(attributes: h5py.AttributeManager, values: Mapping[str, Any]) -> None:
    """Store texts as `set_text` does, and numbers in their type."""
    for name, value in values.items():
        if isinstance(value, str):
            set_text(attributes, name, value)
        else:
            attributes[name] = value


def scale_values(plan: Plan) -> dict[str, np.ndarray]:
    """Return the dimension scales that are no arrays of the schema: positions of cells, pixels, ranks, short axes."""
    positions = {
        "map_rank": np.arange(plan.maps_per_sample),
        "channel": np.arange(plan.channels),
        "sha256_byte": np.arange(32),
    }
    for name, length in zip(("cam_y", "cam_x", "y", "x"), plan.grid_size + plan.input_size, strict=True):
        if name.startswith("cam_") or plan.maps != "none":
            positions[name] = ((np.arange(length) + 0.5) / length).astype(np.float32)
    for name, labels in schema.LABELLED_DIMS.items():
        if name != "range_end" or plan.maps != "none":
            positions[name] = schema.encode_text(list(labels))
    return positions


def write_scales(file: h5py.File, plan: Plan) -> None:
    """Write the dimension scales that are no arrays of the schema."""
    for name, values in scale_values(plan).items():
        if values.dtype.kind == "S":
            write_text(file, name, values).make_scale(name)
            continue
        scale = file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True)
        scale.make_scale(name)
        if values.dtype == np.float32:
            set_text(scale.attrs, "long_name", "centre of the cell or pixel, as a share of the network's input")


def write_classes(file: h5py.File, plan: Plan, weight: np.ndarray, bias: np.ndarray) -> None:
    """Write the classes' names, the last layer's weight (K, C) and bias (K,), and the plan as JSON."""
    write_class_names(file, plan)
    if plan.is_multi_label:
        create(file, schema.THRESHOLD, (len(plan.thresholds),))[...] = plan.thresholds
    for array, values in zip(schema.CLASSIFIER_ARRAYS, (weight, bias), strict=True):
        dataset = create(file, array, values.shape)
        dataset[...] = values
    config = plan.config_text().encode()
    file.create_dataset(schema.CONFIG, data=as_utf8(np.array(config)))


def write_class_names(file: h5py.File, plan: Plan) -> None:
    """Write the classes' names, which are a dimension scale."""
    names = write_text(file, schema.CLASS_NAME.name, schema.encode_text(list(plan.class_names)))
    names.make_scale(schema.CLASS_NAME.name)
    describe(names, schema.CLASS_NAME)


def as_utf8(texts: np.ndarray) -> np.ndarray:
    """Return encoded `texts`, type S(width), in the type that h5py writes as UTF-8 (numpy knows no encodings)."""
    return texts.astype(h5py.string_dtype("utf-8", texts.dtype.itemsize))


def write_text(file: h5py.File, name: str, texts: np.ndarray) -> h5py.Dataset:
    """Create a compressed dataset of fixed-length UTF-8 from encoded `texts`, type S(width)."""
    return file.create_dataset(
        name, data=as_utf8(texts), chunks=(schema.text_chunk_rows(len(texts), texts.dtype.itemsize),), **TEXT_FILTERS
    )


def create(file: h5py.File, array: schema.Array, shape: Sequence[int], text_width: int = 1) -> h5py.Dataset:
    """Create `array`, empty, with its filters, fill value, words and dimension scales (which must exist)."""
    if array.storage == "text":
        dtype, filters = h5py.string_dtype("utf-8", text_width), TEXT_FILTERS
    elif array.storage == "deflate":
        dtype = np.dtype(array.dtype)
        filters = {"compression": "gzip", "compression_opts": 1, "shuffle": dtype.itemsize > 1}
    else:
        dtype, filters = np.dtype(array.dtype), {"fletcher32": True}
        if array.storage == "sparse":
            filters |= {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    group = array.name.rpartition("/")[0]
    if group and group not in file:
        create_group(file, group)
    chunks = (_chunk_rows(array, shape, text_width), *shape[1:])
    dataset = file.create_dataset(array.name, shape, dtype, chunks=chunks, fillvalue=array.fill or None, **filters)
    attach_scales(file, dataset, array)
    describe(dataset, array)
    return dataset


def write_texts(dataset: h5py.Dataset, texts: np.ndarray, first: int = 0) -> None:
    """Write encoded texts from row `first` on, where a chunk begins; of chunks of empty ones none is stored."""
    rows = dataset.chunks[0]
    for start in range(0, len(texts), rows):
        some = texts[start : start + rows]
        if (some != b"").any():
            dataset[first + start : first + start + len(some)] = as_utf8(some)


def _chunk_rows(array: schema.Array, shape: Sequence[int], text_width: int) -> int:
    if array.storage == "text":
        return schema.text_chunk_rows(shape[0], text_width)
    if array.storage == "deflate":
        return schema.map_chunk_rows(*shape)
    return schema.column_chunk_rows(shape[0], np.dtype(array.dtype).itemsize * int(np.prod(shape[1:])))


def stored_bytes(array: schema.Array, plan: Plan, count: int) -> int:
    """Return at most how many bytes `array` takes for `count` samples: whole chunks, as if nothing compressed them."""
    shape = array_shape(array, plan, count)
    widths = plan.text_bytes  # error lines are as long as they happen to be
    text = array.storage == "text"
    width = widths.get(array.name, widths["sample_id"]) if text else np.dtype(array.dtype).itemsize
    rows = _chunk_rows(array, shape, width)
    return -(-shape[0] // rows) * rows * int(np.prod(shape[1:])) * width


def head_bytes(plan: Plan) -> int:
    """Return about how many bytes a file takes whatever samples it holds: classifier, plan, class names, words."""
    names = len(plan.class_names) * max(len(name.encode()) for name in plan.class_names)
    classifier = sum(stored_bytes(array, plan, 1) for array in schema.CLASSIFIER_ARRAYS)
    return classifier + len(plan.config_text().encode()) + names + WORDS_BYTES


def shard_bytes(plan: Plan, count: int) -> int:
    """Return at most how many bytes a shard of `count` samples takes."""
    arrays = plan.arrays
    return head_bytes(plan) + sum(stored_bytes(array, plan, count) for array in arrays)


def attach_scales(file: h5py.File, dataset: h5py.Dataset, array: schema.Array) -> None:
    """Attach the dimension scales of `array`; an array that is its own dimension becomes the scale."""
    if array.dims == (array.name,):
        dataset.make_scale(array.name)
        return
    for axis, name in enumerate(array.dims):
        dataset.dims[axis].attach_scale(file[name])


def words(array: schema.Array) -> dict[str, Any]:
    """Return the attributes that explain `array` to a reader without this code."""
    told: dict[str, Any] = {"long_name": array.meaning, **({"units": array.units} if array.units else {})}
    if array.name == "status":
        flags = [f for f in Status if f]
        told["flag_masks"] = np.array(flags, np.uint8)
        told["flag_meanings"] = " ".join(str(f.name).lower() for f in flags)
    return told


def describe(dataset: h5py.Dataset, array: schema.Array) -> None:
    """Write the attributes that explain `array`, and where `maps` are pictures, that they are."""
    set_attributes(dataset.attrs, words(array))
    if array.name == "maps" and array.dtype == "uint8":
        for name, value in schema.IMAGE_ATTRIBUTES.items():
            dataset.attrs.create(name, np.bytes_(value))
        dataset.attrs["IMAGE_MINMAXRANGE"] = np.array([0, 255], np.uint8)
        dataset.attrs["IMAGE_WHITE_IS_ZERO"] = np.uint8(0)


def array_shape(array: schema.Array, plan: Plan, count: int) -> tuple[int, ...]:
    """Return the shape of `array` in a file of `count` samples."""
    lengths = {
        "sample_index": count,
        "class_name": len(plan.class_names),
        "map_rank": plan.maps_per_sample,
        "channel": plan.channels,
        "sha256_byte": 32,
        **{name: len(labels) for name, labels in schema.LABELLED_DIMS.items()},
        **dict(zip(("cam_y", "cam_x", "y", "x"), plan.grid_size + plan.input_size, strict=True)),
    }
    return tuple(lengths[d] for d in array.dims)
