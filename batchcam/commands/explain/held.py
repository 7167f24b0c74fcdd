"""explain --new-since: which samples of a dataset other runs hold already, explained in the same way."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from batchcam.commands.explain.assembly import Assembly
from batchcam.data.samples import UNKNOWN_SIZE
from batchcam.data.timed_source import rest
from batchcam.errors import ConfigError, RunError
from batchcam.images.decoding import UnreadableImageError
from batchcam.job.console import counted
from batchcam.job.stop import stop_if_asked
from batchcam.rules import Status
from batchcam.store.document import canonical
from batchcam.store.opening import open_run
from batchcam.store.plan import IDENTITY_FIELDS, Plan, open_plan
from batchcam.store.run import Run
from batchcam.store.schema import MANIFEST_FILE, PLAN_FILE
from batchcam.store.series import find_runs

_OF_THE_DATASET = ("dataset_fingerprint", "dataset_code", "first_inputs", "meta")

SAME = tuple(f for f in IDENTITY_FIELDS if f not in (*_OF_THE_DATASET, "schema_version"))
"""Fields of the plan in which runs agree that explain an image in the same way."""

Proofs: TypeAlias = "dict[str, set[bytes]]"
"""By id, the sizes or digests of the images that are held under it, as bytes."""


class Held:
    """What the complete runs of a folder, or one run, hold of a dataset.

    Args:
        path: as the option gives it.
        by_digest: whether digests of the images prove them to be the same, not their sizes in bytes.

    Attributes:
        remarks: what the user should know of it, a line each.
    """

    def __init__(self, path: Path, by_digest: bool) -> None:
        self.remarks: list[str] = []
        self._path, self._by_digest = path, by_digest

    def samples(self, plan: Plan, assembly: Assembly) -> np.ndarray:
        """Return which samples are held, bool (n,); of what could not be read nothing is.

        Args:
            plan: how they are to be explained.

        Raises:
            ConfigError: there is no such run or folder, or the dataset's samples have no ids of their own.
            RunError: the one run is not complete, or explains otherwise; or a run is damaged.
        """
        if assembly.source.numbered:
            raise ConfigError(
                f"--new-since: the samples of {assembly.source.spec} have no ids of their own, by which other runs "
                "could hold them: give the dataset an attribute sample_ids"
            )
        proofs: Proofs = collections.defaultdict(set)
        for path in self._runs(plan):
            with open_run(path) as run:
                for sample_id, proof in self._rows(run):
                    proofs[sample_id].add(proof)
        held = _by_digest(assembly, proofs) if self._by_digest else self._by_size(assembly, proofs)
        self.remarks.append(f"{held.sum()} of {counted(len(held), 'sample')} left out: {self._path} holds them already")
        return held

    def _runs(self, plan: Plan) -> Iterator[Path]:
        path = self._path
        if not path.is_dir():
            raise ConfigError(f"--new-since {path}: no such folder")
        if (path / PLAN_FILE).exists():
            if reason := self._misfit(path, plan):
                raise RunError(f"--new-since {path}: {reason}")
            yield path
            return
        found = find_runs(path)
        passed_over = {**found.left_out, **{each: self._misfit(each, plan) for each in found.complete}}
        self.remarks += [f"{each} passed over: {reason}" for each, reason in passed_over.items() if reason]
        yield from (each for each in found.complete if not passed_over[each])

    def _misfit(self, path: Path, plan: Plan) -> str:
        """Return why a run says nothing of how this plan would explain its samples; "" if it does."""
        other = open_plan(path)
        if not (path / MANIFEST_FILE).exists():
            return "not complete"
        theirs, ours = other.to_dict(), plan.to_dict()
        differing = [f for f in SAME if canonical(theirs.get(f)) != canonical(ours.get(f))]
        if differing:
            return f"explains otherwise: another {', '.join(f.replace('_', ' ') for f in differing)}"
        if not self._by_digest and "input_bytes" not in (array.name for array in other.arrays):
            return f"schema {other.schema_version} has no sizes of files; say --by-digest"
        return ""

    def _rows(self, run: Run) -> Iterator[tuple[str, bytes]]:
        """Yield the id of each sample that could be read, and what proves that an image is the same."""
        proof = "input_sha256" if self._by_digest else "input_bytes"
        for _, block in run.blocks(["sample_id", "status", proof]):
            readable = np.flatnonzero(block["status"] & Status.UNREADABLE == 0)
            for row in readable.tolist():
                yield block["sample_id"][row], block[proof][row].tobytes()

    def _by_size(self, assembly: Assembly, proofs: Proofs) -> np.ndarray:
        sizes, ids = np.asarray(assembly.source.sizes), assembly.source.sample_ids
        named = np.array([sample_id in proofs for sample_id in ids])
        if unknown := int((named & (sizes == UNKNOWN_SIZE)).sum()):
            told = "held, but of no known size, and new therefore: --by-digest reads and compares them"
            self.remarks.append(f"{counted(unknown, 'sample')} {told}")
        same = [size.tobytes() in proofs.get(sample_id, ()) for sample_id, size in zip(ids, sizes, strict=True)]
        return np.asarray(np.array(same) & (sizes != UNKNOWN_SIZE))


def _by_digest(assembly: Assembly, proofs: Proofs) -> np.ndarray:
    held = np.zeros(len(assembly.source), bool)
    for index, sample_id in enumerate(assembly.source.sample_ids):
        stop_if_asked()
        if sample_id in proofs:
            with contextlib.suppress(UnreadableImageError):
                held[index] = assembly.source.read(index).sha256 in proofs[sample_id]
    rest(assembly.source)
    return held
