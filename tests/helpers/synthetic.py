"""Runs made of numbers that plain NumPy computes: no network, no images; of the code under test only the store."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchcam.cli import main
from batchcam.commands.merge import merge
from batchcam.rules import CamSelection
from batchcam.store import landing
from batchcam.store.manifest import task_file, write_task
from batchcam.store.plan import Plan, Shard, dataset_fingerprint, write_plan
from batchcam.store.schema import SHARD_FOLDER
from batchcam.store.shard import ShardBuilder
from batchcam.store.stamps import stamp

CLASS_NAMES = ("ant", "Käfer", "蝶", "dog-é", "zèbre 🦓")
CHANNELS = 7
UNREADABLE, NON_FINITE, CONSTANT, ALL_NEGATIVE, UNLABELLED = 3, 6, 9, 12, 15
"""Positions of the samples that are special in each synthetic run."""

ORIGIN = {
    "options": {"classifier": {"checkpoint": "weights/modèle.pth"}, "data": "photos"},
    "command": ["batchcam", "explain"],
    "created": "2026-01-02T03:04:05Z",
    "user": "tester",
    "host": "node1",
}


@dataclasses.dataclass(frozen=True)
class Rows:
    """All samples of a synthetic run: arrays and texts by name, and the classifier that made them."""

    columns: dict[str, np.ndarray]
    texts: dict[str, list[str]]
    weight: np.ndarray
    bias: np.ndarray

    def part(self, first: int, count: int) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
        stop = first + count
        return (
            {name: values[first:stop] for name, values in self.columns.items()},
            {name: values[first:stop] for name, values in self.texts.items()},
        )


def bilinear(cams: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, h, w) to (n, H, W) in float64: weights of the two nearest cell centres on each axis, edges extended."""
    for axis, length in ((1, size[0]), (2, size[1])):
        cells = cams.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0, cells - 1)
        left = np.floor(place).astype(int)
        right = np.minimum(left + 1, cells - 1)
        share = (place - left).reshape([-1 if a == axis else 1 for a in range(3)])
        cams = np.take(cams, left, axis) * (1 - share) + np.take(cams, right, axis) * share
    return cams


def synthetic_plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "checkpoint_sha256": "c" * 64,
        "dataset_fingerprint": "d" * 64,
        "class_names": CLASS_NAMES,
        "target_layer": "layer4",
        "preprocessing": {"resize": [48, 80], "mean": [0.5, 0.5, 0.5]},
        "precision": "fp32",
        "architecture": "resnet18",
        "identity": True,
        "sample_count": 21,
        "sample_id_bytes": 40,
        "batch_size": 4,
        "shard_size": 8,
        "cams": "all",
        "maps": "uint8",
        "channels": CHANNELS,
        "grid_size": (3, 5),
        "input_size": (48, 80),
    }
    values.update(changes)
    return Plan(**{**values, "cams": CamSelection.parse(values["cams"])})


def synthetic_rows(plan: Plan, seed: int = 0) -> Rows:
    """Random activations and weights in float64, and from them everything that the schema says of each sample."""
    rng = np.random.default_rng(seed)
    count, class_count = plan.sample_count, len(plan.class_names)
    weight = rng.normal(size=(class_count, plan.channels)).astype(np.float32).astype(np.float64)
    bias = rng.normal(size=class_count).astype(np.float32).astype(np.float64)
    activations = rng.normal(size=(count, plan.channels, *plan.grid_size))
    special = _special_rows(activations, weight)
    cams = np.einsum("kc,nchw->nkhw", weight, activations)
    logits = cams.mean((2, 3)) + bias
    prediction = np.where(np.isfinite(logits).all(1), np.nan_to_num(logits).argmax(1), -1)
    labels = rng.integers(0, class_count, count)
    labels[special == UNLABELLED] = -1
    columns = {
        "sample_index": np.arange(count),
        "input_sha256": rng.integers(0, 256, (count, 32), dtype=np.uint8),
        "input_bytes": 1000 + np.arange(count),
        "label": labels,
        "prediction": prediction,
        "confidence": _softmax(logits).max(1).astype(np.float32),
        "logits": logits.astype(np.float32),
        "crop_box": np.tile(np.array([0, 0, 80, 48], np.float32), (count, 1)),
        "image_size": np.tile(np.array([48, 80], np.int32), (count, 1)),
        **({"features": activations.mean((2, 3)).astype(plan.features)} if plan.features else {}),
        **_maps(plan, cams, prediction),
    }
    columns["cam_class"] = _cam_classes(plan, logits, prediction, labels)
    stored = np.take_along_axis(cams, np.maximum(columns["cam_class"], 0)[:, :, None, None], 1)
    stored[columns["cam_class"] < 0] = np.nan
    columns["cams"] = stored.astype(np.float32)
    picked = np.take_along_axis(logits, np.maximum(columns["cam_class"], 0), 1)
    exact = np.abs(stored.mean((2, 3)) + bias[np.maximum(columns["cam_class"], 0)] - picked)
    columns["identity_residual"] = np.where(columns["cam_class"] < 0, 0, exact).max(1).astype(np.float32)
    columns["status"] = np.select(
        [special == NON_FINITE, special == CONSTANT, special == ALL_NEGATIVE], [2, 4, 8], 0
    ).astype(np.uint8)
    columns["status"][(special == CONSTANT) & (_top_cam(cams, prediction).max((1, 2)) <= 0)] |= 8
    texts = {"sample_id": [f"蝶/фото {i:05d}.png" for i in range(count)], "error": [""] * count}
    _blank(plan, columns, texts, np.flatnonzero(special == UNREADABLE))
    return Rows(columns, texts, weight.astype(np.float32), bias.astype(np.float32))


