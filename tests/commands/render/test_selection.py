"""Samples chosen by id, class, error and rank: against plain loops over the columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from batchcam.commands.render.selection import select, spread
from batchcam.config.shared import RANKINGS, Selection
from batchcam.errors import ConfigError
from batchcam.record.measures import evidence_measures
from batchcam.record.rows import class_index
from batchcam.rules import EVIDENCE
from batchcam.store.opening import open_run
from batchcam.store.run import Run
from batchcam.store.schema import sample_arrays
from tests.helpers.small_blocks import small_blocks

COLUMNS = ("label", "prediction", "confidence", "identity_residual", "logits", "cams")


@pytest.fixture
def run(sound_run: Path) -> Iterator[Run]:
    with open_run(sound_run) as opened:
        yield opened


def columns_of(run: Run) -> list[dict]:
    """Return the columns row by row, as plain numbers."""
    arrays = {name: getattr(run, name)[:].tolist() for name in COLUMNS}
    return [{name: values[row] for name, values in arrays.items()} for row in range(len(run))]


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / sum(powers) for power in powers]


def evidence_value(row: dict, by: str) -> float:
    """Return what a row's map of the predicted class has, by the same functions as its other readers."""
    cams = np.array(row["cams"], np.float32)[None]
    return float(evidence_measures({"cams": cams, "prediction": np.array([row["prediction"]])})[by][0])


def rank_value(row: dict, by: str) -> float:
    """Return what a row is ranked by, in plain Python; NaN when it has no such value."""
    if by in row:
        return row[by]
    if by in EVIDENCE:
        return evidence_value(row, by)
    if any(map(math.isnan, row["logits"])):
        return math.nan
    probabilities = softmax(row["logits"])
    if by == "entropy":
        return -sum(p * math.log(p) for p in probabilities if p > 0)
    if by == "margin":
        first, second = sorted(probabilities, reverse=True)[:2]
        return first - second
    return -math.log(probabilities[row["label"]]) if row["label"] >= 0 else math.nan


def test_without_conditions_all_rows_come_in_the_runs_order(run: Run) -> None:
    assert select(run, Selection()).tolist() == list(range(21))


def test_wrong_are_those_with_a_label_and_another_prediction(run: Run) -> None:
    expected = [
        i
        for i, r in enumerate(columns_of(run))
        if min(r["label"], r["prediction"]) >= 0 != r["label"] - r["prediction"]
    ]
    assert 0 < len(expected) < 21
    assert select(run, Selection(wrong=True)).tolist() == expected


def test_a_class_picks_by_label_and_where_there_is_none_by_prediction(run: Run) -> None:
    rows = columns_of(run)
    unlabelled = next(r for r in rows if r["label"] < 0)
    for index, name in enumerate(run.class_names):
        expected = [i for i, r in enumerate(rows) if (r["label"] if r["label"] >= 0 else r["prediction"]) == index]
        assert select(run, Selection(label=name)).tolist() == expected
        assert select(run, Selection(label=str(index))).tolist() == expected
        assert (15 in expected) == (index == unlabelled["prediction"])


def test_predicted_picks_by_prediction_alone(run: Run) -> None:
    rows = columns_of(run)
    for index, name in enumerate(run.class_names):
        expected = [i for i, r in enumerate(rows) if r["prediction"] == index]
        assert select(run, Selection(predicted=name)).tolist() == expected
        assert select(run, Selection(predicted=str(index))).tolist() == expected


def test_confusion_picks_one_label_with_one_prediction(run: Run) -> None:
    rows = columns_of(run)
    for true in range(5):
        for predicted in range(5):
            expected = [i for i, r in enumerate(rows) if (r["label"], r["prediction"]) == (true, predicted)]
            names = (run.class_names[true], str(predicted))
            assert select(run, Selection(confusion=names)).tolist() == expected


@pytest.mark.parametrize("by", RANKINGS)
@pytest.mark.parametrize("end", ["top", "bottom"])
def test_ranked_rows_are_those_that_sorting_in_plain_python_gives(run: Run, by: str, end: str) -> None:
    values = {row: rank_value(columns, by) for row, columns in enumerate(columns_of(run))}
    ranked = sorted((r for r in values if not math.isnan(values[r])), key=values.get, reverse=end == "top")
    chosen = select(run, Selection(by=by, **{end: 7})).tolist()
    np.testing.assert_allclose([values[r] for r in chosen], [values[r] for r in ranked[:7]], rtol=1e-5, atol=1e-9)
    if by != "identity_residual":  # whose values are all rounding errors, several of them equal
        assert chosen == ranked[:7]


