"""samples.h5: the list of samples that a run was planned with, so that it can be finished whatever becomes of them."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from batchcam.errors import RunError
from batchcam.store import landing, structure
from batchcam.store.document import read_document
from batchcam.store.form import mismatch
from batchcam.store.layout import WORDS_BYTES, array_shape, as_utf8, create, new_file, set_text, stored_bytes
from batchcam.store.manifest import RECORD_FORM, FileRecord
from batchcam.store.plan import LIST_KEY, Plan
from batchcam.store.reader import open_file, read, require_digest
from batchcam.store.schema import (
    LIST_FILE,
    LIST_PATH,
    LISTED,
    PLAN_FILE,
    SAMPLE_ARRAYS,
    TEXT_CHUNK_ROWS,
    Array,
    encode_text,
)

SLICE_ROWS = 16 * TEXT_CHUNK_ROWS
"""Rows that are read at once."""


def list_image(plan: Plan, columns: Mapping[str, Sequence[str] | np.ndarray]) -> bytes:
    """Return the bytes of samples.h5; the same for the same list.

    Args:
        plan: of the run.
        columns: by name in the file, but for `sample_index`: a row per sample; `path` need not be there.
    """
    buffer = io.BytesIO()
    with new_file(buffer) as file:
        set_text(file.attrs, "title", "Samples of a dataset as they were listed when a run was planned")
        set_text(file.attrs, "dataset_fingerprint", plan.dataset_fingerprint)
        file.attrs["schema_version"] = np.int64(plan.schema_version)
        file.attrs["sample_count"] = np.int64(plan.sample_count)
        given = {"sample_index": np.arange(plan.sample_count), **columns}
        for array in _arrays(LIST_PATH.name in columns):
            _write(file, plan, array, given[array.name])
    return buffer.getvalue()


def list_bytes(plan: Plan) -> int:
    """Return about how many bytes samples.h5 takes at most."""
    return WORDS_BYTES + sum(stored_bytes(array, plan, plan.sample_count) for array in _arrays(with_paths=True))


def list_record(run: Path) -> FileRecord | None:
    """Return what samples.h5 of a run must be; None: it was planned by a version that wrote none.

    Raises:
        RunError: run.json is damaged.
    """
    content = read_document(run / PLAN_FILE).get(LIST_KEY)
    if content is None:
        return None
    if mismatch(content, RECORD_FORM) is None and set(content) == set(RECORD_FORM):
        record = FileRecord(**content)
        if record.file == LIST_FILE and re.fullmatch("[0-9a-f]{64}", record.sha256):
            return record
    raise RunError(f"{run / PLAN_FILE}: does not tell what {LIST_FILE} is")


def require_list(run: Path) -> FileRecord | None:
    """Return what samples.h5 of a run must be and is; None: it was planned by a version that wrote none.

    Raises:
        RunError: it is gone, or was changed.
    """
    record = list_record(run)
    if record is not None:
        path = run / LIST_FILE
        if not landing.is_own_file(run, LIST_FILE):
            raise RunError(f"{path}: gone, or not a file of its own; run explain again")
        require_digest(path, record.sha256)
    return record


@contextlib.contextmanager
def open_list(run: Path, plan: Plan, record: FileRecord) -> Iterator[h5py.File]:
    """Open samples.h5 for reading, after its digest and its structure have been checked.

    Raises:
        RunError: it is gone, was changed, or is not built as the schema says.
    """
    path = landing.ready(run / LIST_FILE, record.sha256)
    if not landing.is_own_file(run, path.name):
        raise RunError(f"{path}: gone, or not a file of its own; see batchcam verify")
    require_digest(path, record.sha256)
    with open_file(path) as file:
        for array, problem in list_problems(file, plan):
            raise RunError(f"{path}: {array}: {problem}; see batchcam verify")
        yield file


def list_problems(file: h5py.File, plan: Plan) -> Iterator[structure.Problem]:
    """Yield what is wrong with the arrays of samples.h5."""
    yield from structure.array_problems(file, list_arrays(file), plan, plan.sample_count)


def list_arrays(file: h5py.File) -> tuple[Array, ...]:
    """Return the arrays that samples.h5 has."""
    return _arrays(file.id.links.exists(LIST_PATH.name.encode()))


def list_slices(file: h5py.File, plan: Plan) -> Iterator[dict[str, np.ndarray]]:
    """Yield the rows of samples.h5 in order, as arrays by name, texts encoded; each slice can be read alone."""
    names = [array.name for array in list_arrays(file)]
    for start in range(0, plan.sample_count, SLICE_ROWS):
        yield {name: read(file[name], slice(start, start + SLICE_ROWS)) for name in names}


def _arrays(with_paths: bool) -> tuple[Array, ...]:
    arrays = tuple(array for array in SAMPLE_ARRAYS if array.name in LISTED)
    return (*arrays, LIST_PATH) if with_paths else arrays


def _write(file: h5py.File, plan: Plan, array: Array, values: Sequence[str] | np.ndarray) -> None:
    shape = array_shape(array, plan, plan.sample_count)
    if isinstance(values, np.ndarray):
        create(file, array, shape)[...] = values
        return
    ids = array.name == "sample_id"
    width = plan.sample_id_bytes if ids else max(len(text.encode()) for text in values)
    dataset = create(file, array, shape, width)
    for start in range(0, len(values), TEXT_CHUNK_ROWS):
        dataset[start : start + TEXT_CHUNK_ROWS] = as_utf8(
            encode_text(list(values[start : start + TEXT_CHUNK_ROWS]), width)
        )
