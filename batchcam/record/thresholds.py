"""The threshold of each class, learned on a labelled multi-label run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from batchcam.errors import ConfigError
from batchcam.rules import DEFAULT_THRESHOLD
from batchcam.store.document import canonical
from batchcam.store.opening import open_run

RULE = "the threshold of the largest F1, and of equal ones the highest"


def learned_thresholds(
    path: Path, class_names: tuple[str, ...], network: tuple[str, str], preprocessing: Mapping[str, Any]
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Return a threshold for each class, and the classes that have none to learn from and get the default.

    Args:
        path: of a multi-label run, or a series.
        class_names: that it must have.
        network: that it must be of, as `Run.networks` names one.
        preprocessing: that it must have, as `Plan` has it.

    Raises:
        ConfigError: it is single-label, or of another network, other classes or preprocessing.
        RunError: it can't be read.
    """
    with open_run(path) as run:
        if not run.plan.is_multi_label:
            raise ConfigError(f"--thresholds-from {path}: a single-label run: its classes have no thresholds")
        if run.networks != {network} or run.class_names != class_names:
            raise ConfigError(f"--thresholds-from {path}: of another checkpoint or other classes: explain it anew")
        if any(canonical(each.plan.preprocessing) != canonical(preprocessing) for each in run.runs):
            raise ConfigError(f"--thresholds-from {path}: of other preprocessing: explain it anew as these images are")
        blocks = [(block["labels"], block["logits"]) for _, block in run.blocks(("labels", "logits"))]
    labels, logits = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    found = [best_threshold(labels[:, k], logits[:, k]) for k in range(len(class_names))]
    unlearned = tuple(name for name, value in zip(class_names, found, strict=True) if value is None)
    return tuple(DEFAULT_THRESHOLD if value is None else value for value in found), unlearned


def best_threshold(labels: np.ndarray, logits: np.ndarray) -> float | None:
    """Return the probability between two samples from which on F1 is largest; None without a yes.

    Args:
        labels: 1, 0, and -1 where not known, (n,).
        logits: (n,); those that are not finite are left out.
    """
    known = (labels >= 0) & np.isfinite(logits)
    order = np.argsort(-logits[known], kind="stable")
    scores, true = logits[known][order].astype(np.float64), labels[known][order] == 1
    if not true.any():
        return None
    last = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))  # of those with the same logit
    f1 = 2 * np.cumsum(true)[last] / (last + 1 + true.sum())
    best = int(last[np.argmax(f1)])
    below = scores[best + 1] if best + 1 < len(scores) else scores[best] - 1
    probability = np.float32(1 / (1 + np.exp(-(scores[best] + below) / 2)))
    tiny = np.finfo(np.float32).tiny
    return float(np.clip(probability, tiny, np.nextafter(np.float32(1), np.float32(0))))
