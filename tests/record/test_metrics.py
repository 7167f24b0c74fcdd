"""Numbers about predictions and maps, against counting by hand."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from batchcam.record import metrics
from batchcam.record.metrics import ClassCounts, ClassScore, Means, PairCounts


def class_scores(labels: np.ndarray, predictions: np.ndarray, names: tuple[str, ...]) -> list[ClassScore]:
    counted = ClassCounts(len(names))
    counted.add(labels, predictions)
    return counted.scores(names)


def test_accuracy_counts_samples_that_have_a_label_and_a_prediction():
    labels, predictions = np.array([0, 1, 2, -1, 2, 1]), np.array([0, 1, 0, 2, -1, 1])
    assert metrics.accuracy(labels, predictions) == 3 / 4


def test_accuracy_is_unknown_without_labels():
    assert metrics.accuracy(np.array([-1, -1]), np.array([0, 1])) is None


def test_class_scores_count_what_loops_count():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(-1, 4, 200), rng.integers(-1, 4, 200)
    for k, score in enumerate(class_scores(labels, predictions, ("a", "b", "c", "d"))):
        rows = [(t, p) for t, p in zip(labels, predictions, strict=True) if t >= 0 and p >= 0]
        assert score.labelled == sum(t == k for t, _ in rows)
        assert score.correct == sum(t == p == k for t, p in rows)
        assert score.predicted == sum(p == k for p in predictions)
        assert score.left_out == sum(t == k and p < 0 for t, p in zip(labels, predictions, strict=True))


@pytest.mark.parametrize(
    ("right", "of", "text"),
    [
        (1, 1, "1.000"), (0, 7, "0.000"), (2, 3, "0.667"), (2000, 2001, "0.9995"), (1, 20000, "0.0001"),
        (999_999, 1_000_000, "0.999999"), (9_999_999, 10_000_000, "0.9999999"), (1999, 2000, "0.9995"),
    ],
)  # fmt: skip
def test_a_rate_reads_as_all_or_nothing_only_where_it_is(right: int, of: int, text: str):
    assert metrics.rate_text(right / of) == text


def test_class_without_samples_has_no_accuracy():
    scores = class_scores(np.array([0]), np.array([0]), ("a", "b"))
    assert (scores[0].accuracy, scores[1].accuracy) == (1.0, None)


def test_peak_hits_finds_the_first_of_equal_peaks():
    maps = np.zeros((3, 4, 5))
    maps[0, 2, 3] = 1
    maps[1, 1, 1] = maps[1, 3, 4] = 7
    masks = np.zeros((3, 4, 5), bool)
    masks[0, 2, 3] = masks[1, 3, 4] = masks[2, 0, 0] = True
    assert metrics.peak_hits(maps, masks).tolist() == [True, False, True]


def test_peak_hits_refuses_masks_of_another_size():
    with pytest.raises(ValueError, match="masks"):
        metrics.peak_hits(np.zeros((1, 2, 2)), np.zeros((1, 3, 3), bool))


def test_centre_hits_looks_at_the_middle():
    masks = np.zeros((2, 5, 5), bool)
    masks[0, 2, 2] = True
    assert metrics.centre_hits(masks).tolist() == [True, False]


def test_pairs_of_classes_are_counted_part_by_part() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    counts = PairCounts(4)
    for part in np.array_split(np.arange(300), 11):
        counts.add(first[part], second[part])
    expected = collections.Counter(zip(first.tolist(), second.tolist(), strict=True))
    assert {(a, b): n for a, b, n in counts.most_frequent()} == expected
    assert [(-n, a, b) for a, b, n in counts.most_frequent()] == sorted((-n, *pair) for pair, n in expected.items())


def test_means_of_parts_are_those_of_all_values_to_the_last_bit() -> None:
    rng = np.random.default_rng(6)
    values, classes = np.where(rng.random(500) < 0.1, np.nan, rng.normal(size=500)), rng.integers(-1, 3, 500)
    found = [Means(4), Means(4)]
    for means, parts in zip(found, (1, 13), strict=True):
        for part in np.array_split(np.arange(500), parts):
            means.add(values[part], classes[part])
    assert found[0].of_classes == found[1].of_classes
    assert found[0].of_classes[:3] == pytest.approx([np.nanmean(values[classes == k]) for k in range(3)])
    assert found[0].of_classes[3] is None
    assert found[0].of_all == pytest.approx(np.nanmean(values))
    assert Means(2).of_all is None


@pytest.mark.parametrize(
    ("interval", "text"),
    [((0.681, 0.879), "(0.68–0.88)"), ((0.99999, 1), "(0.999990–1.000000)"), ((1, 1), "(1.00–1.00)"), (None, "")],
)
def test_the_ends_of_an_interval_have_digits_enough_to_differ_and_two_where_they_do_not(
    interval: tuple[float, float] | None, text: str
) -> None:
    assert metrics.brackets(interval) == text
