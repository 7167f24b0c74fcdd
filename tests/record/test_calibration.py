"""Calibration, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from batchcam.record.calibration import BINS, Bin, Reliability, expected_calibration_error


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Predictions told in three parts."""
    counted = Reliability(bins)
    for part in np.array_split(np.arange(len(confidence)), 3):
        counted.add(confidence[part], correct[part])
    return counted.bins()


def error_by_loops(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    total = 0.0
    for index in range(bins):
        members = [
            (float(c), bool(r))
            for c, r in zip(confidence, correct, strict=True)
            if index / bins < c <= (index + 1) / bins or (index == 0 and c == 0)
        ]
        if members:
            accuracy = sum(r for _, r in members) / len(members)
            total += len(members) / len(confidence) * abs(accuracy - sum(c for c, _ in members) / len(members))
    return total


@pytest.mark.parametrize("seed", range(5))
def test_the_error_is_that_of_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.random(400).astype(np.float32)
    correct = rng.random(400) < confidence**2
    bins = reliability(confidence, correct)
    assert len(bins) == BINS == 15
    assert sum(b.count for b in bins) == 400
    assert expected_calibration_error(bins) == pytest.approx(error_by_loops(confidence, correct, 15))


def test_a_classifier_that_says_what_is_true_has_no_error() -> None:
    confidence = np.full(1000, 0.75)
    correct = np.arange(1000) % 4 != 0
    assert expected_calibration_error(reliability(confidence, correct)) == pytest.approx(0)


def test_certain_mistakes_have_the_largest_error() -> None:
    assert expected_calibration_error(reliability(np.ones(5), np.zeros(5, bool))) == 1


def test_upper_edges_belong_to_their_bin() -> None:
    bins = reliability(np.array([0, 0.5, 0.5000001, 1]), np.array([True, False, True, True]), bins=2)
    assert [b.count for b in bins] == [2, 2]
    assert [b.true for b in bins] == [0.5, 1]


def test_without_predictions_there_is_no_error() -> None:
    bins = reliability(np.empty(0), np.empty(0, bool))
    assert expected_calibration_error(bins) is None
    assert all(b.true is None and b.confidence is None for b in bins)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1])
def test_a_confidence_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        reliability(np.array([bad]), np.array([True]))
