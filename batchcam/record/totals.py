"""Totals of a run as its manifest states them, and which samples a person should look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from batchcam.record.clusters import INDEPENDENT, Design
from batchcam.record.intervals import Interval
from batchcam.rules import Status, flag_name

NEEDS_A_LOOK: Final = (Status.UNREADABLE, Status.NON_FINITE)


class Totals:
    """Totals as the manifest states them, counted part by part.

    Args:
        multi_label: of a multi-label run, whose predictions are no answer to one question: right and wrong are of each
            class.
    """

    def __init__(self, multi_label: bool = False) -> None:
        self._multi_label = multi_label
        self._samples = self._labelled = self._correct = 0
        self._by_status = np.zeros(256, np.int64)
        self._largest_residual = -math.inf
        self._trained_on: int | None = None

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Count labels, predictions, statuses (uint8) and residuals of some samples, and which were trained on."""
        labels, predictions, residuals = columns["label"], columns["prediction"], columns["identity_residual"]
        known = (labels >= 0) & (predictions >= 0)
        self._samples += len(labels)
        self._labelled += int(np.count_nonzero(known))
        self._correct += int(np.count_nonzero(known & (labels == predictions)))
        self._by_status += np.bincount(columns["status"], minlength=256)
        if "trained_on" in columns:
            self._trained_on = (self._trained_on or 0) + int(np.count_nonzero(columns["trained_on"] == 1))
        finite = residuals[np.isfinite(residuals)]
        self._largest_residual = max(self._largest_residual, float(finite.max(initial=-np.inf)))

    def stated(self) -> dict[str, Any]:
        """Return what was counted; no `trained_on` where the rows do not say."""
        values = np.arange(256)
        trained_on = {} if self._trained_on is None else {"trained_on": self._trained_on}
        return {
            "samples": self._samples,
            **({} if self._multi_label else self._of_one_label()),
            "status": {flag_name(f): int(self._by_status[(values & f) > 0].sum()) for f in Status if f},
            "largest_identity_residual": self._largest_residual if self._largest_residual > -math.inf else None,
            **trained_on,
        }

    def _of_one_label(self) -> dict[str, Any]:
        accuracy = self._correct / self._labelled if self._labelled else None
        return {"labelled": self._labelled, "correct": self._correct, "accuracy": accuracy}


def sum_totals(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the totals of several manifests together; `trained_on` only where all of them have it."""
    counts = ("samples", "labelled", "correct", "trained_on")
    sums: dict[str, Any] = {n: sum(p[n] for p in parts) for n in counts if all(n in p for p in parts)}
    flags = dict.fromkeys(name for part in parts for name in part["status"])
    residuals = [part["largest_identity_residual"] for part in parts]
    if "labelled" in sums:
        sums["accuracy"] = sums["correct"] / sums["labelled"] if sums["labelled"] else None
    return sums | {
        "status": {name: sum(part["status"].get(name, 0) for part in parts) for name in flags},
        "largest_identity_residual": max((r for r in residuals if r is not None), default=None),
    }


def intervals_of(totals: Mapping[str, Any], level: float, design: Design = INDEPENDENT) -> dict[str, Interval | None]:
    """Return the interval of the accuracy that totals state, None of no label; nothing of multi-label runs."""
    return {"accuracy": design.wilson(totals["correct"], totals["labelled"], level)} if "labelled" in totals else {}


def accuracy_needs(totals: Mapping[str, Any], level: float, design: Design = INDEPENDENT) -> int | None:
    """Return how many labelled samples would make that ± 1 point, None where there is none."""
    return design.needed(totals["accuracy"], level) if totals.get("labelled") else None


def needs_a_look(totals: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the manifest states as findings: how many samples of each kind a person should look at."""
    counts = [(flag_name(flag), totals["status"][flag_name(flag)]) for flag in NEEDS_A_LOOK]
    return [{"kind": name, "count": count} for name, count in counts if count]
