"""Compare plan, manifest and disk: files, digests, structure. Read-only; digest first, then parse."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from batchcam.errors import RunError
from batchcam.store import landing
from batchcam.store.document import read_document
from batchcam.store.findings import Finding, Kind
from batchcam.store.layout import array_shape, scale_values
from batchcam.store.manifest import FileRecord, Manifest, read_manifest
from batchcam.store.plan import Plan, Shard
from batchcam.store.schema import (
    CLASS_NAME,
    CLASSIFIER_ARRAYS,
    CONFIG,
    DIGEST_SUFFIX,
    MANIFEST_FILE,
    MASTER_FILE,
    PLAN_FILE,
    SHARD_FOLDER,
    SHARD_TABLE,
    TASK_PATTERN,
    Array,
    encode_text,
    sample_arrays,
)

ATTRIBUTES_OF_PLAN = (
    "schema_version",
    "checkpoint_sha256",
    "dataset_fingerprint",
    "architecture",
    "target_layer",
)
BUILT_IN_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}


def load_manifest(run: Path, plan: Plan) -> tuple[Manifest | None, list[Finding]]:
    """Return the manifest, or None and the finding that says why there is none to go by."""
    try:
        return read_manifest(run, plan), []
    except FileNotFoundError:
        return None, [Finding(Kind.MANIFEST_MISSING, MANIFEST_FILE, "the run is not complete; run explain again")]
    except RunError as error:
        return None, [Finding(Kind.MANIFEST_DAMAGED, MANIFEST_FILE, _without_path(error))]


def check_folder(run: Path, plan: Plan) -> Iterator[Finding]:
    """Yield a finding for each file that does not belong into the run, and each damaged task record."""
    shards = {s.file for s in plan.shards}
    expected = {SHARD_FOLDER, PLAN_FILE, MANIFEST_FILE, MASTER_FILE, MASTER_FILE + DIGEST_SUFFIX}
    for folder, names in ((run, expected), (run / SHARD_FOLDER, shards | {s + DIGEST_SUFFIX for s in shards})):
        if not folder.is_dir():
            continue
        leftovers = {path.name for path, _ in landing.partials(folder)}
        for path in sorted(folder.iterdir()):
            name = path.relative_to(run).as_posix()
            if path.name in leftovers:
                yield Finding(
                    Kind.LEFTOVER_FILE, name, "temporary file of a worker that died; run explain or merge again"
                )
            elif path.match(TASK_PATTERN) and folder == run:
                yield from _check_task(path)
            elif path.name not in names:
                yield Finding(Kind.UNEXPECTED_FILE, name, "not a file of this run")


def check_digest(run: Path, name: str, record: FileRecord | None) -> Iterator[Finding]:
    """Yield what is wrong with the bytes of file `name`: presence, size, digest. Nothing yielded: safe to parse.

    Args:
        run: the run directory.
        name: file relative to it.
        record: what the manifest says, None while there is no manifest: then the digest beside the file counts.
    """
    path = run / name
    beside = landing.read_digest(path)
    stated = record.sha256 if record else beside
    if not path.is_file() or path.is_symlink():
        yield Finding(Kind.FILE_MISSING, name, "missing; run explain again")
        return
    if beside is None or beside != stated:
        yield Finding(Kind.DIGEST_FILE_DAMAGED, name + DIGEST_SUFFIX, "missing, damaged, or not the manifest's digest")
    if stated is None:
        return
    if record and path.stat().st_size != record.bytes:
        yield Finding(Kind.SIZE_MISMATCH, name, f"{path.stat().st_size} bytes, manifest says {record.bytes}")
        return
    try:
        actual = landing.file_digest(path)
    except OSError as error:
        yield Finding(Kind.FILE_UNREADABLE, name, f"cannot read: {error.strerror}")
        return
    if actual != stated:
        yield Finding(
            Kind.DIGEST_MISMATCH, name, f"SHA-256 is {actual}, should be {stated}; remove it and make it again"
        )


def check_structure(file: h5py.File, plan: Plan, shard: Shard, name: str) -> Iterator[Finding]:
    """Yield what is wrong with a shard's attributes and the names, types, shapes and storage of its arrays."""
    if _attribute(file, "run_id") != plan.run_id:
        yield Finding(Kind.OTHER_RUN, name, "belongs to another run")
        return
    counts = (_attribute(file, "first_sample"), _attribute(file, "sample_count"))
    if counts != (shard.first, shard.count):
        yield Finding(Kind.COVERAGE, name, f"first and count are {counts}, plan says {(shard.first, shard.count)}")
        return
    for array in _arrays(plan):
        if problem := _array_problem(file, array, array_shape(array, plan, shard.count)):
            yield Finding(Kind.SCHEMA, name, problem, array=array.name)
    yield from _check_plan(file, plan, name)
    yield from _check_names(file, {a.name for a in _arrays(plan)} | {*scale_values(plan), CONFIG}, name)


