"""How classes fare by group: against fairlearn, and how often groups are found that there are or are not."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from fairlearn.metrics import MetricFrame, count
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from batchcam.record.groups import RowGroups
from batchcam.record.sigmoid_groups import SigmoidGroup, sigmoid_groups
from batchcam.record.sigmoid_scores import SigmoidScores
from tests.helpers import mostly_slow

NAMES, THRESHOLDS = ("edema", "fracture"), (0.3, 0.5)


def told(columns: list[np.ndarray], labels: np.ndarray, logits: np.ndarray, parts: int = 1) -> list[SigmoidGroup]:
    scores, groups = SigmoidScores(NAMES, THRESHOLDS, together=False, level=0.95), RowGroups()
    for some in np.array_split(np.arange(len(labels)), parts):
        scores.add(labels[some], logits[some])
        groups.add([column[some].tolist() for column in columns])
    return sigmoid_groups(scores, scores.scores(), groups)


def drawn(rng: np.random.Generator, size: int, told_share: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits of which a share tells the yes; of the no nine in ten are told."""
    labels = rng.integers(0, 2, (size, 2), np.int8)
    right = rng.random((size, 2)) < np.where(labels == 1, np.reshape(told_share, (-1, 1)), 0.9)
    sign = np.where(labels == right, 1, -1)
    return labels, (sign * rng.uniform(2, 4, (size, 2))).astype(np.float32)


@pytest.mark.parametrize("parts", [1, 7])
def test_numbers_of_groups_are_fairlearns(parts: int) -> None:
    rng = np.random.default_rng(0)
    size = 900
    columns = [rng.choice(["a", "b", ""], size), rng.choice(["x", "y"], size)]
    labels = rng.integers(-1, 2, (size, 2), np.int8)
    logits = rng.normal(size=(size, 2)).round(1).astype(np.float32)
    logits[5, 1] = np.nan
    found = told(columns, labels, logits, parts)
    assert len(found) == 12
    table = pandas.DataFrame({"site": columns[0], "scanner": columns[1]})
    for k, name in enumerate(NAMES):
        known = (labels[:, k] >= 0) & np.isfinite(logits).all(1)
        above = (1 / (1 + np.exp(-logits[known, k].astype(float))) >= THRESHOLDS[k]).astype(int)

        def by_group(metric, predicted, k=k, known=known):
            frame = MetricFrame(
                metrics=metric, y_true=labels[known, k], y_pred=predicted, sensitive_features=table[known]
            )
            return frame.by_group

        frames = {
            "auroc": by_group(roc_auc_score, logits[known, k].astype(float)),
            "sensitivity": by_group(recall_score, above),
            "specificity": by_group(lambda true, said: recall_score(true, said, pos_label=0), above),
            "f1": by_group(f1_score, above),
            "prevalence": by_group(lambda true, said: true.mean(), above),
            "known": by_group(count, above),
        }
        for each in (each for each in found if each.score.name == name):
            for what, frame in frames.items():
                assert getattr(each.score, what) == pytest.approx(frame[each.group], abs=1e-12)
            assert each.samples == ((columns[0] == each.group[0]) & (columns[1] == each.group[1])).sum()
    assert [each.score.auroc for each in found] == sorted(each.score.auroc for each in found)


def test_too_few_labels_are_told_and_come_last() -> None:
    labels, logits = drawn(np.random.default_rng(1), 79, 0.9)
    sites = np.array(["few"] * 19 + ["blank"] * 30 + ["many"] * 30)
    labels[19:49] = -1
    found = told([sites], labels, logits)
    assert [(each.group[0], each.is_judged) for each in found] == [
        *[("many", True)] * 2,
        *[("few", False)] * 2,
        *[("blank", False)] * 2,
    ]
    blank = found[-1]
    assert (blank.score.known, blank.score.auroc, blank.sensitivity_interval, blank.p) == (0, None, None, None)
    assert all(each.p is None for each in found[2:])


@pytest.mark.parametrize("rounds", mostly_slow([10, 50], 10))
def test_a_group_that_tells_ten_points_fewer_of_its_yes_is_found_and_equal_ones_are_not(rounds: int) -> None:
    rng = np.random.default_rng(2)
    sites = rng.permuted(np.repeat([f"site {k}" for k in range(10)], 600))
    tens = np.repeat([f"site {k:02d}" for k in range(20)], 150)
    found = false = 0
    for _ in range(rounds):
        behind = [e.group for e in told([sites], *drawn(rng, 6000, np.where(sites == "site 3", 0.8, 0.9)))
                  if e.falls_behind]  # fmt: skip
        found += ("site 3",) in behind
        false += any(each.falls_behind for each in told([tens], *drawn(rng, 3000, 0.9)))
    assert found >= 0.9 * rounds
    assert false <= 0.06 * rounds
