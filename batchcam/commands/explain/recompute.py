"""verify --recompute: run the network again on samples drawn at random and compare with the record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from batchcam.commands.explain.reassembly import reassemble
from batchcam.config import Classifier, MapDataset
from batchcam.data.loader import LoadedBatch, collate
from batchcam.job.stop import stop_if_asked
from batchcam.maps.explainer import ExplainedBatch, Explainer, Request
from batchcam.network.device import pick_device
from batchcam.network.precision import set_precision, settings_kept
from batchcam.rules import RECOMPUTE_TOLERANCE, Status
from batchcam.store.files import RunFiles
from batchcam.store.findings import Finding, Kind
from batchcam.store.plan import Plan, Shard
from batchcam.store.run import Run
from batchcam.store.schema import SHARD_FOLDER

STORED: Final = ("input_sha256", "status", "logits", "cams", "cam_class")


@settings_kept()
def recompute(
    run: Path,
    plan: Plan,
    drawn: Sequence[tuple[Shard, list[int]]],
    classifier: Classifier,
    data: str | MapDataset,
    device: str,
) -> list[Finding]:
    """Explain samples of a run again; return what differs.

    Args:
        run: the run directory.
        plan: of it.
        drawn: positions of samples in the dataset, in batches of one shard each.
        classifier: the run's checkpoint.
        data: the run's dataset.
        device: where.

    Raises:
        CheckpointError: the checkpoint is not the run's.
        DatasetError: the dataset is not the run's.
        ConfigError: the preprocessing is not the run's.
    """
    picked = pick_device(device)
    set_precision(plan.precision, picked)
    assembly, explainable = reassemble(plan, classifier, data, picked)
    request = Request(plan.cams, "none", plan.input_size, plan.precision, identity=False)
    found: list[Finding] = []
    with (
        Explainer(explainable, assembly.preprocessing, request, picked) as explainer,
        # all shards, sound or not: a row is its sample's position in the dataset
        Run(run, plan, plan.shards, False, RunFiles(run, plan, None)) as record,
    ):
        for shard, indices in drawn:
            stop_if_asked()
            batch = collate([assembly.dataset[i] for i in indices])
            explained = explainer(batch.pixels, assembly.labels[indices], batch.unreadable)
            found += _compare(record, shard, batch, explained)
    return found


def _compare(record: Run, shard: Shard, batch: LoadedBatch, explained: ExplainedBatch) -> Iterator[Finding]:
    name, plan = f"{SHARD_FOLDER}/{shard.file}", record.plan
    stored = {array: getattr(record, array)[batch.indices.numpy()] for array in STORED}
    same_input = (stored["input_sha256"] == batch.sha256.numpy()).all(1)
    yield from _finding(
        Kind.INPUT_CHANGED, name, "input_sha256", ~same_input, batch.indices, "the stored image is another one now"
    )
    unreadable = stored["status"] & Status.UNREADABLE != 0
    other = (unreadable != batch.unreadable) & same_input
    message = "the image can be read now, or no longer"
    yield from _finding(Kind.RECOMPUTED, name, "status", other, batch.indices, message)
    both = ~unreadable & ~batch.unreadable & same_input
    same_classes = (stored["cam_class"] == explained.cam_class).all(1)
    for array, now in (("logits", explained.logits), ("cams", explained.cams)):
        then = stored[array].reshape(len(both), -1)
        most = RECOMPUTE_TOLERANCE[plan.precision]
        scale = np.maximum(1e-6, np.nanmax(np.abs(np.where(np.isfinite(then), then, 0)), axis=1))
        near = np.isclose(
            then,
            now.reshape(len(both), -1),
            rtol=0,
            atol=most * scale[:, None],
            equal_nan=True,
        )
        off = both & ~near.all(1)
        if array == "cams":
            off &= same_classes  # otherwise the ranking of near-equal logits changed, and logits tell
        yield from _finding(Kind.RECOMPUTED, name, array, off, batch.indices, "the network gives something else now")


def _finding(
    kind: Kind, name: str, array: str, rows: np.ndarray, indices: torch.Tensor, message: str
) -> Iterator[Finding]:
    if rows.any():
        first = int(indices[int(rows.argmax())])
        yield Finding(kind, name, f"{rows.sum()} rows, first sample {first}: {message}", array, int(rows.sum()), first)
