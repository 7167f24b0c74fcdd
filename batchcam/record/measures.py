"""What each sample is searched by beside its own columns: where its evidence sits, and how sure its logits are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from batchcam.record.evidence import border_share, cell_shares, corner_share, entropy, peak
from batchcam.rules import CERTAINTY, EVIDENCE, PEAK_IN_IMAGE
from batchcam.store.plan import Plan
from batchcam.store.stored_cams import picked_cams

MEASURED: Final = ("cams", "cam_class", "prediction", "label", "logits", "crop_box")
"""Arrays that `sample_measures` takes."""

ROW_BYTES: Final = 256
"""Held for each row while its measures are made, beside CELL_BYTES a cell and LOGIT_BYTES a class."""

CELL_BYTES, LOGIT_BYTES = 40, 40  # float64, a few times


def measured_names(plan: Plan) -> tuple[str, ...]:
    """Return what is measured of each sample; a softmax means nothing where each class is true or not by itself."""
    return (*EVIDENCE, *PEAK_IN_IMAGE, *(() if plan.is_multi_label else CERTAINTY))


def measured_bytes(plan: Plan) -> int:
    """Return what is held for each row while `sample_measures` are made."""
    return ROW_BYTES + CELL_BYTES * math.prod(plan.grid_size) + LOGIT_BYTES * len(plan.class_names)


def sample_measures(plan: Plan, block: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return all `measured_names` of samples, float64 (n,) each, from their arrays MEASURED by name."""
    measured = evidence_measures(block)
    measured |= in_image(measured, block["crop_box"])
    return measured if plan.is_multi_label else measured | certainty_measures(block["logits"], block["label"])


def evidence_measures(block: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return EVIDENCE of samples, float64 (n,) each, NaN where a map says nothing of it.

    Args:
        block: their cams, prediction, and where not all classes are stored cam_class, by name.
    """
    cams = picked_cams(block["cams"], block.get("cam_class"), block["prediction"])
    shares, peaks = cell_shares(cams), peak(cams)
    return dict(zip(EVIDENCE, (border_share(shares), corner_share(shares), entropy(shares), *peaks.T), strict=True))


def in_image(measured: Mapping[str, np.ndarray], crop_box: np.ndarray) -> dict[str, np.ndarray]:
    """Return PEAK_IN_IMAGE of samples from their EVIDENCE and crop_box, (n, 4)."""
    x0, y0, x1, y1 = crop_box.astype(np.float64).T
    places = y0 + measured["peak_y"] * (y1 - y0), x0 + measured["peak_x"] * (x1 - x0)
    return dict(zip(PEAK_IN_IMAGE, places, strict=True))


def certainty_measures(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return CERTAINTY of samples, float64 (n,) each, NaN where logits are not finite or, of the loss, without a label.

    Args:
        logits: (n, K).
        labels: int64 (n,), -1 where not known.
    """
    sound = np.where(np.isfinite(logits).all(1, keepdims=True), logits, np.nan).astype(np.float64)
    shifted = sound - sound.max(1, keepdims=True)
    losses = np.abs(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))  # not -0.0, where a class is sure
    probabilities = np.exp(-losses)
    ranked = np.sort(np.pad(probabilities, ((0, 0), (1, 0))), 1)  # a lone class is ahead of nothing
    own = np.take_along_axis(losses, np.maximum(labels, 0)[:, None], 1)[:, 0]
    spread, margin = (probabilities * losses).sum(1), ranked[:, -1] - ranked[:, -2]
    return dict(zip(CERTAINTY, (spread, margin, np.where(labels < 0, np.nan, own)), strict=True))
