"""What each sample is searched by beside its own columns: where its evidence sits, and how sure its logits are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from batchcam.record.evidence import border_share, cell_shares, corner_share, entropy, peak
from batchcam.rules import CERTAINTY, EVIDENCE, PEAK_IN_IMAGE
from batchcam.store.stored_cams import picked_cams

ROW_BYTES: Final = 256
"""Held for each row while its measures are made, beside CELL_BYTES a cell and LOGIT_BYTES a class."""

CELL_BYTES, LOGIT_BYTES = 40, 40  # float64, a few times


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
    with np.errstate(all="ignore"):  # NaN is data here
        shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        probabilities = np.exp(logs)
        # a probability of zero adds nothing, but zero times minus infinity is NaN
        spread = -np.where(probabilities == 0, 0, probabilities * logs).sum(1)
    ranked = np.sort(np.pad(probabilities, ((0, 0), (1, 0))), 1)  # a lone class is ahead of nothing
    margin = np.where(np.isnan(probabilities).any(1), np.nan, ranked[:, -1] - ranked[:, -2])
    chosen = np.take_along_axis(logs, np.maximum(labels, 0)[:, None], 1)[:, 0]
    return dict(zip(CERTAINTY, (spread, margin, np.where(labels < 0, np.nan, -chosen)), strict=True))
