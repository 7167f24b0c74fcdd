"""samples.h5: the list of samples that a run was planned with, so that it can be finished whatever becomes of them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from batchcam.errors import RunError
from batchcam.store import landing, layout, schema, structure
from batchcam.store.document import read_document
from batchcam.store.form import mismatch
from batchcam.store.manifest import RECORD_FORM, FileRecord
from batchcam.store.plan import (
    LEFT_OUT_KEY,
    LIST_BLOCK_BYTES,
    LIST_BLOCKS_KEY,
    LIST_KEY,
    MANIFEST_KEY,
    Plan,
    block_digests,
)
from batchcam.store.reader import UNREADABLE, read, require_digest
from batchcam.store.sink import ProvenFile

SLICE_ROWS: Final = schema.TEXT_CHUNK_ROWS
"""Rows that are read at once."""

KEPT_SLICES: Final = 8
"""Slices that stay in memory: a worker's shards are made one after the other, its images looked at are spread."""

_ORIGIN_FORM: Final = {f"{LEFT_OUT_KEY}?": int, f"{MANIFEST_KEY}?": str}
_BLOCKS_FORM: Final = {"bytes": int, "sha256": [str]}
_BLOCK_LIMIT: Final = 2**26
_DIGEST: Final = re.compile("[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class StatedList:
    """What run.json says of samples.h5.

    Attributes:
        block_bytes: bytes of each block, but for the last.
        blocks: SHA-256 of each block, hex; none in runs of versions that did not state them.
        left_out: how many samples of the dataset are none of the list, as other runs held them.
        manifest_sha256: digest of the manifest that it was made of, hex; "" where there was none.
    """

    record: FileRecord
    block_bytes: int = LIST_BLOCK_BYTES
    blocks: tuple[str, ...] = ()
    left_out: int = 0
    manifest_sha256: str = ""


def list_image(plan: Plan, columns: Mapping[str, Sequence[str] | np.ndarray]) -> bytes:
    """Return the bytes of samples.h5; the same for the same list.

    Args:
        columns: by name in the file, but for `sample_index`: a row per sample; `path` need not be there.
    """
    buffer = io.BytesIO()
    with layout.new_file(buffer) as file:
        layout.set_text(file.attrs, "title", "Samples of a dataset as they were listed when a run was planned")
        layout.set_text(file.attrs, "dataset_fingerprint", plan.dataset_fingerprint)
        file.attrs["schema_version"] = np.int64(plan.schema_version)
        file.attrs["sample_count"] = np.int64(plan.sample_count)
        if plan.is_multi_label:
            layout.write_class_names(file, plan)
        given = {"sample_index": np.arange(plan.sample_count), **columns}
        for array in _arrays(plan, schema.LIST_PATH.name in columns):
            _write(file, plan, array, given[array.name])
    return buffer.getvalue()


def list_bytes(plan: Plan) -> int:
    """Return about how many bytes samples.h5 takes at most."""
    return layout.WORDS_BYTES + sum(
        layout.stored_bytes(array, plan, plan.sample_count) for array in _arrays(plan, with_paths=True)
    )


def stated_list(run: Path) -> StatedList | None:
    """Return what samples.h5 of a run must be; None: it was planned by a version that wrote none.

    Raises:
        RunError: run.json is damaged.
    """
    document = read_document(run / schema.PLAN_FILE)
    content, blocks = document.get(LIST_KEY), document.get(LIST_BLOCKS_KEY)
    if content is None:
        return None
    if mismatch(content, RECORD_FORM) is None and set(content) == set(RECORD_FORM):
        record, origin = FileRecord(**content), document["origin"]
        stated = StatedList(record, left_out=origin.get(LEFT_OUT_KEY, 0), manifest_sha256=origin.get(MANIFEST_KEY, ""))
        whole = (
            record.file == schema.LIST_FILE
            and _DIGEST.fullmatch(record.sha256)
            and mismatch(origin, _ORIGIN_FORM) is None
        )
        if whole and blocks is None:
            return stated
        if whole and isinstance(blocks, dict) and _fit(blocks, record.bytes):
            return dataclasses.replace(stated, block_bytes=blocks["bytes"], blocks=tuple(blocks["sha256"]))
    raise RunError(f"{run / schema.PLAN_FILE}: does not tell what {schema.LIST_FILE} is")


def list_record(run: Path) -> FileRecord | None:
    """Return the same without the digests of blocks.

    Raises:
        RunError: run.json is damaged.
    """
    stated = stated_list(run)
    return None if stated is None else stated.record


def require_list(run: Path) -> FileRecord | None:
    """Return what samples.h5 of a run must be and is; None: it was planned by a version that wrote none.

    Raises:
        RunError: it is gone, or was changed.
    """
    record = list_record(run)
    if record is not None:
        path = run / schema.LIST_FILE
        if not landing.is_own_file(run, schema.LIST_FILE):
            raise RunError(f"{path}: gone, or not a file of its own; run explain again")
        require_digest(path, record.sha256)
    return record


class SampleList:
    """samples.h5, of which a slice is read, and proven, when its rows are asked for.

    It keeps no file open: a fork, or a copy in another process, reads on by itself.

    Args:
        stated: what samples.h5 must be.
    """

    slice_rows: Final = SLICE_ROWS

    def __init__(self, run: Path, plan: Plan, stated: StatedList) -> None:
        self._run, self._plan, self._stated = run, plan, stated
        self.rows = functools.lru_cache(KEPT_SLICES)(self._rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleList, (self._run, self._plan, self._stated)

    def __len__(self) -> int:
        return self._plan.sample_count

    @property
    def names(self) -> list[str]:
        """Names of the arrays that it has, but for the one that counts the rows.

        Raises:
            RunError: it is gone, was changed, or is not built as the schema says.
        """
        return [array.name for array in list_arrays(self._opened[1], self._plan) if array.name != "sample_index"]

    def _rows(self, number: int) -> Mapping[str, np.ndarray]:
        """Return rows [number · SLICE_ROWS, + SLICE_ROWS), as arrays by name, texts encoded."""
        proven, file = self._opened
        with _read_through(proven):
            return _slice(file, self.names, number)

    @functools.cached_property
    def _opened(self) -> tuple[ProvenFile, h5py.File]:
        record = self._stated.record
        path = landing.ready(self._run / schema.LIST_FILE, record.sha256)
        if not landing.is_own_file(self._run, path.name):
            raise RunError(f"{path}: gone, or not a file of its own; see batchcam verify")
        blocks = self._stated.blocks or _proven_blocks(path, record)
        proven = ProvenFile(path, record.bytes, self._stated.block_bytes, blocks)
        with _read_through(proven):
            file = h5py.File(proven, "r")
            for array, problem in list_problems(file, self._plan):
                raise RunError(f"{path}: {array}: {problem}; see batchcam verify")
        return proven, file


def list_problems(file: h5py.File, plan: Plan) -> Iterator[structure.Problem]:
    """Yield what is wrong with the arrays of samples.h5."""
    yield from structure.array_problems(file, list_arrays(file, plan), plan, plan.sample_count)


def list_arrays(file: h5py.File, plan: Plan) -> tuple[schema.Array, ...]:
    """Return the arrays that samples.h5 has."""
    return _arrays(plan, file.id.links.exists(schema.LIST_PATH.name.encode()))


def list_slices(file: h5py.File, plan: Plan) -> Iterator[dict[str, np.ndarray]]:
    """Yield the rows of samples.h5 in order, as arrays by name, texts encoded."""
    names = [array.name for array in list_arrays(file, plan)]
    for number in range(-(-plan.sample_count // SLICE_ROWS)):
        yield _slice(file, names, number)


def _slice(file: h5py.File, names: Sequence[str], number: int) -> dict[str, np.ndarray]:
    return {name: read(file[name], slice(number * SLICE_ROWS, (number + 1) * SLICE_ROWS)) for name in names}


def _arrays(plan: Plan, with_paths: bool) -> tuple[schema.Array, ...]:
    left_out = () if plan.is_multi_label else (schema.LABELS,)
    own = (array for array in schema.SAMPLE_ARRAYS if array.name in schema.LISTED and array.name not in left_out)
    return (*own, *map(schema.meta_array, plan.meta), *([schema.LIST_PATH] if with_paths else []))


def _write(file: h5py.File, plan: Plan, array: schema.Array, values: Sequence[str] | np.ndarray) -> None:
    shape = layout.array_shape(array, plan, plan.sample_count)
    if isinstance(values, np.ndarray):
        layout.create(file, array, shape)[...] = values
        return
    width = plan.text_bytes.get(array.name) or max(len(text.encode()) for text in values)
    dataset = layout.create(file, array, shape, width)
    for start in range(0, len(values), schema.TEXT_CHUNK_ROWS):
        dataset[start : start + schema.TEXT_CHUNK_ROWS] = layout.as_utf8(
            schema.encode_text(list(values[start : start + schema.TEXT_CHUNK_ROWS]), width)
        )


def _fit(blocks: dict[str, Any], size: int) -> bool:
    """Return whether blocks are stated in the right form, for a file of `size` bytes."""
    if mismatch(blocks, _BLOCKS_FORM) is not None or set(blocks) != set(_BLOCKS_FORM):
        return False
    block_bytes, digests = blocks["bytes"], blocks["sha256"]
    fits = 0 < block_bytes <= _BLOCK_LIMIT and len(digests) == -(-size // block_bytes)
    return fits and all(map(_DIGEST.fullmatch, digests))


def _proven_blocks(path: Path, record: FileRecord) -> list[str]:
    """Return the digests of blocks that run.json does not state, of a file that is proven as a whole."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}; see batchcam verify") from error
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise RunError(f"{path}: changed after it was written, its SHA-256 is another; see batchcam verify")
    return block_digests(io.BytesIO(content), LIST_BLOCK_BYTES)


@contextlib.contextmanager
def _read_through(proven: ProvenFile) -> Iterator[None]:
    """Raise RunError, and rather what was wrong with the bytes than what the HDF5 library made of them."""
    try:
        yield
    except (RunError, *UNREADABLE) as error:
        proven.require_sound()
        if isinstance(error, RunError):
            raise
        raise RunError(f"{proven.path}: HDF5 cannot read it: {error}") from error
    proven.require_sound()
