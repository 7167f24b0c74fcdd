"""Rules that the worker applies and the auditor checks again: status flags and numeric tolerances."""

from __future__ import annotations

import enum
from typing import Final


class Status(enum.IntFlag):
    """What is to be known about a sample's row; flags add up."""

    OK = 0
    UNREADABLE = 1  # the image could not be read: numbers are NaN, prediction -1, map 0
    NON_FINITE = 2  # a NaN or an infinity in logits or CAMs: map 0
    CONSTANT_MAP = 4  # the predicted class's CAM says nothing about where: map 0
    NO_POSITIVE_EVIDENCE = 8  # no cell of the predicted class's CAM is above zero


STATUS_MISSING: Final = 255
"""Fill value of the status: the row's shard is missing from the run."""

EXACT: Final = "cam"
"""The method whose maps add up to the logits; no identity covers the others."""

METHODS: Final = (EXACT, "gradcam", "gradcam++", "layercam", "hirescam", "xgradcam", "eigencam")

CONTROLS: Final = ("none", "head", "weights")
"""What was replaced by random weights before explaining, to see whether maps care: nothing, the head, everything."""

CONSTANT_RELATIVE_RANGE: Final = 1e-6
"""A CAM is constant when max - min <= this * max(abs(max), abs(min)): float32 rounding, not evidence."""

IDENTITY_TOLERANCE: Final = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 5e-2, "fp16": 1e-2}
"""Largest abs(mean(CAM) + bias - logit) by precision, relative to max(1, largest abs(logit) of the sample)."""
