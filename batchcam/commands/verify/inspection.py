"""What verify reads: every file and every row of a run. Read-only; `answer` does it in a confined process."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import h5py
import numpy as np

from batchcam.commands.verify import check
from batchcam.commands.verify.audit import Wrong, audit
from batchcam.errors import RunError, without_path
from batchcam.job.confined import Parent
from batchcam.record.totals import count_totals, needs_a_look
from batchcam.rules import Status
from batchcam.store import structure
from batchcam.store.findings import Finding, Inspection, Kind
from batchcam.store.manifest import FileRecord, Manifest
from batchcam.store.plan import FIRST_INPUTS, Fingerprint, Plan, Shard, block_digests, input_key, open_plan
from batchcam.store.reader import READ_BYTES, UNREADABLE, blocks, decode, open_file, open_hdf5
from batchcam.store.samples import StatedList, stated_list
from batchcam.store.schema import (
    CLASSIFIER_ARRAYS,
    LIST_FILE,
    LISTED,
    MANIFEST_FILE,
    MASTER_FILE,
    PLAN_FILE,
    SHARD_FOLDER,
    TRAINED_ON,
    meta_array,
)

PIXEL_BYTES = 24
"""Held for each pixel of a map that is compared with its CAM: float64, three times."""

COLUMNS_FOR_TOTALS = ("label", "prediction", "status", "identity_residual", "sample_id", TRAINED_ON)
"""Those that a run has."""

Deadly = Mapping[str, str]
"""Files that ended a process that read them, and how: they are not touched again."""


Key = TypeVar("Key")


class Witness(Protocol):
    """Who is told how far the inspection is."""

    def tell(self, *, reading: str = "", total: int = 0, advance: int = 0) -> None:
        """Take note of the file that comes next, of how many samples there are, of how many were checked."""

    def alive(self) -> None:
        """Take note that it goes on."""


def answer(parent: Parent, folder: Path, deadly: dict[str, str]) -> None:
    """Inspect the run `folder` as a confined process."""
    parent.tell(seen=inspect(folder, parent, deadly).to_dict())


def inspect(run: Path, witness: Witness, deadly: Deadly) -> Inspection:
    """Check every file and every row of a run.

    Raises:
        RunError: the directory holds no run at all.
    """
    if PLAN_FILE in deadly:
        return Inspection(None, 0, 0, 0, [], [Finding(Kind.PLAN_DAMAGED, PLAN_FILE, deadly[PLAN_FILE])])
    witness.tell(reading=PLAN_FILE)
    try:
        plan, listed = open_plan(run), stated_list(run)
    except RunError as error:
        if not (run / PLAN_FILE).exists():
            raise
        return Inspection(None, 0, 0, 0, [], [Finding(Kind.PLAN_DAMAGED, PLAN_FILE, without_path(error))])
    inspector = _Inspector(run, plan, listed, witness, deadly)
    found = list(inspector.findings())
    return Inspection(
        plan.run_id,
        len(plan.shards),
        inspector.samples,
        inspector.bytes,
        sorted(inspector.sound),
        found,
        inspector.unreadable,
        inspector.unchecked,
    )


class _Inspector:
    """One pass over a run's files."""

    def __init__(self, run: Path, plan: Plan, listed: StatedList | None, witness: Witness, deadly: Deadly) -> None:
        self.samples = 0
        self.bytes = 0
        self.unreadable = 0
        self.sound: set[int] = set()
        self.unchecked: list[str] = []
        self._run, self._plan, self._listed, self._witness, self._deadly = run, plan, listed, witness, deadly
        self._names = tuple(a.name for a in plan.arrays)
        self._fingerprint = Fingerprint(plan.meta)
        self._columns: dict[str, list[np.ndarray]] = {n: [] for n in COLUMNS_FOR_TOTALS if n in self._names}
        self._first_inputs: dict[str, str] = {}
        self._classifier: list[np.ndarray] | None = None
        self._classifier_of_master: list[np.ndarray] | None = None
        self._differing: dict[tuple[str, str], tuple[int, int]] = {}
        self._copies: dict[str, dict[str, h5py.Dataset]] = {MASTER_FILE: {}, LIST_FILE: {}}

    def findings(self) -> Iterator[Finding]:
        manifest, found = self._manifest()
        yield from found
        yield from check.check_folder(self._run, self._plan, self._listed is not None)
        with contextlib.ExitStack() as stack:
            yield from self._list(manifest, stack)
            of_master = list(self._master(manifest, stack)) if manifest else []
            self._witness.tell(total=self._plan.sample_count)
            for shard in self._plan.shards:
                wrong = list(self._shard(shard, manifest.shards[shard.index] if manifest else None))
                if not wrong:
                    self.sound.add(shard.index)
                yield from wrong
                self._witness.tell(advance=shard.count)
            yield from of_master
        yield from self._compare_with_shards()
        yield from self._dataset()
        if manifest:
            yield from self._totals(manifest)

    def _manifest(self) -> tuple[Manifest | None, list[Finding]]:
        if fatal := self._fatal(Kind.MANIFEST_DAMAGED, MANIFEST_FILE):
            return None, [fatal]
        return check.load_manifest(self._run, self._plan)

    def _fatal(self, kind: Kind, name: str) -> Finding | None:
        """Announce that `name` comes next, unless it ended a process before: then return that as a finding."""
        if name in self._deadly:
            return Finding(kind, name, self._deadly[name])
        self._witness.tell(reading=name)
        return None

    def _readable(self, name: str, record: FileRecord | None) -> Iterator[Finding]:
        """Yield what forbids to parse file `name`."""
        if fatal := self._fatal(Kind.FILE_UNREADABLE, name):
            yield fatal
            return
        damaged = list(check.check_digest(self._run, name, record))
        yield from damaged
        self._witness.alive()
        if not damaged:
            self.bytes += (self._run / name).stat().st_size

    def _shard(self, shard: Shard, record: FileRecord | None) -> Iterator[Finding]:
        name = f"{SHARD_FOLDER}/{shard.file}"
        damaged = list(self._readable(name, record))
        yield from damaged
        if damaged:
            return
        try:
            with open_file(self._run / name) as file:
                wrong = list(check.check_structure(file, self._plan, shard, name))
                yield from wrong or self._content(file, shard, name)
        except RunError as error:
            yield Finding(Kind.FILE_UNREADABLE, name, without_path(error))

    def _content(self, file: h5py.File, shard: Shard, name: str) -> Iterator[Finding]:
        yield from check.check_classes(file, self._plan, name)
        classifier = [file[a.name][...] for a in CLASSIFIER_ARRAYS]
        self._classifier = self._classifier or classifier
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(classifier, self._classifier, strict=True)):
            yield Finding(Kind.CLASSIFIER, name, "not the classifier of the first shard", array="classifier")
        wrong: dict[tuple[str, str, str], tuple[int, int]] = {}
        for rows, block in blocks(file.__getitem__, self._names, np.arange(shard.count), READ_BYTES, self._held()):
            first = shard.first + int(rows[0])
            elsewhere = block["sample_index"] != shard.first + rows
            displaced = Wrong("coverage", "sample_index", elsewhere, "not the sample that the plan says")
            for broken in (displaced, *audit(block, self._plan, classifier[1])):
                _count(wrong, (broken.rule, broken.array, broken.message), broken.rows, first)
            for column, parts in self._columns.items():
                parts.append(block[column])
            self._look_at_inputs(block, FIRST_INPUTS - first)
            if "input_bytes" in block:
                self._fingerprint.add(block)
            self.samples += len(rows)
            self.unreadable += int(((block["status"] & Status.UNREADABLE) > 0).sum())
            yield from self._compare_copies(block, first, name)
            self._witness.alive()
        for (rule, array, message), (count, first) in wrong.items():
            yield Finding(Kind(rule), name, f"{count} rows, first sample {first}: {message}", array, count, first)

    def _look_at_inputs(self, block: Mapping[str, np.ndarray], count: int) -> None:
        """Note the digests of a block's first `count` samples, as the plan may have them."""
        if count > 0:
            digests = [digest.tobytes() for digest in block["input_sha256"][:count]]
            ids = decode(block["sample_id"][:count])
            self._first_inputs |= {i: input_key(d) for i, d in zip(ids, digests, strict=True) if any(d)}

    def _compare_copies(self, block: Mapping[str, np.ndarray], first: int, name: str) -> Iterator[Finding]:
        """Count the rows of run.h5 and of samples.h5 that are not what a shard says."""
        for file, copies in self._copies.items():
            if not copies:
                continue
            self._witness.tell(reading=file)
            try:
                for array, rows in check.differing_rows(copies, block, first):
                    _count(self._differing, (file, array), rows, first)
            except (*UNREADABLE, MemoryError) as error:
                self._copies[file] = {}
                yield Finding(Kind.FILE_UNREADABLE, file, f"HDF5 cannot read it: {error}")
        self._witness.tell(reading=name)

    def _master(self, manifest: Manifest, stack: contextlib.ExitStack) -> Iterator[Finding]:
        """Yield what is wrong with run.h5 by itself; if nothing is, it stays open for comparison until `stack` ends."""
        damaged = list(self._readable(MASTER_FILE, manifest.master))
        yield from damaged
        if damaged:
            return
        try:
            file = open_hdf5(self._run / MASTER_FILE)
            stack.callback(_close, file)
            wrong = list(check.check_master(file, self._plan, manifest))
            yield from wrong
            if not wrong:
                yield from check.check_classes(file, self._plan, MASTER_FILE)
                self._classifier_of_master = [file[a.name][...] for a in CLASSIFIER_ARRAYS]
                arrays = self._plan.arrays
                own = [a.name for a in arrays if not structure.lies_in_shards(file, a)]
                self._copies[MASTER_FILE] = {name: file[name] for name in own}
        except (*UNREADABLE, MemoryError) as error:
            yield Finding(Kind.FILE_UNREADABLE, MASTER_FILE, f"HDF5 cannot read it: {error}")

    def _list(self, manifest: Manifest | None, stack: contextlib.ExitStack) -> Iterator[Finding]:
        """Yield what is wrong with samples.h5 by itself; if nothing is, it stays open as run.h5 does."""
        if manifest and manifest.samples != (self._listed and self._listed.record):
            yield Finding(Kind.MANIFEST_DAMAGED, MANIFEST_FILE, f"its {LIST_FILE} is not that of {PLAN_FILE}")
        if self._listed is None:
            return
        if fatal := self._fatal(Kind.FILE_UNREADABLE, LIST_FILE):
            yield fatal
            return
        path, record, digests = self._run / LIST_FILE, self._listed.record, self._listed.blocks
        damaged = list(check.check_bytes(self._run, LIST_FILE, record.sha256, record.bytes))
        yield from damaged
        if damaged:
            return
        self.bytes += record.bytes
        try:
            with path.open("rb") as content:
                now = block_digests(content, self._listed.block_bytes) if digests else []
            if now != [*digests]:
                yield Finding(
                    Kind.PLAN_DAMAGED, PLAN_FILE, f"its digests of parts of {LIST_FILE} are others than theirs"
                )
            file = open_hdf5(path)
            stack.callback(_close, file)
            wrong = list(check.check_list(file, self._plan))
            yield from wrong
            if not wrong:
                listed = (*LISTED, *(meta_array(name).name for name in self._plan.meta))
                self._copies[LIST_FILE] = {name: file[name] for name in listed}
        except (RunError, *UNREADABLE, MemoryError) as error:
            yield Finding(Kind.FILE_UNREADABLE, LIST_FILE, f"HDF5 cannot read it: {error}")

    def _compare_with_shards(self) -> Iterator[Finding]:
        """Yield where run.h5 does not say what the shards say that were read."""
        if self._classifier and self._classifier_of_master:
            pairs = zip(CLASSIFIER_ARRAYS, self._classifier, self._classifier_of_master, strict=True)
            for array, of_shard, of_master in pairs:
                if not np.array_equal(of_shard, of_master, equal_nan=True):
                    yield Finding(Kind.CLASSIFIER, MASTER_FILE, "not that of the first shard", array=array.name)
        for (file, name), (count, first) in self._differing.items():
            message = f"{count} rows, first sample {first}: not what the shards say"
            yield Finding(Kind.SCHEMA if file == MASTER_FILE else Kind.DATASET, file, message, name, count, first)

    def _held(self) -> int:
        """Return the bytes that are held of a row while it is checked."""
        return 0 if self._plan.maps == "none" else PIXEL_BYTES * math.prod(self._plan.input_size)

    def _gathered(self) -> dict[str, np.ndarray] | None:
        """Return the columns of all shards, None unless each was sound enough to be read."""
        if self.samples != self._plan.sample_count:
            return None
        return {name: np.concatenate(parts) for name, parts in self._columns.items()}

    def _dataset(self) -> Iterator[Finding]:
        """Yield a finding when ids, labels, order or sizes are not those that the plan, and so the run id, is about."""
        about = "sample ids and labels were not compared with the dataset's fingerprint"
        if "input_bytes" not in self._names:
            self.unchecked.append(f"{about}: schema {self._plan.schema_version} has no input_bytes; see --recompute")
        elif self.samples != self._plan.sample_count:
            self.unchecked.append(f"{about}: it takes all shards")
        elif self._fingerprint.hex() != self._plan.dataset_fingerprint:
            covered = self._fingerprint.covers
            message = f"{covered} (input_bytes) or their order are not those of run.json's fingerprint"
            yield Finding(Kind.DATASET, SHARD_FOLDER, message)

        now = self._first_inputs
        if wrong := [i for i, key in self._plan.first_inputs.items() if now.get(i, key) != key]:
            message = f"{len(wrong)} of the first inputs are not those of run.json"
            yield Finding(Kind.DATASET, SHARD_FOLDER, message, "input_sha256")

    def _totals(self, manifest: Manifest) -> Iterator[Finding]:
        columns = self._gathered()
        if columns is None:
            return
        if len(np.unique(columns["sample_id"])) != len(columns["sample_id"]):
            yield Finding(Kind.COVERAGE, SHARD_FOLDER, "a sample id stands twice in the run", array="sample_id")
        totals: dict[str, Any] = count_totals(columns)
        if totals != manifest.totals:
            differing = sorted(k for k in {*totals, *manifest.totals} if totals.get(k) != manifest.totals.get(k))
            yield Finding(Kind.TOTALS, MANIFEST_FILE, f"{', '.join(differing)}: not what the shards give")
        if needs_a_look(totals) != manifest.findings:
            yield Finding(Kind.TOTALS, MANIFEST_FILE, "its findings are not what the shards give")


def _count(counted: dict[Key, tuple[int, int]], key: Key, rows: np.ndarray, first: int) -> None:
    """Add the rows of a block that starts at sample `first` to those counted before: how many, and the first."""
    if rows.any():
        count, earliest = counted.get(key, (0, first + int(rows.argmax())))
        counted[key] = (count + int(rows.sum()), earliest)


def _close(file: h5py.File) -> None:
    with contextlib.suppress(*UNREADABLE):  # of what it read, nothing depends on how it is left
        file.close()
