"""verify: is the run whole, and is what it says true? Read-only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from batchcam.audit import Facts, Wrong, audit
from batchcam.commands.merge import count_totals, needs_a_look, open_plan
from batchcam.config import VerifyConfig
from batchcam.console import Progress, note
from batchcam.errors import RunError
from batchcam.store import check, landing
from batchcam.store.findings import Finding, Kind
from batchcam.store.layout import array_shape
from batchcam.store.manifest import FileRecord, Manifest
from batchcam.store.plan import Plan, Shard
from batchcam.store.reader import blocks, open_file
from batchcam.store.schema import CLASSIFIER_ARRAYS, MANIFEST_FILE, MASTER_FILE, PLAN_FILE, SHARD_FOLDER, sample_arrays

BLOCK_ROWS = 256
BLOCK_BYTES = 64 * 2**20
COLUMNS_FOR_TOTALS = ("label", "prediction", "status", "identity_residual", "sample_id")


@dataclasses.dataclass(frozen=True)
class VerifySummary:
    """What verify saw.

    Attributes:
        run: the run directory.
        run_id: of the plan, None when it can't be read.
        shards: checked.
        samples: rows checked.
        bytes: of the files whose digest was computed.
        recomputed: samples explained again.
        manifest_sha256: digest of manifest.json, to be compared with one noted down when the run was made.
        found: all findings.
    """

    run: str
    run_id: str | None
    shards: int
    samples: int
    bytes: int
    recomputed: int
    manifest_sha256: str | None
    found: list[Finding]

    @property
    def findings(self) -> int:
        """How many findings there are."""
        return len(self.found)


def verify(config: VerifyConfig) -> VerifySummary:
    """Check every file and every row of a run; report everything that is wrong.

    Raises:
        RunError: the directory holds no run at all.
    """
    run = config.run
    try:
        plan = open_plan(run)
    except RunError as error:
        if not (run / PLAN_FILE).exists():
            raise
        finding = Finding(Kind.PLAN_DAMAGED, PLAN_FILE, str(error).partition(": ")[2])
        return VerifySummary(str(run), None, 0, 0, 0, 0, None, [finding])
    verification = _Verification(run, plan, config.quiet)
    found = list(verification.findings())
    recomputed = 0
    if config.recompute:
        from batchcam.commands.recompute import recompute  # needs torch

        sound = [s for s in plan.shards if s.index in verification.sound]
        count = min(config.recompute, sum(s.count for s in sound))
        note(f"explaining {count} samples again", config.quiet)
        recomputed, more = recompute(config, plan, sound)
        found += more
    digest = landing.file_digest(run / MANIFEST_FILE) if (run / MANIFEST_FILE).is_file() else None
    return VerifySummary(
        run=str(run),
        run_id=plan.run_id,
        shards=len(plan.shards),
        samples=verification.samples,
        bytes=verification.bytes,
        recomputed=recomputed,
        manifest_sha256=digest,
        found=found,
    )


class _Verification:
    """One pass over a run's files."""

    def __init__(self, run: Path, plan: Plan, quiet: bool) -> None:
        self.samples = 0
        self.bytes = 0
        self.sound: set[int] = set()
        self._run, self._plan, self._quiet = run, plan, quiet
        self._names = tuple(a.name for a in sample_arrays(plan.maps))
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS_FOR_TOTALS}
        self._classifier: list[np.ndarray] | None = None
        self._read: list[Shard] = []

    def findings(self) -> Iterator[Finding]:
        manifest, found = check.load_manifest(self._run, self._plan)
        yield from found
        yield from check.check_folder(self._run, self._plan)
        with Progress("verify", self._plan.sample_count, "samples", self._quiet) as progress:
            for shard in self._plan.shards:
                wrong = list(self._shard(shard, manifest.shards[shard.index] if manifest else None))
                if not wrong:
                    self.sound.add(shard.index)
                yield from wrong
                progress.advance(shard.count)
        if manifest:
            yield from self._master(manifest)
            yield from self._totals(manifest)

    def _shard(self, shard: Shard, record: FileRecord | None) -> Iterator[Finding]:
        name = f"{SHARD_FOLDER}/{shard.file}"
        damaged = list(check.check_digest(self._run, name, record))
        yield from damaged
        if damaged:
            return
        self.bytes += (self._run / name).stat().st_size
        try:
            with open_file(self._run / name) as file:
                wrong = list(check.check_structure(file, self._plan, shard, name))
                yield from wrong or self._content(file, shard, name)
        except RunError as error:
            yield Finding(Kind.FILE_UNREADABLE, name, str(error).partition(": ")[2])

    def _content(self, file: h5py.File, shard: Shard, name: str) -> Iterator[Finding]:
        yield from check.check_classes(file, self._plan, name)
        classifier = [file[a.name][...] for a in CLASSIFIER_ARRAYS]
        self._classifier = self._classifier or classifier
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(classifier, self._classifier, strict=True)):
            yield Finding(Kind.CLASSIFIER, name, "not the classifier of the first shard", array="classifier")
        facts = self._facts(classifier[1])
        wrong: dict[tuple[str, str, str], tuple[int, int]] = {}
        for start, block in blocks(file, self._names, self._block_rows()):
            expected = np.arange(shard.first + start, shard.first + start + len(block["status"]))
            displaced = Wrong(
                "coverage", "sample_index", block["sample_index"] != expected, "not the sample that the plan says"
            )
            for broken in (displaced, *audit(block, facts)):
                if broken.rows.any():
                    key = (broken.rule, broken.array, broken.message)
                    count, first = wrong.get(key, (0, shard.first + start + int(broken.rows.argmax())))
                    wrong[key] = (count + int(broken.rows.sum()), first)
            for column in COLUMNS_FOR_TOTALS:
                self._columns[column].append(block[column])
            self.samples += len(block["status"])
        self._read.append(shard)
        for (rule, array, message), (count, first) in wrong.items():
            yield Finding(Kind(rule), name, f"{count} rows, first sample {first}: {message}", array, count, first)

    def _block_rows(self) -> int:
        """Return how many rows to read at once: BLOCK_ROWS, fewer where rows are large."""
        shapes = [(a, array_shape(a, self._plan, 1)) for a in sample_arrays(self._plan.maps)]
        row_bytes = sum(math.prod(s) * np.dtype(a.dtype).itemsize for a, s in shapes if a.dtype != "text")
        return max(1, min(BLOCK_ROWS, BLOCK_BYTES // row_bytes))

    def _facts(self, bias: np.ndarray) -> Facts:
        plan = self._plan
        return Facts(len(plan.class_names), plan.cams, plan.maps, plan.input_size, plan.precision, plan.identity, bias)

    def _master(self, manifest: Manifest) -> Iterator[Finding]:
        damaged = list(check.check_digest(self._run, MASTER_FILE, manifest.master))
        yield from damaged
        if not damaged:
            self.bytes += manifest.master.bytes
            try:
                with open_file(self._run / MASTER_FILE) as file:
                    wrong = list(check.check_master(file, self._plan, manifest))
                    yield from wrong or self._copies(file)
            except RunError as error:
                yield Finding(Kind.FILE_UNREADABLE, MASTER_FILE, str(error).partition(": ")[2])

    def _copies(self, master: h5py.File) -> Iterator[Finding]:
        """Yield where run.h5 does not say what the shards say that were read."""
        yield from check.check_classes(master, self._plan, MASTER_FILE)
        if self._classifier is None:
            return
        for array, values in zip(CLASSIFIER_ARRAYS, self._classifier, strict=True):
            if not np.array_equal(master[array.name][...], values, equal_nan=True):
                yield Finding(Kind.CLASSIFIER, MASTER_FILE, "not that of the first shard", array=array.name)
        wrong: dict[str, tuple[int, int]] = {}
        for shard in self._read:
            with open_file(self._run / SHARD_FOLDER / shard.file) as file:
                for array_name, rows in check.check_copies(master, file, self._plan, shard).items():
                    count, first = wrong.get(array_name, (0, shard.first + int(rows.argmax())))
                    wrong[array_name] = (count + int(rows.sum()), first)
        for name, (count, first) in wrong.items():
            message = f"{count} rows, first sample {first}: not what the shards say"
            yield Finding(Kind.SCHEMA, MASTER_FILE, message, name, count, first)

    def _gathered(self) -> dict[str, np.ndarray] | None:
        """Return the columns of all shards, None unless each was sound enough to be read."""
        if self.samples != self._plan.sample_count:
            return None
        return {name: np.concatenate(parts) for name, parts in self._columns.items()}

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
