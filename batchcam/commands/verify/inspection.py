"""What verify reads: every file and every row of a run. Read-only; `answer` does it in a confined process."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from batchcam.commands.verify import check
from batchcam.commands.verify.shards import Checked, Counted, Deadly, Rows, Seen, ShardReader, classifier_digests
from batchcam.errors import RunError, without_path
from batchcam.job.confined import Parent
from batchcam.job.crew import EndedError, crew
from batchcam.record.repeats import MOST_IDS, Repeats
from batchcam.record.totals import Totals, needs_a_look
from batchcam.rules import Status
from batchcam.store import landing
from batchcam.store.bringing import Elsewhere, stand_for
from batchcam.store.findings import Finding, Inspection, Kind
from batchcam.store.manifest import FileRecord, Manifest
from batchcam.store.plan import Plan, block_digests, fingerprint_covers, open_plan
from batchcam.store.reader import open_file
from batchcam.store.samples import StatedList, stated_list
from batchcam.store.schema import LIST_FILE, MANIFEST_FILE, MASTER_FILE, PLAN_FILE, SHARD_FOLDER
from batchcam.store.shard_table import table_beside


class Witness(Protocol):
    """Who is told how far the inspection is."""

    def tell(self, *, reading: str = "", total: int = 0, advance: int = 0) -> None:
        """Take note of the file that comes next, of how many samples there are, of how many were checked."""

    def alive(self) -> None:
        """Take note that it goes on, in whichever of its processes."""


def answer(parent: Parent, folder: Path, deadly: dict[str, str], processes: int) -> None:
    """Inspect the run `folder`, whose files may lie elsewhere, as a confined process, and as so many that it starts."""
    if parent.brings:
        stand_for(folder, Elsewhere(parent.bring))
    try:
        seen = inspect(folder, parent, deadly, processes)
        parent.tell(seen=dataclasses.replace(seen, unconfined=parent.unconfined).to_dict())
    except EndedError as error:  # of a process like this one, over the file that was told last
        if error.code < 0:
            signal.signal(-error.code, signal.SIG_DFL)
            os.kill(os.getpid(), -error.code)
        os._exit(error.code)


def inspect(run: Path, witness: Witness, deadly: Deadly, processes: int = 1) -> Inspection:
    """Check every file and every row of a run.

    Raises:
        RunError: the directory holds no run at all.
        OutOfMemoryError: there is too little memory to read a file.
        EndedError: one of several processes ended before its time.
    """
    if PLAN_FILE in deadly:
        return Inspection(found=[Finding(Kind.PLAN_DAMAGED, PLAN_FILE, deadly[PLAN_FILE])])
    witness.tell(reading=PLAN_FILE)
    try:
        plan, listed = open_plan(run), stated_list(run)
    except RunError as error:
        if not (run / PLAN_FILE).exists():
            raise
        return Inspection(found=[Finding(Kind.PLAN_DAMAGED, PLAN_FILE, without_path(error))])
    inspector = _Inspector(run, plan, listed, witness, deadly, processes)
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

    def __init__(
        self, run: Path, plan: Plan, listed: StatedList | None, witness: Witness, deadly: Deadly, processes: int
    ) -> None:
        self.samples = 0
        self.bytes = 0
        self.unreadable = 0
        self.sound: set[int] = set()
        self.unchecked: list[str] = []
        self._run, self._plan, self._listed, self._witness, self._deadly = run, plan, listed, witness, deadly
        self._processes = min(processes, len(plan.shards))
        self._readable: set[str] = set()
        self._fingerprint, self._has_sizes = hashlib.sha256(), any(a.name == "input_bytes" for a in plan.arrays)
        self._totals_seen = Totals(plan.is_multi_label)
        self._repeats = Repeats(plan.sample_count)
        self._first_inputs: dict[str, str] = {}
        self._classifiers: dict[str, dict[str, bytes]] = {}
        self._differing: Counted[tuple[str, str]] = {}

    def findings(self) -> Iterator[Finding]:
        manifest, found = self._manifest()
        yield from found
        yield from check.check_folder(self._run, self._plan, self._listed is not None)
        yield from self._list(manifest)
        of_master = list(self._master(manifest)) if manifest else []
        self._witness.tell(total=self._plan.sample_count)
        told: set[Finding] = set()
        for seen in self._seen():
            if isinstance(seen, str):
                self._witness.tell(reading=seen)
            elif isinstance(seen, Rows):
                self._count(seen)
            else:
                found = [*seen.found, *self._other_classifier(seen)]
                yield from (each for each in found if each not in told)  # all processes may find one of run.h5
                told.update(each for each in found if each.file in self._readable)
                self._close(seen, not found)
        yield from of_master
        if manifest and MASTER_FILE not in self._readable:
            yield from self._digests(manifest)
        yield from self._compare_with_shards()
        yield from self._dataset()
        if manifest:
            yield from self._totals(manifest)

    def _seen(self) -> Iterator[Seen]:
        """Yield what is seen of each shard, in their order, whichever process reads it."""
        shards, processes = self._plan.shards, self._processes

        def work(number: int) -> Iterator[Seen]:
            reader = ShardReader(self._run, self._plan, self._readable, self._deadly, self._witness.alive)
            for shard in shards[number::processes]:
                yield from reader.read(shard)

        if processes <= 1:
            yield from work(0)
            return
        with crew(processes, work) as members:
            for shard in shards:
                for seen in members[shard.index % processes]:
                    yield seen
                    if isinstance(seen, Checked):
                        break

    def _count(self, rows: Rows) -> None:
        self._totals_seen.add(rows.columns)
        self._fingerprint.update(rows.listed)
        self._repeats.add(rows.ids)
        self._first_inputs |= rows.first_inputs
        self.samples += len(rows.ids)
        self.unreadable += int(((rows.columns["status"] & Status.UNREADABLE) > 0).sum())

    def _other_classifier(self, shard: Checked) -> Iterator[Finding]:
        if not shard.classifier:
            return
        if shard.classifier != self._classifiers.setdefault(SHARD_FOLDER, shard.classifier):
            name = f"{SHARD_FOLDER}/{shard.shard.file}"
            yield Finding(Kind.CLASSIFIER, name, "not the classifier of the first shard", array="classifier")

    def _close(self, shard: Checked, is_sound: bool) -> None:
        self.bytes += shard.size
        if is_sound:
            self.sound.add(shard.shard.index)
        for key, (count, first) in shard.differing.items():
            before, earliest = self._differing.get(key, (0, first))
            self._differing[key] = (before + count, earliest)
        self._witness.tell(advance=shard.shard.count)

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

    def _master(self, manifest: Manifest) -> Iterator[Finding]:
        """Yield what is wrong with run.h5 by itself; if nothing is, it is compared with the shards."""
        if (yield from self._is_sound(manifest.master, check.check_digest(self._run, MASTER_FILE, manifest.master))):
            yield from self._compared(MASTER_FILE, lambda file: self._wrong_in_master(file, manifest))

    def _is_sound(self, record: FileRecord, damages: Iterator[Finding]) -> Generator[Finding, None, bool]:
        """Yield what is wrong with the bytes of a file, of which `damages` tells; return whether it may be parsed."""
        if fatal := self._fatal(Kind.FILE_UNREADABLE, record.file):
            yield fatal
            return False
        damaged = list(damages)
        yield from damaged
        self.bytes += 0 if damaged else record.bytes
        return not damaged

    def _wrong_in_master(self, file: h5py.File, manifest: Manifest) -> Iterator[Finding]:
        wrong = list(check.check_master(file, self._plan, manifest))
        yield from wrong
        if not wrong:
            yield from check.check_classes(file, self._plan, MASTER_FILE)
            self._classifiers[MASTER_FILE] = classifier_digests(file)

    def _list(self, manifest: Manifest | None) -> Iterator[Finding]:
        """Yield what is wrong with samples.h5 by itself; if nothing is, it is compared with the shards."""
        if manifest and manifest.samples != (self._listed and self._listed.record):
            yield Finding(Kind.MANIFEST_DAMAGED, MANIFEST_FILE, f"its {LIST_FILE} is not that of {PLAN_FILE}")
        if self._listed is None:
            return
        record = self._listed.record
        damages = check.check_bytes(self._run, LIST_FILE, record.sha256, record.bytes)
        if (yield from self._is_sound(record, damages)):
            yield from self._blocks(self._listed)
            yield from self._compared(LIST_FILE, lambda file: check.check_list(file, self._plan))

    def _blocks(self, listed: StatedList) -> Iterator[Finding]:
        """Yield whether the digests of samples.h5 by which tasks read a part of it are those of its parts."""
        if not listed.blocks:
            return
        with landing.brought(self._run / LIST_FILE) as content:
            if block_digests(content, listed.block_bytes) != [*listed.blocks]:
                message = f"its digests of parts of {LIST_FILE} are others than theirs"
                yield Finding(Kind.PLAN_DAMAGED, PLAN_FILE, message)

    def _compared(self, name: str, check_file: Callable[[h5py.File], Iterator[Finding]]) -> Iterator[Finding]:
        """Yield what is wrong with a file whose digest is right; unless anything is, it is read beside the shards."""
        try:
            with open_file(self._run / name) as file:
                wrong = list(check_file(file))
        except RunError as error:
            wrong = [Finding(Kind.FILE_UNREADABLE, name, without_path(error))]
        yield from wrong
        if not wrong:
            self._readable.add(name)

    def _digests(self, manifest: Manifest) -> Iterator[Finding]:
        """Yield whether the digests beside the shards are those of the manifest, where run.h5 does not say of each."""
        table = table_beside(self._run, self._plan)
        if table is None:
            self.unchecked.append("the shards' digests were not compared with the manifest: it takes all, or run.h5")
        elif table.stated(self._plan).sha256 != manifest.shards.sha256:
            message = "the digests beside the shards are not those that the manifest is about"
            yield Finding(Kind.DIGEST_FILE_DAMAGED, SHARD_FOLDER, message)

    def _compare_with_shards(self) -> Iterator[Finding]:
        """Yield where run.h5 does not say what the shards say that were read."""
        of_shards, of_master = (self._classifiers.get(each, {}) for each in (SHARD_FOLDER, MASTER_FILE))
        for array, digest in of_shards.items():
            if of_master.get(array, digest) != digest:
                yield Finding(Kind.CLASSIFIER, MASTER_FILE, "not that of the first shard", array=array)
        for (file, name), (count, first) in self._differing.items():
            message = f"{count} rows, first sample {first}: not what the shards say"
            yield Finding(Kind.SCHEMA if file == MASTER_FILE else Kind.DATASET, file, message, name, count, first)

    def _dataset(self) -> Iterator[Finding]:
        """Yield a finding when ids, labels, order or sizes are not those that the plan, and so the run id, is about."""
        about = "sample ids and labels were not compared with the dataset's fingerprint"
        if not self._has_sizes:
            self.unchecked.append(f"{about}: schema {self._plan.schema_version} has no input_bytes; see --recompute")
        elif self.samples != self._plan.sample_count:
            self.unchecked.append(f"{about}: it takes all shards")
        elif self._fingerprint.hexdigest() != self._plan.dataset_fingerprint:
            covered = fingerprint_covers(self._plan.meta)
            message = f"{covered} (input_bytes) or their order are not those of run.json's fingerprint"
            yield Finding(Kind.DATASET, SHARD_FOLDER, message)

        now = self._first_inputs
        if wrong := [i for i, key in self._plan.first_inputs.items() if now.get(i, key) != key]:
            message = f"{len(wrong)} of the first inputs are not those of run.json"
            yield Finding(Kind.DATASET, SHARD_FOLDER, message, "input_sha256")

    def _totals(self, manifest: Manifest) -> Iterator[Finding]:
        if self.samples != self._plan.sample_count:
            return
        if self.samples > MOST_IDS:
            self.unchecked.append(f"whether a sample id stands twice was not checked: more than {MOST_IDS} samples")
        elif self._repeats.any(self._ids()):
            yield Finding(Kind.COVERAGE, SHARD_FOLDER, "a sample id stands twice in the run", array="sample_id")
        totals = self._totals_seen.stated()
        if totals != manifest.totals:
            differing = sorted(k for k in {*totals, *manifest.totals} if totals.get(k) != manifest.totals.get(k))
            yield Finding(Kind.TOTALS, MANIFEST_FILE, f"{', '.join(differing)}: not what the shards give")
        if needs_a_look(totals) != manifest.findings:
            yield Finding(Kind.TOTALS, MANIFEST_FILE, "its findings are not what the shards give")

    def _ids(self) -> Iterator[np.ndarray]:
        """Yield the ids of all shards, which have been read before, once more."""
        for shard in self._plan.shards:
            with open_file(self._run / SHARD_FOLDER / shard.file) as file:
                yield file["sample_id"][...]
            self._witness.alive()
