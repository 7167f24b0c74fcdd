"""Intervals over clusters of samples, against statsmodels, plain loops, enumeration and simulated patients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import statsmodels.api as sm

from batchcam.errors import ConfigError
from batchcam.record.clusters import (
    INDEPENDENT,
    ClusterMeans,
    Clusters,
    Design,
    auroc_influence_of_clusters,
    auroc_interval_of_clusters,
    cluster_array,
    dealt,
    design_of,
    exchanged_by_chance,
    jackknife_error,
    share_interval,
)
from batchcam.record.intervals import (
    auroc_influence,
    auroc_interval,
    mcnemar,
    mean_interval,
    paired,
    placements,
    wilson,
)


def _patients(rng: np.random.Generator, count: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Return yes or no of images of patients with an intra-class correlation of .5, and each one's patient."""
    clusters = np.repeat(np.arange(count), rng.integers(1, 12, count))
    return (rng.random(len(clusters)) < rng.beta(rate, 1 - rate, count)[clusters]).astype(float), clusters


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_of_a_mean_is_that_of_regression_with_clustered_errors(level: float) -> None:
    rng = np.random.default_rng(1)
    values, clusters = rng.normal(size=300), rng.integers(0, 30, 300)
    values += rng.normal(size=30)[clusters]
    fit = sm.OLS(values, np.ones(300)).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)

    found = design_of(values, clusters).mean(values.mean(), values.std(ddof=1), 300, level)

    assert found == pytest.approx(tuple(fit.conf_int(1 - level)[0]), rel=1e-10)


def test_the_error_of_a_mean_is_that_of_generalised_estimating_equations() -> None:
    rng = np.random.default_rng(2)
    values, clusters = _patients(rng, 50, 0.7)
    fit = sm.GEE(values, np.ones(len(values)), clusters, cov_struct=sm.cov_struct.Independence()).fit()

    design = design_of(values, clusters)

    # theirs is not corrected for 50 clusters
    expected = fit.bse[0] * np.sqrt(50 / 49)
    assert np.sqrt(design.effect * values.var(ddof=1) / len(values)) == pytest.approx(expected, rel=1e-9)


def test_samples_that_are_clusters_of_their_own_have_a_design_effect_of_one() -> None:
    values = np.random.default_rng(3).normal(size=400)

    design = design_of(values, np.arange(400))

    assert design.effect == pytest.approx(1)
    assert design.mean(1, 2, 400) == pytest.approx(mean_interval(1, 2, 400))


def test_independent_samples_have_the_plain_intervals() -> None:
    assert INDEPENDENT.wilson(8, 10, 0.9) == wilson(8, 10, 0.9)
    assert INDEPENDENT.paired(3, 1, 10) == paired(3, 1, 10)
    assert INDEPENDENT.mean(0.5, 0.1, 10) == mean_interval(0.5, 0.1, 10)
    assert design_of(np.ones(3), None) is INDEPENDENT


def test_copies_of_each_sample_tell_no_more_than_one_of_it() -> None:
    values = (np.random.default_rng(4).random(5000) < 0.8).astype(float)
    design = design_of(np.repeat(values, 4), np.repeat(np.arange(5000), 4))

    assert design.effect == pytest.approx(4, rel=1e-3)
    once = wilson(int(values.sum()), 5000)
    assert design.wilson(int(4 * values.sum()), 20000) == pytest.approx(once, abs=1e-5)


def test_samples_that_do_not_vary_count_as_one_of_each_cluster() -> None:
    design = design_of(np.ones(60), np.repeat(np.arange(12), 5))

    assert design == Design(5, 12)
    low, high = design.wilson(60, 60) or (0, 0)
    assert (low < (wilson(12, 12) or (0, 0))[0], high) == (True, 1)


def test_of_one_cluster_nothing_follows() -> None:
    design = design_of(np.array([0.0, 1.0, 1.0]), np.zeros(3, np.int64))

    assert (design.wilson(2, 3), design.paired(1, 0, 3), design.mean(0.6, 0.5, 3)) == (None, None, None)
    assert auroc_interval_of_clusters(0.1, 0.1, 1) is None
    assert share_interval(0.5, 0.1, 1) is None


