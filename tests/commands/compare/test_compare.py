"""Two runs of numbers that the test chose: every flip, gate, table and file is known before `compare` looks."""

from __future__ import annotations

import copy
import csv
import dataclasses
import hashlib
import io
import json
import math
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.stats import binomtest

from batchcam.commands.compare import compare as compare_module
from batchcam.commands.compare import reading as compare_reading
from batchcam.commands.compare.compare import CompareSummary, compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.files import APART_ARRAYS, ARRAYS, MOVER_COLUMNS
from batchcam.commands.compare.matching import Apart
from batchcam.commands.compare.movement import Pairing
from batchcam.commands.compare.text import compare_text
from batchcam.commands.merge import merge
from batchcam.errors import EXIT_USAGE, ConfigError, RunError
from batchcam.store.document import read_document
from tests.helpers.run_pairs import (
    COUNT,
    SPECIAL,
    make_rows,
    permute_classes,
    permute_samples,
    plain_spearman,
    predict,
    write,
)
from tests.helpers.small_blocks import small_blocks
from tests.helpers.synthetic import CLASS_NAMES, CONSTANT, NON_FINITE, UNLABELLED, UNREADABLE, bilinear, land_shards

BOX = (0, 0, 80, 48)


@pytest.fixture
def run_pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two checkpoints on the same images, each in its own numbers."""
    return write(tmp_path / "old", *make_rows(1)), write(tmp_path / "new", *make_rows(2))


def of(old: Path, new: Path, **options: Any) -> CompareSummary:
    return compare(CompareConfig(old, new, quiet=True, **options))


def read_table(out: Path) -> dict[str, np.ndarray]:
    with h5py.File(out / "compare.h5") as file:
        return {name: dataset[...] for name, dataset in file.items()}


def test_a_run_compared_with_itself_has_no_flips_and_similarity_1_and_passes_any_gate(
    sound_run: Path, tmp_path: Path
) -> None:
    limits = {"max_flips": 0, "max_accuracy_drop": 0, "min_cam_similarity": 1, "min_compared": 85}
    summary = of(sound_run, sound_run, out=tmp_path / "out", **limits)
    t = summary.totals
    assert (t.compared, t.flips, t.flips_percent, t.accuracy_drop) == (19, 0, 0, 0)
    assert (t.spearman, t.cosine, t.top_iou, t.peak_shift, t.maps) == (1, 1, 1, 0, 18)
    assert (summary.findings, [g.passed for g in summary.gates], summary.movers) == (0, [True] * 6, [])
    assert summary.apart == {"unreadable in both": 1, "not finite in both": 1}
    assert t.without_maps == {"constant in both": 1}
    assert (read_table(tmp_path / "out")["flip"] == 0).all()


def test_every_number_of_a_pair_equals_that_of_plain_loops(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    (_, old), (_, new) = make_rows(1), make_rows(2)
    summary = of(*run_pair, out=tmp_path / "out")
    table = read_table(tmp_path / "out")
    kept = [i for i in range(COUNT) if i not in (UNREADABLE, NON_FINITE)]
    assert table["old_index"].tolist() == table["new_index"].tolist() == kept
    assert [t.decode() for t in table["sample_id"]] == [old.texts["sample_id"][i] for i in kept]
    alike = []
    for place, row in enumerate(kept):
        class_ = old.columns["prediction"][row]
        assert table["old_prediction"][place] == table["map_class"][place] == class_
        assert table["new_prediction"][place] == new.columns["prediction"][row]
        assert table["label"][place] == old.columns["label"][row]
        change = float(new.columns["confidence"][row]) - float(old.columns["confidence"][row])
        assert table["confidence_change"][place] == change
        change = float(new.columns["logits"][row, class_]) - float(old.columns["logits"][row, class_])
        assert table["logit_change"][place] == change
        if row == CONSTANT:
            assert table["pairing"][place] == Pairing.CONSTANT_IN_BOTH
            assert np.isnan(table["spearman"][place])
            continue
        expected = plain_spearman(old.columns["cams"][row, class_], new.columns["cams"][row, class_])
        assert table["spearman"][place] == pytest.approx(expected, abs=1e-12)
        alike.append(expected)
    assert summary.totals.spearman == pytest.approx(sum(alike) / len(alike), abs=1e-12)
    known = [i for i in kept if i != UNLABELLED]
    for side, rows in (("old", old), ("new", new)):
        right = sum(rows.columns["prediction"][i] == rows.columns["label"][i] for i in known)
        assert getattr(summary.totals, f"{side}_accuracy") == pytest.approx(right / len(known))


def test_known_flips_are_counted_by_kind_and_blocked_by_gates(tmp_path: Path) -> None:
    plan, old = make_rows(1)
    for row in range(COUNT):
        if row not in SPECIAL:
            predict(old, row, row % 5, 0.9)
    predict(old, 7, 0, 0.9)  # labelled 2: wrong
    predict(old, 8, 0, 0.9)  # labelled 3: wrong
    new = copy.deepcopy(old)
    predict(new, 0, 1, 0.6)  # broken
    predict(new, 1, 2, 0.8)  # broken
    predict(new, 5, 3, 0.7)  # broken
    predict(new, 7, 2, 0.9)  # fixed
    predict(new, 8, 1, 0.9)  # wrong to another wrong
    predict(new, UNLABELLED, 4, 0.9)  # no label to judge by
    predict(new, 11, 1, 0.5)  # same class, less sure of it
    run_old = write(tmp_path / "old", plan, old)
    run_new = write(tmp_path / "new", dataclasses.replace(plan, checkpoint_sha256="e" * 64), new)
    limits = {"max_flips": 30, "max_accuracy_drop": 15, "min_cam_similarity": 0.5, "min_compared": 0}
    summary = of(run_old, run_new, **limits)
    t = summary.totals
    assert (t.compared, t.labelled, t.flips, t.fixed, t.broken, t.changed) == (19, 18, 6, 1, 3, 2)
    assert t.flips_percent == pytest.approx(100 * 6 / 19)
    assert t.accuracy_drop == pytest.approx(100 * 2 / 18)
    assert [(g.option, g.passed) for g in summary.gates] == [
        ("--max-flips", False),
        ("--max-accuracy-drop", True),
        ("--min-cam-similarity", True),
    ]
    assert summary.findings == 1
    low, high = (100 * end for end in binomtest(6, 19).proportion_ci(method="wilson"))
    assert summary.gates[0].reason == (
        f"--max-flips 30: UNDECIDED, exceeded by the estimate: 31.5789 ({low:.3g} to {high:.3g}) % of 19 compared "
        "samples flipped; about 2100 would decide; not judged: 1 unreadable in both, 1 not finite in both"
    )
    assert [(m.reason, m.sample_id[-9:-4]) for m in summary.movers] == [
        ("broken", "00001"),
        ("broken", "00005"),
        ("broken", "00000"),
        ("confidence", "00011"),
    ]
    assert of(run_old, run_new, max_accuracy_drop=11, min_compared=0).findings == 1
    assert {(c.old, c.new): c.count for c in summary.transitions}[CLASS_NAMES[0], CLASS_NAMES[1]] == 2


def nearly_unreadable(tmp_path: Path) -> tuple[Path, Path]:
    """A run, and the same one in which nothing but its last sample could be read."""
    plan, rows = make_rows(1)
    old = write(tmp_path / "readable", plan, copy.deepcopy(rows))
    rows.columns["status"][:-1] = 1
    rows.columns["prediction"][:-1] = -1
    rows.texts["error"][:-1] = ["no image"] * (COUNT - 1)
    return old, write(tmp_path / "unreadable", plan, rows)


def test_a_gate_needs_most_of_the_samples_to_be_compared(tmp_path: Path) -> None:
    pair = nearly_unreadable(tmp_path)
    summary = of(*pair, max_flips=5, min_cam_similarity=0.5)
    assert [(g.option, g.limit, g.passed) for g in summary.gates] == [
        ("--max-flips", 5, True),
        ("--min-cam-similarity", 0.5, True),
        ("--min-compared", 95, False),
        ("--min-compared", 95, False),
    ]
    assert (summary.findings, summary.gates[2].value) == (2, pytest.approx(100 / 21))
    assert [g.reason for g in summary.gates[2:]] == [
        "--min-compared 95: missed: 1 of 21 samples could be compared (1 unreadable in both, 19 unreadable in NEW)",
        "--min-compared 95: missed: 1 of 21 samples have a pair of maps",
    ]
    assert [g.option for g in of(*pair, max_accuracy_drop=100).gates[1:]] == ["--min-compared"] * 2
    assert of(*pair, max_flips=5, min_cam_similarity=0.5, min_compared=4.7).findings == 0
    assert [g.option for g in of(*pair, max_flips=5, min_compared=0).gates] == ["--max-flips"]
    assert of(*pair, min_compared=50).findings == 1


def test_without_a_gate_a_note_tells_that_little_was_compared(tmp_path: Path) -> None:
    old, new = nearly_unreadable(tmp_path)
    note = "only 1 of 21 samples could be compared (1 unreadable in both, 19 unreadable in NEW)"
    assert (of(old, new).findings, of(old, new).gates) == (0, ())
    assert note in of(old, new).notes
    assert note in of(old, new, max_flips=5, min_compared=0).notes
    assert not any("could be compared" in each for each in of(old, new, max_flips=5).notes)


def test_maps_that_are_not_stored_are_missed_where_a_similarity_is_judged(
    run_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    few = write(tmp_path / "few", *make_rows(2, cams="predicted"))
    summary = of(run_pair[0], few, min_class_similarity=-1, min_compared=85)
    compared, mapped, _ = summary.gates[1:]
    assert (compared.passed, mapped.passed) == (True, False)
    stored = summary.totals.maps
    assert mapped.reason.startswith(f"--min-compared 85: missed: {stored} of 21 samples have a pair of maps (")
    assert f"{summary.totals.without_maps['not stored']} not stored" in mapped.reason


def test_samples_that_new_alone_has_are_no_lack_of_evidence(tmp_path: Path) -> None:
    plan, rows = make_rows(1)
    old = tmp_path / "old"
    land_shards(old, plan, rows)
    merge(old)
    one = old / "shards" / "shard-00000.h5"
    assert "added" in of(one, old).apart
    assert not any("added" in note for note in of(one, old).notes)


def test_another_method_is_told_and_taken_for_no_waiver(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    plan, rows = make_rows(2)
    by_gradient = write(tmp_path / "gradcam", dataclasses.replace(plan, method="gradcam", identity=False), rows)
    assert "maps by gradcam in NEW, by cam in OLD: their similarity says little" in of(run_pair[0], by_gradient).notes
    assert "maps by cam in NEW, by gradcam in OLD: their similarity says little" in of(by_gradient, run_pair[0]).notes
    for pair in ((run_pair[0], by_gradient), (by_gradient, by_gradient)):
        assert not any("waived" in note or "identity" in note for note in of(*pair).notes)
    waived = write(tmp_path / "waived", dataclasses.replace(plan, identity=False), rows)
    assert "NEW waived the identity: its maps do not explain its logits" in of(run_pair[0], waived).notes


def test_the_order_of_samples_does_not_matter(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    plan, rows = make_rows(2)
    order = np.random.default_rng(0).permutation(COUNT)
    shuffled = write(tmp_path / "shuffled", plan, permute_samples(rows, order))
    summary = of(run_pair[0], run_pair[1], out=tmp_path / "a")
    other = of(run_pair[0], shuffled, out=tmp_path / "b")
    assert (summary.totals, summary.classes, summary.movers) == (other.totals, other.classes, other.movers)
    first, second = read_table(tmp_path / "a"), read_table(tmp_path / "b")
    assert second["new_index"].tolist() == [order.tolist().index(i) for i in second["old_index"]]
    for name in first:
        if name not in ("new_index", "sample_id", "apart_id"):
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_the_order_of_classes_does_not_matter(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    plan, rows = make_rows(2)
    order = [3, 0, 4, 2, 1]
    names = tuple(CLASS_NAMES[k] for k in order)
    renumbered = write(
        tmp_path / "renumbered", dataclasses.replace(plan, class_names=names), permute_classes(rows, order)
    )
    assert of(run_pair[0], renumbered).totals == of(*run_pair).totals
    back = of(renumbered, renumbered)
    assert (back.totals.flips, back.totals.spearman) == (0, 1)
    direct, crossed = of(renumbered, run_pair[1]), of(run_pair[1], renumbered)
    assert (direct.totals.flips, direct.totals.spearman) == (crossed.totals.flips, crossed.totals.spearman) == (0, 1)


def test_a_class_that_one_run_alone_has_is_refused_unless_shared_ones_are_asked_for(
    run_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    plan, rows = make_rows(2)
    for row in (0, 4, 5):
        predict(rows, row, 4, 0.9)
    named = write(tmp_path / "named", plan, copy.deepcopy(rows))
    renamed = write(tmp_path / "renamed", dataclasses.replace(plan, class_names=(*CLASS_NAMES[:4], "lynx")), rows)
    with pytest.raises(ConfigError, match=r"OLD: zèbre 🦓; 1 class only in NEW: lynx; --shared-classes") as refused:
        of(run_pair[0], renamed)
    assert refused.value.exit_code == EXIT_USAGE
    summary = of(named, renamed, shared_classes=True, out=tmp_path / "out")
    table = read_table(tmp_path / "out")
    gone = table["old_prediction"] == 4
    assert table["old_index"][gone].tolist() == [0, 4, 5]
    assert (table["new_prediction"][gone] == 5).all()
    assert (table["pairing"][gone] == Pairing.NO_CLASS).all()
    assert np.isnan(table["new_logit"][gone]).all()
    assert summary.totals.flips == gone.sum()
    assert summary.totals.without_maps["no class"] == gone.sum()
    assert summary.relabelled == sum(rows.columns["label"][table["old_index"]] == 4)
    assert {"1 class only in OLD: zèbre 🦓", "1 class only in NEW: lynx"} <= set(summary.notes)


def test_added_removed_and_changed_inputs_are_listed_and_never_compared(tmp_path: Path) -> None:
    plan, old = make_rows(1)
    old_run = write(tmp_path / "old", plan, old)
    plan, new = make_rows(2, [*old.texts["sample_id"][:19], "=neu\n1.png", "neu 2.png"])
    new.columns["input_sha256"][[0, 2, 19, 20], 0] ^= 1
    new_run = write(tmp_path / "new", plan, new)
    summary = of(old_run, new_run, out=tmp_path / "out")
    assert summary.apart == {
        "added": 2,
        "removed": 2,
        "changed input": 2,
        "unreadable in both": 1,
        "not finite in both": 1,
    }
    assert summary.totals.compared == 15
    table = read_table(tmp_path / "out")
    assert not {0, 2} & set(table["old_index"].tolist())
    listed = read_document(tmp_path / "out" / "compare.json")["apart_listed"]
    assert listed["added"] == ["=neu\n1.png", "neu 2.png"]
    assert listed["removed"] == old.texts["sample_id"][19:]
    assert listed["changed input"] == [old.texts["sample_id"][i] for i in (0, 2)]
    stored = {
        reason: [t.decode() for t in table["apart_id"][table["apart_reason"] == reason]]
        for reason in (Apart.ADDED, Apart.REMOVED, Apart.CHANGED_INPUT)
    }
    assert list(stored.values()) == [listed["added"], listed["removed"], listed["changed input"]]
    assert "\n1.png" not in compare_text(summary)


@pytest.mark.parametrize("side", ["OLD", "NEW"])
def test_rows_that_one_run_could_not_read_or_count_with_are_told_by_side(tmp_path: Path, side: str) -> None:
    good, bad = make_rows(1), make_rows(2)
    for row, status in ((0, 1), (1, 2)):
        bad[1].columns["status"][row] = status
        bad[1].columns["prediction"][row] = -1
    bad[1].texts["error"][0] = "no image"
    pair = (write(tmp_path / "bad", *bad), write(tmp_path / "good", *good))
    summary = of(*(pair if side == "OLD" else pair[::-1]))
    told = {"unreadable in both": 1, f"unreadable in {side.lower()}": 1, "not finite in both": 1}
    assert summary.apart == told | ({"not finite in old": 1} if side == "OLD" else {})
    assert summary.totals.not_finite == (side == "NEW")


def test_a_map_that_became_constant_is_told_and_in_no_mean(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    plan, rows = make_rows(1)
    rows.columns["cams"][0] = 1
    flat = write(tmp_path / "flat", plan, rows)
    assert of(run_pair[0], flat).totals.without_maps == {"constant in both": 1, "constant in new": 1}
    assert of(flat, run_pair[0]).totals.without_maps == {"constant in both": 1, "constant in old": 1}
    assert of(run_pair[0], flat).totals.spearman == 1


def test_grids_of_two_sizes_are_compared_on_the_finer_one(tmp_path: Path) -> None:
    plan, rows = make_rows(1, grid_size=(4, 4))
    coarse = write(tmp_path / "coarse", plan, rows)
    fine_rows = copy.deepcopy(rows)
    shape = rows.columns["cams"].shape
    cams = bilinear(rows.columns["cams"].reshape(-1, 4, 4).astype(np.float64), (8, 8))
    fine_rows.columns["cams"] = cams.reshape(*shape[:2], 8, 8).astype(np.float32)
    fine = write(tmp_path / "fine", dataclasses.replace(plan, grid_size=(8, 8), checkpoint_sha256="e" * 64), fine_rows)
    for pair in ((coarse, fine), (fine, coarse)):
        summary = of(*pair)
        assert summary.totals.maps == 18
        assert summary.totals.spearman > 0.999
        assert summary.totals.cosine == pytest.approx(1, abs=1e-6)
        assert summary.totals.peak_shift < 0.2
        assert any(note.startswith("the runs differ in grid size [") for note in summary.notes)


def test_views_are_compared_when_their_boxes_agree_to_a_pixel_and_inputs_may_differ(
    run_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    plan, rows = make_rows(1, input_size=(24, 40))
    rows.columns["crop_box"][0] = np.add(BOX, (1, 0, 0, -1))
    rows.columns["crop_box"][1] = np.add(BOX, (0, 0, -1.5, 0))
    cropped = write(tmp_path / "cropped", plan, rows)
    summary = of(run_pair[0], cropped, out=tmp_path / "out")
    table = read_table(tmp_path / "out")
    assert table["pairing"][:3].tolist() == [Pairing.MEASURED, Pairing.OTHER_VIEW, Pairing.MEASURED]
    assert np.isnan(table["spearman"][1])
    assert summary.totals.without_maps == {"other view": 1, "constant in both": 1}
    assert (summary.totals.compared, summary.totals.spearman) == (19, 1)


@pytest.mark.parametrize("cams", ["predicted", "topk:2"])
def test_maps_that_a_run_does_not_store_are_told(run_pair: tuple[Path, Path], tmp_path: Path, cams: str) -> None:
    (_, full), (plan, rows) = make_rows(1), make_rows(2, cams=cams)
    few = write(tmp_path / "few", plan, rows)
    summary = of(run_pair[0], few, out=tmp_path / "out")
    table = read_table(tmp_path / "out")
    whole = make_rows(2)[1]
    for place, row in enumerate(table["old_index"].tolist()):
        class_ = full.columns["prediction"][row]
        if class_ not in rows.columns["cam_class"][row]:
            assert table["pairing"][place] == Pairing.NOT_STORED
        elif row != CONSTANT:
            expected = plain_spearman(full.columns["cams"][row, class_], whole.columns["cams"][row, class_])
            assert table["spearman"][place] == pytest.approx(expected, abs=1e-12)
    assert summary.totals.without_maps["not stored"] > 0
    assert not np.isnan(table["logit_change"]).any()
    assert of(few, few).totals.spearman == 1


@pytest.mark.parametrize("target", ["old", "new", "label"])
def test_the_maps_compared_are_those_of_the_class_asked_for(
    run_pair: tuple[Path, Path], tmp_path: Path, target: str
) -> None:
    (_, old), (_, new) = make_rows(1), make_rows(2)
    of(*run_pair, target=target, out=tmp_path / "out")
    table = read_table(tmp_path / "out")
    for place, row in enumerate(table["old_index"].tolist()):
        class_ = {"old": old, "new": new, "label": old}[target].columns["label" if target == "label" else "prediction"][
            row
        ]
        assert table["map_class"][place] == class_
        if class_ < 0:
            assert table["pairing"][place] == Pairing.NO_CLASS
        elif row != CONSTANT:
            expected = plain_spearman(old.columns["cams"][row, class_], new.columns["cams"][row, class_])
            assert table["spearman"][place] == pytest.approx(expected, abs=1e-12)


def test_small_blocks_give_the_same_bytes(
    run_pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, rows = make_rows(2)
    order = np.random.default_rng(1).permutation(COUNT)
    shuffled = write(tmp_path / "shuffled", plan, permute_samples(rows, order))
    of(run_pair[0], shuffled, out=tmp_path / "a")
    small_blocks(monkeypatch, 700)
    for name, value in {"PICKED_BYTES": 700, "IN_ORDER_BYTES": 700, "ROW_BYTES": 1, "ID_ROWS": 2}.items():
        monkeypatch.setattr(compare_reading, name, value)
    of(run_pair[0], shuffled, out=tmp_path / "b")
    for name in ("compare.h5", "compare.json", "movers.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_summary_is_json_without_nan(run_pair: tuple[Path, Path]) -> None:
    summary = of(*run_pair, max_flips=1, min_compared=0)
    text = json.dumps(dataclasses.asdict(summary), allow_nan=False)
    assert json.loads(text)["findings"] == 1


def test_samples_that_the_runs_label_otherwise_are_told_and_not_judged(
    run_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    plan, rows = make_rows(2)
    rows.columns["label"][:2] = (rows.columns["label"][:2] + 1) % 5
    summary = of(run_pair[0], write(tmp_path / "relabelled", plan, rows))
    assert (summary.relabelled, summary.totals.labelled) == (2, 16)
    assert any(note.startswith("2 samples are labelled as different classes") for note in summary.notes)


def test_the_files_name_their_columns_and_cover_each_other(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = of(*run_pair, out=out)
    assert sorted(p.name for p in out.iterdir()) == ["compare.h5", "compare.json", "movers.csv"]
    content = read_document(out / "compare.json")
    assert content["files"] == {
        name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in ("compare.h5", "movers.csv")
    }
    assert (content["old_run_id"], content["new_run_id"]) == (summary.old_run_id, summary.new_run_id)
    assert content["totals"] == dataclasses.asdict(summary.totals)
    assert content["rules"]["target"] == "old"
    with h5py.File(out / "compare.h5") as file:
        assert file.attrs["old_run_id"].decode() == summary.old_run_id
        for array in (*ARRAYS, *APART_ARRAYS):
            dataset = file[array.name]
            assert dataset.attrs["long_name"].decode() == array.meaning
            if array.dtype == "text":
                kind = h5py.check_string_dtype(dataset.dtype)
                assert (kind.encoding, kind.length is not None, dataset.compression) == ("utf-8", True, "gzip")
            else:
                assert dataset.fletcher32
        names = file["flip"].attrs["flag_meanings"].decode().split()
        assert names == ["same", "fixed", "broken", "changed"]
        assert [n.decode() for n in file["class_name"][...]] == list(CLASS_NAMES)
        assert (file["flip"][...] > 0).sum() == summary.totals.flips
        assert np.nanmean(file["spearman"][...]) == pytest.approx(summary.totals.spearman, abs=1e-15)


def test_xarray_opens_the_table_with_named_dimensions(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    of(*run_pair, out=tmp_path / "out")
    with xarray.open_dataset(tmp_path / "out" / "compare.h5", engine="h5netcdf") as opened:
        assert opened["spearman"].dims == ("sample_id",)
        assert opened["apart_reason"].dims == ("apart_id",)


def test_movers_are_cells_that_no_spreadsheet_runs(tmp_path: Path) -> None:
    ids = [f"=cmd|'{i}'!A0\n" for i in range(COUNT)]
    names = ("=1", "-b", "c\nd", "e", "f")
    pair = [write(tmp_path / str(seed), *make_rows(seed, ids, class_names=names)) for seed in (1, 2)]
    summary = of(*pair, out=tmp_path / "out")
    text = (tmp_path / "out" / "movers.csv").read_text(encoding="utf-8")
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(text.splitlines()) == len(lines) + 1 == len(summary.movers) + 1
    assert tuple(lines[0]) == MOVER_COLUMNS
    assert all(line["sample_id"].startswith("'=cmd") and "\\n" in line["sample_id"] for line in lines)
    texts = {line[c] for line in lines for c in ("label", "old_prediction", "new_prediction", "map_class")}
    assert not any(cell.startswith(("=", "-", "+", "@")) for cell in texts)
    assert float(lines[0]["confidence_change"]) == summary.movers[0].confidence_change


def test_a_comparison_of_nothing_still_writes_its_files(tmp_path: Path) -> None:
    plan, rows = make_rows(1)
    old = write(tmp_path / "old", plan, rows)
    other = copy.deepcopy(rows)
    other.columns["input_sha256"][:, 0] ^= 1
    new = write(tmp_path / "new", dataclasses.replace(plan, checkpoint_sha256="e" * 64), other)
    summary = of(old, new, out=tmp_path / "out", max_flips=100)
    assert (summary.totals.compared, summary.findings) == (0, 2)
    assert read_table(tmp_path / "out")["sample_id"].shape == (0,)
    assert read_document(tmp_path / "out" / "compare.json")["totals"]["spearman"] is None
    assert "no sample is compared" in compare_text(summary)


def test_runs_of_other_samples_are_refused(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    plan, rows = make_rows(2, [f"other {i}" for i in range(COUNT)])
    rows.columns["input_sha256"][:, 0] ^= 255
    other = write(tmp_path / "other", plan, rows)
    with pytest.raises(RunError, match="no sample id is in both"):
        of(run_pair[0], other)


def test_an_id_that_stands_twice_sends_to_verify(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    twice = write(tmp_path / "twice", *make_rows(2, ["a", "a", *(f"b{i}" for i in range(COUNT - 2))]))
    with pytest.raises(RunError, match=r"a sample id stands twice in NEW; see batchcam verify"):
        of(run_pair[0], twice)
    with pytest.raises(RunError, match=r"a sample id stands twice in OLD; see batchcam verify"):
        of(twice, twice)


def test_runs_that_list_the_same_samples_in_the_same_order_are_matched_row_by_row(
    run_pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, rows = make_rows(2)
    order = np.random.default_rng(1).permutation(COUNT)
    shuffled = write(tmp_path / "shuffled", plan, permute_samples(rows, order))
    expected = of(run_pair[0], shuffled), of(shuffled, run_pair[0])
    monkeypatch.setattr(compare_reading, "match_ids", None)  # which takes the ids into memory
    for run in (run_pair[0], shuffled):
        assert (same := of(run, run)).totals.flips == 0
        assert all(reason.endswith("in both") for reason in same.apart)
    with pytest.raises(TypeError):
        of(run_pair[0], shuffled)
    assert expected[0].totals.flips == expected[1].totals.flips > 0


@pytest.mark.parametrize("column", ["label", "prediction"])
def test_classes_beyond_the_runs_own_send_to_verify(run_pair: tuple[Path, Path], tmp_path: Path, column: str) -> None:
    plan, rows = make_rows(2)
    rows.columns[column][4] = 5
    with pytest.raises(RunError, match=f"{column}s beyond its 5 classes; see batchcam verify"):
        of(run_pair[0], write(tmp_path / "beyond", plan, rows))


def test_an_incomplete_run_is_compared_as_far_as_it_goes_and_passes_no_gate(
    run_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    part = tmp_path / "part"
    plan, rows = make_rows(2)
    land_shards(part, plan, rows, skip=(1,))
    summary, whole = of(run_pair[0], part), of(*run_pair)
    assert summary.apart["removed"] == 8
    assert "NEW is not complete: 2 of 3 shards" in summary.notes
    assert summary.totals.compared < whole.totals.compared
    with pytest.raises(RunError, match="part: 2 of 3 shards: a gate judges complete runs"):
        of(run_pair[0], part, max_flips=100)


def test_single_shards_are_compared(run_pair: tuple[Path, Path]) -> None:
    shards = [run / "shards" / "shard-00002.h5" for run in run_pair]
    assert of(*shards).totals.compared == 5


def test_the_runs_stay_as_they_are(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    def digests() -> dict[str, str]:
        files = sorted(p for run in run_pair for p in run.rglob("*") if p.is_file())
        return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    before = digests()
    of(*run_pair, out=tmp_path / "out")
    assert digests() == before


def test_a_new_comparison_replaces_the_files_of_an_earlier_one(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    of(*run_pair, out=tmp_path / "out")
    of(*run_pair, out=tmp_path / "first")
    of(run_pair[0], run_pair[0], out=tmp_path / "out")
    assert read_document(tmp_path / "out" / "compare.json")["totals"]["flips"] == 0
    of(*run_pair, out=tmp_path / "out")
    for name in ("compare.h5", "compare.json", "movers.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_a_damaged_shard_is_an_error_in_one_line(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    broken = Path(shutil.copytree(run_pair[1], tmp_path / "broken"))
    path = broken / "shards" / "shard-00001.h5"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"shard-00001\.h5"):
        of(run_pair[0], broken)


def test_a_shard_that_was_edited_is_not_compared(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    edited = Path(shutil.copytree(run_pair[1], tmp_path / "edited"))
    with h5py.File(edited / "shards" / "shard-00001.h5", "r+") as file:
        file["cams"][0] = 0
    with pytest.raises(RunError, match=r"shard-00001\.h5: changed after it was written"):
        of(run_pair[0], edited)


def test_shards_that_took_one_anothers_names_are_not_compared(run_pair: tuple[Path, Path], tmp_path: Path) -> None:
    edited = Path(shutil.copytree(run_pair[1], tmp_path / "edited"))
    first, second, aside = (edited / "shards" / name for name in ("shard-00000.h5", "shard-00001.h5", "aside"))
    for source, target in ((first, aside), (second, first), (aside, second)):
        source.rename(target)
    with pytest.raises(RunError, match=r"shard-00000\.h5: changed after it was written"):
        of(run_pair[0], edited)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_flips": -1}, "--max-flips -1: must be from 0 to 100"),
        ({"max_flips": math.nan}, "--max-flips nan"),
        ({"max_accuracy_drop": 101}, "--max-accuracy-drop 101"),
        ({"min_cam_similarity": 1.1}, "--min-cam-similarity 1.1: must be from -1 to 1"),
        ({"min_class_similarity": -1.1}, "--min-class-similarity -1.1: must be from -1 to 1"),
        ({"min_compared": 101}, "--min-compared 101: must be from 0 to 100"),
        ({"min_compared": math.nan}, "--min-compared nan"),
        ({"target": "both"}, "--target both: choose one of old, new, label"),
        ({"top": -1}, "--top -1"),
    ],
)
def test_options_that_cant_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CompareConfig(Path("old"), Path("new"), **options)


@pytest.mark.parametrize("inside", ["old", "old/compare", "new/shards/../x"])
def test_files_never_go_into_a_run(run_pair: tuple[Path, Path], tmp_path: Path, inside: str) -> None:
    with pytest.raises(ConfigError, match="lies in the run"):
        CompareConfig(*run_pair, out=tmp_path / inside)


def test_the_text_tells_what_moved_and_hides_control_characters(tmp_path: Path) -> None:
    ids = [f"\x1b[31m{i}\n" for i in range(COUNT)]
    names = ("a\x1b[2J", "b", "c", "d", "e")
    pair = [write(tmp_path / str(seed), *make_rows(seed, ids, class_names=names)) for seed in (1, 2)]
    summary = of(*pair, max_flips=1)
    text = compare_text(summary)
    assert all(character.isprintable() or character == "\n" for character in text)
    t = summary.totals
    low, high = (100 * end for end in binomtest(t.flips, 19).proportion_ci(method="wilson"))
    kinds = f"{t.fixed} fixed, {t.broken} broken, {t.changed} changed"
    assert f"{t.flips} of 19 ({t.flips_percent:.3f} %, {low:.2f} to {high:.2f}): {kinds}" in text
    assert summary.gates[0].reason in text
    assert "19 samples; 1 unreadable in both; 1 not finite in both" in text


def test_progress_counts_each_map_once(run_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    class Counter:
        def __init__(self, what: str, total: int, unit: str, quiet: bool) -> None:
            counted.append(-total)
            self.advance: Callable[[int], None] = counted.append

        def __enter__(self) -> Counter:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(compare_module, "Progress", Counter)
    of(*run_pair)
    assert counted[0] == -2 * COUNT
    assert sum(counted) == 0


@pytest.mark.parametrize(
    ("names", "checkpoint", "findings"),
    [
        (("Käfer", "ant", "蝶", "dog-é", "zèbre 🦓"), 1, 1),
        (("ant", "Käfer", "蝶", "dog-é", "zebu"), 1, 1),
        (tuple(unicodedata.normalize("NFD", name) for name in CLASS_NAMES), 1, 0),
        (("Käfer", "ant", "蝶", "dog-é", "zèbre 🦓"), 2, 0),  # another network may have another order
    ],
)
def test_one_checkpoint_with_two_orders_of_its_classes_is_a_finding(tmp_path, names, checkpoint, findings):
    old = write(tmp_path / "old", *make_rows(1))
    changes = {"class_names": names, "checkpoint_sha256": f"{checkpoint:064x}"}
    new = write(tmp_path / "new", *make_rows(1, **changes))
    summary = of(old, new, shared_classes=True)
    assert summary.findings == findings
    told = [note for note in summary.notes if "one of them has the wrong names" in note]
    assert len(told) == findings
    assert (
        not told or f"its class {[a == b for a, b in zip(names, CLASS_NAMES, strict=True)].index(False)} is" in told[0]
    )
