"""A folder of runs, a night each, made of numbers whose change the test knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.helpers.series import land_run
from tests.helpers.synthetic import Rows, synthetic_plan

GRID = (5, 5)
CLASSES = ("ant", "bee", "fly")
CHANNELS = len(CLASSES)


@dataclasses.dataclass
class Told:
    """What a night is like: shares of right predictions, of evidence in the ring, and of unreadable samples."""

    accuracy: float = 0.9
    border: float = 0.3
    unreadable: float = 0.0


def land_nights(
    folder: Path,
    nights: int,
    samples: int = 300,
    of: Callable[[int], Told] = lambda _: Told(),
    same_samples: bool = False,
    **changes: object,
) -> Path:
    """Write runs 001, 002, …; `of` says what each night is like, and so may what is changed of the plan."""
    for night in range(nights):
        own = {key: value(night) if callable(value) else value for key, value in changes.items()}
        land_night(folder / f"{night + 1:03}", night, samples, of(night), same_samples, **own)
    return folder


def land_night(run: Path, night: int, samples: int, told: Told, same_samples: bool = False, **changes: object) -> Path:
    """Write one run: labels, predictions and maps drawn for each night anew."""
    rng = np.random.default_rng(night)
    label = np.random.default_rng(99).integers(0, 3, samples) if same_samples else rng.integers(0, 3, samples)
    wrong = rng.random(samples) >= told.accuracy
    prediction = np.where(wrong, (label + 1) % 3, label)
    share = np.clip(told.border + 0.1 * rng.normal(size=(samples, 1, 1)), 0.01, 0.99)
    ring = np.ones(GRID, bool)
    ring[1:-1, 1:-1] = False
    noise = rng.random((2, samples, *GRID)) + 0.5
    inside, outside = noise[0] * ~ring, noise[1] * ring
    maps = share * outside / outside.sum((1, 2), keepdims=True)
    maps += (1 - share) * inside / inside.sum((1, 2), keepdims=True)
    cams = np.zeros((samples, 3, *GRID))
    cams[np.arange(samples), prediction] = 50 * maps
    logits = cams.mean((2, 3))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    prefix = "all" if same_samples else f"{night:03}"
    columns = {
        "sample_index": np.arange(samples),
        "input_sha256": np.random.default_rng([98, 0 if same_samples else night]).integers(
            0, 256, (samples, 32), np.uint8
        ),
        "input_bytes": 1000 + np.arange(samples),
        "label": label,
        "prediction": prediction,
        "confidence": (powers.max(1) / powers.sum(1)).astype(np.float32),
        "logits": logits.astype(np.float32),
        "crop_box": np.tile(np.array([0, 0, 80, 80], np.float32), (samples, 1)),
        "image_size": np.tile(np.array([80, 80], np.int32), (samples, 1)),
        "cam_class": prediction[:, None],
        "cams": cams[np.arange(samples), prediction][:, None].astype(np.float32),
        "identity_residual": np.zeros(samples, np.float32),
        "status": np.zeros(samples, np.uint8),
    }
    texts = {"sample_id": [f"{prefix}/{i:06}.png" for i in range(samples)], "error": [""] * samples}
    lost = np.flatnonzero(rng.random(samples) < told.unreadable)
    for name in ("logits", "cams", "confidence", "crop_box"):
        columns[name][lost] = np.nan
    for name, none in (("prediction", -1), ("image_size", -1), ("cam_class", -1), ("input_sha256", 0), ("status", 1)):
        columns[name][lost] = none
    for row in lost:
        texts["error"][row] = "not an image"
    if "meta" in changes:
        texts["meta/site"] = [("north", "south")[i % 2] for i in range(samples)]
    rows = Rows(columns, texts, np.eye(3, CHANNELS, dtype=np.float32), np.zeros(3, np.float32))
    settings = {
        "class_names": CLASSES,
        "sample_count": samples,
        "sample_id_bytes": 20,
        "batch_size": 512,
        "shard_size": samples,
        "cams": "predicted",
        "maps": "none",
        "channels": CHANNELS,
        "grid_size": GRID,
        "input_size": (80, 80),
    }
    plan = synthetic_plan(**{**settings, **changes})
    return land_run(run, plan, rows)
