"""How groups fare: against fairlearn, and how often groups are found that there are or are not."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from fairlearn.metrics import MetricFrame, count
from sklearn.metrics import accuracy_score

from batchcam.errors import ConfigError
from batchcam.record import groups
from batchcam.record.groups import GroupCounts, GroupScore, grouped_by


def scores(columns: list[np.ndarray], rows: dict[str, np.ndarray], parts: int = 1) -> list[GroupScore]:
    counted = GroupCounts()
    for some in np.array_split(np.arange(len(rows["label"])), parts):
        counted.add([column[some].tolist() for column in columns], {name: v[some] for name, v in rows.items()})
    return counted.scores()


def drawn(rng: np.random.Generator, size: int, right: float | np.ndarray) -> dict[str, np.ndarray]:
    label = rng.integers(0, 5, size)
    prediction = np.where(rng.random(size) < right, label, (label + 1) % 5)
    return {
        "label": label, "prediction": prediction, "confidence": rng.random(size).astype(np.float32),
        "unreadable": np.zeros(size, bool),
    }  # fmt: skip


@pytest.mark.parametrize("parts", [1, 7])
def test_numbers_of_groups_are_fairlearns(parts: int) -> None:
    rng = np.random.default_rng(0)
    size = 900
    columns = [rng.choice(["a", "b", ""], size), rng.choice(["x", "y"], size)]
    rows = drawn(rng, size, 0.7)
    table = pandas.DataFrame({"site": columns[0], "scanner": columns[1]})
    frame = MetricFrame(
        metrics={"accuracy": accuracy_score, "count": count}, y_true=rows["label"], y_pred=rows["prediction"],
        sensitive_features=table,
    ).by_group  # fmt: skip
    confidence = table.assign(confidence=rows["confidence"].astype(float)).groupby(["site", "scanner"]).mean()
    found = scores(columns, rows, parts)
    assert len(found) == 6
    for score in found:
        assert score.accuracy == pytest.approx(frame.loc[score.group, "accuracy"], abs=1e-12)
        assert score.samples == score.labelled == frame.loc[score.group, "count"]
        assert score.confidence == pytest.approx(confidence.loc[score.group, "confidence"], abs=1e-12)
    assert [s.accuracy for s in found] == sorted(s.accuracy for s in found)


def test_unlabelled_unreadable_and_few_samples_are_told_and_not_judged() -> None:
    sites = np.array(["few"] * 3 + ["none"] * 30 + ["many"] * 30)
    label = np.array([0, 0, -1] + [-1] * 30 + [1] * 30)
    prediction = np.array([1, -1, 0] + [0] * 30 + [1] * 30)
    unreadable = np.array([False, True, False] + [False] * 60)
    found = scores([sites], {"label": label, "prediction": prediction, "unreadable": unreadable})
    assert [s.group for s in found] == [("many",), ("few",), ("none",)]
    many, few, none = found
    assert (few.samples, few.labelled, few.correct, few.accuracy, few.unreadable, few.p) == (3, 1, 0, 0, 1, None)
    assert (none.samples, none.labelled, none.accuracy, none.interval, none.confidence) == (30, 0, None, None, None)
    assert (many.accuracy, many.p, many.falls_behind) == (1, pytest.approx(1), False)


def test_a_group_that_is_worse_by_ten_points_is_found_and_equal_ones_are_not() -> None:
    rng = np.random.default_rng(2)
    sites = rng.permuted(np.repeat([f"site {k}" for k in range(10)], 300))
    tens = np.repeat([f"site {k:02d}" for k in range(20)], 150)
    found = false = 0
    for _ in range(100):
        found += scores([sites], drawn(rng, 3000, np.where(sites == "site 3", 0.8, 0.9)))[0].falls_behind
        false += any(score.falls_behind for score in scores([tens], drawn(rng, 3000, 0.9)))
    assert found >= 90
    assert false <= 5


def test_a_name_a_sample_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST_GROUPS", 20)
    with pytest.raises(ConfigError, match="more than 20 groups: name a column that many samples share"):
        scores([np.arange(21).astype(str)], drawn(np.random.default_rng(0), 21, 0.5))


def test_columns_are_found_as_the_manifest_has_them_or_refused_with_those_that_are_there() -> None:
    assert grouped_by(["a/b", "site"], [r"a\x2fb", "age", "site"], "runs/a") == [r"a\x2fb", "site"]
    with pytest.raises(ConfigError, match="runs/a: no column 'Site'; it has age, site"):
        grouped_by(["Site"], ["age", "site"], "runs/a")
    with pytest.raises(ConfigError, match="it has none: only a manifest's further columns are kept"):
        grouped_by(["site"], [], "runs/a")
    with pytest.raises(ConfigError, match="named twice"):
        grouped_by(["a/b", r"a\x2fb"], [r"a\x2fb"], "runs/a")


def test_of_copies_in_one_cluster_a_group_falls_behind_as_it_does_of_one_each() -> None:
    rng = np.random.default_rng(9)
    site = np.array(["a", "b"])[(np.arange(600) >= 450).astype(int)]
    right = rng.random(600) < np.where(site == "a", 0.85, 0.75)
    rows = {"label": np.zeros(600, int), "prediction": (~right).astype(int), "unreadable": np.zeros(600, bool)}
    once, copied, of_one = GroupCounts(), GroupCounts(), GroupCounts()
    once.add([site], rows)
    copies = {name: np.repeat(column, 5) for name, column in rows.items()}
    copied.add([np.repeat(site, 5)], copies, np.repeat(np.arange(600), 5))
    of_one.add([site], rows, np.where(site == "b", 600, np.arange(600)))

    for alone, told in zip(once.scores(), copied.scores(), strict=True):
        assert told.labelled == 5 * alone.labelled
        assert told.p == pytest.approx(alone.p, rel=0.4)
        assert told.interval == pytest.approx(alone.interval, abs=3e-3)
    (b,) = [score for score in of_one.scores() if score.group == ("b",)]
    assert (b.is_judged, b.interval) == (False, None)
