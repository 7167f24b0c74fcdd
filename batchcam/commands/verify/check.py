"""Compare plan, manifest and disk: files, digests, structure. Read-only; digest first, then parse."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from batchcam.errors import RunError, without_path
from batchcam.store import landing, structure
from batchcam.store.findings import Finding, Kind
from batchcam.store.layout import TEXTS_OF_PLAN, scale_values
from batchcam.store.manifest import FileRecord, Manifest, read_manifest, read_task
from batchcam.store.plan import Plan, Shard, fingerprint_covers, fingerprint_text
from batchcam.store.reader import COLUMN_BYTES
from batchcam.store.samples import list_arrays, list_problems, list_slices
from batchcam.store.schema import (
    CLASS_NAME,
    CONFIG,
    DIGEST_SUFFIX,
    LIST_FILE,
    MANIFEST_FILE,
    MASTER_FILE,
    PLAN_FILE,
    PROBLEM_TYPE,
    SHARD_FOLDER,
    SHARD_TABLE,
    SIGNATURE_FOLDER,
    TASK_PATTERN,
    THRESHOLD,
    encode_text,
)
from batchcam.store.shard_table import planned_columns, stated_table

ATTRIBUTES_OF_PLAN = ("schema_version", "schema_min_reader", *TEXTS_OF_PLAN)


def load_manifest(run: Path, plan: Plan) -> tuple[Manifest | None, list[Finding]]:
    """Return the manifest, or None and the finding that says why there is none to go by."""
    try:
        return read_manifest(run, plan), []
    except FileNotFoundError:
        return None, [Finding(Kind.MANIFEST_MISSING, MANIFEST_FILE, "the run is not complete; run explain again")]
    except RunError as error:
        return None, [Finding(Kind.MANIFEST_DAMAGED, MANIFEST_FILE, without_path(error))]


def check_folder(run: Path, plan: Plan, listed: bool) -> Iterator[Finding]:
    """Yield a finding for each file that does not belong into the run, and each damaged task record.

    Args:
        listed: whether samples.h5 belongs into it.
    """
    expected = {SHARD_FOLDER, PLAN_FILE, MANIFEST_FILE, MASTER_FILE, MASTER_FILE + DIGEST_SUFFIX}
    expected |= {LIST_FILE} if listed else set()
    for folder in (run, run / SHARD_FOLDER):
        if not folder.is_dir() or (folder != run and folder.is_symlink()):
            continue
        leftovers = {path.name for path, _ in landing.partials(folder)}
        names = expected if folder == run else set()
        for path in sorted(folder / entry.name for entry in os.scandir(folder) if not _is_shard(entry, plan, run)):
            name = path.relative_to(run).as_posix()
            if path.name in leftovers:
                yield Finding(
                    Kind.LEFTOVER_FILE,
                    name,
                    "temporary file of a worker that is at work, or died; run explain or merge again",
                )
            elif path.match(TASK_PATTERN) and folder == run:
                yield from _check_task(path)
            elif name == SIGNATURE_FOLDER and path.is_dir() and not path.is_symlink():
                yield from _check_signatures(path)
            elif path.name not in names:
                yield Finding(Kind.UNEXPECTED_FILE, name, "not a file of this run")


def _is_shard(entry: os.DirEntry[str], plan: Plan, run: Path) -> bool:
    """Return whether a file of the run is one of its shards, or the digest of one, by its name."""
    digits = entry.name.removesuffix(DIGEST_SUFFIX).removeprefix("shard-").removesuffix(".h5")
    number = int(digits) if digits.isdecimal() and len(digits) < 10 else -1
    is_there = 0 <= number < len(plan.shards) and Path(entry.path).parent != run
    return is_there and entry.name in (plan.shards[number].file, plan.shards[number].file + DIGEST_SUFFIX)


def check_digest(run: Path, name: str, record: FileRecord | None) -> Iterator[Finding]:
    """Yield what is wrong with the bytes of file `name`: presence, size, digest. Nothing yielded: safe to parse.

    Args:
        name: file relative to it.
        record: what the manifest says, None while there is no manifest: then the digest beside the file counts.
    """
    beside = landing.read_digest(run / name)
    stated = record.sha256 if record else beside
    if landing.is_own_file(run, name) and (beside is None or beside != stated):
        yield Finding(Kind.DIGEST_FILE_DAMAGED, name + DIGEST_SUFFIX, "missing, damaged, or not the manifest's digest")
    yield from check_bytes(run, name, stated, record.bytes if record else None)


def check_bytes(run: Path, name: str, stated: str | None, size: int | None) -> Iterator[Finding]:
    """Yield what is wrong with the bytes of file `name`, whose digest and size are as stated, None where they are not.

    Nothing yielded, and its digest is stated: safe to parse.
    """
    path = run / name
    if not landing.is_own_file(run, name):
        yield Finding(Kind.FILE_MISSING, name, "missing, or not a plain file of the run; run explain again")
        return
    if stated is None:
        return
    if size is not None and path.stat().st_size != size:
        yield Finding(Kind.SIZE_MISMATCH, name, f"{path.stat().st_size} bytes, stated are {size}")
        return
    try:
        actual = landing.file_digest(path)
    except FileNotFoundError:  # a web server tells it late
        yield Finding(Kind.FILE_MISSING, name, "gone where it was a moment ago; run explain again")
        return
    except OSError as error:
        yield Finding(Kind.FILE_UNREADABLE, name, f"cannot read: {error.strerror}")
        return
    if actual != stated:
        yield Finding(
            Kind.DIGEST_MISMATCH, name, f"SHA-256 is {actual}, should be {stated}; remove it and make it again"
        )


def check_structure(file: h5py.File, plan: Plan, shard: Shard, name: str) -> Iterator[Finding]:
    """Yield what is wrong with a shard's attributes and the names, types, shapes and storage of its arrays."""
    run_id, *counts = structure.identity(file)
    if run_id != plan.run_id:
        yield Finding(Kind.OTHER_RUN, name, "belongs to another run")
        return
    if counts != [shard.first, shard.count]:
        yield Finding(Kind.COVERAGE, name, f"first and count are {counts}, plan says {[shard.first, shard.count]}")
        return
    yield from _check_form(file, plan, shard, name, set())