def _special_rows(activations: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Change the activations of some samples; return which sample is special how, -1 for the others."""
    special = np.full(len(activations), -1)
    for position in (UNREADABLE, NON_FINITE, CONSTANT, ALL_NEGATIVE, UNLABELLED):
        special[position : position + 1] = position
    activations[special == NON_FINITE, 0, 0, 0] = np.nan
    constant = special == CONSTANT
    activations[constant] = activations[constant].mean((2, 3), keepdims=True)
    negative = special == ALL_NEGATIVE
    wanted = -1 - np.abs(activations[negative][:, : len(weight)])
    activations[negative] = np.einsum("ck,nkhw->nchw", np.linalg.pinv(weight), wanted)
    return special


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _top_cam(cams: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    top = cams[np.arange(len(cams)), prediction].copy()
    top[prediction < 0] = np.nan
    return top


def _maps(plan: Plan, cams: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    if plan.maps == "none":
        return {}
    raw = bilinear(_top_cam(cams, prediction), plan.input_size)
    ends = np.stack([raw.min((1, 2)), raw.max((1, 2))], 1)
    if plan.maps == "float32":
        return {"maps": raw.astype(np.float32), "map_range": ends.astype(np.float32)}
    low, high = ends[:, 0, None, None], ends[:, 1, None, None]
    flat = ~(high - low > 1e-6 * np.maximum(np.abs(low), np.abs(high)))
    scaled = np.where(flat, 0, (raw - low) / np.where(flat, 1, high - low) * 255)
    return {"maps": np.rint(scaled).astype(np.uint8), "map_range": ends.astype(np.float32)}


def _cam_classes(plan: Plan, logits: np.ndarray, prediction: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if str(plan.cams) == "all":
        return np.tile(np.arange(logits.shape[1]), (len(logits), 1))
    if str(plan.cams) == "predicted":
        return prediction[:, None]
    if str(plan.cams) == "predicted+label":
        return np.stack([prediction, labels], 1)
    ranked = np.argsort(-logits, 1, kind="stable")[:, : int(str(plan.cams).removeprefix("topk:"))]
    return np.where(prediction[:, None] < 0, -1, ranked)


def _blank(plan: Plan, columns: dict[str, np.ndarray], texts: dict[str, list[str]], rows: np.ndarray) -> None:
    """Overwrite the rows of unreadable samples by what the schema says of them."""
    for name in ("logits", "cams", "confidence", "identity_residual", "crop_box", "map_range", "features"):
        if name in columns:
            columns[name][rows] = np.nan
    columns["prediction"][rows] = -1
    columns["image_size"][rows] = -1
    columns["input_sha256"][rows] = 0
    columns["status"][rows] = 1
    if str(plan.cams) != "all":
        columns["cam_class"][rows] = -1
    if "maps" in columns:
        columns["maps"][rows] = np.nan if plan.maps == "float32" else 0
    for row in rows:
        texts["error"][row] = "not an image: усечённый файл"


def shard_image(plan: Plan, shard: Shard, rows: Rows, batch: int = 4, threads: int = 1) -> bytes:
    """The bytes of one shard, its rows appended `batch` at a time."""
    with ThreadPoolExecutor(threads) as compressors:
        builder = ShardBuilder(plan, shard, rows.weight, rows.bias, compressors)
        for start in range(0, shard.count, batch):
            builder.append(*rows.part(shard.first + start, min(batch, shard.count - start)))
        return bytes(builder.image())


def fingerprinted(plan: Plan, rows: Rows) -> Plan:
    """The plan with the fingerprint of its rows; a fingerprint that a test has set stays."""
    if plan.dataset_fingerprint != "d" * 64:
        return plan
    columns = (rows.columns[name].tolist() for name in ("label", "input_bytes"))
    return dataclasses.replace(plan, dataset_fingerprint=dataset_fingerprint(rows.texts["sample_id"], *columns))


def land_shards(run: Path, plan: Plan, rows: Rows, skip: tuple[int, ...] = ()) -> None:
    """Write run.json and all shards but those to `skip`."""
    write_plan(run, plan, ORIGIN)
    for shard in plan.shards:
        if shard.index not in skip:
            landing.land_own(run / SHARD_FOLDER / shard.file, shard_image(plan, shard, rows))


def stamp_of(path: Path) -> str:
    """The stamp of a file as it lies there beside its digest."""
    return stamp(path.name, landing.read_digest(path) or "", path.stat())


def synthetic_run(run: Path, seed: int = 0, **changes: Any) -> Plan:
    """Make a finished run of 21 samples in three shards, the last one short."""
    plan = synthetic_plan(**changes)
    rows = synthetic_rows(plan, seed)
    plan = fingerprinted(plan, rows)
    land_shards(run, plan, rows)
    stamps = [stamp_of(run / SHARD_FOLDER / shard.file) for shard in plan.shards]
    task = {"task": "0/1", "started": "2026-01-02T03:04:05Z", "outcome": "done", "samples": 21, "stamps": stamps}
    write_task(run, task_file(0), task)
    merge(run)
    return plan


def run_command(*words: object) -> tuple[int, str, str]:
    """Run the command line in this process; return exit code, stdout, stderr."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as ended:
        main([str(w) for w in words])
    return int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue()
