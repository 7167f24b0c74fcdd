"""Quantiles and histograms of parts against numpy's of all values at once."""

from __future__ import annotations

import numpy as np
import pytest

from batchcam.record.distribution import PLACES, Distribution


def counted(values: np.ndarray, low: float, high: float) -> Distribution:
    found = Distribution(low, high)
    for part in np.array_split(values, 7):
        found.add(part)
    return found


@pytest.mark.parametrize("count", [1, 2, 9, 1000])
def test_quantiles_of_few_values_are_exact(count: int) -> None:
    values = np.random.default_rng(count).uniform(-1, 1, count)
    found = counted(values, -1, 1)
    for share in (0, 0.1, 0.5, 0.77, 1):
        assert found.quantile(share) == pytest.approx(np.quantile(values, share), abs=1e-12)


def test_quantiles_of_many_values_are_within_a_place() -> None:
    values = np.random.default_rng(0).beta(20, 2, 500_000)
    found = counted(values, 0, 1)
    for share in (0.001, 0.1, 0.5, 0.999):
        assert abs(found.quantile(share) - np.quantile(values, share)) < 1 / PLACES


def test_quantiles_of_values_that_repeat_are_exact() -> None:
    values = np.random.default_rng(1).choice([-1, -0.4, 0.2, 0.8, 1], 10_001)
    assert [counted(values, -1, 1).quantile(q) for q in (0.1, 0.5)] == np.quantile(values, [0.1, 0.5]).tolist()


@pytest.mark.parametrize("low", [-1.0, -0.7, 0.0, 0.9])
def test_histograms_are_those_of_numpy_also_at_the_edges(low: float) -> None:
    rng = np.random.default_rng(2)
    edges = np.arange(round(low * 10), 11) / 10
    values = np.concatenate([rng.uniform(low, 1, 5000), edges.repeat(3)])
    expected = np.histogram(values, np.linspace(low, 1, 21).round(10))[0].tolist()
    assert counted(values, -1, 1).histogram(20, low) == expected


def test_bins_that_are_not_whole_places_are_refused() -> None:
    with pytest.raises(ValueError, match="can't be cut into 7 bins"):
        Distribution(0, 1).histogram(7)


def test_only_finite_values_count_and_others_than_the_span_are_its_ends() -> None:
    found = counted(np.array([np.nan, np.inf, -np.inf, -3, 0.5, 9]), 0, 1)
    assert (len(found), found.quantile(0), found.quantile(1)) == (3, 0, 1)
    assert Distribution(0, 1).quantile(0.5) is None


def test_joined_ones_are_those_of_all_values() -> None:
    values = np.random.default_rng(3).uniform(0, 1, 999)
    whole, both = counted(values, 0, 1), counted(values[:99], 0, 1).joined(counted(values[99:], 0, 1))
    assert [both.quantile(q) for q in (0, 0.3, 1)] == [whole.quantile(q) for q in (0, 0.3, 1)]
    assert both.histogram(20) == whole.histogram(20)
