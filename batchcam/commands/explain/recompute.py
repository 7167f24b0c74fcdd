"""verify --recompute: run the network again on samples drawn at random and compare with the record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch

from batchcam.commands.explain.reassembly import reassemble
from batchcam.config import VerifyConfig
from batchcam.data.loader import LoadedBatch, collate
from batchcam.maps.explainer import ExplainedBatch, Explainer, Request
from batchcam.maps.preparation import prepare
from batchcam.network.device import pick_device
from batchcam.network.precision import set_precision
from batchcam.rules import RECOMPUTE_TOLERANCE, Status
from batchcam.store.files import RunFiles
from batchcam.store.findings import Finding, Kind
from batchcam.store.plan import Plan, Shard
from batchcam.store.run import Run
from batchcam.store.schema import SHARD_FOLDER

STORED: Final = ("sample_index", "input_sha256", "status", "logits", "cams", "cam_class")


def recompute(config: VerifyConfig, plan: Plan, sound: Sequence[Shard]) -> tuple[int, list[Finding]]:
    """Explain `config.recompute` samples of the `sound` shards again; return how many, and what differs.

    Raises:
        CheckpointError: the checkpoint is not the run's.
        DatasetError: the dataset is not the run's.
        ConfigError: the preprocessing is not the run's.
    """
    if config.classifier is None or config.data is None:
        raise ValueError("recompute needs a classifier and data")
    device = pick_device(config.device)
    set_precision(plan.precision, device)
    assembly = reassemble(plan, config.classifier, config.data)
    proved = prepare(assembly.network, assembly.normalised_probe(device), plan.method, plan.control, plan.target_layer)
    request = Request(plan.cams, "none", plan.input_size, plan.precision, identity=False)
    found: list[Finding] = []
    with (
        Explainer(proved, assembly.preprocessing, request, device) as explainer,
        Run(config.run, plan, sound, False, RunFiles(config.run, plan, None)) as record,
    ):
        count = min(config.recompute, len(record))
        rows = np.sort(np.random.default_rng(config.seed).choice(len(record), count, replace=False))
        for stored in _batches(record, rows):
            indices = stored["sample_index"].tolist()
            batch = collate([assembly.dataset[i] for i in indices])
            explained = explainer(batch.pixels, assembly.labels[indices], batch.unreadable)
            found += _compare(plan, stored, batch, explained)
    return count, found


def _batches(record: Run, rows: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Yield what the record says of rows, in batches of one shard each."""
    size = record.plan.batch_size
    for some, block in record.blocks(STORED, rows):
        for start in range(0, len(some), size):
            yield {name: values[start : start + size] for name, values in block.items()}


def _compare(
    plan: Plan, stored: dict[str, np.ndarray], batch: LoadedBatch, explained: ExplainedBatch
) -> Iterator[Finding]:
    name = f"{SHARD_FOLDER}/{plan.shards[int(batch.indices[0]) // plan.shard_size].file}"
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
