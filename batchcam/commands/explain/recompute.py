"""verify --recompute: run the network again on samples drawn at random and compare with the record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from batchcam.commands.explain.reassembly import reassemble
from batchcam.config import Classifier
from batchcam.data.loader import LoadedBatch, collate
from batchcam.job.stop import stop_if_asked
from batchcam.maps.explainer import ExplainedBatch, Explainer, Request
from batchcam.maps.preparation import prepare
from batchcam.network.device import pick_device
from batchcam.network.precision import set_precision
from batchcam.rules import RECOMPUTE_TOLERANCE, Status
from batchcam.store.findings import Finding, Kind
from batchcam.store.plan import Plan, Shard
from batchcam.store.reader import open_checked
from batchcam.store.schema import SHARD_FOLDER


def recompute(
    run: Path, plan: Plan, drawn: Sequence[tuple[Shard, list[int]]], classifier: Classifier, data: str, device: str
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
    assembly = reassemble(plan, classifier, data)
    proved = prepare(assembly.network, assembly.normalised_probe(picked), plan.method, plan.control, plan.target_layer)
    request = Request(plan.cams, "none", plan.input_size, plan.precision, identity=False)
    found: list[Finding] = []
    with Explainer(proved, assembly.preprocessing, request, picked) as explainer:
        for shard, indices in drawn:
            stop_if_asked()
            batch = collate([assembly.dataset[i] for i in indices])
            explained = explainer(batch.pixels, assembly.labels[indices], batch.unreadable)
            found += _compare(run, plan, shard, batch, explained)
    return found


def _compare(run: Path, plan: Plan, shard: Shard, batch: LoadedBatch, explained: ExplainedBatch) -> Iterator[Finding]:
    name = f"{SHARD_FOLDER}/{shard.file}"
    rows = batch.indices.numpy() - shard.first
    with open_checked(run / name, plan, shard) as file:
        stored = {n: file[n][rows] for n in ("input_sha256", "status", "logits", "cams", "cam_class")}
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
        then = stored[array].reshape(len(rows), -1)
        most = RECOMPUTE_TOLERANCE[plan.precision]
        scale = np.maximum(1e-6, np.nanmax(np.abs(np.where(np.isfinite(then), then, 0)), axis=1))
        near = np.isclose(
            then,
            now.reshape(len(rows), -1),
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
