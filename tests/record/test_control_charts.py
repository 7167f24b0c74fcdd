"""Control charts: few alarms where nothing changes, soon one where something does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, special, stats

from batchcam.record.control_charts import (
    ALARM_LEVEL,
    LEAST_ERROR,
    WEIGHT,
    WINDOW,
    Charts,
    _normal_of,
    _student_of,
    arcsine,
    change_point,
    judge,
    mann_whitney,
    rate_of,
    shrunken,
)
from batchcam.rules import BASELINE_NIGHTS

NOISE = 1 / math.sqrt(4 * 2000 + 2)


def rates(rng: np.random.Generator, rate: np.ndarray, between: float = 0.0) -> Charts:
    """Judge rates of 2000 samples a night, 20 series a family, that differ by `between` besides, on arcsine's scale."""
    angle = np.arcsin(np.sqrt(rate)) + between * rng.normal(size=rate.shape)
    counts = rng.binomial(2000, np.sin(angle) ** 2)
    return judge(*arcsine(counts, np.full(rate.shape, 2000)), np.arange(len(rate)) // 20, [])


def still(rng: np.random.Generator, rounds: int, between: float) -> np.ndarray:
    """How many alarms begin in 100 nights of 20 series without change."""
    alarms = rates(rng, np.full((20 * rounds, 100), 0.9), between).alarms
    return np.asarray((alarms[:, 1:] & ~alarms[:, :-1]).sum(1).reshape(rounds, 20).sum(1))


def dropped(rng: np.random.Generator, rounds: int, change: float, rate: float = 0.9) -> float:
    """The share of rounds in which one of 20 series that changes in night 30 is in alarm by night 32."""
    rate_of_night = np.full((20 * rounds, 33), rate)
    rate_of_night[::20, 30:] += change
    return float(rates(rng, rate_of_night).alarms[::20, 30:].any(1).mean())


def moved(rng: np.random.Generator, rounds: int, samples: int) -> float:
    """The same of border shares of which 0.1 moves there."""
    means = rng.normal(0.3, 0.2 / math.sqrt(samples), (20 * rounds, 33))
    means[::20, 30:] += 0.1
    charts = judge(means, np.full(means.shape, 0.04 / samples), np.arange(len(means)) // 20, [])
    return float(charts.alarms[::20, 30:].any(1).mean())


def test_nothing_that_changes_gives_at_most_an_alarm_in_a_hundred_nights_of_twenty_series() -> None:
    assert still(np.random.default_rng(0), 5, 0).max() <= 1


def test_a_drop_of_three_points_and_evidence_that_moves_are_told_within_three_nights() -> None:
    rng = np.random.default_rng(1)
    assert dropped(rng, 60, -0.03) >= 0.95
    assert moved(rng, 60, 200) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("between", [0, 0.5, 1, 2])
def test_a_hundred_nights_of_twenty_series_without_change_have_at_most_an_alarm(between: float) -> None:
    alarms = still(np.random.default_rng(2), 200, between * NOISE)
    assert alarms.mean() <= 0.35
    assert (alarms <= 1).mean() >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "change", "least"), [(0.9, -0.03, 0.95), (0.95, -0.03, 0.95), (0.8, -0.03, 0.9)])
def test_a_drop_at_two_thousand_samples_is_told_within_three_nights(rate: float, change: float, least: float) -> None:
    assert dropped(np.random.default_rng(3), 1000, change, rate) >= least


@pytest.mark.slow
@pytest.mark.parametrize("samples", [200, 2000])
def test_evidence_of_which_a_tenth_moves_to_the_border_is_told_within_three_nights(samples: int) -> None:
    assert moved(np.random.default_rng(4), 1000, samples) >= 0.95