@pytest.mark.parametrize("count", [40, 100])
@pytest.mark.parametrize("rate", [0.5, 0.8])
def test_intervals_over_patients_hold_the_rate_where_those_over_images_do_not(count: int, rate: float) -> None:
    rng, times = np.random.default_rng(5), 1500
    held = np.zeros(2)
    for _ in range(times):
        values, clusters = _patients(rng, count, rate)
        for i, design in enumerate((design_of(values, clusters), INDEPENDENT)):
            low, high = design.wilson(int(values.sum()), len(values)) or (1, 0)
            held[i] += low <= rate <= high

    assert 0.93 < held[0] / times < 0.97
    assert held[1] / times < 0.8


def test_accuracy_lost_is_held_and_seldom_called_changed_where_only_patients_differ() -> None:
    rng, times = np.random.default_rng(10), 1500
    held, called = np.zeros(2), np.zeros(2)
    for _ in range(times):
        old, clusters = _patients(rng, 50, 0.8)
        turned = rng.random(50)[clusters] < 0.3
        new = np.where(turned, (rng.random(50) < 0.8)[clusters], old)
        lost, won = int((old > new).sum()), int((new > old).sum())
        for i, design in enumerate((design_of(old - new, clusters), INDEPENDENT)):
            low, high = design.paired(lost, won, len(old)) or (1, 0)
            held[i] += low <= 0 <= high
        called += exchanged_by_chance(np.bincount(clusters, old - new)) < 0.05, mcnemar(lost, won) < 0.05

    assert 0.93 < held[0] / times < 0.97
    assert held[1] / times < 0.8
    assert called[0] / times < 0.06 < 0.2 < called[1] / times


def test_a_drop_of_auroc_is_held_where_patients_differ() -> None:
    rng, times, held = np.random.default_rng(11), 400, np.zeros(2)
    clusters = np.repeat(np.arange(40), 10)
    for _ in range(times):
        true = (rng.random(40) < 0.4)[clusters] ^ (rng.random(400) < 0.1)
        old, new = (true + rng.normal(size=40)[clusters] + rng.normal(size=400) for _ in range(2))
        drop = placements(old, true)[true].mean() - placements(new, true)[true].mean()
        influence = auroc_influence(placements(old, true) - placements(new, true), true)
        error = np.sqrt((auroc_influence_of_clusters(influence, true, clusters, 40) ** 2).sum())
        fewest = min(len({*clusters[side]}) for side in (true, ~true))
        naive = np.sqrt((influence**2).sum()), int(min(true.sum(), (~true).sum()))
        for i, interval in enumerate((auroc_interval_of_clusters(drop, error, fewest), auroc_interval(drop, *naive))):
            held[i] += interval[0] <= 0 <= interval[1]

    assert 0.93 < held[0] / times < 0.98
    assert held[1] / times < 0.8


def test_means_that_are_added_part_by_part_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchcam.record.clusters.PENDING", 50)
    rng = np.random.default_rng(6)
    values, clusters, kinds = rng.normal(size=500), rng.integers(0, 40, 500), rng.integers(-1, 3, 500)
    values[::7] = np.nan
    means = ClusterMeans()
    for part in np.array_split(np.arange(500), 23):
        means.add(values[part], clusters[part], kinds[part])

    assert means.design().effect == pytest.approx(design_of(values, clusters).effect)
    for kind in (0, 1, 2):
        one = design_of(values[kinds == kind], clusters[kinds == kind])
        assert means.design_of(kind).clusters == one.clusters
        assert means.design_of(kind).effect == pytest.approx(one.effect)


def test_zeros_that_were_not_added_count_by_the_size_of_their_clusters() -> None:
    rng = np.random.default_rng(7)
    values, clusters = rng.choice([0, 0, 0, 1, -1], 300).astype(float), rng.integers(0, 30, 300)
    means = ClusterMeans()
    means.add(values[values != 0], clusters[values != 0])

    found = means.design_of(0, np.bincount(clusters))

    assert found.clusters == 30
    assert found.effect == pytest.approx(design_of(values, clusters).effect)


def test_the_chance_of_an_exchange_is_that_of_all_signs() -> None:
    sums = np.array([3.0, -1, 2, 2, 0, -4, 1, 1, 5])
    signs = np.array(list(itertools.product([1, -1], repeat=len(sums))))

    expected = (np.abs(signs @ sums) >= abs(sums.sum())).mean()

    assert exchanged_by_chance(sums) == pytest.approx(expected, abs=1e-12)
    assert exchanged_by_chance(np.repeat([1.0, -1], [15, 5])) == pytest.approx(mcnemar(15, 5), rel=1e-9)
    assert exchanged_by_chance(np.zeros(3)) == 1


