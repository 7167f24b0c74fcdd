"""Synthetic runs whose samples have image files, ids and crop boxes of a test's choice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from batchcam.commands.merge import merge
from batchcam.store.plan import Plan
from tests.helpers.synthetic import land_shards, synthetic_plan, synthetic_rows

IMAGE_SIZE = (60, 100)
"""(height, width) of every image; the network of a synthetic run takes (48, 80)."""


def smooth_image(seed: int, size: tuple[int, int] = IMAGE_SIZE) -> np.ndarray:
    """A picture without sharp edges, RGB uint8, so that resizing methods agree on it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR)


def png_bytes(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image[..., ::-1])[1])


def write_run(
    folder: Path,
    ids: Sequence[str] | None = None,
    box: tuple[float, float, float, float] = (0, 0, 100, 60),
    skip: tuple[int, ...] = (),
    seed: int = 0,
    **changes: Any,
) -> tuple[Path, Path, Plan]:
    """Make a run of `ids` (21 by default) and PNG files of those ids that are plain names; return run, data, plan."""
    run, data = folder / "run", folder / "data"
    ids = list(ids) if ids is not None else [f"ant/{i:05d}.png" for i in range(21)]
    longest = max(len(each.encode()) for each in ids)
    plan = synthetic_plan(sample_count=len(ids), sample_id_bytes=longest, **changes)
    rows = synthetic_rows(plan, seed)
    rows.texts["sample_id"][:] = ids
    for i, sample_id in enumerate(ids):
        content = png_bytes(smooth_image(i))
        if rows.columns["status"][i] == 1:
            continue
        rows.columns["input_sha256"][i] = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
        rows.columns["image_size"][i] = IMAGE_SIZE
        rows.columns["crop_box"][i] = box
        if all(part not in ("", ".", "..") for part in sample_id.split("/")) and len(sample_id) < 200:
            (data / sample_id).parent.mkdir(parents=True, exist_ok=True)
            (data / sample_id).write_bytes(content)
    data.mkdir(exist_ok=True)
    land_shards(run, plan, rows, skip)
    if not skip:
        merge(run)
    return run, data, plan


def shard_columns(run: Path, *names: str) -> dict[str, np.ndarray]:
    """Arrays of all shards that lie in a run, read by h5py alone."""
    import h5py

    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for path in sorted((run / "shards").glob("*.h5")):
        with h5py.File(path) as file:
            for name in names:
                parts[name].append(file[name][...])
    return {name: np.concatenate(each) for name, each in parts.items()}


def tree(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder, by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