def test_the_first_nights_and_those_after_a_restart_are_not_judged() -> None:
    values = np.random.default_rng(5).normal(size=(2, 60))
    charts = judge(values, np.ones((2, 60)), np.zeros(2, int), [30])
    judged = np.isfinite(charts.p).all(0)
    assert judged.tolist() == [BASELINE_NIGHTS <= night < 30 or night >= 30 + BASELINE_NIGHTS for night in range(60)]


def test_nights_without_a_value_are_as_if_they_were_not_there() -> None:
    values = np.random.default_rng(6).normal(size=(1, 40))
    gaps = np.insert(values, [3, 20, 20, 33], np.nan, axis=1)
    charts, beside = (judge(each, np.ones(each.shape), np.zeros(1, int), []) for each in (values, gaps))
    there = np.isfinite(gaps[0])
    for name in ("level", "centre", "half_width", "p"):
        np.testing.assert_allclose(getattr(beside, name)[0, there], getattr(charts, name)[0])
        assert np.isnan(getattr(beside, name)[0, ~there]).all()


def test_a_series_without_a_value_leaves_the_others_as_they_are() -> None:
    values = np.random.default_rng(7).normal(size=(3, 40))
    gap = np.concatenate([values, np.full((1, 40), np.nan)])
    alone, beside = (judge(each, np.ones(each.shape), np.zeros(len(each), int), []) for each in (values, gap))
    np.testing.assert_array_equal(alone.p, beside.p[:3])


def test_a_change_stays_in_alarm_and_does_not_become_usual() -> None:
    values = np.random.default_rng(8).normal(size=(1, 120))
    values[0, 40:] += 6
    charts = judge(values, np.ones((1, 120)), np.zeros(1, int), [])
    assert charts.alarms[0, 42:].all()
    assert abs(charts.centre[0, -1]) < 0.5


def test_the_level_and_its_limits_are_those_of_plain_loops() -> None:
    rng = np.random.default_rng(9)
    x, s2 = rng.normal(size=20), rng.uniform(0.5, 1.5, 20)
    charts = judge(x[None], s2[None], np.zeros(1, int), [])
    reference = range(20 - WINDOW)
    mean = sum(x[i] for i in reference) / len(reference)
    scatter = sum((x[i] - mean) ** 2 for i in reference) / (len(reference) - 1)
    scatter *= 1 + math.sqrt(2 / (len(reference) - 1))
    sampled = sum(s2[i] for i in reference) / len(reference)
    tau2 = max(0, scatter - sampled)
    centre = sum(x[i] / (s2[i] + tau2) for i in reference) / sum(1 / (s2[i] + tau2) for i in reference)
    weights = [(1 - WEIGHT) ** 2, 1 - WEIGHT, 1]
    level = sum(w * x[17 + i] for i, w in enumerate(weights)) / sum(weights)
    variance = sum((w / sum(weights)) ** 2 * (s2[17 + i] + tau2) for i, w in enumerate(weights))
    variance += 1 / sum(1 / (s2[i] + tau2) for i in reference)
    freedom = (len(reference) - 1) * ((tau2 + sampled) / max(tau2, 1e-3 * sampled)) ** 2
    assert charts.centre[0, -1] == pytest.approx(centre)
    assert charts.level[0, -1] == pytest.approx(level)
    assert charts.p[0, -1] == pytest.approx(
        2 * stats.t.sf(abs(level - centre) / math.sqrt(variance), freedom), rel=0.01
    )
    limit = stats.t.isf(ALARM_LEVEL / 2, freedom) * math.sqrt(variance)
    assert charts.half_width[0, -1] == pytest.approx(limit, rel=0.01)


def test_variances_that_are_alike_are_told_together_and_those_that_differ_one_by_one() -> None:
    rng = np.random.default_rng(13)
    freedom, family = np.full(400, 13), np.zeros(400, int)
    alike = rng.chisquare(13, 400) / 13
    drawn, more = shrunken(alike, freedom, family)
    assert drawn == pytest.approx(np.ones(400), abs=0.1)
    assert more.min() > 200
    differing = alike * np.exp(2 * rng.normal(size=400))
    drawn, more = shrunken(differing, freedom, family)
    told = differing > 0.5
    assert np.abs(np.log(drawn / differing))[told].max() < 0.5
    assert more.max() < 15


