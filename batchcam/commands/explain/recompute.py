"""verify --recompute: run the network again on samples drawn at random and compare with the record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from batchcam.commands.explain.assembly import Assembly
from batchcam.commands.explain.inputs import trained_on
from batchcam.commands.explain.listing import read_listing
from batchcam.commands.explain.planning import fingerprint
from batchcam.commands.explain.reassembly import reassemble
from batchcam.config.shared import Classifier, MapDataset
from batchcam.data.loader import LoadedBatch, collate
from batchcam.data.planned import Listing, Since
from batchcam.data.samples import UNKNOWN_SIZE
from batchcam.errors import DatasetError, RunError
from batchcam.job.console import note
from batchcam.job.stop import stop_if_asked
from batchcam.maps.explainer import ExplainedBatch, Explainer, Request
from batchcam.network.device import pick_device
from batchcam.network.precision import set_precision, settings_kept
from batchcam.rules import RECOMPUTE_TOLERANCE, Status
from batchcam.store.files import RunFiles
from batchcam.store.findings import Finding, Kind
from batchcam.store.plan import Plan, Shard
from batchcam.store.run import Run
from batchcam.store.schema import FEATURES, LABELS, META, PLAN_FILE, SHARD_FOLDER, TRAINED_ON, meta_array

STORED: Final = ("input_sha256", "status", "logits", "cams", "cam_class", "crop_box", "image_size")

PIXEL_ROUNDING: Final = 1e-3
"""Edges of a view differ by less, in pixels of the original."""


@settings_kept()
def recompute(
    run: Path,
    plan: Plan,
    sound: Sequence[Shard],
    drawn: Sequence[tuple[Shard, list[int]]],
    classifier: Classifier,
    data: str | MapDataset,
    device: str,
) -> tuple[int, list[Finding]]:
    """Compare a run with the dataset's listing and explain samples again; return how many, and what differs.

    Args:
        sound: the shards whose rows are compared with the listing.
        drawn: positions of samples in the dataset, in batches of one shard each.
        classifier: the run's checkpoint.

    Raises:
        CheckpointError: the checkpoint is not the run's.
        DatasetError: the dataset has none of the run's samples.
        ConfigError: the preprocessing is not the run's.
    """
    picked = pick_device(device)
    set_precision(plan.precision, picked)
    assembly, explainable = reassemble(plan, classifier, data, picked, _sound_listing(run, plan))
    request = Request(
        *(plan.cams, "none", plan.input_size, plan.precision, False, plan.threshold_logits), features=plan.features
    )
    with (
        Explainer(explainable, assembly.preprocessing, request, picked) as explainer,
        # all shards, sound or not: a row is its sample's position in the dataset
        Run(run, plan, plan.shards, False, RunFiles(run, plan, proves=False)) as record,
    ):
        found = list(_compare_listing(record, sound, assembly))
        if len(assembly.source) != plan.sample_count:
            return 0, found  # whose position in the dataset is not its row's
        for shard, indices in drawn:
            stop_if_asked()
            batch = collate([assembly.dataset[i] for i in indices])
            explained = explainer(batch.pixels, assembly.labels[indices], batch.unreadable)
            found += _compare(record, shard, batch, explained)
    return sum(len(indices) for _, indices in drawn), found


def _sound_listing(run: Path, plan: Plan) -> Listing | None:
    """Return the list of samples of a run, None where it has none that can be read, of which verify tells."""
    with contextlib.suppress(RunError):
        listing = read_listing(run, plan)
        return None if listing is None else listing.whole()
    return None


def _compare_planned(sound: Sequence[Shard], since: Since, labels: str) -> Iterator[Finding]:
    """Yield what has become of the samples that the run was planned with; those that came are none of its own."""
    for array, wrong, message in (
        ("sample_id", since.gone, "gone from the dataset"),
        ("input_bytes", since.changed, "not what the dataset says now"),
        (labels, since.relabelled, "not what the dataset says now"),
        (META, since.redescribed, "not what the dataset says now"),
    ):
        for shard in sound:
            rows = np.arange(shard.first, shard.first + shard.count)
            yield from _finding(Kind.DATASET, f"{SHARD_FOLDER}/{shard.file}", array, wrong[rows], rows, message)


def _compare_listing(record: Run, sound: Sequence[Shard], assembly: Assembly) -> Iterator[Finding]:
    """Yield where ids, labels, sizes and class names are not those that checkpoint and dataset give."""
    plan, source = record.plan, assembly.source
    if assembly.class_names != plan.class_names:
        message = "class names are not those of the checkpoint"
        yield Finding(Kind.DATASET, PLAN_FILE, message, "class_name")
    if assembly.since:
        if assembly.since.uncompared:
            note(f"labels were not compared with the dataset's: {assembly.since.uncompared}", quiet=False)
        yield from _compare_planned(sound, assembly.since, LABELS if plan.is_multi_label else "label")
        yield from _compare_marks(record, sound, assembly)
        return
    known = set(source.sample_ids)
    rows = np.concatenate([np.arange(s.first, s.first + s.count) for s in sound]) if sound else np.arange(0)
    ids = record.sample_id[rows]
    foreign = np.array([each not in known for each in ids], bool)
    if foreign.all() and len(rows):
        raise DatasetError(f"{source.spec}: not the dataset of this run: none of its sample ids is the run's")
    if len(source) != plan.sample_count:
        message = (
            f"{plan.sample_count} samples, of which {foreign.sum()} are not in the dataset, which has {len(source)}"
        )
        yield Finding(Kind.DATASET, PLAN_FILE, message)
        return
    listed = {"sample_id": np.array([source.sample_ids[i] for i in rows], object), "label": assembly.labels[rows]}
    if assembly.findings is not None:
        listed[LABELS] = assembly.findings.values[rows]
    if "input_bytes" in (a.name for a in plan.arrays):
        listed["input_bytes"] = source.sizes[rows]
    for name in (each for each in plan.meta if each in source.meta):
        listed[meta_array(name).name] = np.array([source.meta[name][i] for i in rows], object)
    differing = {n: (record[n][rows] != values).reshape(len(rows), -1).any(1) for n, values in listed.items()}
    if "input_bytes" in differing:  # a file that was away at first may have come back for --retry-unreadable
        differing["input_bytes"] &= record.input_bytes[rows] != UNKNOWN_SIZE
    for name, wrong in differing.items():
        for shard in sound:
            own = (rows >= shard.first) & (rows < shard.first + shard.count)
            file = f"{SHARD_FOLDER}/{shard.file}"
            yield from _finding(Kind.DATASET, file, name, wrong[own], rows[own], "not what the dataset says now")
    yield from _compare_marks(record, sound, assembly)
    unproven = "input_bytes" not in differing and not any(wrong.any() for wrong in differing.values())
    if unproven and fingerprint(assembly, plan.meta) != plan.dataset_fingerprint:
        yield Finding(Kind.DATASET, PLAN_FILE, "the fingerprint is not the dataset's: sizes of its files differ")


def _compare_marks(record: Run, sound: Sequence[Shard], assembly: Assembly) -> Iterator[Finding]:
    """Yield where the checkpoint says otherwise which images it was trained on."""
    if not record.plan.training_known:
        return
    for shard in sound:
        rows = np.arange(shard.first, shard.first + shard.count)
        wrong = record.trained_on[rows] != trained_on(assembly, record.input_sha256[rows])
        file = f"{SHARD_FOLDER}/{shard.file}"
        yield from _finding(Kind.DATASET, file, TRAINED_ON, wrong, rows, "not what the checkpoint says now")


def _compare(record: Run, shard: Shard, batch: LoadedBatch, explained: ExplainedBatch) -> Iterator[Finding]:
    name, plan = f"{SHARD_FOLDER}/{shard.file}", record.plan
    more = {} if explained.features is None else {FEATURES: explained.features}
    stored = {array: getattr(record, array)[batch.indices.numpy()] for array in (*STORED, *more)}
    same_input = (stored["input_sha256"] == batch.sha256.numpy()).all(1)
    yield from _finding(
        Kind.INPUT_CHANGED, name, "input_sha256", ~same_input, batch.indices, "the stored image is another one now"
    )
    unreadable = stored["status"] & Status.UNREADABLE != 0
    other = (unreadable != batch.unreadable) & same_input
    message = "the image can be read now, or no longer"
    yield from _finding(Kind.RECOMPUTED, name, "status", other, batch.indices, message)
    both = ~unreadable & ~batch.unreadable & same_input
    for array, view in (("crop_box", batch.crop_box.numpy()), ("image_size", batch.image_size.numpy())):
        off = both & ~np.isclose(stored[array], view, rtol=0, atol=PIXEL_ROUNDING).all(1)
        yield from _finding(Kind.RECOMPUTED, name, array, off, batch.indices, "not how the network sees the image")
    same_classes = (stored["cam_class"] == explained.cam_class).all(1)
    for array, now in (("logits", explained.logits), ("cams", explained.cams), *more.items()):
        then = stored[array].reshape(len(both), -1)
        most = RECOMPUTE_TOLERANCE[plan.precision]
        scale = np.maximum(1e-6, np.nanmax(np.abs(np.where(np.isfinite(then), then, 0)), axis=1))
        near = np.isclose(then, now.reshape(len(both), -1), rtol=0, atol=most * scale[:, None], equal_nan=True)
        off = both & ~near.all(1)
        if array == "cams":
            off &= same_classes  # otherwise the ranking of near-equal logits changed, and logits tell
        yield from _finding(Kind.RECOMPUTED, name, array, off, batch.indices, "the network gives something else now")


def _finding(
    kind: Kind, name: str, array: str, rows: np.ndarray, indices: torch.Tensor | np.ndarray, message: str
) -> Iterator[Finding]:
    if rows.any():
        first = int(indices[int(rows.argmax())])
        yield Finding(kind, name, f"{rows.sum()} rows, first sample {first}: {message}", array, int(rows.sum()), first)