def check_classes(file: h5py.File, plan: Plan, name: str) -> Iterator[Finding]:
    """Yield a finding when the class names, or thresholds, in a file are not the plan's."""
    if not np.array_equal(file[CLASS_NAME.name][...].astype("S"), encode_text(list(plan.class_names))):
        yield Finding(Kind.SCHEMA, name, "class names are not those of run.json", array=CLASS_NAME.name)
    if THRESHOLD.name in file and not np.array_equal(file[THRESHOLD.name][...], np.array(plan.thresholds, np.float32)):
        yield Finding(Kind.SCHEMA, name, "thresholds are not those of run.json", array=THRESHOLD.name)


def check_master(file: h5py.File, plan: Plan, manifest: Manifest) -> Iterator[Finding]:
    """Yield what is wrong with run.h5 by itself: attributes, arrays, references, its table of shards."""
    if structure.identity(file)[0] != plan.run_id:
        yield Finding(Kind.OTHER_RUN, MASTER_FILE, "belongs to another run")
        return
    for array in plan.arrays:
        if structure.lies_in_shards(file, array, plan) and (problem := structure.virtual_problem(file, array, plan)):
            yield Finding(Kind.SCHEMA, MASTER_FILE, problem, array=array.name)
    of_plan, of_manifest = planned_columns(plan), (f"{SHARD_TABLE}/bytes", f"{SHARD_TABLE}/sha256")
    yield from _check_form(file, plan, None, MASTER_FILE, {*of_plan, *of_manifest})
    for column, values in of_plan.items():
        if problem := structure.value_problem(file, column, values):
            yield Finding(Kind.SCHEMA, MASTER_FILE, problem, array=column)
    table = stated_table(file, plan)
    stated = table.stated(plan) if table else None
    for column in of_manifest:
        field = column.rpartition("/")[2]
        if getattr(stated, field, None) != getattr(manifest.shards, field):
            yield Finding(Kind.SCHEMA, MASTER_FILE, "not what the manifest says of the shards", array=column)


