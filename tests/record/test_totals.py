"""Totals are counted alike in parts and at once, and say which samples need a look."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batchcam.record.totals import Totals, needs_a_look


def columns_of(rows: list[tuple[int, int, int, float]]) -> dict[str, np.ndarray]:
    """Return the columns of rows of label, prediction, status and residual."""
    label, prediction, status, residual = zip(*rows, strict=True) if rows else ((), (), (), ())
    return {
        "label": np.array(label, np.int64),
        "prediction": np.array(prediction, np.int64),
        "status": np.array(status, np.uint8),
        "identity_residual": np.array(residual, np.float32),
    }


def totals_of(*parts: list[tuple[int, int, int, float]]) -> dict[str, Any]:
    counted = Totals()
    for part in parts:
        counted.add(columns_of(part))
    return counted.stated()


ROWS = [(0, 0, 0, 0.25), (1, 0, 8, 0.5), (-1, 1, 12, 0.125), (1, -1, 1, np.nan), (1, 1, 2, np.inf), (0, -1, 1, np.nan)]


@pytest.mark.parametrize("cut", range(len(ROWS) + 1))
def test_totals_are_the_same_counted_in_parts(cut: int) -> None:
    assert totals_of(ROWS[:cut], ROWS[cut:]) == totals_of(ROWS)


def test_totals_count_what_is_labelled_and_predicted_and_each_flag() -> None:
    assert totals_of(ROWS) == {
        "samples": 6,
        "labelled": 3,
        "correct": 2,
        "accuracy": 2 / 3,
        "status": {"unreadable": 2, "non finite": 1, "constant map": 1, "no positive evidence": 2},
        "largest_identity_residual": 0.5,
    }


def test_samples_without_residuals_or_labels_have_no_largest_and_no_accuracy() -> None:
    totals = totals_of([(-1, 1, 0, np.nan)])
    assert (totals["largest_identity_residual"], totals["accuracy"]) == (None, None)


def test_unreadable_and_non_finite_samples_need_a_look_and_others_do_not() -> None:
    found = needs_a_look(totals_of(ROWS))
    assert found == [{"kind": "unreadable", "count": 2}, {"kind": "non finite", "count": 1}]
    assert needs_a_look(totals_of(ROWS[:3])) == []
