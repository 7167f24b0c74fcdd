"""What a run with features tells of its samples, as columns of a table: near-duplicates, labels that may be wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from batchcam.errors import RunError
from batchcam.record.label_suspicion import class_confidences, label_suspicion
from batchcam.record.neighbours import MOST_COMPARED, nearest, stored_features
from batchcam.record.rows import class_names, label_texts
from batchcam.store.opening import open_run
from batchcam.store.run import Run

Alike = Callable[[np.ndarray, Mapping[str, np.ndarray]], dict[str, Any]]
"""Columns of rows, from these and their `label` and `logits`; those of texts are lists."""


@contextlib.contextmanager
def alike(run: Run, train_run: Path | None) -> Iterator[Alike]:
    """Give out what gives the columns; none of a run without features, nor neighbours of one that is too large.

    Args:
        train_run: also look for the nearest samples there.

    Raises:
        RunError: `train_run` is of another network, or either run has no features, or too many.
    """
    given: list[Alike] = []
    if run.plan.features and not run.plan.is_multi_label:
        given.append(_suspicions(run))
    if run.plan.features and len(run) <= MOST_COMPARED:
        given.append(_neighbours("neighbour", run, *nearest(stored_features(run))))
    with open_run(train_run) if train_run else contextlib.nullcontext() as other:
        if other:
            if (run.networks, run.plan.target_layer) != (other.networks, other.plan.target_layer):
                raise RunError(f"{other.path}: of another network than {run.path}: features can't be compared")
            near = nearest(stored_features(run), stored_features(other))
            given.append(_neighbours("train_neighbour", other, *near))
        yield lambda rows, block: {name: column for each in given for name, column in each(rows, block).items()}


def notes_of(run: Run) -> tuple[str, ...]:
    """Return what to tell of columns that are not there."""
    if run.plan.features and len(run) > MOST_COMPARED:
        return (f"no neighbours: the run has more than {MOST_COMPARED} samples, and each is compared with each",)
    return ()


def _suspicions(run: Run) -> Alike:
    usual = class_confidences(run)

    def columns(rows: np.ndarray, block: Mapping[str, np.ndarray]) -> dict[str, Any]:
        suspicion, meant = label_suspicion(block["logits"], block["label"], usual)
        return {"label_suspicion": suspicion, "suspected_class": class_names(run, meant)}

    return columns


def _neighbours(name: str, among: Run, near: np.ndarray, similarity: np.ndarray) -> Alike:
    def columns(rows: np.ndarray, block: Mapping[str, np.ndarray]) -> dict[str, Any]:
        known = near[rows] >= 0
        texts = np.full((2, len(rows)), None, object)
        texts[0, known] = among.sample_id[near[rows][known]]
        texts[1, known] = label_texts(among, near[rows][known])
        told = {name: texts[0].tolist(), f"{name}_label": texts[1].tolist()}
        return {**told, f"{name}_similarity": similarity[rows]}

    return columns
