"""Agreement beyond chance: the numbers of scikit-learn, statsmodels and plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

from batchcam.record.agreement import COHEN, FLEISS, KRIPPENDORFF, agreement

KRIPPENDORFF_2011 = [  # data C of https://repository.upenn.edu/asc_papers/43, whose nominal alpha is 0.743
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]


def said(people: int, count: int = 60, words: int = 3, honest: float = 0.7, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    true = rng.choice(words, count, p=np.arange(1, words + 1) / np.arange(1, words + 1).sum())
    guess = rng.integers(0, words, (count, people))
    return np.where(rng.random((count, people)) < honest, true[:, None], guess)


def looped_alpha(ratings: np.ndarray) -> float:
    """1 - observed / expected disagreement over all ordered pairs of values, unit by unit, then over all units."""
    units = [[v for v in row if v >= 0] for row in ratings.tolist()]
    units = [unit for unit in units if len(unit) > 1]
    values = [v for unit in units for v in unit]
    observed = sum(sum(a != b for a, b in itertools.permutations(u, 2)) / (len(u) - 1) for u in units) / len(values)
    pairs = [a != b for a, b in itertools.permutations(values, 2)]
    return 1 - observed / (sum(pairs) / len(pairs))


@pytest.mark.parametrize("seed", range(5))
def test_cohens_kappa_is_scikit_learns(seed: int) -> None:
    ratings = said(2, seed=seed)
    found = agreement(ratings)
    assert found is not None
    assert found.statistic == COHEN
    assert found.kappa == pytest.approx(cohen_kappa_score(*ratings.T))
    assert found.agreed == (ratings[:, 0] == ratings[:, 1]).sum()


@pytest.mark.parametrize("people", [3, 5])
def test_fleiss_kappa_is_statsmodels(people: int) -> None:
    ratings = said(people)
    table = np.stack([(ratings == word).sum(1) for word in range(3)], 1)
    found = agreement(ratings)
    assert found is not None
    assert (found.statistic, found.kappa) == (FLEISS, pytest.approx(fleiss_kappa(table)))


def test_krippendorffs_alpha_is_that_of_his_paper() -> None:
    found = agreement(np.array(KRIPPENDORFF_2011).T - 1)
    assert found is not None
    assert (found.statistic, found.samples) == (KRIPPENDORFF, 11)  # one of the twelve has one value
    assert found.kappa == pytest.approx(0.743, abs=5e-4)


def test_krippendorffs_alpha_is_that_of_plain_loops_where_verdicts_are_missing() -> None:
    ratings = said(4)
    ratings[np.random.default_rng(1).random(ratings.shape) < 0.4] = -1
    found = agreement(ratings)
    assert found is not None
    assert (found.statistic, found.kappa) == (KRIPPENDORFF, pytest.approx(looped_alpha(ratings)))
    several = [set(row[row >= 0].tolist()) for row in ratings if (row >= 0).sum() > 1]
    assert (found.samples, found.agreed) == (len(several), sum(len(each) == 1 for each in several))


def test_the_interval_is_about_that_of_statsmodels_for_many_samples() -> None:
    ratings = said(2, 2000)
    table = np.zeros((3, 3))
    np.add.at(table, tuple(ratings.T), 1)
    expected = cohens_kappa(table)
    found = agreement(ratings)
    assert found is not None
    assert found.interval is not None
    np.testing.assert_allclose(found.interval, (expected.kappa_low, expected.kappa_upp), atol=0.01)


@pytest.mark.parametrize(("people", "missing"), [(2, 0), (3, 0), (3, 0.3)])
def test_intervals_hold_the_kappa_of_many_samples_as_often_as_they_say(people: int, missing: float) -> None:
    population = agreement(said(people, 20_000, honest=0.85))
    assert population is not None
    rng, held = np.random.default_rng(2), 0
    for seed in range(80):
        ratings = said(people, 50, honest=0.85, seed=1000 + seed)
        ratings[rng.random(ratings.shape) < missing] = -1
        found = agreement(ratings)
        assert found is not None
        assert found.interval is not None
        held += found.interval[0] <= (population.kappa or 0) <= found.interval[1]
    assert held >= 71  # fewer in 1 of 150, were it 0.95


def test_people_who_agree_on_few_samples_are_not_taken_for_sure() -> None:
    found = agreement(np.array([[0, 0], [1, 1], [1, 1], [0, 0]]))
    assert found is not None
    assert found.kappa == 1
    assert found.interval is not None
    assert found.interval[0] < 0.2


def test_no_kappa_is_taken_to_be_below_its_least() -> None:
    found = agreement(np.array([[0, 0]] * 7 + [[0, 1]] * 3))
    assert found is not None
    assert found.interval is not None
    assert found.interval[0] == -1


@pytest.mark.parametrize("ratings", [[[0, 0], [0, 0]], [[1, 1, 1]]])
def test_there_is_no_kappa_where_all_say_one_and_the_same(ratings: list[list[int]]) -> None:
    found = agreement(np.array(ratings))
    assert found is not None
    assert (found.kappa, found.interval, found.share) == (None, None, 1)


def test_there_is_no_agreement_of_people_who_judged_other_samples() -> None:
    assert agreement(np.array([[0, -1], [-1, 1]])) is None
    assert agreement(np.zeros((5, 1), int)) is None
