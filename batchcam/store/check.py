"""Compare plan, manifest and disk: files, digests, structure. Read-only; digest first, then parse."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from batchcam.errors import RunError
from batchcam.store import landing
from batchcam.store.document import read_document
from batchcam.store.findings import Finding, Kind
from batchcam.store.layout import array_shape
from batchcam.store.manifest import FileRecord, Manifest, read_manifest
from batchcam.store.plan import Plan, Shard
from batchcam.store.schema import (
    CLASS_NAME,
    CLASSIFIER_ARRAYS,
    CONFIG,
    DIGEST_SUFFIX,
    LABELLED_DIMS,
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

SCALES = {"map_rank", "channel", "sha256_byte", "cam_y", "cam_x", "y", "x", *LABELLED_DIMS}
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
    if record and path.stat().st_size != record.bytes:
        yield Finding(Kind.SIZE_MISMATCH, name, f"{path.stat().st_size} bytes, manifest says {record.bytes}")
        return
    try:
        actual = file_digest(path)
    except OSError as error:
        yield Finding(Kind.FILE_UNREADABLE, name, f"cannot read: {error.strerror}")
        return
    if actual != stated:
        yield Finding(Kind.DIGEST_MISMATCH, name, f"SHA-256 is {actual}, should be {stated or 'known'}")


def check_structure(file: h5py.File, plan: Plan, shard: Shard, name: str) -> Iterator[Finding]:
    """Yield what is wrong with a shard's attributes and the names, types, shapes and storage of its arrays."""
    if _attribute(file, "run_id") != plan.run_id:
        yield Finding(Kind.OTHER_RUN, name, "belongs to another run")
        return
    counts = (_attribute(file, "first_sample"), _attribute(file, "sample_count"))
    if counts != (shard.first, shard.count):
        yield Finding(Kind.COVERAGE, name, f"first and count are {counts}, plan says {(shard.first, shard.count)}")
        return
    arrays = (*sample_arrays(plan.maps), *CLASSIFIER_ARRAYS, CLASS_NAME)
    for array in arrays:
        if problem := _array_problem(file, array, array_shape(array, plan, shard.count)):
            yield Finding(Kind.SCHEMA, name, problem, array=array.name)
    known = {a.name.partition("/")[0] for a in arrays} | SCALES | {CONFIG, SHARD_TABLE}
    for extra in sorted(set(file) - known):
        yield Finding(Kind.SCHEMA, name, "not in the schema", array=extra)
    if not (
        CONFIG in file and isinstance(file[CONFIG], h5py.Dataset) and file[CONFIG][()] == plan.config_text().encode()
    ):
        yield Finding(Kind.SCHEMA, name, "is not the plan of run.json", array=CONFIG)


def check_classes(file: h5py.File, plan: Plan, name: str) -> Iterator[Finding]:
    """Yield a finding when the shard's class names are not the plan's."""
    if not np.array_equal(file[CLASS_NAME.name][...].astype("S"), encode_text(list(plan.class_names))):
        yield Finding(Kind.SCHEMA, name, "class names are not those of run.json", array=CLASS_NAME.name)


def check_master(
    file: h5py.File, plan: Plan, manifest: Manifest, columns: Mapping[str, np.ndarray] | None
) -> Iterator[Finding]:
    """Yield where run.h5 does not say what the shards say.

    Args:
        file: run.h5.
        plan: of the run.
        manifest: of the run.
        columns: some arrays of all shards together, None when not all shards could be read.
    """
    if _attribute(file, "run_id") != plan.run_id:
        yield Finding(Kind.OTHER_RUN, MASTER_FILE, "belongs to another run")
        return
    sources = {f"{SHARD_FOLDER}/{s.file}" for s in plan.shards}
    for array in sample_arrays(plan.maps):
        dataset = file.get(array.name)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape != array_shape(array, plan, plan.sample_count):
            yield Finding(Kind.SCHEMA, MASTER_FILE, "missing, or not of the schema's shape", array=array.name)
        elif dataset.is_virtual:
            if {s.file_name for s in dataset.virtual_sources()} != sources:
                yield Finding(Kind.SCHEMA, MASTER_FILE, "does not refer to the run's shards", array=array.name)
        elif columns and array.name in columns and not _same(dataset[...], columns[array.name]):
            yield Finding(Kind.SCHEMA, MASTER_FILE, "not what the shards say", array=array.name)
    stated = [r.sha256 for r in manifest.shards]
    if [d.decode() for d in file[f"{SHARD_TABLE}/sha256"][...]] != stated:
        yield Finding(Kind.SCHEMA, MASTER_FILE, "digests are not those of the manifest", array=SHARD_TABLE)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the file at `path`, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _array_problem(file: h5py.File, array: Array, shape: tuple[int, ...]) -> str | None:
    # a link or an external file could make the library read files outside of the run
    group, _, leaf = array.name.rpartition("/")
    if group and not isinstance(file.get(group, getlink=True), h5py.HardLink):
        return "missing"
    parent = file[group] if group else file
    if not isinstance(parent, h5py.Group) or not isinstance(parent.get(leaf, getlink=True), h5py.HardLink):
        return "missing"
    dataset = parent[leaf]
    if not isinstance(dataset, h5py.Dataset):
        return "not an array"
    if dataset.is_virtual or dataset.external:
        return "keeps its content in other files"
    if dataset.shape != shape:
        return f"shape {dataset.shape}, schema wants {shape}"
    filters = dataset.id.get_create_plist()
    if not {filters.get_filter(i)[0] for i in range(filters.get_nfilters())} <= BUILT_IN_FILTERS:
        return "needs a filter that is not built into HDF5"
    text = h5py.check_string_dtype(dataset.dtype)
    if array.dtype == "text":
        return None if text and text.length else f"type {dataset.dtype}, schema wants fixed-length text"
    return None if dataset.dtype == array.dtype else f"type {dataset.dtype}, schema wants {array.dtype}"


def _attribute(file: h5py.File, name: str) -> object:
    value = file.attrs.get(name)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return int(value) if isinstance(value, np.integer) else value


def _same(left: np.ndarray, right: np.ndarray) -> bool:
    return np.array_equal(left, right, equal_nan=left.dtype.kind == "f")


def _check_task(path: Path) -> Iterator[Finding]:
    try:
        read_document(path)
    except (RunError, FileNotFoundError) as error:
        yield Finding(Kind.TASK_DAMAGED, path.name, _without_path(error))


def _without_path(error: Exception) -> str:
    return str(error).partition(": ")[2] or str(error)
