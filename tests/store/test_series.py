"""Several runs in one folder are read as one, in order of name, or refused."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import RunError
from batchcam.store import series as series_module
from batchcam.store.opening import open_run
from batchcam.store.series import Series, find_runs, require_one_kind
from tests.helpers.series import COUNTS, land_night, part_of, whole_and_series
from tests.helpers.synthetic import CLASS_NAMES, UNREADABLE, synthetic_plan, synthetic_rows


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    return whole_and_series(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def nights(pair, tmp_path) -> Path:
    return Path(shutil.copytree(pair[1], tmp_path / "nights"))


def test_every_array_is_its_runs_arrays_one_after_the_other_and_that_of_one_run_over_all(pair):
    with open_run(pair[0]) as whole, open_run(pair[1]) as series:
        assert isinstance(series, Series)
        assert len(series) == 21
        assert [array.name for array in series.arrays] == [array.name for array in whole.arrays]
        for array in whole.arrays:
            together = np.concatenate([getattr(run, array.name)[:] for run in series.runs])
            values = getattr(series, array.name)[:]
            np.testing.assert_array_equal(values, array[:])
            assert getattr(series, array.name).shape == values.shape == array.shape
            if array.name != "sample_index":
                np.testing.assert_array_equal(values, together)


def test_rows_are_found_in_any_order_by_mask_and_by_id(pair):
    order = np.random.default_rng(3).permutation(21)
    with open_run(pair[0]) as whole, open_run(pair[1]) as series:
        for rows in (order, whole.label[:] == 2, slice(18, 3, -2), [-1, 7, 7]):
            np.testing.assert_array_equal(series.cams[rows], whole.cams[rows])
            assert series.sample_id[rows].tolist() == whole.sample_id[rows].tolist()
            assert series.sample_index[rows].tolist() == whole.sample_index[rows].tolist()
        for row in range(21):
            theirs = whole.sample(whole.sample_id[row])
            mine = dataclasses.replace(series.sample(theirs.id), run=whole)
            assert pickle.dumps(mine) == pickle.dumps(theirs)
            run, own = series.run_of(row)
            assert run.sample_id[own] == series.sample_id[row]
            np.testing.assert_array_equal(series.cam(row, "蝶"), whole.cam(row, "蝶"))
            np.testing.assert_array_equal(series.map(row), whole.map(row))
        np.testing.assert_array_equal(series.classifier[0], whole.classifier[0])
        with pytest.raises(IndexError):
            series[21]
        with pytest.raises(KeyError, match="no sample 'none'"):
            series.row("none")


def test_tables_are_those_of_one_run(pair):
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    with open_run(pair[0]) as whole, open_run(pair[1]) as series:
        pandas.testing.assert_frame_equal(series.to_dataframe(), whole.to_dataframe())
        xarray.testing.assert_identical(
            series.to_xarray().drop_attrs(deep=False), whole.to_xarray().drop_attrs(deep=False)
        )


def test_blocks_keep_to_their_budget_and_to_the_order_asked_for(pair):
    with open_run(pair[1]) as series:
        sizes = [len(rows) for rows, _ in series.blocks(("cams",), budget=2 * 4 * 5 * 15)]
        assert max(sizes) == 2
        order = np.array([20, 3, 4, 0])
        assert np.concatenate([rows for rows, _ in series.blocks(("sample_index", "label"), order)]).tolist() == [
            *order.tolist()
        ]
        with pytest.raises(KeyError, match="no array 'colour'"):
            next(series.blocks(("colour",)))


def test_the_newest_row_that_could_be_read_counts_and_the_others_are_told(tmp_path):
    first, second = (synthetic_rows(synthetic_plan(), seed) for seed in (1, 2))
    second.texts["sample_id"][:] = [*first.texts["sample_id"][:5], *(f"new {i}" for i in range(16))]
    land_night(tmp_path / "1", first)
    land_night(tmp_path / "2", second)
    assert first.texts["error"][UNREADABLE]
    assert second.texts["error"][UNREADABLE]
    expected = [(first, row) for row in range(5, 21)] + [(second, row) for row in range(21)]
    with open_run(tmp_path) as series:
        assert series.sample_id[:].tolist() == [rows.texts["sample_id"][row] for rows, row in expected]
        np.testing.assert_array_equal(series.logits[:], [rows.columns["logits"][row] for rows, row in expected])
        assert series.sample_index[:].tolist() == list(range(37))
        assert series.remarks == (
            "5 rows of samples that stand in several runs left out: the newest that could be read counts",
        )


def test_a_row_that_could_not_be_read_replaces_none_that_could(tmp_path):
    rows = synthetic_rows(synthetic_plan(), 1)
    lost = part_of(rows, slice(0, 5))
    lost.texts["sample_id"][UNREADABLE] = rows.texts["sample_id"][11]
    land_night(tmp_path / "1", rows)
    land_night(tmp_path / "2", lost)
    with open_run(tmp_path) as series:
        assert series.run_of(series.row(rows.texts["sample_id"][11]))[0].path == tmp_path / "1"
        assert series.run_of(series.row(rows.texts["sample_id"][4]))[0].path == tmp_path / "2"
        assert len(series) == 21
        assert [series.run_of(row)[0].path.name for row in range(21)] == ["1"] * 17 + ["2"] * 4


def test_a_link_is_not_counted_twice_and_what_is_left_out_is_told(nights, pair, tmp_path):
    os.symlink("night-3", nights / "latest")
    os.symlink(pair[0], nights / "elsewhere")
    (nights / "keep").write_text("night-1\n")
    (nights / ".removed-night-0").mkdir()
    shutil.copy(nights / "night-1/run.json", nights / ".removed-night-0/run.json")
    (nights / "logs").mkdir()
    (nights / "night-4").mkdir()
    shutil.copy(nights / "night-1/run.json", nights / "night-4/run.json")
    with open_run(nights) as series:
        assert [run.path.name for run in series.runs] == ["night-1", "night-2", "night-3"]
        assert series.remarks == (
            "left out of the series: elsewhere (a link to another folder), night-4 (not complete)",
        )


def test_a_folder_without_a_complete_run_is_refused_with_a_way_out(nights, tmp_path):
    for run in nights.iterdir():
        (run / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"holds no complete run: night-1 \(not complete\), .*name one of them"):
        open_run(nights)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"not a run directory: no run.json in it, nor in a folder of it"):
        open_run(tmp_path / "empty")


def test_what_has_a_plan_or_a_manifest_is_a_run_whatever_lies_in_it(nights):
    for name in ("run.json", "manifest.json"):
        shutil.copy(nights / "night-1" / name, nights / name)
        with pytest.raises(RunError, match=r"no shard|gone from a complete run|not a run directory"):
            open_run(nights)
        (nights / name).unlink()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"class_names": (*CLASS_NAMES[:4], "yak")}, "class names (4 zèbre 🦓 there, yak here)"),
        ({"method": "gradcam", "identity": False}, "method (cam there, gradcam here)"),
        ({"control": "head"}, "control (none there, head here)"),
        ({"grid_size": (2, 5)}, "grid size ([3, 5] there, [2, 5] here)"),
        ({"input_size": (48, 60)}, "input size ([48, 80] there, [48, 60] here)"),
        ({"cams": "topk:2"}, "cams (all there, topk:2 here)"),
        ({"maps": "none"}, "maps (uint8 there, none here)"),
        ({"preprocessing": {"pad": [0, 0, 0]}}, "pad (None there, [0, 0, 0] here)"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_runs_of_two_kinds_are_refused_by_name_with_what_differs(changes, told):
    plan = synthetic_plan()
    plans = {Path("1"): plan, Path("2"): synthetic_plan(**changes), Path("3"): synthetic_plan(**changes)}
    with pytest.raises(RunError) as refused:
        require_one_kind(plans)
    assert "1 (there) and 3 (here) can't be read as a series" in str(refused.value)
    assert told in str(refused.value)


def test_runs_of_two_kinds_are_not_opened(tmp_path):
    for name, maps in (("1", "uint8"), ("2", "none")):
        land_night(tmp_path / name, synthetic_rows(synthetic_plan(maps=maps)), maps=maps)
    with pytest.raises(RunError, match=r"1 \(there\) and .*2 \(here\) can't be read as a series: maps"):
        open_run(tmp_path)


def test_retrained_nights_are_told_and_each_row_fits_its_own_runs_weights(tmp_path):
    for night in (1, 2):
        rows = synthetic_rows(synthetic_plan(), night)
        rows.texts["sample_id"][:] = [f"{night}/{i}" for i in range(21)]
        land_night(
            tmp_path / f"{night}", rows, checkpoint_sha256=f"{night:064x}", precision=("fp32", "tf32")[night - 1]
        )
    with open_run(tmp_path) as series:
        assert series.remarks == ("the runs differ in checkpoint sha256, precision",)
        with pytest.raises(RunError, match="its runs have several classifiers: take that of each of `runs`"):
            series.classifier  # noqa: B018
        assert series.plan.checkpoint_sha256 not in [run.plan.checkpoint_sha256 for run in series.runs]
        for row in np.flatnonzero(series.status[:] == 0):
            bias = series.run_of(int(row))[0].classifier[1]
            np.testing.assert_allclose(series.cams[row].mean((1, 2)) + bias, series.logits[row], atol=1e-5)


def test_runs_of_two_schemas_have_the_arrays_of_both(nights):
    rows = synthetic_rows(synthetic_plan(), 5)
    rows.texts["sample_id"][:] = [f"old {i}" for i in range(21)]
    del rows.columns["input_bytes"]
    land_night(nights / "night-0", rows, schema_version=1, dataset_fingerprint="e" * 64)
    with open_run(nights) as series:
        assert series.plan.schema_version == 1
        assert series.remarks == ("the runs differ in checkpoint sha256, schema version",)
        with pytest.raises(AttributeError, match="of schema 1, which does not have it"):
            series.input_bytes  # noqa: B018
        assert len(series.label[:]) == 42


def test_its_runs_share_the_files_that_are_open(pair, monkeypatch):
    monkeypatch.setattr(series_module, "MOST_OPEN", 3)
    with open_run(pair[1]) as series:
        series.cams[:]
        series.label[:]
        assert {len(run._files) for run in series.runs} == {3}
    assert {len(run._files) for run in series.runs} == {0}


def test_pickled_it_has_the_same_rows_although_a_night_came(nights):
    with open_run(nights) as series:
        sent = pickle.dumps(series)
        rows = synthetic_rows(synthetic_plan(), 9)
        rows.texts["sample_id"][:5] = series.sample_id[:5]
        land_night(nights / "night-9", rows)
        with pickle.loads(sent) as again:
            assert again.plan == series.plan
            np.testing.assert_array_equal(again.cams[:], series.cams[:])


def test_its_id_follows_from_its_runs(nights, tmp_path):
    with open_run(nights) as series:
        before = series.plan.run_id
    shutil.copytree(nights, tmp_path / "copy")
    with open_run(tmp_path / "copy") as series:
        assert series.plan.run_id == before
    shutil.rmtree(nights / "night-2")
    with open_run(nights) as series:
        assert series.plan.run_id != before


def test_a_shard_that_is_gone_is_refused_or_its_rows_are_missing(nights):
    (nights / "night-2/shards/shard-00001.h5").unlink()
    with pytest.raises(RunError, match=r"night-2: 1 of 3 shards gone from a complete run"):
        open_run(nights)
    with open_run(nights, partial=True) as series:
        assert np.flatnonzero(series.missing).tolist() == [COUNTS[0] + row for row in (3, 4, 5)]
        assert len(series) == 21
        assert series.state == "3 runs, 7 of 8 shards"


def test_a_run_whose_plan_is_gone_or_damaged_is_not_passed_over(nights):
    plan = nights / "night-2/run.json"
    content = json.loads(plan.read_bytes())
    content["plan"]["precision"] = "tf32"
    plan.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"night-2.run\.json"):
        open_run(nights)
    plan.unlink()
    assert nights / "night-2" in find_runs(nights).complete
    with pytest.raises(RunError, match=r"night-2: not a run directory: no run\.json"):
        open_run(nights)


def test_a_run_that_verify_has_not_passed_is_left_out_and_told_until_its_note_is_gone(nights):
    note = nights / "night-2.unverified"
    note.touch()
    with open_run(nights) as series:
        assert len(series) == sum(COUNTS) - COUNTS[1]
        assert "night-2 (verify has not passed it, says night-2.unverified)" in " ".join(series.remarks)
    assert verify(VerifyConfig(nights, quiet=True), confine=False).samples == sum(COUNTS)
    for name in ("night-1", "night-3"):
        (nights / f"{name}.unverified").touch()
    with pytest.raises(RunError, match=r"holds no complete run: night-1 \(verify has not passed it"):
        open_run(nights)
    assert verify(VerifyConfig(nights, quiet=True), confine=False).samples == sum(COUNTS)
    for path in nights.glob("*.unverified"):
        path.unlink()
    with open_run(nights) as series:
        assert len(series) == sum(COUNTS)
