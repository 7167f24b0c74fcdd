"""Which samples and classes of two runs count as one: by id, by bytes, by `--rename`."""

from __future__ import annotations

import copy
import csv
import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from batchcam.commands.compare.compare import CompareSummary, compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.files import RULES
from batchcam.commands.compare.matching import match_bytes, match_classes, match_ids
from batchcam.commands.compare.text import compare_text
from batchcam.config.gates import Gates
from batchcam.errors import ConfigError, RunError
from batchcam.store.document import read_document
from tests.helpers.run_pairs import COUNT, make_rows, permute_samples, write
from tests.helpers.small_blocks import small_blocks
from tests.helpers.synthetic import CLASS_NAMES, Rows

MOVED = (0, 2, 6, 9, 20)


def of(old: Path, new: Path, **options: Any) -> CompareSummary:
    return compare(CompareConfig(old, new, quiet=True, **options))


def moved_ids(rows: Rows, moved: tuple[int, ...] = MOVED) -> list[str]:
    return [f"neu/{name}" if row in moved else name for row, name in enumerate(rows.texts["sample_id"])]


def same_numbers(a: CompareSummary, b: CompareSummary) -> bool:
    return (a.totals, a.classes, a.transitions, a.apart) == (b.totals, b.classes, b.transitions, b.apart)


def test_rows_pair_by_bytes_as_plain_loops_pair_them() -> None:
    rng = np.random.default_rng(3)
    picks = [rng.integers(0, 60, 50).astype(np.uint64) for _ in range(2)]
    by_id = match_ids(*(np.array([f"{side if row > 9 else ''}{row}".encode() for row in range(50)]) for side in "ab"))
    left = zip(picks, (by_id.removed, by_id.added), strict=True)
    found = match_bytes(by_id, *(pick[rows] for pick, rows in left))
    places: list[dict[int, list[int]]] = [defaultdict(list), defaultdict(list)]
    for side, pick in zip(places, picks, strict=True):
        for row in range(10, 50):
            if pick[row]:
                side[pick[row]].append(row)
    shared = [image for image in places[0] if image in places[1]]
    once = [image for image in shared if len(places[0][image]) == len(places[1][image]) == 1]
    pairs = sorted((places[0][image][0], places[1][image][0]) for image in once)
    assert len(pairs) >= 5
    expected = [(row, row) for row in range(10)] + pairs
    assert list(zip(found.old, found.new, strict=True)) == expected
    assert found.moved.tolist() == [old for old, _ in pairs]
    assert found.ambiguous == sum(len(s[image]) for image in shared if image not in once for s in places) > 0
    assert sorted([*found.removed, *(old for old, _ in expected)]) == list(range(50))
    assert sorted([*found.added, *(new for _, new in expected)]) == list(range(50))


