"""Intervals and tests of counts, against SciPy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, logit
from scipy.stats import binom, binomtest, fisher_exact, norm, t
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from batchcam.record.intervals import (
    auroc_influence,
    auroc_interval,
    average_precision_interval,
    benjamini_hochberg,
    f1_interval,
    fewer_by_chance,
    holm,
    mcnemar,
    mean_interval,
    more_by_chance,
    needed,
    paired,
    placements,
    wilson,
)
from batchcam.record.sigmoid_scores import Known, SigmoidScores


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("trials", [1, 2, 17, 1000, 1_000_000])
def test_an_interval_is_wilsons(trials: int, level: float) -> None:
    for successes in {0, 1, trials // 3, trials // 2, trials - 1, trials}:
        expected = binomtest(successes, trials).proportion_ci(level, "wilson")
        np.testing.assert_allclose(wilson(successes, trials, level), expected, rtol=1e-12, atol=1e-12)
        expected = proportion_confint(successes, trials, 1 - level, "wilson")
        np.testing.assert_allclose(wilson(successes, trials, level), expected, rtol=1e-12, atol=1e-12)


def test_nothing_has_no_interval() -> None:
    assert wilson(0, 0) is None


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("rate", [0, 0.5, 0.97])
def test_so_many_trials_make_an_interval_that_narrow_and_one_less_does_not(rate: float, level: float) -> None:
    trials = needed(rate, 0.01, level)
    # of a rate between two counts, too: SciPy's takes none, statsmodels' does
    wide = [np.ptp(proportion_confint(rate * n, n, 1 - level, "wilson")) / 2 for n in (trials - 1, trials)]
    assert wide[1] <= 0.01 < wide[0]


WILSON = {(100, 0.9): 0.9364, (100, 0.99): 0.9206, (1000, 0.99): 0.9635}
"""Coverage of a rate where Wilson's own, summed over the binomial, is not 94 to 96 %."""


@pytest.mark.parametrize("trials", [100, 1000, 10_000])
@pytest.mark.parametrize("rate", [0.5, 0.9, 0.99])
def test_wilsons_interval_holds_the_rate_in_94_to_96_of_100_samples(trials: int, rate: float) -> None:
    drawn, times = np.unique(np.random.default_rng(0).binomial(trials, rate, 10_000), return_counts=True)
    found = np.average([holds(wilson(each, trials), rate) for each in drawn.tolist()], weights=times)
    right = np.arange(trials + 1)
    known = np.average(
        [holds(wilson(each, trials), rate) for each in right.tolist()], weights=binom.pmf(right, trials, rate)
    )
    assert found == pytest.approx(known, abs=0.01)
    assert known == pytest.approx(WILSON[trials, rate], abs=1e-4) if (trials, rate) in WILSON else 0.94 <= known <= 0.96


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


def test_more_by_chance_is_the_binomial_tail() -> None:
    for hits, trials, rate in ((0, 9, 0.3), (9, 9, 0.3), (40, 200, 0.1), (150, 400, 0.02)):
        expected = binom.sf(hits - 1, trials, rate)
        assert more_by_chance(hits, trials, rate) == pytest.approx(expected, rel=1e-8, abs=1e-300)


def test_the_correction_is_holms() -> None:
    rng = np.random.default_rng(1)
    for count in (1, 2, 9, 100):
        p = [*(rng.random(count) ** 4)]
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], rtol=1e-12)
    assert holm([]) == []


def holds(bounds: tuple[float, float] | None, value: float) -> bool:
    assert bounds is not None
    return bounds[0] <= value <= bounds[1]


@pytest.mark.parametrize(("lost", "won", "trials"), [(3, 9, 44), (9, 3, 44), (43, 12, 200), (1, 1, 200)])
def test_a_paired_interval_is_tangos_with_the_other_rate_as_likely_as_can_be(lost: int, won: int, trials: int) -> None:
    def score(drop: float) -> float:
        def unlikely(rate: float) -> float:
            counts = np.array([lost, won, trials - lost - won])
            return -float(counts @ np.log(np.maximum([rate + drop, rate, 1 - 2 * rate - drop], 1e-300)))

        span = (max(0, -drop), (1 - drop) / 2)
        rate = minimize_scalar(unlikely, bounds=span, method="bounded", options={"xatol": 1e-13}).x
        return float((lost - won - trials * drop) / np.sqrt(trials * (2 * rate + drop * (1 - drop))))

    found, z = (lost - won) / trials, norm.ppf(0.975)
    expected = (brentq(lambda d: score(d) - z, -0.9, found), brentq(lambda d: score(d) + z, found, 0.9))
    assert paired(lost, won, trials) == pytest.approx(expected, abs=1e-7)