def check_classes(file: h5py.File, plan: Plan, name: str) -> Iterator[Finding]:
    """Yield a finding when the class names in a shard or run.h5 are not the plan's."""
    if not np.array_equal(file[CLASS_NAME.name][...].astype("S"), encode_text(list(plan.class_names))):
        yield Finding(Kind.SCHEMA, name, "class names are not those of run.json", array=CLASS_NAME.name)


def check_master(file: h5py.File, plan: Plan, manifest: Manifest) -> Iterator[Finding]:
    """Yield what is wrong with run.h5 by itself: attributes, arrays, references, its table of shards."""
    if _attribute(file, "run_id") != plan.run_id:
        yield Finding(Kind.OTHER_RUN, MASTER_FILE, "belongs to another run")
        return
    for array in _arrays(plan):
        shape = array_shape(array, plan, plan.sample_count)
        problem = _array_problem(file, array, shape, None if array in _arrays(plan, False) else plan)
        if problem:
            yield Finding(Kind.SCHEMA, MASTER_FILE, problem, array=array.name)
    table = {f"{SHARD_TABLE}/{field.name}" for field in dataclasses.fields(FileRecord)}
    yield from _check_plan(file, plan, MASTER_FILE)
    yield from _check_names(file, {a.name for a in _arrays(plan)} | {*scale_values(plan), CONFIG, *table}, MASTER_FILE)
    for column in sorted(table):
        stated = [getattr(record, column.rpartition("/")[2]) for record in manifest.shards]
        values = encode_text(stated) if column.endswith(("file", "sha256")) else np.array(stated)
        if not _is_plain(file, column) or not np.array_equal(file[column][...], values):
            yield Finding(Kind.SCHEMA, MASTER_FILE, "not what the manifest says of the shards", array=column)


def check_copies(master: h5py.File, file: h5py.File, plan: Plan, shard: Shard) -> dict[str, np.ndarray]:
    """Return which rows of run.h5's own arrays are not what the shard `file` says, by array; only arrays with some."""
    wrong = {}
    for array in sample_arrays(plan.maps):
        dataset = master[array.name]
        if not dataset.is_virtual:
            there, here = dataset[shard.first : shard.first + shard.count], file[array.name][...]
            same = (there == here) | ((there != there) & (here != here))  # NaN is the same as NaN
            rows = ~same.reshape(shard.count, -1).all(1)
            if rows.any():
                wrong[array.name] = rows
    return wrong


def _arrays(plan: Plan, samples: bool = True) -> tuple[Array, ...]:
    return (*(sample_arrays(plan.maps) if samples else ()), *CLASSIFIER_ARRAYS, CLASS_NAME)


def _check_plan(file: h5py.File, plan: Plan, name: str) -> Iterator[Finding]:
    """Yield where attributes, config or dimension scales are not what follows from the plan."""
    for field in ATTRIBUTES_OF_PLAN:
        if _attribute(file, field) != getattr(plan, field):
            yield Finding(Kind.SCHEMA, name, f"attribute {field} is not that of run.json")
    config = np.array(plan.config_text().encode())
    for array, values in ({CONFIG: config} | scale_values(plan)).items():
        if not _is_plain(file, array):
            yield Finding(Kind.SCHEMA, name, "missing, or keeps its content elsewhere", array=array)
        elif file[array].shape != values.shape or not np.array_equal(file[array][()], values):
            yield Finding(Kind.SCHEMA, name, "not what follows from run.json", array=array)


