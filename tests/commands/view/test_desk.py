"""Every kind of run is seen: a part, several as one, little in it; hostile ones are refused or seen."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchcam.commands.merge import merge
from batchcam.commands.view.columns import Choice, Numbers
from batchcam.commands.view.desk import Desk
from batchcam.commands.view.table import read_table
from batchcam.errors import BatchcamError
from batchcam.pictures.originals import open_originals
from batchcam.store.opening import open_partial, open_run
from tests.helpers import ROOT
from tests.helpers.hostile_runs import ATTACKS, make_outside
from tests.helpers.outputs import snapshot
from tests.helpers.synthetic import land_shards, synthetic_plan, synthetic_rows, synthetic_run

KINDS: dict[str, dict[str, Any]] = {
    "one sample": {"sample_count": 1},
    "one class": {"class_names": ("only",)},
    "1,000 classes": {"class_names": tuple(f"class {k}" for k in range(1000)), "grid_size": (2, 2), "channels": 1000},
    "predicted CAMs and no maps": {"cams": "predicted", "maps": "none"},
    "the five strongest CAMs of one cell": {"cams": "topk:5", "grid_size": (1, 1)},
}


def seen(desk: Desk) -> int:
    """Look at everything that a desk has, and return how many samples there are."""
    about, page = desk.about({}), desk.rows({"sort": "-confidence", "count": "500"})
    assert about["measured"] == 1
    assert desk.failed == ""
    assert page["total"] == about["samples"] == len(set(page["ids"]))
    for row in page["rows"]:
        told = desk.sample({"row": str(row)})
        assert told["id"] in page["ids"]
        for kind in ("original", "map", "signed"):
            assert desk.picture({"row": str(row), "kind": kind})[:3] == b"\xff\xd8\xff"
    return int(page["total"])


@pytest.mark.parametrize("kind", KINDS)
def test_runs_with_little_or_much_in_them_are_seen(kind: str, tmp_path: Path, open_desk: Callable[..., Desk]) -> None:
    plan = synthetic_run(tmp_path / "run", **KINDS[kind])
    assert seen(open_desk(tmp_path / "run")) == plan.sample_count


def test_a_run_of_schema_1_is_seen(open_desk: Callable[..., Desk]) -> None:
    assert seen(open_desk(ROOT / "tests/data/schema-1/run")) == 7


def test_a_run_of_which_nothing_could_be_read_is_seen(tmp_path: Path, open_desk: Callable[..., Desk]) -> None:
    plan = synthetic_plan(sample_count=3)
    rows = synthetic_rows(plan)
    for name in ("logits", "cams", "confidence", "identity_residual", "crop_box", "map_range"):
        rows.columns[name][:] = np.nan
    for name in ("prediction", "image_size"):
        rows.columns[name][:] = -1
    rows.columns["status"][:], rows.columns["maps"][:] = 1, 0
    rows.texts["error"] = ["no image"] * 3
    land_shards(tmp_path / "run", plan, rows)
    merge(tmp_path / "run")
    assert seen(open_desk(tmp_path / "run")) == 3


def test_a_shard_a_run_under_way_and_a_series_are_seen(tmp_path: Path, open_desk: Callable[..., Desk]) -> None:
    synthetic_run(tmp_path / "series/first")
    synthetic_run(tmp_path / "series/second", 1)
    assert seen(open_desk(tmp_path / "series/first/shards/shard-00001.h5")) == 8
    assert seen(open_desk(tmp_path / "series")) == 21  # ids that stand in both count once
    plan = synthetic_plan()
    land_shards(tmp_path / "begun", plan, synthetic_rows(plan), skip=(1,))
    assert seen(open_desk(tmp_path / "begun")) == 13


def test_what_is_left_of_a_damaged_run_is_seen(tmp_path: Path) -> None:
    synthetic_run(tmp_path / "run")
    (tmp_path / "run/shards/shard-00001.h5").write_bytes(b"damaged")
    with open_partial(tmp_path / "run") as run:
        table = read_table(run, True)
        with Desk(run, table, open_originals(run, None), None, None) as desk:
            desk.measuring.join()
            assert seen(desk) == 13
            assert any("shard-00001" in remark for remark in desk.about({})["remarks"])


def test_columns_for_which_maps_are_read_are_there_all_at_once_or_not(run: Path) -> None:
    with open_run(run) as opened:
        desk = Desk(opened, read_table(opened, True), open_originals(opened, None), None, None)
        before = {column["name"] for column in desk.about({})["columns"]}
        assert desk.about({})["measured"] == 0
        with desk:
            desk.measuring.join()
        assert {column["name"] for column in desk.about({})["columns"]} > {*before, "border_share", "loss"}


def test_what_moved_is_what_compare_tells(run: Path, tmp_path: Path, open_desk: Callable[..., Desk]) -> None:
    plan = synthetic_plan(sample_count=200, shard_size=64, checkpoint_sha256="e" * 64)
    rows, inputs = synthetic_rows(plan, 1), synthetic_rows(plan, 0).columns
    rows.columns.update({name: inputs[name] for name in ("label", "input_sha256")})
    rows.columns["input_sha256"][7] = 1  # another image now
    order = np.random.default_rng(0).permutation(200)
    for columns in (rows.columns, rows.texts):
        for name, values in columns.items():
            columns[name] = values[order] if isinstance(values, np.ndarray) else [values[i] for i in order]
    rows.columns["sample_index"] = np.arange(200)
    land_shards(tmp_path / "old", plan, rows)
    merge(tmp_path / "old")
    columns = open_desk(run, against=tmp_path / "old").table.columns
    flips, old_confidence = columns["flip"], columns["old_confidence"]
    assert isinstance(flips, Choice)
    assert isinstance(old_confidence, Numbers)
    told = flips.told(np.arange(200))
    with open_run(run) as new, open_run(tmp_path / "old") as old:
        for sample, flip in zip(new, told, strict=True):
            before = old.sample(sample.id)
            if sample.row == 7 or before.prediction is None:
                assert flip is None
            elif sample.prediction == before.prediction:
                assert flip == "same"
            elif sample.label is not None and sample.prediction == sample.label:
                assert flip == "fixed"
            elif sample.prediction is None or before.prediction == sample.label:
                assert flip == "broken"
            else:
                assert flip == "changed"
            if flip is not None:
                assert old_confidence.values[sample.row] == np.float32(before.confidence)


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_run_is_refused_by_name_or_seen(name: str, tmp_path: Path) -> None:
    synthetic_run(tmp_path / "run")
    outside = make_outside(tmp_path / "outside")
    ATTACKS[name](tmp_path / "run", outside)
    before = snapshot(tmp_path)
    with contextlib.suppress(BatchcamError), open_run(tmp_path / "run") as run:
        table = read_table(run, True)
        with Desk(run, table, open_originals(run, None), None, None) as desk:
            desk.measuring.join()
            page = desk.rows({})
            for row in page["rows"]:
                for ask in (desk.sample, desk.picture):
                    with contextlib.suppress(BatchcamError):
                        ask({"row": str(row)})
    assert snapshot(tmp_path) == before
    shutil.rmtree(tmp_path)
