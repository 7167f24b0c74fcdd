"""What a table finds, counts and sorts, against plain loops over the run's samples."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchcam.commands.merge import merge
from batchcam.commands.view.columns import Choice, Numbers, QueryError
from batchcam.commands.view.desk import Desk
from batchcam.commands.view.table import Table, folded, read_table
from batchcam.record.measures import evidence_measures
from batchcam.store.opening import open_run
from batchcam.store.run import Sample
from tests.commands.view.conftest import IDS

OpenDesk = Callable[..., Desk]


@functools.cache
def samples_of(run: Path) -> list[Sample]:
    with open_run(run) as opened:
        return list(opened)


def rows_of(table: Table, order: str = "", **asked: str) -> list[int]:
    return [int(row) for row in table.answer(tuple(sorted(asked.items())), order).rows]


def outcome(sample: Sample) -> str | None:
    if None in (sample.label, sample.prediction):
        return None
    return "right" if sample.label == sample.prediction else "wrong"


def border_share(sample: Sample) -> float:
    """By hand, for the predicted class of a run with all CAMs on a grid of 3 × 5."""
    if sample.prediction is None or not np.isfinite(sample.cams).all():
        return math.nan
    cells = np.maximum(sample.cams[int(np.argmax(sample.logits))].astype(float), 0)
    return float(1 - cells[1:-1, 1:-1].sum() / cells.sum()) if cells.sum() else math.nan


def test_filters_leave_the_rows_that_a_loop_over_the_samples_finds(run: Path, open_desk: OpenDesk) -> None:
    table, samples = open_desk(run).table, samples_of(run)
    named = samples[0].label
    for asked, fits in [
        ({"label": named}, lambda s: s.label == named),
        ({"label": ""}, lambda s: s.label is None),
        ({"outcome": "wrong"}, lambda s: outcome(s) == "wrong"),
        ({"outcome": ""}, lambda s: outcome(s) is None),
        ({"status": "unreadable"}, lambda s: s.status == 1),
        ({"confidence": "0.5..0.9"}, lambda s: 0.5 <= s.confidence <= 0.9),
        ({"confidence": "..0.5", "prediction": named}, lambda s: s.confidence <= 0.5 and s.prediction == named),
        ({"border_share": "0.8..", "outcome": "right"}, lambda s: border_share(s) >= 0.8 and outcome(s) == "right"),
        ({"q": "00017"}, lambda s: "00017" in s.id),
        ({"q": ""}, lambda s: True),
    ]:
        expected = [s.row for s in samples if fits(s)]
        assert expected
        assert rows_of(table, **asked) == expected, asked


def test_counts_of_a_column_are_what_another_choice_of_it_would_leave(run: Path, open_desk: OpenDesk) -> None:
    table = open_desk(run).table
    told = table.answer((("label", "ant"), ("outcome", "wrong")), "")
    for name, other in (("label", {"outcome": "wrong"}), ("outcome", {"label": "ant"})):
        choices = [*table.columns[name].about["choices"], ""]
        assert told.counts[name] == [len(rows_of(table, **{**other, name: choice})) for choice in choices]
    assert sum(told.counts["status"]) == len(told.rows)


@pytest.mark.parametrize("name", ["confidence", "border_share", "loss"])
def test_numbers_are_sorted_both_ways_with_those_without_one_last(name: str, run: Path, open_desk: OpenDesk) -> None:
    table = open_desk(run).table
    column = table.columns[name]
    assert isinstance(column, Numbers)
    values = column.values.tolist()
    for order, sign in ((name, 1), (f"-{name}", -1)):
        expected = sorted(range(200), key=lambda row: (math.isnan(values[row]), sign * np.nan_to_num(values[row]), row))
        assert rows_of(table, order) == expected


def test_texts_and_ids_are_sorted_and_an_order_holds_within_a_filter(run: Path, open_desk: OpenDesk) -> None:
    table, samples = open_desk(run).table, samples_of(run)
    assert rows_of(table, "-id") == list(range(199, -1, -1))
    classes = [*table.columns["label"].about["choices"]]
    assert rows_of(table, "label") == sorted(
        range(200), key=lambda r: classes.index(samples[r].label) if samples[r].label else 99
    )
    wrong = rows_of(table, outcome="wrong")
    assert rows_of(table, "-confidence", outcome="wrong") == [r for r in rows_of(table, "-confidence") if r in wrong]


def test_search_finds_each_hostile_id_by_itself_and_no_text_across_two(hostile: Path, open_desk: OpenDesk) -> None:
    table = open_desk(hostile).table
    for row, sample_id in enumerate(IDS):
        assert row in rows_of(table, q=sample_id)
        assert row in rows_of(table, q=sample_id.upper()) or folded(sample_id.upper()) != folded(sample_id)
        assert row in table.ids.same(sample_id)
    assert rows_of(table, q=IDS[5][-3:] + IDS[6][:3]) == []
    assert rows_of(table, q="[.*+?^$") == [IDS.index("[.*+?^$")]


def test_neighbours_are_the_nearest_of_the_same_prediction(run: Path, open_desk: OpenDesk) -> None:
    table, samples = open_desk(run).table, samples_of(run)
    with open_run(run) as opened:
        block = {name: opened[name][:] for name in ("cams", "prediction")}
    measured = {name: values.astype(np.float32) for name, values in evidence_measures(block).items()}
    scales = {name: float(np.nanstd(values)) for name, values in measured.items()}

    def distance(row: int, other: int) -> float:
        return sum(((float(v[row]) - float(v[other])) / scales[name]) ** 2 for name, v in measured.items())

    for row in (0, 50, 199):
        others = [s.row for s in samples if s.prediction == samples[row].prediction and s.row != row]
        expected = sorted((other for other in others if distance(row, other) >= 0), key=lambda o: distance(row, o))[:12]
        assert table.neighbours(row, 12) == expected
    assert table.neighbours(3, 12) == []  # unreadable: it has no map


def test_a_multi_label_run_is_filtered_by_each_class_that_a_sample_has(
    tmp_path: Path, make_plan, make_rows, make_shards
) -> None:
    thresholds = tuple(float(np.float32(t)) for t in (0.5, 0.2, 0.5, 0.7, 0.5))
    plan = make_plan(problem_type="multi-label", thresholds=thresholds)
    rows = make_rows(plan)
    labels = np.random.default_rng(0).choice(np.array([-1, 0, 1], np.int8), (21, 5))
    rows.columns["labels"], rows.columns["label"] = labels, np.full(21, -1)
    make_shards(tmp_path / "run", plan, rows)
    merge(tmp_path / "run")
    logits = rows.columns["logits"].astype(np.float64)
    called = 1 / (1 + np.exp(-logits)) >= np.array(thresholds)
    with open_run(tmp_path / "run") as run:
        table = read_table(run, quiet=True)
    for k, name in enumerate(plan.class_names):
        assert rows_of(table, label=name) == np.flatnonzero(labels[:, k] == 1).tolist()
        assert rows_of(table, called=name) == np.flatnonzero(called[:, k]).tolist()
    wrong = [any(labels[n, k] >= 0 and called[n, k] != labels[n, k] for k in range(5)) for n in range(21)]
    sound = np.isfinite(logits).all(1)
    assert rows_of(table, outcome="wrong") == [n for n in range(21) if wrong[n] and sound[n]]
    first = table.columns["label"].told(np.array([20, 0]))
    assert first == [", ".join(np.array(plan.class_names)[labels[n] == 1]) for n in (20, 0)]
    assert table.answer((), "").counts["label"][:5] == (labels == 1).sum(0).tolist()
    with pytest.raises(QueryError, match="no order"):
        rows_of(table, "label")


@pytest.mark.parametrize(
    "asked",
    [
        *({"nothing": "x"}, {"label": "no such"}, {"confidence": "0.5"}, {"confidence": ".."}, {"confidence": "a..b"}),
        *({"confidence": "nan.."}, {"confidence": ""}, {"status": "9" * 9999}),
    ],
    ids=lambda asked: "{}={:.9}".format(*next(iter(asked.items()))),
)
def test_what_can_not_be_asked_is_refused(asked: dict[str, Any], run: Path, open_desk: OpenDesk) -> None:
    with pytest.raises(QueryError):
        rows_of(open_desk(run).table, **asked)


def test_columns_of_a_manifest_are_choices_in_their_order(tmp_path: Path, make_plan, make_rows, make_shards) -> None:
    plan = make_plan(meta={"site": 8})
    rows = make_rows(plan)
    rows.texts["meta/site"] = ["b", "", "a"] * 7
    make_shards(tmp_path / "run", plan, rows)
    merge(tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        table = read_table(run, quiet=True)
    column = table.columns["meta/site"]
    assert isinstance(column, Choice)
    assert list(column.choices) == ["a", "b"]
    assert rows_of(table, **{"meta/site": "a"}) == list(range(2, 21, 3))
    assert table.answer((), "").counts["meta/site"] == [7, 7, 7]
