"""Samples that are not independent: images that a run holds twice, or that its training data holds too, by digest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

import numpy as np

from batchcam.store.bringing import shown
from batchcam.store.reader import COLUMN_BYTES
from batchcam.store.run import Run

LISTED: Final = 20


@dataclasses.dataclass(frozen=True)
class Shared:
    """Samples whose image stands elsewhere too: how many, and the ids of the first."""

    count: int
    ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Training:
    """A run over the images that a network was trained on: how many it planned, has digests of, and shares."""

    run: str
    samples: int
    compared: int
    shared: Shared


@dataclasses.dataclass(frozen=True)
class Overlap:
    """How far a run's samples are independent.

    Attributes:
        compared: samples with a digest; what could not be opened has none.
        twice: samples whose image another one of the run has too.
        training: None where nobody named a run over it.
    """

    compared: int
    twice: Shared
    training: Training | None


def find_overlap(run: Run, training: Run | None) -> Overlap:
    """Return what a run holds twice, or shares with its training data, to the byte: some 100 bytes a sample are held.

    Images that were only scaled, cropped or stored again have other digests.
    """
    rows, digests = map(np.concatenate, zip(*_digests(run), strict=True))
    order = np.argsort(digests)
    rows, digests = rows[order], digests[order]
    starts = np.flatnonzero(np.append(True, digests[1:] != digests[:-1])[: len(rows)])
    counts = np.diff(starts, append=len(rows))
    twice = _shared(run, rows[np.repeat(counts > 1, counts)])
    if training is None:
        return Overlap(len(rows), twice, None)
    found, compared = np.zeros(len(rows), bool), 0
    for _, others in _digests(training):
        at = np.searchsorted(digests, others)
        there = at < len(digests)
        there[there] = digests[at[there]] == others[there]
        found[at[there]] = True
        compared += len(others)
    planned = sum(each.plan.sample_count for each in training.runs)
    shared = _shared(run, rows[np.repeat(found[starts], counts)])
    return Overlap(len(rows), twice, Training(shown(training.path), planned, compared, shared))


def _digests(run: Run) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows whose image has a digest, and these, as texts of 32 bytes, which numpy sorts."""
    for rows, block in run.blocks(("input_sha256",), budget=COLUMN_BYTES):
        digests = block["input_sha256"]
        known = digests.any(1)
        yield rows[known], np.ascontiguousarray(digests[known]).view("S32")[:, 0]


def _shared(run: Run, rows: np.ndarray) -> Shared:
    return Shared(len(rows), tuple(run.sample_id[np.sort(rows)[:LISTED]].tolist()))