def _obuchowski(scores: np.ndarray, true: np.ndarray, clusters: np.ndarray) -> float:
    """Return the variance of an AUROC as in the paper, by plain loops."""
    yes, no = scores[true], scores[~true]
    above = np.array([[(y > n) + (y == n) / 2 for n in no] for y in yes])
    area = above.mean()
    of_yes = {g: above[clusters[true] == g].mean(1).sum() - (clusters[true] == g).sum() * area for g in {*clusters}}
    of_no = {g: above[:, clusters[~true] == g].mean(0).sum() - (clusters[~true] == g).sum() * area for g in {*clusters}}
    with_yes, with_no, all_ = len({*clusters[true]}), len({*clusters[~true]}), len({*clusters})
    s10 = with_yes / (with_yes - 1) / len(yes) * sum(v * v for v in of_yes.values())
    s01 = with_no / (with_no - 1) / len(no) * sum(v * v for v in of_no.values())
    s11 = all_ / (all_ - 1) * sum(of_yes[g] * of_no[g] for g in of_yes)
    return float(s10 / len(yes) + s01 / len(no) + 2 * s11 / len(yes) / len(no))


def test_the_error_of_an_auroc_is_obuchowskis() -> None:
    rng = np.random.default_rng(8)
    clusters = np.repeat(np.arange(60), 4)
    true = rng.random(240) < rng.random(60)[clusters]
    scores = np.round(rng.normal(size=240) + rng.normal(size=60)[clusters] + true, 1)
    influence = auroc_influence(placements(scores, true), true)

    found = (auroc_influence_of_clusters(influence, true, clusters, 60) ** 2).sum()

    assert found == pytest.approx(_obuchowski(scores, true, clusters), rel=0.01)
    assert found > 1.2 * (influence**2).sum()
    alone = auroc_influence_of_clusters(influence, true, np.arange(240), 240)
    assert alone == pytest.approx(influence)
    assert auroc_interval_of_clusters(0.1, 0.02, 10**6) == pytest.approx(auroc_interval(0.1, 0.02, 10**6), rel=1e-5)


def test_leaving_out_groups_of_clusters_gives_the_error_of_their_mean() -> None:
    rng = np.random.default_rng(9)
    clusters = np.repeat(np.arange(2000), 5)
    values = rng.normal(size=10000) + rng.normal(size=2000)[clusters]
    groups = dealt(clusters)
    without = np.array([values[groups != group].mean() for group in range(64)])

    expected = np.sqrt(design_of(values, clusters).effect * values.var() / 10000)

    assert all(len({*groups[clusters == cluster]}) == 1 for cluster in range(20))
    assert jackknife_error(without) == pytest.approx(expected, rel=0.25)
    found, plain = share_interval(0.8, np.sqrt(0.8 * 0.2 / 500), 10**6), wilson(400, 500)
    assert found == pytest.approx(plain, abs=1e-3)  # by Student's t with 63 degrees of freedom


def test_a_sample_without_a_value_is_a_cluster_of_its_own_and_few_are_told() -> None:
    clusters = Clusters("meta/patient")

    assert clusters.of(["a", "", "b", "a", " "]).tolist() == [0, 1, 2, 0, 3]
    assert clusters.of(["", "b"]).tolist() == [4, 2]
    first, without, few = clusters.notes({"flips": Design(1.25, 5)})
    assert first.startswith("7 samples in 5 clusters by patient")
    assert first.endswith("design effect: flips 1.2")
    assert without.startswith("3 samples without a value of patient")
    assert few.startswith("ONLY 5 clusters by patient")


def test_samples_of_one_cluster_alone_are_refused() -> None:
    clusters = Clusters("patient")
    clusters.of(["a", "a"])

    with pytest.raises(ConfigError, match="--cluster patient: all samples are of one patient"):
        clusters.require_several()


@pytest.mark.parametrize("column", ["patient", "meta/patient"])
def test_a_column_is_found_by_its_name_and_by_its_arrays(column: str) -> None:
    assert cluster_array(column, ["site", "patient"], "RUN") == "meta/patient"
    with pytest.raises(ConfigError, match="--cluster: RUN: no column 'site'; it has age"):
        cluster_array("meta/site", ["age"], "RUN")