@pytest.mark.parametrize("by", RANKINGS)
def test_samples_without_a_value_are_in_no_ranking(run: Run, by: str) -> None:
    ranked = select(run, Selection(by=by, top=1000)).tolist()
    without = {r for r, columns in enumerate(columns_of(run)) if math.isnan(rank_value(columns, by))}
    assert 3 in without  # unreadable
    assert sorted(ranked) == sorted(set(range(21)) - without)
    assert (15 in without) == (by == "loss")  # unlabelled


@pytest.mark.parametrize(
    "selection", [Selection(wrong=True), Selection(confusion=("0", "1")), Selection(by="loss", top=3)]
)
def test_what_needs_labels_is_refused_without_any(make_run: Callable[..., Path], selection: Selection) -> None:
    with open_run(make_run()) as run:
        labels = np.full(len(run), -1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Run, "label", labels)
            with pytest.raises(ConfigError, match=r"--(wrong|confusion|by loss): the run has no labels"):
                select(run, selection)


def test_equal_values_keep_the_runs_order(make_run: Callable[..., Path]) -> None:
    with open_run(make_run(class_names=("only",))) as run:
        rows = select(run, Selection(by="confidence", top=50)).tolist()
        assert rows == sorted(rows)
        assert len(rows) > 10
        assert select(run, Selection(by="margin", bottom=50)).tolist() == rows


def test_logits_read_in_small_blocks_give_the_same_ranking(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    selection = Selection(by="entropy", top=15)
    expected = select(run, selection).tolist()
    small_blocks(monkeypatch, 500)
    assert select(run, selection).tolist() == expected


def test_conditions_narrow_each_other_and_ids_keep_their_order(run: Run) -> None:
    wrong = select(run, Selection(wrong=True)).tolist()
    right = next(r for r in range(21) if r not in wrong)
    ids = [run[row].id for row in (wrong[2], right, wrong[0], wrong[2])]
    assert select(run, Selection(sample_ids=tuple(ids))).tolist() == [wrong[2], right, wrong[0]]
    assert select(run, Selection(sample_ids=tuple(ids), wrong=True)).tolist() == [wrong[2], wrong[0]]
    top = select(run, Selection(wrong=True, top=3)).tolist()
    assert set(top) <= set(wrong)
    assert run.confidence[top].tolist() == sorted(run.confidence[wrong].tolist(), reverse=True)[:3]


def test_nothing_but_columns_is_read_unless_maps_are_ranked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    blocks = Run.blocks

    def spy(self, names, *rest, **options):  # type: ignore[no-untyped-def]
        read.update(names)
        return blocks(self, names, *rest, **options)

    monkeypatch.setattr(Run, "blocks", spy)
    monkeypatch.setattr(Run, "_row_of", None)
    for by in set(RANKINGS) - set(EVIDENCE):
        select(run, Selection(wrong=True, label="ant", top=3, by=by))
    assert read == {"label", "prediction", "confidence", "identity_residual", "logits"}
    assert {"cams", "maps"} <= {a.name for a in sample_arrays("uint8")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top": 1, "bottom": 1}, "exclude each other"),
        ({"top": 0}, "--top 0: must be at least 1"),
        ({"bottom": -2}, "--bottom -2"),
        ({"by": "size"}, "--by size: choose one of confidence, entropy"),
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_said(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Selection(**changes)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(label="cat\x1b"), r"--class cat\\x1b: no such class; the run has ant, Käfer, 蝶"),
        (Selection(label="5"), "--class 5: no such class"),
        (Selection(confusion=("ant", "-1")), "--confusion -1: no such class"),
        (Selection(sample_ids=("nobody.png",)), "--sample nobody.png: no such sample among 21"),
    ],
)
def test_what_the_run_does_not_have_is_named_in_one_line(run: Run, selection: Selection, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select(run, selection)


def test_a_class_whose_name_is_a_number_is_found_by_its_name(make_run: Callable[..., Path]) -> None:
    with open_run(make_run(class_names=("3", "2", "1", "0", "zero"))) as run:
        assert [class_index(run, name, "--class") for name in ("3", "0", "4")] == [0, 3, 4]


@pytest.mark.parametrize(("count", "wanted"), [(3, 20), (20, 20), (21, 20), (1000, 20), (5, 1)])
def test_spread_rows_are_different_and_reach_from_first_to_last(count: int, wanted: int) -> None:
    rows = np.arange(100, 100 + count)
    chosen = spread(rows, wanted)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, wanted)
    assert chosen[0] == 100
    assert wanted == 1 or chosen[-1] == 99 + count
    assert wanted == 1 or np.ptp(np.diff(chosen)) <= 1
