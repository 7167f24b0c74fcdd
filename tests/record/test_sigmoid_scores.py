"""Scores of classes that are true or not by themselves, against plain loops and scikit-learn."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from batchcam.record.calibration import expected_calibration_error
from batchcam.record.sigmoid_scores import (
    Known,
    Pair,
    SigmoidScores,
    auroc,
)

NAMES = ("Edema", "Fracture", "Pneumonia")
THRESHOLDS = (0.5, 0.25, 0.75)
SEEDS = range(6)


def samples(seed: int, count: int = 80, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels int8 (n, K), some not known, and logits float32 (n, K) that tell something of them."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([-1, 0, 1], np.int8), (count, len(NAMES)))
    logits = rng.normal(labels, 1.5).astype(np.float32)
    return labels, np.round(logits) if ties else logits


def counted(labels: np.ndarray, logits: np.ndarray, cut: int = 1000) -> SigmoidScores:
    found = SigmoidScores(NAMES, THRESHOLDS)
    for start in range(0, len(labels), cut):
        found.add(labels[start : start + cut], logits[start : start + cut])
    return found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_auroc_is_the_share_of_pairs_in_order_ties_counted_half(seed: int, ties: bool) -> None:
    labels, logits = (column[:, 0] for column in samples(seed, ties=ties))
    yes, no = logits[labels == 1], logits[labels == 0]
    expected = sum((a > b) + (a == b) / 2 for a in yes for b in no) / (len(yes) * len(no))
    assert auroc(logits[labels >= 0], labels[labels >= 0] == 1) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_average_precision_is_precision_at_each_distinct_score_weighted_by_the_recall_gained(
    seed: int, ties: bool
) -> None:
    labels, logits = (column[:, 0] for column in samples(seed, ties=ties))
    true, scores = labels[labels >= 0] == 1, logits[labels >= 0]
    expected, recall = 0.0, 0.0
    for score in sorted(set(scores.tolist()), reverse=True):
        above = scores >= score
        expected += (true & above).sum() / above.sum() * ((true & above).sum() / true.sum() - recall)
        recall = (true & above).sum() / true.sum()
    assert Known(scores, true, true).average_precision == pytest.approx(expected, abs=1e-12)


def test_calibration_error_is_the_mean_gap_over_fifteen_bins() -> None:
    labels, logits = (column[:, 0] for column in samples(1))
    true, chances = labels[labels >= 0] == 1, 1 / (1 + np.exp(-logits[labels >= 0].astype(float)))
    expected = 0.0
    for bin_ in range(15):
        inside = (chances > bin_ / 15) & (chances <= (bin_ + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(true[inside].mean() - chances[inside].mean())
    bins = Known(logits[labels >= 0].astype(float), true, true).reliability.bins()
    assert expected_calibration_error(bins) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_scores_are_scikit_learns(seed: int, ties: bool) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    labels, logits = samples(seed, ties=ties)
    for k, score in enumerate(counted(labels, logits).scores()):
        known = labels[:, k] >= 0
        true, scores = labels[known, k] == 1, logits[known, k].astype(float)
        above = 1 / (1 + np.exp(-scores)) >= THRESHOLDS[k]
        expected = {
            "auroc": sklearn.roc_auc_score(true, scores),
            "average_precision": sklearn.average_precision_score(true, scores),
            "f1": sklearn.f1_score(true, above),
            "sensitivity": sklearn.recall_score(true, above),
            "specificity": sklearn.recall_score(~true, ~above),
            "prevalence": true.mean(),
        }
        found = {name: getattr(score, name) for name in expected}
        assert found == pytest.approx(expected, abs=1e-12)
        assert (score.known, score.yes) == (known.sum(), true.sum())


def test_samples_without_logits_or_with_an_unknown_label_do_not_count() -> None:
    labels = np.array([[1, 0, -1], [1, 1, 0], [0, -1, 1], [1, 0, 0]], np.int8)
    logits = np.array([[2, -2, 9], [math.nan] * 3, [-1, 3, 2], [math.inf, 0, 0]], np.float32)
    edema, fracture, pneumonia = counted(labels, logits).scores()
    assert (edema.known, edema.yes, edema.left_out, edema.predicted) == (2, 1, 2, 1)
    assert (fracture.known, fracture.left_out, fracture.predicted) == (1, 2, 1)
    assert (pneumonia.known, pneumonia.yes, pneumonia.predicted) == (1, 1, 2)
    assert (fracture.auroc, fracture.average_precision, fracture.sensitivity) == (None, None, None)
    assert fracture.specificity == 1


def test_a_class_at_its_threshold_counts() -> None:
    labels, logits = np.ones((1, 3), np.int8), np.array([[0, -5, math.log(3)]], np.float32)
    assert [score.predicted for score in counted(labels, logits).scores()] == [1, 0, 1]


def test_scores_do_not_depend_on_how_samples_are_cut() -> None:
    labels, logits = samples(3)
    whole, parts = counted(labels, logits), counted(labels, logits, cut=7)
    assert whole.scores() == parts.scores()
    assert whole.pairs() == parts.pairs()
    other = counted(labels, -logits)
    assert other.scores() != whole.scores()


def test_no_samples_have_no_scores() -> None:
    rates = dataclasses.asdict(SigmoidScores(NAMES, THRESHOLDS).scores()[0])
    assert {name for name, value in rates.items() if value is None} >= {
        "auroc",
        "f1",
        "prevalence",
        "calibration_error",
    }
    assert SigmoidScores(NAMES, THRESHOLDS).pairs() == []


def test_pairs_are_those_that_are_labelled_together_most_often() -> None:
    labels = np.array([[1, 1, 0], [1, 1, -1], [0, 1, 1], [1, 0, 0]], np.int8)
    logits = np.array([[9, 9, 9], [-9, -9, -9], [9, -9, 9], [9, 9, -9]], np.float32)
    assert counted(labels, logits).pairs() == [
        Pair("Edema", "Fracture", 2, 2),
        Pair("Fracture", "Pneumonia", 1, 1),
        Pair("Edema", "Pneumonia", 0, 2),
    ]


def test_copies_of_each_sample_tell_no_more_than_one_of_it_if_they_are_of_one_cluster() -> None:
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 2, (4000, 1)).astype(np.int8)
    logits = (rng.normal(size=(4000, 1)) + 1.5 * labels).astype(np.float32)
    once, copied = (SigmoidScores(("a",), (0.6,), level=0.95) for _ in range(2))
    once.add(labels, logits)
    patients = np.repeat(np.arange(4000), 4)
    for part in np.array_split(np.arange(16_000), 3):
        copied.add(np.repeat(labels, 4, 0)[part], np.repeat(logits, 4, 0)[part], patients[part])

    (alone,), (told,) = once.scores(), copied.scores()

    assert copied.design.effect == pytest.approx(4, rel=1e-3)
    for name, ends in told.intervals.items():
        assert getattr(told, name) == pytest.approx(getattr(alone, name), abs=1e-3), name
        assert ends == pytest.approx(alone.intervals[name], abs=1e-3), name
    rows = np.arange(400)
    (part,), (of_one,) = copied.scores(4 * rows), copied.scores(np.arange(4))
    assert part.intervals["auroc"] == pytest.approx(once.scores(rows)[0].intervals["auroc"], abs=1e-3)
    assert set(of_one.intervals.values()) == {None}