@pytest.mark.parametrize("spread", [0.4, 0.7])
def test_the_common_variance_is_that_of_the_exact_digamma_and_trigamma(spread: float) -> None:
    rng = np.random.default_rng(14)
    d = 13
    variances = rng.chisquare(d, 5000) / d * np.exp(spread * rng.normal(size=5000))
    logs = np.log(variances) - special.digamma(d / 2) + math.log(d / 2)
    excess = logs.var(ddof=1) - special.polygamma(1, d / 2)
    prior = 2 * optimize.brentq(lambda y: special.polygamma(1, y) - excess, 0.1, 1e4)
    common = math.exp(logs.mean() + special.digamma(prior / 2) - math.log(prior / 2))
    drawn, freedom = shrunken(variances, np.full(5000, d), np.zeros(5000, int))
    assert freedom == pytest.approx(np.full(5000, d + prior), rel=0.03)
    assert drawn == pytest.approx((prior * common + d * variances) / (prior + d), rel=0.03)


def test_a_series_alone_in_its_family_and_one_that_never_moves_tell_nothing_of_others() -> None:
    variances, freedom = np.array([1.0, 1.4, 0.8, 0.0, 3.0]), np.full(5, 20)
    drawn, more = shrunken(variances, freedom, np.array([0, 0, 0, 0, 1]))
    assert drawn[4] == pytest.approx(3, rel=0.01)
    assert more[4] == 20
    np.testing.assert_allclose(drawn[:3], shrunken(variances[:3], freedom[:3], np.zeros(3, int))[0])


def test_what_moves_by_less_than_the_least_error_is_no_alarm() -> None:
    values = np.ones((1, 40))
    values[0, 30:] -= LEAST_ERROR
    assert not judge(values, np.zeros((1, 40)), np.zeros(1, int), []).alarms.any()


@pytest.mark.parametrize("freedom", [6, 13, 50, 1e6])
def test_students_t_as_a_normal_deviate_is_as_rare_and_comes_back(freedom: float) -> None:
    t = np.array([0.5, 2, 4, 6])
    z = _normal_of(t, np.array(freedom))
    np.testing.assert_allclose(stats.norm.sf(z), stats.t.sf(t, freedom), rtol=0.1)
    np.testing.assert_allclose(_student_of(z, np.array(freedom)), t)


def test_rates_come_back_from_their_scale_with_the_variance_that_they_have() -> None:
    counts = np.random.default_rng(10).binomial(500, 0.02, 20_000)
    angles, variance = arcsine(counts, np.array(500))
    assert angles.var() == pytest.approx(float(variance), rel=0.05)
    counts = np.array([0, 1, 250, 499, 500])
    angles, variance = arcsine(counts, np.array(500))
    np.testing.assert_allclose(rate_of(angles, np.array([variance, np.nan])), counts / 500, atol=1e-12)


def test_mann_whitney_of_counts_is_scipys_of_the_values() -> None:
    rng = np.random.default_rng(11)
    first, second = rng.integers(0, 8, 90), rng.integers(1, 9, 70)
    found, variance = mann_whitney(*(np.bincount(each, minlength=9) for each in (first, second)))
    assert found == pytest.approx(stats.mannwhitneyu(first, second).statistic / (90 * 70))
    assert 0 < variance <= 1 / 12 / 90
    assert np.isnan(mann_whitney(np.zeros(3), np.ones(3))).all()


@pytest.mark.parametrize("change", [1, 12, 29])
def test_the_likeliest_change_is_where_the_mean_moved(change: int) -> None:
    values = np.random.default_rng(12).normal(size=30)
    values[change:] += 8
    assert change_point(values, np.ones(30)) == change
