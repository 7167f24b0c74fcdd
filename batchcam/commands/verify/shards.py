"""What one process of verify reads: shards of a run, one after the other, each beside its rows of the other files."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from batchcam.commands.verify import check
from batchcam.commands.verify.audit import Block, Wrong, audit
from batchcam.errors import RunError, without_path
from batchcam.record.repeats import hashes
from batchcam.store import structure
from batchcam.store.findings import Finding, Kind
from batchcam.store.plan import FIRST_INPUTS, Plan, Shard, fingerprint_text, input_key
from batchcam.store.reader import READ_BYTES, UNREADABLE, blocks, decode, open_file, open_hdf5, require_memory
from batchcam.store.samples import list_arrays
from batchcam.store.schema import CLASSIFIER_ARRAYS, LIST_FILE, LIST_PATH, MASTER_FILE, SHARD_FOLDER, TRAINED_ON
from batchcam.store.shard_table import ShardTable, stated_table

PIXEL_BYTES = 24
"""Held for each pixel of a map that is compared with its CAM: float64, three times."""

FEATURE_BYTES = 24
"""Held for each feature, and for each logit that follows from them: float64, three times."""

COLUMNS_FOR_TOTALS = ("label", "prediction", "status", "identity_residual", TRAINED_ON)
"""Those that a run has."""

Deadly = Mapping[str, str]
"""Files that ended a process that read them, and how: they are not touched again."""

Key = TypeVar("Key")
Counted = dict[Key, tuple[int, int]]
"""How many rows are wrong, and the first of them, by what is wrong."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """What is counted over the whole run, of a block of rows.

    Attributes:
        columns: those of COLUMNS_FOR_TOTALS.
        listed: what the dataset's fingerprint takes of them; b"" where a run has no sizes.
        ids: hashes of the ids.
        first_inputs: keys of the run's first inputs by id, as far as they are in this block.
    """

    columns: dict[str, np.ndarray]
    listed: bytes
    ids: np.ndarray
    first_inputs: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Checked:
    """A shard that has been read.

    Attributes:
        size: of the file, whose digest was computed; 0 where it was not.
        found: what is wrong with it, and with another file that could not be read beside it.
        differing: rows that are not what another file says, by that file and array.
        classifier: digests of the classifier's arrays, by name; empty where it was not read.
    """

    shard: Shard
    size: int
    found: list[Finding]
    differing: Counted[tuple[str, str]]
    classifier: dict[str, bytes]


Seen = str | Rows | Checked
"""The name of a file that is read next, rows of a shard, or that the shard is done."""


class ShardReader:
    """Reads shards, digest first.

    Args:
        sound: which of run.h5 and samples.h5 can be read.
        deadly: files that are not to be touched.
        alive: called after each step.
    """

    def __init__(
        self, run: Path, plan: Plan, sound: Collection[str], deadly: Deadly, alive: Callable[[], None]
    ) -> None:
        self._run, self._plan, self._deadly, self._alive = run, plan, deadly, alive
        self._names = tuple(a.name for a in plan.arrays)
        self._table: ShardTable | None = None
        self._copies: dict[str, dict[str, h5py.Dataset]] = {}
        if MASTER_FILE in sound:
            file = open_hdf5(run / MASTER_FILE)
            own = [a.name for a in plan.arrays if not structure.lies_in_shards(file, a, plan)]
            self._table = stated_table(file, plan)
            self._copies[MASTER_FILE] = {name: file[name] for name in own}
        if LIST_FILE in sound:
            file = open_hdf5(run / LIST_FILE)
            self._copies[LIST_FILE] = {a.name: file[a.name] for a in list_arrays(file, plan) if a is not LIST_PATH}

    def read(self, shard: Shard) -> Iterator[Seen]:
        """Read one shard, and yield at last that it is done."""
        name = f"{SHARD_FOLDER}/{shard.file}"
        done = Checked(shard, 0, [], {}, {})
        if name in self._deadly:
            done.found.append(Finding(Kind.FILE_UNREADABLE, name, self._deadly[name]))
        else:
            yield name
            record = self._table.record(shard) if self._table else None
            done.found.extend(check.check_digest(self._run, name, record))
            self._alive()
        if not done.found:
            done = dataclasses.replace(done, size=(self._run / name).stat().st_size)
            try:
                with open_file(self._run / name) as file:
                    done.found.extend(check.check_structure(file, self._plan, shard, name))
                    if not done.found:
                        yield from self._content(file, name, done)
            except RunError as error:
                done.found.append(Finding(Kind.FILE_UNREADABLE, name, without_path(error)))
        yield done

    def _content(self, file: h5py.File, name: str, done: Checked) -> Iterator[Seen]:
        shard = done.shard
        done.found.extend(check.check_classes(file, self._plan, name))
        done.classifier.update(classifier_digests(file))
        bias = file["classifier/bias"][...]
        weight = file["classifier/weight"][...] if self._plan.features else None
        wrong: Counted[tuple[str, str, str]] = {}
        for rows, block in blocks(file.__getitem__, self._names, range(shard.count), READ_BYTES, self._held()):
            first = shard.first + int(rows[0])
            elsewhere = block["sample_index"] != shard.first + rows
            displaced = Wrong("coverage", "sample_index", elsewhere, "not the sample that the plan says")
            for broken in (displaced, *audit(block, self._plan, bias, weight)):
                count_rows(wrong, (broken.rule, broken.array, broken.message), broken.rows, first)
            yield self._told(block, first)
            yield from self._compare_copies(block, first, done)
            yield name
            self._alive()
        for (rule, array, message), (count, first) in wrong.items():
            done.found.append(
                Finding(Kind(rule), name, f"{count} rows, first sample {first}: {message}", array, count, first)
            )

    def _told(self, block: Block, first: int) -> Rows:
        listed = b""
        if "input_bytes" in block:
            listed = fingerprint_text(block, self._plan.meta)
        count = max(0, FIRST_INPUTS - first)
        digests = [digest.tobytes() for digest in block["input_sha256"][:count]]
        keys = zip(decode(block["sample_id"][:count]), digests, strict=True)
        columns = {name: block[name] for name in COLUMNS_FOR_TOTALS if name in block}
        return Rows(columns, listed, hashes(block["sample_id"]), {i: input_key(d) for i, d in keys if any(d)})

    def _compare_copies(self, block: Block, first: int, done: Checked) -> Iterator[str]:
        """Count the rows of run.h5 and of samples.h5 that are not what a shard says."""
        for file, copies in list(self._copies.items()):
            yield file
            try:
                for array, rows in check.differing_rows(copies, block, first):
                    count_rows(done.differing, (file, array), rows, first)
            except (*UNREADABLE, MemoryError) as error:
                require_memory(self._run / file, error)
                del self._copies[file]
                done.found.append(Finding(Kind.FILE_UNREADABLE, file, f"HDF5 cannot read it: {error}"))

    def _held(self) -> int:
        """Return the bytes that are held of a row while it is checked."""
        maps = 0 if self._plan.maps == "none" else PIXEL_BYTES * math.prod(self._plan.input_size)
        return maps + (
            FEATURE_BYTES * (self._plan.channels + len(self._plan.class_names)) if self._plan.features else 0
        )


def classifier_digests(file: h5py.File) -> dict[str, bytes]:
    """Return the digest of each of the classifier's arrays, by name; all NaN are one."""
    found = {}
    for array in CLASSIFIER_ARRAYS:
        values = file[array.name][...]
        found[array.name] = hashlib.sha256(np.where(np.isnan(values), np.nan, values).tobytes()).digest()
    return found


def count_rows(counted: Counted[Key], key: Key, rows: np.ndarray, first: int) -> None:
    """Add the rows of a block that starts at sample `first` to those counted before: how many, and the first."""
    if rows.any():
        count, earliest = counted.get(key, (0, first + int(rows.argmax())))
        counted[key] = (count + int(rows.sum()), earliest)
