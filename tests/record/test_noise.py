"""A noise floor: against SciPy's Student's t, and how often honest runs are stopped in worlds of chance."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from batchcam.record.intervals import student_limit, student_tail
from batchcam.record.noise import MEASURES, Value, corrected, limit, spread

WORLDS = 1000
SAMPLES = 200


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 40])
@pytest.mark.parametrize("t", [-30.0, -1.0, 0.0, 0.5, 3.0, 60.0])
def test_tails_of_students_t_are_scipys(freedom: int, t: float) -> None:
    assert student_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), abs=1e-12)
    assert student_limit(0.01, freedom) == pytest.approx(stats.t.isf(0.01, freedom), rel=1e-9)


@pytest.mark.parametrize("name", MEASURES)
def test_a_value_comes_back_from_the_scale_where_spreads_are_alike(name: str) -> None:
    measure = MEASURES[name]
    for share in (0.0, 0.02, 0.5, 0.97, 1.0):
        value = 2 * share - 1 if measure.whole is None else share * min(measure.whole, 5)
        assert measure.unscaled(measure.scaled(value)) == pytest.approx(value, abs=2e-6)


@pytest.mark.parametrize("name", [name for name, measure in MEASURES.items() if measure.worse])
def test_what_stands_at_the_limit_has_the_p_of_its_level(name: str) -> None:
    retrained = [Value(value, SAMPLES) for value in (0.31, 0.36, 0.42)]
    at = Value(limit(name, retrained, 0.95), SAMPLES)
    assert spread(name, None, retrained, at).p == pytest.approx(0.05, abs=1e-9)


def test_one_flip_is_no_evidence_where_retrainings_had_none() -> None:
    none = [Value(0.0, SAMPLES)] * 5
    assert spread("flips_percent", None, none, Value(100 / SAMPLES, SAMPLES)).p > 0.05
    assert spread("flips_percent", None, none, Value(10.0, SAMPLES)).p < 0.001


def test_classes_are_corrected_by_holm_each_measure_by_itself() -> None:
    spreads = [
        dataclasses.replace(spread("spearman", str(n), [Value(0.8, 20), Value(0.7, 20)], Value(0.7, 20)), p=p)
        for n, p in enumerate((0.01, 0.2, 0.03))
    ]
    spreads.append(dataclasses.replace(spreads[0], measure="cosine"))
    expected = [*multipletests([0.01, 0.2, 0.03], method="holm")[1], 0.01]
    assert [each.corrected_p for each in corrected(spreads)] == pytest.approx(expected)


def honest_world(runs: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Differences of honest runs from one of them, whose weights are drawn alike: percent of flips, mean similarity.

    Returns:
        (runs, 2).
    """
    features, noise = rng.normal(size=(SAMPLES, 6)), rng.normal(size=(SAMPLES, 9, 6))
    weights = scale * rng.normal(size=(runs + 1, 6))
    above = 2 * rng.normal(size=SAMPLES) + weights @ features.T > 0
    maps = rng.normal(size=(SAMPLES, 9)) + np.einsum("rd,ncd->rnc", weights, noise)
    maps -= maps.mean(2, keepdims=True)
    maps /= np.linalg.norm(maps, axis=2, keepdims=True)
    return np.stack([100 * (above[1:] != above[0]).mean(1), (maps[1:] * maps[0]).sum(2).mean(1)], 1)


def stopped(differences: np.ndarray) -> bool:
    """Whether the last run is stopped by limits on both measures that the others tell."""
    *retrained, new = differences.tolist()
    flips, alike = ([Value(value, SAMPLES) for value in values] for values in zip(*retrained, strict=True))
    return new[0] > limit("flips_percent", flips, 0.975) or new[1] < limit("spearman", alike, 0.975)


@pytest.mark.parametrize("retrainings", [2, 3, 5])
@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0])
def test_at_most_a_twentieth_of_honest_runs_is_stopped(retrainings: int, scale: float) -> None:
    rng = np.random.default_rng([retrainings, round(10 * scale)])
    stops = sum(stopped(honest_world(retrainings + 1, scale, rng)) for _ in range(WORLDS))
    assert stats.binomtest(stops, WORLDS, 0.05, "greater").pvalue > 0.01, f"{stops} of {WORLDS}"


def test_a_shortcut_is_stopped_beside_seeds_that_differ_as_those_of_the_readme_do() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        honest = np.stack([rng.binomial(SAMPLES, 0.03, 3) * 100 / SAMPLES, rng.normal(0.755, 0.03, 3)], 1)
        assert stopped(np.vstack([honest, [3.0, 0.08]]))


def test_the_p_of_an_honest_run_is_uniform_or_larger() -> None:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(WORLDS):
        *retrained, new = (Value(v, SAMPLES) for v in honest_world(4, 0.3, rng)[:, 1].tolist())
        found.append(spread("spearman", None, retrained, new).p)
    for level in (0.01, 0.05, 0.1, 0.25):
        assert np.mean(np.array(found) <= level) <= level + 3 * math.sqrt(level * (1 - level) / WORLDS)