def test_a_paired_interval_stays_within_what_can_be_and_none_is_known_of_nothing() -> None:
    z = norm.ppf(0.975) ** 2
    assert paired(0, 0, 20) == pytest.approx((-z / (20 + z), z / (20 + z)), abs=1e-12)
    assert paired(20, 0, 20) == pytest.approx(((20 - z) / (20 + z), 1), abs=1e-12)
    assert paired(0, 20, 20) == pytest.approx((-1, (z - 20) / (20 + z)), abs=1e-12)
    assert paired(0, 0, 0) is None


@pytest.mark.parametrize("trials", [100, 1000])
@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_intervals_hold_the_truth_in_94_to_96_of_100_simulated_pairs(trials: int, rate: float) -> None:
    rng = np.random.default_rng(trials)
    moved, drop = 0.08, 0.02
    lost, won = (moved + drop) / 2, (moved - drop) / 2
    counts = rng.multinomial(trials, [lost, won, rate - lost, 1 - rate - won], 10_000)
    pairs, drawn = np.unique(counts[:, :2], axis=0, return_counts=True)
    found = [holds(paired(*pair, trials), drop) for pair in pairs.tolist()]
    assert 0.94 <= np.average(found, weights=drawn) <= 0.96
    right = np.arange(trials + 1)
    found = [holds(wilson(each, trials), rate) for each in right.tolist()]
    # Wilson's own coverage of a rate of .9 is .936 at 100
    assert 0.935 <= np.average(found, weights=binom.pmf(right, trials, rate)) <= 0.96


def test_the_p_value_is_mcnemars() -> None:
    for lost, won in ((0, 0), (1, 0), (3, 9), (50, 50), (100, 300), (4000, 5000)):
        expected = binomtest(lost, lost + won).pvalue if lost + won else 1
        assert mcnemar(lost, won) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert mcnemar(lost, won) == mcnemar(won, lost)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99999])
def test_the_interval_of_a_mean_is_students(level: float) -> None:
    for count in (2, 3, 10, 500, 10_000):
        expected = t.interval(level, count - 1, 0.3, 0.2 / np.sqrt(count))
        np.testing.assert_allclose(mean_interval(0.3, 0.2, count, level), expected, rtol=1e-7)
    expected = norm.interval(level, 0.3, 0.2 / 1000)
    np.testing.assert_allclose(mean_interval(0.3, 0.2, 1_000_000, level), expected, rtol=1e-12)
    assert mean_interval(0.3, 0, 1) is None


def test_placements_are_those_of_plain_loops_and_their_means_the_auroc() -> None:
    rng = np.random.default_rng(3)
    scores, true = rng.integers(0, 9, 80).astype(float), rng.random(80) < 0.3
    found = placements(scores, true)
    for side, sign in ((True, 1), (False, -1)):
        plain = [np.mean((np.sign(sign * (s - scores[true != side])) + 1) / 2) for s in scores[true == side]]
        np.testing.assert_allclose(found[true == side], plain, atol=1e-12)
        assert found[true == side].mean() == pytest.approx(roc_auc_score(true, scores), abs=1e-12)


def test_the_error_of_a_drop_of_auroc_is_the_jackknifes_and_its_interval_holds_the_truth() -> None:
    rng, kept, count = np.random.default_rng(4), 0, 300
    for _ in range(200):
        true = np.arange(count) < 90
        old = rng.normal(size=count) + true
        new = old + rng.normal(size=count)
        influence = auroc_influence(placements(old, true) - placements(new, true), true)
        drop = roc_auc_score(true, old) - roc_auc_score(true, new)
        kept += holds(
            auroc_interval(drop, float(np.sqrt((influence**2).sum())), 90),
            norm.cdf(1 / 2**0.5) - norm.cdf(0.5),
        )
    assert 0.92 <= kept / 200 <= 0.98


def test_the_correction_for_false_discoveries_is_benjamini_and_hochbergs() -> None:
    p = np.random.default_rng(0).random(40) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], rtol=1e-12)


