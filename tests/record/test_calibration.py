"""Calibration, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import foldnorm, norm, t
from statsmodels.stats.proportion import proportion_confint

from batchcam.record.calibration import BINS, Bin, Reliability, calibration_interval, expected_calibration_error


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


def test_intervals_of_a_bin_are_students_and_wilsons() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.7, 0.73, 60)
    correct = rng.random(60) < 0.8
    (found,) = [b for b in reliability(confidence, correct) if b.count]
    mean, share = found.intervals(0.9)
    expected = t.interval(0.9, 59, confidence.mean(), confidence.std(ddof=1) / 60**0.5)
    np.testing.assert_allclose(mean, expected, rtol=1e-9)
    np.testing.assert_allclose(share, proportion_confint(correct.sum(), 60, 0.1, "wilson"), rtol=1e-12)
    assert reliability(confidence, correct)[0].intervals() == (None, None)


def test_an_end_of_the_errors_interval_is_where_the_one_found_is_at_the_edge_of_what_chance_makes() -> None:
    bins = [Bin(0.6, 0.7, 300, 0.65, 0.55, 0.0), Bin(0.8, 0.9, 500, 0.85, 0.88, 0.0)]
    found, total = expected_calibration_error(bins), 800
    assert found is not None
    for level in (0.8, 0.95):
        ends = calibration_interval(bins, level)
        assert ends is not None
        for end, sign in zip(ends, (1, -1), strict=True):
            mean = variance = between = 0.0
            for share, stated, gap in ((300 / 800, 0.65, -0.1 * end / found), (500 / 800, 0.85, 0.03 * end / found)):
                rate = stated + gap
                spread = share * (rate * (1 - rate) / (share * total)) ** 0.5
                folded = foldnorm(share * abs(gap) / spread, scale=spread)
                mean, variance = mean + folded.mean(), variance + folded.var()
                between += share * gap**2 / total
            variance += between - end**2 / total
            assert (found - mean) / variance**0.5 == pytest.approx(sign * norm.ppf((1 + level) / 2), abs=1e-6)


def test_the_errors_interval_reaches_what_so_few_can_not_rule_out() -> None:
    right = reliability(np.ones(50), np.ones(50, bool))
    assert calibration_interval(right) == (0, pytest.approx(proportion_confint(0, 50, 0.05, "wilson")[1]))
    assert calibration_interval(reliability(np.zeros(0), np.zeros(0, bool))) is None
    wrong = calibration_interval(reliability(np.ones(50), np.zeros(50, bool)))
    assert wrong is not None
    assert 0.9 < wrong[0] <= wrong[1] <= 1


def coverage(temperature: float, size: int, times: int, share: float = 0.5) -> tuple[float, float]:
    """How often the interval holds the error of a classifier whose logits are to be divided by a temperature.

    And how often one does that takes the bootstrap's quantiles.
    """
    rng, many, held, naive = np.random.default_rng(size), 1_000_000, 0, 0

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        confidence = share + (1 - share) * rng.beta(5, 1, count).clip(1e-6, 1 - 1e-6)
        return confidence, 1 / (1 + (1 / confidence - 1) ** (1 / temperature))

    confidence, chance = drawn(many)
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    truth = np.abs(np.bincount(place, chance - confidence)).sum() / many
    for _ in range(times):
        confidence, chance = drawn(size)
        correct = rng.random(size) < chance
        bins = reliability(confidence, correct)
        low, high = calibration_interval(bins) or (1, 0)
        held += low <= truth <= high
        counts, stated, true = np.array([(b.count, b.confidence, b.true) for b in bins if b.count]).T
        again = rng.multinomial(size, counts / size, 200)
        errors = (np.abs(rng.binomial(again, true) - again * stated) / size).sum(1)
        low, high = np.quantile(errors, (0.025, 0.975))
        naive += low <= truth <= high
    return held / times, naive / times


def test_the_errors_interval_holds_the_truth_where_a_bootstrap_does_not() -> None:
    for temperature, of_bootstrap in ((1, 0.1), (1.2, 0.95), (2.5, 1)):
        held, naive = coverage(temperature, 500, 150)
        assert held >= 0.91
        assert naive <= of_bootstrap


@pytest.mark.slow
@pytest.mark.parametrize("size", [100, 1000, 10_000])
@pytest.mark.parametrize("temperature", [1, 1.2, 1.5, 2.5])
def test_the_errors_interval_holds_the_truth_of_many_simulated_samples(size: int, temperature: float) -> None:
    held, _ = coverage(temperature, size, 3000)
    assert 0.91 <= held <= 0.985
