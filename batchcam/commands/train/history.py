"""What the epochs of a training were: which is the best, whether the network learned by heart, and a table of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from batchcam.errors import CheckpointError
from batchcam.record.names import csv_table
from batchcam.store import landing

Epoch = Mapping[str, Any]
"""What the checkpoint says of an epoch: loss and score on both sets of images, and of how many."""

ACCURACY, AUROC = "accuracy", "auroc"
"""What the score is: of one label a sample, and of several the mean over classes with both a yes and a no."""

COLUMNS: Final = (
    *("epoch", "train_loss", "train_{score}", "train_samples", "train_left_out"),
    *("val_loss", "val_{score}", "val_samples", "val_left_out", "val_trained_on", "unreadable", "seconds"),
)
"""Of the table. Seconds stand there alone: the same training gives the same checkpoint, byte for byte."""

LEARNED: Final = 0.95
"""Training accuracy from which the training images count as learned."""


def is_better(epoch: Epoch, best: Epoch | None) -> bool:
    """Return whether an epoch takes the place of the best one before it.

    By the validation score, and where that is equal by the lower loss; without one, the last epoch does.
    """
    if best is None or score_of(best) is None:
        return True
    return score_of(epoch) is not None and _rank(epoch) > _rank(best)


def score_of(epoch: Epoch) -> float | None:
    """Return the validation score, None without any."""
    score: float | None = epoch.get(f"val_{AUROC}", epoch.get(f"val_{ACCURACY}"))
    return score


def best_of(history: Sequence[Epoch]) -> Epoch | None:
    """Return the best epoch, None without any."""
    best = None
    for epoch in history:
        best = epoch if is_better(epoch, best) else best
    return best


def _rank(epoch: Epoch) -> tuple[float, float]:
    return score_of(epoch) or 0.0, -epoch["val_loss"]


def is_learned_by_heart(history: Sequence[Epoch], best: Epoch, chance: float | None) -> bool | None:
    """Return whether the network knows its training images and little that holds for others; None: nobody can tell.

    It does where `LEARNED` of the training images became right, and the best epoch's validation accuracy is not half
    of the way there from chance; by two standard errors, as few images may be wrong by chance.

    Args:
        history: all epochs.
        best: of them.
        chance: accuracy of saying always the validation images' most frequent class; None without validation.
    """
    samples = best.get("val_samples")
    if chance is None or not samples:
        return None
    learned = max(epoch["train_accuracy"] for epoch in history)
    half = (chance + learned) / 2
    error = math.sqrt(half * (1 - half) / samples)
    return bool(learned >= LEARNED and best["val_accuracy"] < half - 2 * error)


def table_path(checkpoint: Path) -> Path:
    """Return where the table of a checkpoint's epochs is: beside it."""
    return checkpoint.with_name(f"{checkpoint.stem}.history.csv")


def read_seconds(path: Path) -> dict[int, str]:
    """Return what a table says that epochs took, as far as it does; {} where there is none.

    Raises:
        CheckpointError: something else lies there.
    """
    try:
        if not path.exists() or not path.stat().st_size:
            return {}
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if {"epoch", "train_loss", "seconds"} <= {*(rows.fieldnames or ())}:
                return {int(row["epoch"]): row["seconds"] or "" for row in rows}
    except (OSError, ValueError, TypeError, csv.Error):
        pass
    raise CheckpointError(f"{path}: is there, and no history of a training")


def land_table(path: Path, history: Sequence[Epoch], seconds: Mapping[int, str], score: str) -> None:
    """Write the table of the epochs, whose score is `ACCURACY` or `AUROC`."""
    columns = [name.format(score=score) for name in COLUMNS]
    rows = [{**epoch, "seconds": seconds.get(epoch["epoch"])} for epoch in history]
    landing.land(path, csv_table(columns, ([row.get(name) for name in columns] for row in rows)))
