"""verify --recompute: run the network again on samples drawn at random and compare with the record."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from batchcam.commands.explain.reassembly import reassemble
from batchcam.config import VerifyConfig
from batchcam.data.loader import LoadedBatch, collate
from batchcam.job.stop import stop_if_asked
from batchcam.maps.explainer import ExplainedBatch, Explainer, Request
from batchcam.network.device import pick_device
from batchcam.network.precision import set_precision
from batchcam.rules import RECOMPUTE_TOLERANCE, Status
from batchcam.store.findings import Finding, Kind
from batchcam.store.plan import Plan, Shard
from batchcam.store.reader import open_checked
from batchcam.store.schema import SHARD_FOLDER


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
    assembly, explainable = reassemble(plan, config.classifier, config.data, device)
    request = Request(plan.cams, "none", plan.input_size, plan.precision, identity=False)
    drawn = _draw(config, plan, sound)
    found: list[Finding] = []
    with Explainer(explainable, assembly.preprocessing, request, device) as explainer:
        for shard, indices in drawn:
            stop_if_asked()
            batch = collate([assembly.dataset[i] for i in indices])
            explained = explainer(batch.pixels, assembly.labels[indices], batch.unreadable)
            found += _compare(config.run, plan, shard, batch, explained)
    return sum(len(indices) for _, indices in drawn), found


def _draw(config: VerifyConfig, plan: Plan, sound: Sequence[Shard]) -> list[tuple[Shard, list[int]]]:
    """Return dataset positions drawn without repetition, in batches of one shard each."""
    total = sum(s.count for s in sound)
    chosen = np.random.default_rng(config.seed).choice(total, min(config.recompute, total), replace=False)
    # `chosen` counts sound samples only
    starts = itertools.accumulate((s.count for s in sound), initial=0)
    drawn = []
    for shard, start in zip(sound, starts, strict=False):
        own = np.sort(chosen[(chosen >= start) & (chosen < start + shard.count)]) - start + shard.first
        drawn += [(shard, own[i : i + plan.batch_size].tolist()) for i in range(0, len(own), plan.batch_size)]
    return drawn


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