@pytest.mark.parametrize("small", [False, True])
def test_samples_that_moved_compare_as_if_they_had_not(
    tmp_path: Path, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small:
        small_blocks(monkeypatch, 1)
    plan, old = make_rows(1)
    old_run = write(tmp_path / "old", plan, old)
    stayed = write(tmp_path / "stayed", *make_rows(2))
    plan, rows = make_rows(2, moved_ids(old))
    order = np.random.default_rng(0).permutation(COUNT)
    moved = write(tmp_path / "moved", plan, permute_samples(rows, order))
    summary = of(old_run, moved, out=tmp_path / "out", max_flips=100, min_compared=0)
    assert same_numbers(summary, of(old_run, stayed))
    assert (summary.paired_by_content, summary.ambiguous) == (len(MOVED), 0)
    assert "note        5 samples moved or renamed: paired by the SHA-256 of the image" in compare_text(summary)
    said = read_document(tmp_path / "out/compare.json")
    assert (said["paired_by_content"], said["compare_version"], said["rules"]["samples"]) == (5, 2, RULES["samples"])
    with h5py.File(tmp_path / "out/compare.h5") as table:
        ids = zip(table["sample_id"].asstr()[:], table["new_sample_id"].asstr()[:], strict=True)
        named = dict(zip(old.texts["sample_id"], moved_ids(old), strict=True))
        assert all(other == (named[name] if named[name] != name else "") for name, other in ids)
    with (tmp_path / "out/movers.csv").open(encoding="utf-8") as stream:
        movers = {row["sample_id"]: row["new_sample_id"] for row in csv.DictReader(stream)}
    assert all(other == (named[name] if named[name] != name else "") for name, other in movers.items())
    assert any(movers.values())


def test_a_moved_sample_may_be_labelled_otherwise_which_is_told(tmp_path: Path) -> None:
    plan, old = make_rows(1)
    old_run = write(tmp_path / "old", plan, old)
    plan, new = make_rows(1, moved_ids(old))
    new.columns["label"][[0, 2]] = (new.columns["label"][[0, 2]] + 1) % 5
    summary = of(old_run, write(tmp_path / "new", plan, new))
    assert (summary.relabelled, summary.paired_by_content) == (2, 5)
    assert "2 samples are labelled as different classes" in compare_text(summary)


def test_images_that_stand_several_times_are_left_and_counted(tmp_path: Path) -> None:
    plan, old = make_rows(1)
    for rows in (old,):
        rows.columns["input_sha256"][[2, 6]] = rows.columns["input_sha256"][0]
    old_run = write(tmp_path / "old", plan, old)
    plan, new = make_rows(2, moved_ids(old))
    new.columns["input_sha256"][:] = old.columns["input_sha256"]
    new.columns["input_sha256"][6] ^= 1
    summary = of(old_run, write(tmp_path / "new", plan, new))
    assert (summary.paired_by_content, summary.ambiguous) == (2, 5)
    assert (summary.apart["removed"], summary.apart["added"]) == (3, 3)
    assert "5 removed or added samples not paired: " in compare_text(summary)


def test_runs_whose_samples_all_moved_are_compared_and_runs_of_other_images_refused(tmp_path: Path) -> None:
    plan, old = make_rows(1)
    old_run = write(tmp_path / "old", plan, old)
    plan, new = make_rows(2, moved_ids(old, tuple(range(COUNT))))
    assert of(old_run, write(tmp_path / "new", plan, new)).totals.compared == COUNT - 2
    new.columns["input_sha256"][:, 0] ^= 255
    with pytest.raises(RunError, match=r"^[^\n]*no sample id is in both, and no image by its bytes[^\n]*$"):
        of(old_run, write(tmp_path / "other", plan, new))


def test_changed_inputs_are_left_unless_they_are_to_be_compared(tmp_path: Path) -> None:
    plan, old = make_rows(1)
    old_run, (plan, new) = write(tmp_path / "old", plan, old), make_rows(2)
    same = write(tmp_path / "same", plan, copy.deepcopy(new))
    new.columns["input_sha256"][[0, 2], 31] ^= 1
    new_run = write(tmp_path / "new", plan, new)
    left = of(old_run, new_run)
    assert (left.apart["changed input"], left.changed_inputs, left.totals.compared) == (2, 0, COUNT - 4)
    summary = of(old_run, new_run, changed_inputs="compare")
    assert summary.changed_inputs == 2
    assert same_numbers(summary, of(old_run, same))
    assert "2 samples compared although the image's bytes are others in NEW" in compare_text(summary)


def test_images_whose_digests_only_begin_alike_are_never_compared(tmp_path: Path) -> None:
    plan, old = make_rows(1)
    old_run, (plan, new) = write(tmp_path / "old", plan, old), make_rows(2, moved_ids(old))
    new.columns["input_sha256"][list(MOVED), 8] ^= 1
    new_run = write(tmp_path / "new", plan, new)
    for changed_inputs in ("leave", "compare"):
        assert of(old_run, new_run, changed_inputs=changed_inputs).apart["changed input"] == len(MOVED)


def renamed_pair(tmp_path: Path, names: tuple[str, ...]) -> tuple[Path, Path, Path]:
    """OLD, and NEW with OLD's names and with others."""
    plan, rows = make_rows(2)
    named = write(tmp_path / "named", plan, copy.deepcopy(rows))
    renamed = write(tmp_path / "renamed", dataclasses.replace(plan, class_names=names), rows)
    return write(tmp_path / "old", *make_rows(1)), named, renamed


def test_a_renamed_class_is_the_same_class(tmp_path: Path) -> None:
    old, named, renamed = renamed_pair(tmp_path, (CLASS_NAMES[1], "a=b", *CLASS_NAMES[2:4], "lynx"))
    words = (f"{CLASS_NAMES[0]}={CLASS_NAMES[1]}", f"{CLASS_NAMES[1]}=a=b", f"{CLASS_NAMES[4]}=lynx")
    summary = of(old, renamed, rename=words, same_setup=True, min_compared=0)
    assert same_numbers(summary, of(old, named))
    assert summary.passed
    assert summary.renamed == {CLASS_NAMES[0]: CLASS_NAMES[1], CLASS_NAMES[1]: "a=b", CLASS_NAMES[4]: "lynx"}
    assert f"note        one class by --rename: {CLASS_NAMES[0]} → {CLASS_NAMES[1]}, " in compare_text(summary)


def test_one_checkpoint_whose_classes_were_renamed_on_purpose_is_no_finding(tmp_path: Path) -> None:
    _, named, renamed = renamed_pair(tmp_path, (*CLASS_NAMES[:4], "lynx"))
    assert of(named, renamed, shared_classes=True).findings == 1
    assert of(named, renamed, rename=(f"{CLASS_NAMES[4]}=lynx",)).findings == 0


@pytest.mark.parametrize(
    ("renames", "told"),
    [
        (["fox=dog"], "OLD has no class fox: it has ant, bee, cat$"),
        (["bee=wolf"], "NEW has no class wolf: it has ant, dog, eel$"),
        (["fox=wolf"], "OLD has no class fox: it has ant, bee, cat; NEW has no class wolf: it has ant, dog, eel$"),
        (["bee=dog", "cat=dog"], "another --rename names cat or dog too"),
        (["bee=dog", "bee=eel"], "another --rename names bee or eel too"),
        (["bee=ant"], "OLD has a class ant too: say by another --rename what NEW calls that$"),
        (["ant=dog"], "NEW has a class ant too: say by another --rename which of OLD's that is$"),
    ],
)
def test_a_rename_that_cant_be_meant_is_refused_in_one_line(renames: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--rename {renames[-1]}: {told}"):
        match_classes(("ant", "bee", "cat"), ("ant", "dog", "eel"), True, renames)


def test_a_rename_that_can_be_read_twice_is_refused_and_swaps_and_other_unicode_forms_are_not() -> None:
    with pytest.raises(ConfigError, match="can be read in 2 ways"):
        match_classes(("a", "a=b"), ("c", "b=c"), True, ["a=b=c"])
    assert match_classes(("a", "b"), ("b", "a"), False, ["a=b", "b=a"]).new.tolist() == [0, 1]
    assert match_classes(("é", "b"), ("è", "b"), False, ["é=è"]).new.tolist() == [0, 1]


@pytest.mark.parametrize("text", ["fox", "=fox", "fox=", ""])
def test_a_rename_without_two_names_is_refused_before_any_work(text: str) -> None:
    with pytest.raises(ConfigError, match=f"^--rename {text}: want OLD=NEW"):
        Gates(rename=(text,))


def test_a_run_held_against_itself_renames_nothing() -> None:
    gates = Gates(rename=("a=b", "c=d"), changed_inputs="compare", min_accuracy=50)
    assert gates.of_one_run.words == ["--min-accuracy", "50", "--changed-inputs", "compare"]