def check_list(file: h5py.File, plan: Plan) -> Iterator[Finding]:
    """Yield what is wrong with samples.h5 by itself: attributes, arrays, and whether it is the plan's dataset."""
    wrong = [Finding(Kind.SCHEMA, LIST_FILE, problem, array) for array, problem in list_problems(file, plan)]
    scales = {CLASS_NAME.name: encode_text(list(plan.class_names))} if plan.is_multi_label else {}
    for scale, values in scales.items():
        if problem := structure.value_problem(file, scale, values):
            wrong.append(Finding(Kind.SCHEMA, LIST_FILE, problem, scale))
    yield from wrong
    for field in ("schema_version", "dataset_fingerprint", "sample_count"):
        if structure.attribute(file, field) != getattr(plan, field):
            yield Finding(Kind.SCHEMA, LIST_FILE, f"attribute {field} is not that of run.json")
    if wrong:
        return
    yield from _check_names(file, {*scales, *(array.name for array in list_arrays(file, plan))}, LIST_FILE)
    fingerprint = hashlib.sha256()
    for rows in list_slices(file, plan):
        fingerprint.update(fingerprint_text(rows, plan.meta))
    if fingerprint.hexdigest() != plan.dataset_fingerprint:
        message = f"{fingerprint_covers(plan.meta)} or their order are not those of run.json's fingerprint"
        yield Finding(Kind.DATASET, LIST_FILE, message)


def differing_rows(
    copies: Mapping[str, h5py.Dataset], block: Mapping[str, np.ndarray], first: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield, by array, which rows of a block that starts at sample `first` are not what run.h5 has copied."""
    for name, dataset in copies.items():
        step = max(1, COLUMN_BYTES // max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:])))
        parts = [block[name][start : start + step] for start in range(0, len(block[name]), step)]
        yield name, np.concatenate([_differs(dataset, part, first + i * step) for i, part in enumerate(parts)])


def _differs(dataset: h5py.Dataset, here: np.ndarray, first: int) -> np.ndarray:
    """Return which rows are not those of `dataset` from `first` on, bool (n,)."""
    there = dataset[first : first + len(here)]
    same = (there == here) | ((there != there) & (here != here))  # NaN is the same as NaN
    return np.asarray(~same.reshape(len(here), -1).all(1))


def _check_form(file: h5py.File, plan: Plan, shard: Shard | None, name: str, more: set[str]) -> Iterator[Finding]:
    """Yield what is wrong with arrays, attributes, config or dimension scales of a shard, or of run.h5 (None)."""
    arrays = {a.name for a in (*plan.arrays, *plan.class_arrays)}
    wrong = [Finding(Kind.SCHEMA, name, problem, array) for array, problem in structure.problems(file, plan, shard)]
    yield from wrong
    for field in (*ATTRIBUTES_OF_PLAN, *([PROBLEM_TYPE] if plan.is_multi_label else [])):
        if structure.attribute(file, field) != getattr(plan, field):
            yield Finding(Kind.SCHEMA, name, f"attribute {field} is not that of run.json")
    if wrong:
        return  # what follows from the plan is as large as it says; sound arrays prove that it is no fiction
    scales = scale_values(plan)
    for scale, values in scales.items():
        if problem := structure.value_problem(file, scale, values):
            yield Finding(Kind.SCHEMA, name, problem, scale)
    if structure.config_text(file) != plan.config_text().encode():
        yield Finding(Kind.SCHEMA, name, "not what follows from run.json", CONFIG)
    yield from _check_names(file, {*arrays, *scales, CONFIG, *more}, name)


def _check_names(file: h5py.File, known: set[str], name: str) -> Iterator[Finding]:
    groups = {each.partition("/")[0] for each in known if "/" in each}
    names = set(file) - groups
    for group in groups:
        if structure.is_own_group(file, group):
            names |= {f"{group}/{leaf}" for leaf in file[group]}
    for extra in sorted(names - known):
        yield Finding(Kind.SCHEMA, name, "not in the schema", array=extra)


def _check_signatures(folder: Path) -> Iterator[Finding]:
    """Yield a finding for what is no plain file: signatures and timestamps, whoever makes them, are nothing else."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            yield Finding(Kind.UNEXPECTED_FILE, f"{folder.name}/{path.name}", "not a plain file")


def _check_task(path: Path) -> Iterator[Finding]:
    try:
        read_task(path)
    except (RunError, FileNotFoundError) as error:
        yield Finding(Kind.TASK_DAMAGED, path.name, without_path(error))
