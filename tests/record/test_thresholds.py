"""The threshold that is learned for a class, against every cut tried."""

from __future__ import annotations

import numpy as np
import pytest

from batchcam.record.thresholds import best_threshold
from batchcam.rules import threshold_logit


def f1(true: np.ndarray, above: np.ndarray) -> float:
    return 2 * (true & above).sum() / (true.sum() + above.sum())


@pytest.mark.parametrize("seed", range(8))
def test_no_other_cut_has_a_larger_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([-1, 0, 1], np.int8), 50)
    logits = np.round(rng.normal(labels, 1.5), seed % 3).astype(np.float32)
    threshold = best_threshold(labels, logits)
    assert threshold is not None
    true, known = labels[labels >= 0] == 1, logits[labels >= 0]
    best = max(f1(true, known >= cut) for cut in known)
    assert f1(true, known >= np.float32(threshold_logit(threshold))) == pytest.approx(best, abs=1e-12)


def test_of_equal_cuts_it_is_the_highest_and_between_two_samples() -> None:
    labels, logits = np.array([1, 0, 0, 1, 0]), np.array([3, 1, 0, -1, -2], np.float32)
    # above 3: 2/3; above -1: 4/6
    assert threshold_logit(best_threshold(labels, logits) or 0) == pytest.approx(2, abs=1e-5)


def test_a_class_without_a_yes_has_none() -> None:
    assert best_threshold(np.array([0, -1, 1]), np.array([1, 2, np.nan], np.float32)) is None


@pytest.mark.parametrize("logit", [-500, -90, 90, 500])
def test_a_threshold_stays_a_probability_where_the_sigmoid_is_saturated(logit: float) -> None:
    threshold = best_threshold(np.array([1]), np.array([logit], np.float32))
    assert threshold is not None
    assert 0 < threshold < 1
    assert float(np.float32(threshold)) == threshold
