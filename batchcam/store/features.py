"""The second certificate: features, classifier and logits of a record belong together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from batchcam.rules import FEATURE_TOLERANCE, HALF_ROUNDING


def missed(block: Mapping[str, np.ndarray], weight: np.ndarray, bias: np.ndarray, precision: str) -> np.ndarray:
    """Return of which rows W f + b is not the logits, bool (n,).

    float16 may be off by what its rounding of each feature can do at most, and no more.

    Args:
        block: features (n, C) and logits (n, K).
        weight, bias: W (K, C) and b (K,).
    """
    features, logits = block["features"].astype(np.float64), block["logits"]
    weight = weight.astype(np.float64)
    allowed = FEATURE_TOLERANCE[precision] * np.maximum(1, np.abs(logits).max(1, keepdims=True))
    if block["features"].dtype == np.float16:
        share, least = HALF_ROUNDING
        allowed = allowed + (share * np.abs(features) + least) @ np.abs(weight).T
    with np.errstate(all="ignore"):  # float16 ends at 65504
        off: np.ndarray = ~(np.abs(features @ weight.T + bias - logits) <= allowed).all(1)
    return off
