"""Intervals and tests of counts, against SciPy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact
from statsmodels.stats.multitest import multipletests

from batchcam.record.intervals import fewer_by_chance, holm, wilson


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("trials", [1, 2, 17, 1000, 1_000_000])
def test_an_interval_is_wilsons(trials: int, level: float) -> None:
    for successes in {0, 1, trials // 3, trials // 2, trials - 1, trials}:
        expected = binomtest(successes, trials).proportion_ci(level, "wilson")
        np.testing.assert_allclose(wilson(successes, trials, level), expected, rtol=1e-12, atol=1e-12)


def test_nothing_has_no_interval() -> None:
    assert wilson(0, 0) is None


def test_the_chance_of_so_few_is_fishers() -> None:
    rng = np.random.default_rng(0)
    for whole in (2, 30, 3000, 200_000):
        for _ in range(40):
            part = int(rng.integers(0, whole + 1))
            right = int(rng.integers(0, whole + 1))
            hits = int(rng.hypergeometric(right, whole - right, part)) if part else 0
            table = [[hits, part - hits], [right - hits, whole - part - right + hits]]
            expected = fisher_exact(table, alternative="less").pvalue
            assert fewer_by_chance(hits, part, right, whole) == pytest.approx(expected, rel=1e-8, abs=1e-300)


def test_the_correction_is_holms() -> None:
    rng = np.random.default_rng(1)
    for count in (1, 2, 9, 100):
        p = [*(rng.random(count) ** 4)]
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], rtol=1e-12)
    assert holm([]) == []
