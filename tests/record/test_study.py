"""What the studies share: reasons by precedence, notes on a run, files whose document comes last, tables."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from batchcam import __version__
from batchcam.record import study
from batchcam.record.study import (
    Reason,
    class_lines,
    count_left_out,
    counts_text,
    first_reasons,
    head_lines,
    land_study,
    rows_left_out,
    run_notes,
)
from batchcam.store.document import read_document


class Fruit(Reason):
    FINE = 0
    TOO_RIPE = 1
    SMALL = 2, "smaller than a fist"
    ROTTEN = 3


def test_a_reasons_text_is_its_name_or_what_stands_beside_its_number_and_none_has_no_text() -> None:
    assert [reason.text for reason in Fruit] == ["", "too ripe", "smaller than a fist", "rotten"]
    assert [int(reason) for reason in Fruit] == [0, 1, 2, 3]
    assert Fruit(2) is Fruit.SMALL


def test_the_first_condition_that_holds_is_the_reason_whatever_its_number() -> None:
    holds = np.array([[False, True, False, True], [False, True, True, False]])
    reasons = first_reasons({Fruit.ROTTEN: holds[0], Fruit.SMALL: holds[1]})
    assert (reasons.tolist(), reasons.dtype) == ([0, 3, 2, 3], np.uint8)
    assert first_reasons({Fruit.ROTTEN: np.zeros(0, bool)}).shape == (0,)


def test_what_is_left_out_is_counted_and_listed_in_the_order_of_the_reasons() -> None:
    reasons = np.array([3, 0, 1, 3, 0], np.uint8)
    assert list(count_left_out(Fruit, reasons).items()) == [("too ripe", 1), ("rotten", 2)]
    assert {text: rows.tolist() for text, rows in rows_left_out(Fruit, reasons).items()} == {
        "too ripe": [2],
        "rotten": [0, 3],
    }
    assert counts_text(count_left_out(Fruit, reasons)) == "1 too ripe; 2 rotten"
    assert count_left_out(Fruit, np.zeros(4, np.uint8)) == {}


@pytest.mark.parametrize(
    ("changes", "complete", "expected"),
    [
        ({}, True, []),
        ({"identity": False}, True, ["OLD waived the identity: its maps do not explain its logits"]),
        ({"identity": False, "method": "gradcam"}, True, []),
        ({"control": "head"}, True, ["control head: so what"]),
        ({}, False, ["OLD is not complete: 1 of 3 shards"]),
    ],
    ids=["nothing", "waived", "gradients have none to waive", "control", "incomplete"],
)
def test_a_run_is_noted_for_what_its_numbers_do_not_say(make_plan, changes, complete, expected) -> None:
    plan = dataclasses.replace(make_plan(sample_count=21, shard_size=10), **changes)
    run = SimpleNamespace(plan=plan, complete=complete, state="1 of 3 shards", remarks=())
    assert list(run_notes(run, "OLD", "so what")) == expected
    assert list(run_notes(run, "OLD")) == [note for note in expected if not note.startswith("control")]


def test_the_document_names_the_other_files_by_digest_and_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    files = {"a.csv": b"1\n", "b.h5": b"2"}
    for name in ("here", "there"):
        land_study(tmp_path / name, "tasting", 7, files, {"fruits": 3, "out": name})
    assert (tmp_path / "here/tasting.json").read_bytes() == (tmp_path / "there/tasting.json").read_bytes()
    assert read_document(tmp_path / "here/tasting.json") == {
        "fruits": 3,
        "tasting_version": 7,
        "batchcam_version": __version__,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir() if path.name in files} == files


def test_the_document_comes_last_and_an_earlier_one_stays_until_then(tmp_path: Path, monkeypatch) -> None:
    land_study(tmp_path, "tasting", 7, {"a.csv": b"old\n"}, {})
    before = (tmp_path / "tasting.json").read_bytes()
    landed: list[str] = []
    land = study.landing.land

    def full(path: Path, data: bytes) -> None:
        landed.append(path.name)
        if path.name == "tasting.json":
            raise OSError("full")
        land(path, data)

    monkeypatch.setattr(study.landing, "land", full)
    with pytest.raises(OSError, match="full"):
        land_study(tmp_path, "tasting", 7, {"a.csv": b"new\n", "b.csv": b"b"}, {})
    assert landed == ["a.csv", "b.csv", "tasting.json"]
    assert (tmp_path / "tasting.json").read_bytes() == before


def test_lines_above_the_tables_are_one_for_each_name_whatever_the_values_hold() -> None:
    lines = head_lines([("run", "a\nb")], ["beware"], "out", "tasting")
    assert lines == [
        "run         a b",
        "note        beware",
        "written     out/tasting.json and the files it names",
    ]
    assert head_lines([("run", "r")], [], None, "tasting") == ["run         r"]


def test_a_table_of_classes_is_as_wide_as_its_longest_name_and_tells_how_many_it_leaves_out() -> None:
    assert class_lines("n", [("a\nb", "1"), ("longest", "2")]) == ["class    n", "a b      1", "longest  2"]
    many = class_lines("n", [("c", "1")] * (study.CLASSES_SHOWN + 3))
    assert (len(many), many[-1]) == (study.CLASSES_SHOWN + 2, "… and 3 more")
    assert class_lines("n", []) == ["class  n"]
