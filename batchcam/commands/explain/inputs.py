"""What is known of a dataset's images before all are read: a few digests, and whether they are those of before."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from batchcam.commands.explain.assembly import Assembly
from batchcam.data.samples import UNKNOWN_SIZE
from batchcam.data.sources import Source
from batchcam.data.timed_source import rest
from batchcam.errors import RunError
from batchcam.images.decoding import UnreadableImageError
from batchcam.rules import Status
from batchcam.store.files import RunFiles
from batchcam.store.plan import FIRST_INPUTS, Plan, input_key
from batchcam.store.run import Run

MOST_LOOKED_AT: Final = 8
"""Images, spread over the rows; each may lie in a shard of its own, which has to be opened."""


def first_inputs(source: Source) -> dict[str, str]:
    """Return what `Plan.first_inputs` says of a dataset; what can't be read is left out.

    Of most files their sizes are known: a plan that depends on which can be read just now would be worse than none.
    """
    if source.digests_of == "files" and (source.paths is not None or source.sizes[0] != UNKNOWN_SIZE):
        return {}
    digests = _digests(source, range(min(FIRST_INPUTS, len(source))))
    return {source.sample_ids[index]: input_key(digest) for index, digest in digests}


def as_planned(plan: Plan, existing: Plan) -> Plan:
    """Return `plan` without what the existing run's, of a version that did not say it, lacks.

    Of the first inputs it says what the existing one does, unless one is another now.
    """
    now, then = plan.first_inputs, existing.first_inputs
    if any(now.get(sample_id, key) != key for sample_id, key in then.items()):
        then = now
    label_kind = plan.label_kind if existing.label_kind else ""
    return dataclasses.replace(plan, first_inputs=then, training_known=existing.training_known, label_kind=label_kind)


def leak_remarks(assembly: Assembly) -> Iterator[str]:
    """Yield what is to be told where images looked at are images that the network was trained on."""
    source, trained_on = assembly.source, assembly.trained_on
    if not trained_on:
        if assembly.checkpoint.trained_on:
            kinds = " and ".join(sorted(assembly.checkpoint.trained_on.kinds))
            yield f"trained on: not known: the checkpoint has digests of {kinds}, the dataset of {source.digests_of}"
        return
    digests = [digest for _, digest in _digests(source, _spread(len(source)))]
    leaked = int(trained_on.hold(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)).sum())
    if leaked:
        yield (
            f"trained on: {leaked} of {len(digests)} images looked at are among the {len(trained_on)} that the network "
            "was trained on: its predictions of these do not tell how well it predicts others"
        )


def trained_on(assembly: Assembly, sha256: np.ndarray) -> np.ndarray:
    """Return the column `trained_on` of images with these digests, which are zeros where there is none, int8 (n,)."""
    if assembly.trained_on is None:
        return np.full(len(sha256), -1, np.int8)
    return np.where(sha256.any(1), assembly.trained_on.hold(sha256), -1).astype(np.int8)


def require_same_inputs(run: Path, plan: Plan, assembly: Assembly, landed: Collection[int]) -> None:
    """Refuse to go on with a run some of whose images, of those looked at, are others now.

    What can't be read on either side says nothing: verify and the work itself tell of it.

    Raises:
        RunError: the message names the first.
    """
    shards = [s for s in plan.shards if s.index in landed]
    then = {}
    with Run(run, plan, shards, False, RunFiles(run, plan, proves=False)) as record:
        for row in _spread(len(record)):
            try:
                if not record.status[row] & Status.UNREADABLE:
                    then[int(record.sample_index[row])] = record.input_sha256[row].tobytes()
            except RunError:
                continue
    now = dict(_digests(assembly.source, list(then)))
    differing = [index for index, digest in now.items() if digest != then[index]]
    if differing:
        first = assembly.source.sample_ids[differing[0]]
        raise RunError(
            f"{run}: {len(differing)} of {len(now)} images looked at are others than those that were explained, first "
            f"{first}: choose another --out"
        )


def _spread(count: int) -> list[int]:
    """Return a few positions, spread over so many."""
    return sorted(set(np.linspace(0, count - 1, MOST_LOOKED_AT, dtype=np.int64).tolist())) if count else []


def _digests(source: Source, indices: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yield the SHA-256 of those images that can be read."""
    for index in indices:
        try:
            yield index, source.read(index).sha256
        except UnreadableImageError:
            continue
    rest(source)