def test_the_interval_of_an_auroc_is_delongs_by_plain_loops() -> None:
    rng = np.random.default_rng(5)
    for level in (0.8, 0.95, 0.999):
        scores, true = rng.integers(0, 12, 90).astype(float), rng.random(90) < 0.3
        scores[true] += 3
        yes, no = scores[true], scores[~true]
        above = np.array([[1.0 if y > n else 0.5 if y == n else 0.0 for n in no] for y in yes])
        error = (np.var(above.mean(1), ddof=1) / len(yes) + np.var(above.mean(0), ddof=1) / len(no)) ** 0.5
        half = t.ppf((1 + level) / 2, min(len(yes), len(no)) - 1) * error / (above.mean() * (1 - above.mean()))
        expected = expit(logit(above.mean()) + half * np.array([-1, 1]))
        np.testing.assert_allclose(Known(scores, true, true).auroc_interval(level), expected, rtol=1e-12)
    assert Known(scores, np.arange(90) < 1, true).auroc_interval(0.95) is None
    true = np.arange(30) >= 20
    apart = Known(np.arange(30.0), true, true).auroc_interval(0.95)
    assert apart is not None
    assert apart == (pytest.approx(10 / (10 + t.ppf(0.975, 9) ** 2)), 1)


def test_the_interval_of_an_f1_is_that_of_a_rate_which_it_is_a_function_of() -> None:
    for hits, errors in ((0, 5), (3, 1), (40, 25), (7, 0)):
        share = np.array(proportion_confint(hits, hits + errors, 0.05, "wilson"))
        np.testing.assert_allclose(f1_interval(wilson(hits, hits + errors)), 2 * share / (1 + share), atol=1e-12)
    assert f1_interval(None) is None


def test_the_interval_of_an_average_precision_is_boyds() -> None:
    for value, yes in ((0.2, 5), (0.7, 40), (0.99, 1000)):
        half = norm.ppf(0.975) / (yes * value * (1 - value)) ** 0.5
        expected = expit(logit(value) + half * np.array([-1, 1]))
        np.testing.assert_allclose(average_precision_interval(value, yes), expected, rtol=1e-12)
    low, high = average_precision_interval(1, 20)
    assert (low, high) == (pytest.approx(binomtest(20, 20).proportion_ci(0.95, "wilson").low), 1)


class Simulated:
    """Logits of which those of the yes lie higher by `distance`, and what is true of all that could be drawn."""

    def __init__(self, prevalence: float, distance: float, cut: float = 0.5) -> None:
        self.prevalence, self.distance, self.cut = prevalence, distance, cut
        places = np.linspace(-9, 14, 40_001)
        hits, flagged = prevalence * norm.sf(places - distance), (1 - prevalence) * norm.sf(places)
        precision = np.where(hits + flagged > 0, hits / np.maximum(hits + flagged, 1e-300), 1)
        told = prevalence * norm.sf(cut - distance)
        self.truth = {
            "auroc": norm.cdf(distance / 2**0.5),
            "average_precision": np.trapezoid(precision * norm.pdf(places - distance), places),
            "f1": 2 * told / (told + (1 - prevalence) * norm.sf(cut) + prevalence),
        }

    def coverage(self, size: int, times: int) -> dict[str, float]:
        """In what share of so many samples of a size the interval holds the truth."""
        rng, held = np.random.default_rng(size), dict.fromkeys(self.truth, 0)
        for _ in range(times):
            true = np.arange(size) < rng.binomial(size, self.prevalence)
            scores = rng.normal(size=size) + self.distance * true
            counted = SigmoidScores(("a",), (float(expit(self.cut)),), level=0.95)
            counted.add(true[:, None].astype(np.int8), scores[:, None].astype(np.float32))
            for name, ends in counted.scores()[0].intervals.items():
                if name in held:
                    held[name] += holds(ends, self.truth[name])
        return {name: count / times for name, count in held.items()}


def test_intervals_of_a_class_hold_the_truth_of_simulated_samples() -> None:
    found = Simulated(0.4, 1).coverage(200, 300)
    assert all(0.92 <= share <= 0.98 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("size", [100, 1000, 10_000])
@pytest.mark.parametrize("distance", [0, 1.28, 3.29])
def test_intervals_of_a_class_hold_the_truth_of_many_simulated_samples(size: int, distance: float) -> None:
    found = Simulated(0.5, distance).coverage(size, 4000)
    assert 0.94 <= found["f1"] <= 0.96
    assert 0.937 <= found["auroc"] <= 0.966
    assert 0.935 <= found["average_precision"] <= (0.974 if distance < 3 else 1)
