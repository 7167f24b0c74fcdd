"""Wrong labels stand first, and the class that is meant is named."""

from __future__ import annotations

import math

import numpy as np
import pytest

from batchcam.record.label_suspicion import class_confidences, label_suspicion


class OneBlock:
    """A run of one block."""

    class_names = ("a", "b", "c")

    def __init__(self, logits: np.ndarray, labels: np.ndarray) -> None:
        self._block = {"logits": logits, "label": labels}

    def blocks(self, names):
        yield np.arange(len(self._block["label"])), {name: self._block[name] for name in names}


def softmax(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def drawn(count: int, seed: int = 0):
    random = np.random.default_rng(seed)
    true = random.integers(0, 3, count)
    logits = (2.5 * np.eye(3)[true] + random.normal(size=(count, 3))).astype(np.float32)
    flipped = random.random(count) < 0.05
    return logits, np.where(flipped, (true + random.integers(1, 3, count)) % 3, true), flipped


def test_scores_are_those_of_plain_loops() -> None:
    logits, labels, _ = drawn(40)
    logits[3], labels[5] = np.nan, -1
    usual = class_confidences(OneBlock(logits, labels))
    sound = [i for i in range(40) if i not in (3, 5)]
    for k in range(3):
        own = [softmax(logits[i].tolist())[k] for i in sound if labels[i] == k]
        assert usual[k] == pytest.approx(sum(own) / len(own))
    suspicion, meant = label_suspicion(logits, labels, usual)
    assert np.isnan(suspicion[[3, 5]]).all()
    assert meant[[3, 5]].tolist() == [-1, -1]
    for i in sound:
        above = [p - u for p, u in zip(softmax(logits[i].tolist()), usual, strict=True)]
        other = max((k for k in range(3) if k != labels[i]), key=lambda k: above[k])
        assert suspicion[i] == pytest.approx((2 + above[other] - above[labels[i]]) / 4)
        assert meant[i] == (other if above[other] > above[labels[i]] and above[other] >= 0 else -1)


def test_flipped_labels_stand_first() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    logits, labels, flipped = drawn(2000)
    suspicion, meant = label_suspicion(logits, labels, class_confidences(OneBlock(logits, labels)))
    assert metrics.average_precision_score(flipped, suspicion) > 0.8
    assert flipped[meant >= 0].mean() > 0.5


def test_a_class_that_no_sample_is_labelled_as_is_meant_by_none() -> None:
    logits = np.array([[0, 0, 9], [2, 0, 0], [0, 2, 0]], np.float32)
    labels = np.array([0, 0, 1])
    usual = class_confidences(OneBlock(logits, labels))
    assert np.isnan(usual[2])
    suspicion, meant = label_suspicion(logits, labels, usual)
    assert np.isfinite(suspicion).all()
    assert 2 not in meant
