"""What a report says of a run in numbers, read in blocks so that a run of any size passes through little memory."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from batchcam.commands.report.calibration import Bin, expected_calibration_error, reliability
from batchcam.errors import RunError
from batchcam.job.console import Progress
from batchcam.record import metrics
from batchcam.record.evidence import border, border_share, cell_shares, entropy
from batchcam.record.rows import cam_blocks
from batchcam.rules import Status
from batchcam.store.run import Run
from batchcam.store.schema import TRAINED_ON

CELL_BYTES = 40
"""Held for each cell of a map while its evidence is measured: float64, a few times."""

COLUMNS = ("label", "prediction", "confidence", "status", "identity_residual")


@dataclasses.dataclass(frozen=True)
class Maps:
    """Where the evidence for the predicted classes sits.

    Attributes:
        border: share of each sample's positive evidence in the outermost ring, (n,), NaN where there is none.
        spread: relative entropy of each sample's positive evidence, (n,), NaN where there is none.
        evenly: what `border` is for evidence spread evenly.
        inside: whether the grid has cells inside of its outermost ring.
        cells: mean over samples of each cell's share of positive evidence, (h, w), NaN without any sample.
        class_cams: mean raw CAM of each class over the samples predicted right, (K, h, w), NaN without any.
    """

    border: np.ndarray
    spread: np.ndarray
    evenly: float
    inside: bool
    cells: np.ndarray
    class_cams: np.ndarray


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How many samples of one class were predicted as another; classes by index."""

    label: int
    prediction: int
    count: int


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything that a report says of a run in numbers.

    Attributes:
        columns: label, prediction, confidence, status, identity_residual, and trained_on if the run has it, (n,) each.
        scores: one per class.
        confusions: pairs of label and prediction that occur, right ones too.
        bins: reliability of the labelled predictions.
        maps: where the evidence sits.
    """

    columns: dict[str, np.ndarray]
    scores: list[metrics.ClassScore]
    confusions: list[Confusion]
    bins: list[Bin]
    maps: Maps

    @property
    def predicted(self) -> np.ndarray:
        """Which samples have a prediction, bool (n,)."""
        return np.asarray(self.columns["prediction"] >= 0)

    @property
    def judged(self) -> np.ndarray:
        """Which samples have a prediction and a label to judge it by, bool (n,)."""
        return np.asarray(self.predicted & (self.columns["label"] >= 0))

    @property
    def right(self) -> np.ndarray:
        """Which predictions are right, bool (n,)."""
        return np.asarray(self.judged & (self.columns["prediction"] == self.columns["label"]))

    @property
    def wrong(self) -> np.ndarray:
        """Which predictions are wrong, bool (n,)."""
        return np.asarray(self.judged & (self.columns["prediction"] != self.columns["label"]))

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error, None without labelled predictions."""
        return expected_calibration_error(self.bins)

    def having(self, flag: Status) -> np.ndarray:
        """Return which samples have a status flag, bool (n,)."""
        return np.asarray((self.columns["status"] & flag) > 0)

    @property
    def on_border_only(self) -> np.ndarray:
        """Which samples have all their positive evidence in the outermost ring of a grid that has an inside."""
        constant = self.having(Status.CONSTANT_MAP)
        return np.asarray((self.maps.border == 1) & ~constant if self.maps.inside else np.zeros_like(constant))


def gather(run: Run, quiet: bool) -> Facts:
    """Read what a report says of `run` in numbers.

    Raises:
        RunError: the run names classes that it does not have; verify says where.
    """
    names = (*COLUMNS, TRAINED_ON) if run.plan.training_known else COLUMNS
    columns = {name: getattr(run, name)[:] for name in names}
    label, prediction = columns["label"], columns["prediction"]
    if max(label.max(initial=-1), prediction.max(initial=-1)) >= len(run.class_names):
        raise RunError(
            f"{run.path}: labels or predictions beyond its {len(run.class_names)} classes; see batchcam verify"
        )
    judged = (label >= 0) & (prediction >= 0)
    confidence = columns["confidence"]
    if not ((confidence[prediction >= 0] >= 0) & (confidence[prediction >= 0] <= 1)).all():
        raise RunError(f"{run.path}: confidences that are not from 0 to 1; see batchcam verify")
    return Facts(
        columns=columns,
        scores=metrics.class_scores(label, prediction, run.class_names),
        confusions=count_confusions(label[judged], prediction[judged], len(run.class_names)),
        bins=reliability(confidence[judged], (label == prediction)[judged]),
        maps=_maps(run, label, prediction, quiet),
    )


def count_confusions(labels: np.ndarray, predictions: np.ndarray, class_count: int) -> list[Confusion]:
    """Return the pairs of label and prediction that occur, the most frequent first, equal ones by class.

    Pairs, not a matrix: that of 20,000 classes would take gigabytes.

    Args:
        labels, predictions: class indices, int64 (n,).
        class_count: K.
    """
    pairs, counts = np.unique(labels * class_count + predictions, return_counts=True)
    order = np.lexsort((pairs, -counts))
    return [
        Confusion(pair // class_count, pair % class_count, count)
        for pair, count in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
    ]


def _maps(run: Run, label: np.ndarray, prediction: np.ndarray, quiet: bool) -> Maps:
    grid = run.plan.grid_size
    borders, spreads = np.full(len(run), np.nan), np.full(len(run), np.nan)
    cells, samples = np.zeros(grid), 0
    sums, counts = np.zeros((len(run.class_names), *grid)), np.zeros(len(run.class_names))
    rows = np.flatnonzero(prediction >= 0)
    with Progress("report", len(rows), "samples", quiet) as progress:
        for places, cams, _ in cam_blocks(run, rows, prediction[rows], held=CELL_BYTES * math.prod(grid)):
            part = rows[places]
            shares = cell_shares(cams)
            borders[part], spreads[part] = border_share(shares), entropy(shares)
            some = np.isfinite(shares[:, 0, 0])
            cells += shares[some].sum(0)
            samples += int(some.sum())
            right = (label[part] == prediction[part]) & np.isfinite(cams).all((1, 2))
            np.add.at(sums, prediction[part][right], cams[right])
            np.add.at(counts, prediction[part][right], 1)
            progress.advance(len(part))
    ring = border(grid)
    with np.errstate(invalid="ignore"):
        means = sums / np.where(counts > 0, counts, np.nan)[:, None, None]
        return Maps(borders, spreads, float(ring.mean()), not ring.all(), cells / (samples or math.nan), means)