def _check_names(file: h5py.File, known: set[str], name: str) -> Iterator[Finding]:
    groups = {each.partition("/")[0] for each in known if "/" in each}
    names = set(file) - groups
    for group in groups:
        if isinstance(file.get(group, getlink=True), h5py.HardLink) and isinstance(file[group], h5py.Group):
            names |= {f"{group}/{leaf}" for leaf in file[group]}
    for extra in sorted(names - known):
        yield Finding(Kind.SCHEMA, name, "not in the schema", array=extra)


def _is_plain(file: h5py.File, name: str) -> bool:
    """Return whether `name` is an array that keeps its content in this file, reached without following any link."""
    here: h5py.Group = file
    *groups, leaf = name.split("/")
    for group in groups:
        if not isinstance(here.get(group, getlink=True), h5py.HardLink) or not isinstance(here[group], h5py.Group):
            return False
        here = here[group]
    # a link or an external file could make the library read files outside of the run
    if not isinstance(here.get(leaf, getlink=True), h5py.HardLink) or not isinstance(here[leaf], h5py.Dataset):
        return False
    return not here[leaf].external


def _array_problem(file: h5py.File, array: Array, shape: tuple[int, ...], virtual: Plan | None = None) -> str | None:
    """Return what is wrong with `array`, which may refer to the shards of the plan `virtual`."""
    if not _is_plain(file, array.name):
        return "missing, or keeps its content elsewhere"
    dataset = file[array.name]
    if dataset.shape != shape:
        return f"shape {dataset.shape}, schema wants {shape}"
    if dataset.is_virtual and (virtual is None or _references(dataset) != _wanted_references(array, virtual)):
        return "keeps its content in other files than the run's shards" if virtual else "keeps its content elsewhere"
    filters = dataset.id.get_create_plist()
    if not {filters.get_filter(i)[0] for i in range(filters.get_nfilters())} <= BUILT_IN_FILTERS:
        return "needs a filter that is not built into HDF5"
    text = h5py.check_string_dtype(dataset.dtype)
    if array.dtype == "text":
        return None if text and text.length else f"type {dataset.dtype}, schema wants fixed-length text"
    return None if dataset.dtype == array.dtype else f"type {dataset.dtype}, schema wants {array.dtype}"


def _references(dataset: h5py.Dataset) -> list[tuple[object, ...]]:
    return [
        # h5py names a whole source by H5S_ALL; any other selection is not ours
        (
            s.file_name,
            s.dset_name,
            s.vspace.get_select_bounds(),
            s.vspace.get_select_npoints(),
            s.src_space.get_select_type(),
        )
        for s in dataset.virtual_sources()
    ]


def _wanted_references(array: Array, plan: Plan) -> list[tuple[object, ...]]:
    wanted: list[tuple[object, ...]] = []
    for shard in plan.shards:
        shape = array_shape(array, plan, shard.count)
        bounds = (shard.first, *(0 for _ in shape[1:])), (shard.first + shard.count - 1, *(n - 1 for n in shape[1:]))
        wanted.append((f"{SHARD_FOLDER}/{shard.file}", array.name, bounds, math.prod(shape), h5py.h5s.SEL_ALL))
    return wanted


def _attribute(file: h5py.File, name: str) -> object:
    value = file.attrs.get(name)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.integer):
        return int(value)
    return value if isinstance(value, str) else None


def _check_task(path: Path) -> Iterator[Finding]:
    try:
        read_document(path)
    except (RunError, FileNotFoundError) as error:
        yield Finding(Kind.TASK_DAMAGED, path.name, _without_path(error))


def _without_path(error: Exception) -> str:
    return str(error).partition(": ")[2] or str(error)
