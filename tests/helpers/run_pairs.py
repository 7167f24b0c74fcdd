"""Runs to compare: numbers of two checkpoints on the same images, and changes to them that a test knows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from batchcam.commands.merge import merge
from batchcam.store.plan import Plan
from tests.helpers.synthetic import (
    CONSTANT,
    NON_FINITE,
    UNLABELLED,
    UNREADABLE,
    Rows,
    land_shards,
    synthetic_plan,
    synthetic_rows,
)

COUNT = 21
SPECIAL = (UNREADABLE, NON_FINITE, CONSTANT)


def make_rows(seed: int, sample_ids: list[str] | None = None, **changes: Any) -> tuple[Plan, Rows]:
    """Numbers of one checkpoint on the same 21 images: labels and digests do not depend on `seed`."""
    sample_ids = sample_ids or [f"蝶/фото {i:05d}.png" for i in range(COUNT)]
    width = max(len(i.encode()) for i in sample_ids)
    plan = synthetic_plan(**{"checkpoint_sha256": f"{seed:064x}", "sample_id_bytes": width, **changes})
    rows = synthetic_rows(plan, seed)
    rows.texts["sample_id"][:] = sample_ids
    for row in range(COUNT):
        if row != UNREADABLE:
            digest = hashlib.sha256(f"image {row}".encode()).digest()
            rows.columns["input_sha256"][row] = np.frombuffer(digest, np.uint8)
    rows.columns["label"] = np.arange(COUNT) % 5
    rows.columns["label"][UNLABELLED] = -1
    return plan, rows


def write(folder: Path, plan: Plan, rows: Rows) -> Path:
    land_shards(folder, plan, rows)
    merge(folder)
    return folder


def predict(rows: Rows, row: int, class_: int, confidence: float) -> None:
    """Make `class_` the predicted class of a row, with the logits that say so."""
    others = (1 - confidence) / (rows.columns["logits"].shape[1] - 1)
    rows.columns["logits"][row] = np.log(others)
    rows.columns["logits"][row, class_] = np.log(confidence)
    rows.columns["prediction"][row], rows.columns["confidence"][row] = class_, confidence


def permute_samples(rows: Rows, order: np.ndarray) -> Rows:
    columns = {name: values[order] for name, values in rows.columns.items() if name != "sample_index"}
    texts = {name: [values[i] for i in order] for name, values in rows.texts.items()}
    return Rows({**columns, "sample_index": np.arange(COUNT)}, texts, rows.weight, rows.bias)


def permute_classes(rows: Rows, order: list[int]) -> Rows:
    """Number the classes otherwise: class `order[k]` becomes class k."""
    columns = dict(rows.columns)
    back = np.append(np.argsort(order), -1)
    for name in ("label", "prediction"):
        columns[name] = back[columns[name]]
    for name in ("logits", "cams"):
        columns[name] = columns[name][:, order]
    return Rows(columns, rows.texts, rows.weight[order], rows.bias[order])


def plain_spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of maps without equal cells, from the sum of squared rank differences."""
    ranked = [np.array([sum(w < v for w in m.ravel()) for v in m.ravel()]) for m in (a, b)]
    n = a.size
    return 1 - 6 * int(((ranked[0] - ranked[1]) ** 2).sum()) / (n * (n * n - 1))
