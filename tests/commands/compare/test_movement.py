"""Matching, flips, tables and gates: against plain loops and hand-made samples."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from batchcam.commands.compare.gates import Gate, judge_gates
from batchcam.commands.compare.matching import Apart, match_classes, match_ids, why_apart
from batchcam.commands.compare.movement import (
    ClassMovement,
    Flip,
    Movement,
    Pairing,
    Pairs,
    Totals,
    judge,
    movers,
    same_view,
)
from batchcam.commands.compare.values import Moved
from batchcam.config.gates import Gates
from batchcam.errors import ConfigError

NAMES = ("ant", "bee", "cat")


def ids(*texts: str) -> np.ndarray:
    return np.array([t.encode() for t in texts])


def random_pairs(count: int = 200, seed: int = 0) -> Pairs:
    rng = np.random.default_rng(seed)
    label, old, new = rng.integers(-1, 3, count), rng.integers(0, 3, count), rng.integers(0, 3, count)
    pairing = rng.choice([0, 0, 0, 2, 5], count).astype(np.uint8)
    measures = {
        name: np.where(pairing == 0, rng.uniform(-1, 1, count), np.nan)
        for name in ("spearman", "cosine", "top_iou", "peak_shift")
    }
    confidence = rng.uniform(0.4, 1, (2, count)).astype(np.float32)
    return Pairs(
        old_row=np.arange(count),
        new_row=np.arange(count),
        label=label,
        old_prediction=old,
        new_prediction=new,
        flip=judge(label, old, new),
        old_confidence=confidence[0],
        new_confidence=confidence[1],
        map_class=old,
        old_logit=rng.normal(size=count).astype(np.float32),
        new_logit=rng.normal(size=count).astype(np.float32),
        pairing=pairing,
        labels=np.empty((count, 0), np.int8),
        flips=np.empty((count, 0), np.uint8),
        mistake=confidence[1].astype(float),
        **measures,
    )


def counted(pairs: Pairs, names: tuple[str, ...] = NAMES, most: int = 0, size: int = 7) -> Movement:
    """What moved, told in parts of `size` samples."""
    movement = Movement(names, most)
    for start in range(0, len(pairs.label), size):
        movement.add(pairs.take(np.arange(start, min(start + size, len(pairs.label)))))
    return movement


def total(pairs: Pairs) -> Totals:
    return counted(pairs).totals()


def by_class(pairs: Pairs, names: tuple[str, ...]) -> list[ClassMovement]:
    return counted(pairs, names).classes()


def test_ids_are_matched_as_a_dictionary_would() -> None:
    rng = np.random.default_rng(0)
    old = [f"ж/{i}.png" for i in rng.permutation(500)[:300]]
    new = [f"ж/{i}.png" for i in rng.permutation(500)[:350]]
    found = match_ids(ids(*old), ids(*new))
    places = {text: row for row, text in enumerate(new)}
    expected = [(row, places[text]) for row, text in enumerate(old) if text in places]
    assert list(zip(found.old.tolist(), found.new.tolist(), strict=True)) == expected
    assert [old[i] for i in found.removed] == [t for t in old if t not in places]
    assert [new[i] for i in found.added] == [t for t in new if t not in set(old)]


def test_ids_of_other_widths_and_ids_that_begin_alike_are_not_confused() -> None:
    found = match_ids(ids("a", "ab", "abc"), ids("abcdefgh", "abc", "a"))
    assert (found.old.tolist(), found.new.tolist()) == ([0, 2], [2, 1])
    assert (found.removed.tolist(), found.added.tolist()) == ([1], [0])


@pytest.mark.parametrize(("old", "new", "side"), [("aab", "abc", "OLD"), ("abc", "bcb", "NEW")])
def test_an_id_that_stands_twice_is_refused(old: str, new: str, side: str) -> None:
    with pytest.raises(ValueError, match=f"twice in {side}"):
        match_ids(ids(*old), ids(*new))


def test_equal_class_lists_are_matched_even_where_a_name_stands_twice() -> None:
    classes = match_classes(("crane", "crane", "ox"), ("crane", "crane", "ox"), False)
    assert classes.number(np.array([-1, 0, 1, 2]), classes.new).tolist() == [-1, 0, 1, 2]


def test_permuted_classes_are_matched_by_name() -> None:
    classes = match_classes(NAMES, ("cat", "ant", "bee"), False)
    numbers = classes.number(np.array([0, 1, 2, -1]), classes.new)
    assert [(*classes.names, None)[n] for n in numbers] == ["cat", "ant", "bee", None]
    assert classes.index(numbers, classes.new).tolist() == [0, 1, 2, -1]


def test_classes_that_one_run_alone_has_are_refused_by_name_unless_wanted() -> None:
    with pytest.raises(ConfigError, match=r"only in OLD: bee; 2 classes only in NEW: dog, eel; --shared-classes"):
        match_classes(NAMES, ("eel", "cat", "dog", "ant")[::-1], False)
    with pytest.raises(ConfigError, match=r"classes differ: 1 class only in NEW: dog"):
        match_classes(NAMES, (*NAMES, "dog"), False)
    classes = match_classes(NAMES, ("dog", "cat", "ant"), True)
    assert classes.names == ("ant", "bee", "cat", "dog")
    assert (classes.only_old, classes.only_new) == (("bee",), ("dog",))
    assert classes.number(np.array([0, 1, 2]), classes.new).tolist() == [3, 2, 0]
    assert classes.index(np.array([0, 1, 2, 3, -1]), classes.new).tolist() == [2, -1, 1, 0, -1]
    assert classes.index(np.array([0, 1, 2, 3, -1]), classes.old).tolist() == [0, 1, 2, -1, -1]


def test_runs_without_a_shared_class_are_refused_in_any_case() -> None:
    with pytest.raises(ConfigError, match=r"no class is in both runs: OLD has ant, bee, cat; NEW has x"):
        match_classes(NAMES, ("x",), True)


def test_a_name_that_stands_twice_cant_be_matched_with_another_list() -> None:
    with pytest.raises(ConfigError, match="one stands twice"):
        match_classes(("crane", "crane"), ("crane", "ox"), True)


def test_reasons_against_a_comparison_come_in_their_order() -> None:
    rows = [  # old status, new status, old and new usable, same input
        (0, 0, True, True, True, Apart.COMPARED),
        (4, 8, True, True, True, Apart.COMPARED),
        (1, 1, False, False, True, Apart.UNREADABLE_IN_BOTH),
        (1, 0, False, True, False, Apart.UNREADABLE_IN_OLD),
        (2, 1, False, False, False, Apart.UNREADABLE_IN_NEW),
        (0, 0, True, True, False, Apart.CHANGED_INPUT),
        (2, 0, True, True, False, Apart.CHANGED_INPUT),
        (2, 2, True, True, True, Apart.NOT_FINITE_IN_BOTH),
        (2, 0, True, True, True, Apart.NOT_FINITE_IN_OLD),
        (0, 0, True, False, True, Apart.COMPARED),  # which is a broken flip
    ]
    old, new, old_usable, new_usable, same, expected = (np.array(column) for column in zip(*rows, strict=True))
    found = why_apart(old.astype(np.uint8), new.astype(np.uint8), old_usable, new_usable, same)
    assert found.tolist() == expected.tolist()


def test_flips_are_judged_by_the_label() -> None:
    rows = [  # label, old, new
        (0, 0, 0, Flip.SAME),
        (1, 0, 0, Flip.SAME),
        (1, 0, 1, Flip.FIXED),
        (0, 0, 1, Flip.BROKEN),
        (2, 0, 1, Flip.CHANGED),
        (-1, 0, 1, Flip.CHANGED),
        (-1, 1, 1, Flip.SAME),
        (0, 0, -1, Flip.BROKEN),
        (0, 1, -1, Flip.BROKEN),
        (-1, 0, -1, Flip.BROKEN),
    ]
    label, old, new, expected = (np.array(column) for column in zip(*rows, strict=True))
    assert judge(label, old, new).tolist() == expected.tolist()


def test_views_are_the_same_when_all_edges_agree_to_a_pixel() -> None:
    box = np.array([[0, 0, 100, 60]] * 4, np.float32)
    other = box + np.array([[0, 0, 0, 0], [1, -1, 1, 1], [0, 0, 0, 1.25], [np.nan, 0, 0, 0]], np.float32)
    assert same_view(box, other).tolist() == [True, True, False, False]


def test_totals_equal_those_of_plain_loops() -> None:
    pairs = random_pairs()
    rows = [dict(zip(("label", "old", "new"), r, strict=True)) for r in np.stack(
        [pairs.label, pairs.old_prediction, pairs.new_prediction], 1).tolist()]  # fmt: skip
    flipped = [r for r in rows if r["old"] != r["new"]]
    labelled = [r for r in rows if r["label"] >= 0]
    right = {side: sum(r[side] == r["label"] for r in labelled) for side in ("old", "new")}
    found = total(pairs)
    assert (found.compared, found.labelled, found.flips) == (200, len(labelled), len(flipped))
    assert found.fixed == sum(r["new"] == r["label"] for r in flipped)
    assert found.broken == sum(r["old"] == r["label"] for r in flipped)
    assert found.fixed + found.broken + found.changed == found.flips
    assert found.flips_percent == pytest.approx(len(flipped) / 2)
    assert found.accuracy_drop == pytest.approx(100 * (right["old"] - right["new"]) / len(labelled))
    values = sorted(v for v in pairs.spearman.tolist() if not math.isnan(v))
    assert found.maps == len(values)
    assert found.spearman == pytest.approx(sum(values) / len(values))
    assert sum(v < found.spearman_median for v in values) == pytest.approx(len(values) / 2, abs=1)
    assert found.without_maps == {
        "not stored": int((pairs.pairing == 2).sum()),
        "constant in both": int((pairs.pairing == 5).sum()),
    }


def test_the_table_of_classes_equals_that_of_plain_loops() -> None:
    pairs = random_pairs(seed=1)
    for index, found in enumerate(by_class(pairs, NAMES)):
        mine = [i for i in range(200) if pairs.label[i] == index]
        was = [i for i in range(200) if pairs.old_prediction[i] == index]
        alike = [pairs.spearman[i] for i in was if pairs.pairing[i] == Pairing.MEASURED]
        assert found.name == NAMES[index]
        assert found.labelled == len(mine)
        assert found.old_correct == sum(pairs.old_prediction[i] == index for i in mine)
        assert found.new_correct == sum(pairs.new_prediction[i] == index for i in mine)
        assert found.fixed == sum(pairs.old_prediction[i] != index == pairs.new_prediction[i] for i in mine)
        assert found.broken == sum(pairs.old_prediction[i] == index != pairs.new_prediction[i] for i in mine)
        assert (found.old_predicted, found.new_predicted) == (len(was), int((pairs.new_prediction == index).sum()))
        assert found.left == sum(pairs.new_prediction[i] != index for i in was)
        assert found.maps == len(alike)
        assert found.spearman == pytest.approx(sum(alike) / len(alike))
        changes = [float(pairs.new_logit[i]) - float(pairs.old_logit[i]) for i in was]
        assert found.logit_change == pytest.approx(sum(changes) / len(changes))


def test_a_class_without_samples_has_counts_of_zero_and_no_means() -> None:
    extra = by_class(random_pairs(), (*NAMES, "dog"))[3]
    assert (extra.labelled, extra.maps, extra.accuracy_drop, extra.spearman) == (0, 0, None, None)


def test_transitions_are_counted_most_frequent_first() -> None:
    pairs = random_pairs(seed=2)
    counts: dict[tuple[str, str], int] = {}
    for old, new in zip(pairs.old_prediction.tolist(), pairs.new_prediction.tolist(), strict=True):
        if old != new:
            counts[NAMES[old], NAMES[new]] = counts.get((NAMES[old], NAMES[new]), 0) + 1
    expected = sorted(counts.items(), key=lambda c: (-c[1], NAMES.index(c[0][0]), NAMES.index(c[0][1])))
    assert [((t.old, t.new), t.count) for t in counted(pairs).transitions(4)] == expected[:4]


def test_movers_are_broken_ones_then_the_least_alike_then_the_largest_losses_each_once() -> None:
    pairs = dataclasses.replace(
        random_pairs(6),
        flip=np.array([2, 0, 2, 0, 0, 0], np.uint8),
        old_confidence=np.array([0.9, 0.9, 0.9, 0.9, 0.9, 0.5], np.float32),
        new_confidence=np.array([0.5, 0.8, 0.7, 0.2, 0.9, 0.9], np.float32),
        mistake=np.array([0.5, 0.8, 0.7, 0.2, 0.9, 0.9]),
        spearman=np.array([0.1, 0.5, 0.9, np.nan, 1.0, -0.5]),
    )
    assert list(movers(pairs, 10)) == [
        (2, "broken"),  # surer of its mistake than the next
        (0, "broken"),
        (5, "similarity"),
        (1, "similarity"),
        (3, "confidence"),
    ]
    assert list(movers(pairs, 1)) == [(2, "broken"), (5, "similarity"), (3, "confidence")]
    assert list(movers(pairs, 0)) == []


@pytest.mark.parametrize("most", [0, 1, 3, 20])
def test_movers_of_parts_are_those_of_all_samples_at_once(most: int) -> None:
    pairs = random_pairs(300, seed=3)
    pairs = dataclasses.replace(pairs, spearman=pairs.spearman.round(1))  # many equal ones
    found = [(int(some.old_row[row]), reason) for some, row, reason in counted(pairs, most=most).movers()]
    assert found == list(movers(pairs, most))


def test_parts_of_any_size_give_the_same_numbers_to_the_last_bit() -> None:
    pairs = random_pairs(500, seed=4)
    whole, parts = counted(pairs, size=500), counted(pairs, size=3)
    assert whole.totals() == parts.totals()
    assert whole.classes() == parts.classes()


def judged(pairs: Pairs, names: tuple[str, ...] = NAMES, **asked: Any) -> tuple[Gate, ...]:
    """The gates alone, without those on how much could be judged."""
    movement = Movement(names)
    movement.add(pairs)
    moved = Moved(
        movement.totals(), movement.classes(), (), samples=len(pairs.label), labelled=len(pairs.label), apart={}
    )
    return judge_gates(moved, Gates(**{"min_compared": 0, **asked}))


def gates_of(pairs: Pairs, **limits: Any) -> tuple[bool, ...]:
    return tuple(gate.passed for gate in judged(pairs, **limits))


def test_gates_pass_at_their_limit_and_not_beyond() -> None:
    label = np.zeros(1000, np.int64)
    new = np.where(np.arange(1000) < 29, 1, 0)
    pairs = dataclasses.replace(
        random_pairs(1000),
        label=label,
        old_prediction=label,
        new_prediction=new,
        flip=judge(label, label, new),
        spearman=np.full(1000, 0.3),
    )
    assert gates_of(pairs, max_flips=2.9, max_accuracy_drop=2.9, min_cam_similarity=0.3) == (True, True, True)
    assert gates_of(pairs, max_flips=2.89, max_accuracy_drop=2.89, min_cam_similarity=0.301) == (False, False, False)
    assert gates_of(pairs) == ()
    (gate,) = judged(pairs, max_flips=1.5)
    low, high = (100 * end for end in binomtest(29, 1000).proportion_ci(method="wilson"))
    text = f"2.9 ({low:.3g} to {high:.3g}) % of 1000 compared samples flipped"
    assert gate.reason == f"--max-flips 1.5: exceeded: {text}"
    assert (gate.option, gate.limit, gate.value) == ("--max-flips", 1.5, 2.9)


def test_a_gate_with_nothing_to_judge_by_does_not_pass() -> None:
    nothing = random_pairs(0)
    assert gates_of(nothing, max_flips=100, max_accuracy_drop=100, min_cam_similarity=-1) == (False, False, False)
    unlabelled = dataclasses.replace(random_pairs(9), label=np.full(9, -1))
    (gate,) = judged(unlabelled, max_accuracy_drop=100)
    assert gate.value is None
    assert "no sample is labelled in both" in gate.reason


def test_a_gain_in_accuracy_passes() -> None:
    label, old = np.zeros(4, np.int64), np.ones(4, np.int64)
    fixed = np.full(4, Flip.FIXED, np.uint8)
    pairs = dataclasses.replace(random_pairs(4), label=label, old_prediction=old, new_prediction=label, flip=fixed)
    assert gates_of(pairs, max_accuracy_drop=0) == (True,)


def test_the_class_whose_maps_moved_most_is_judged_alone_if_it_has_ten_pairs() -> None:
    names = ("ant", "{bee}", "cat")
    map_class = np.repeat([0, 1, 2], [50, 10, 9])
    alike = np.array([0.9, 0.1, -0.5])[map_class]
    measured = np.full(len(alike), Pairing.MEASURED, np.uint8)
    pairs = dataclasses.replace(random_pairs(len(alike)), map_class=map_class, spearman=alike, pairing=measured)
    for limit, passed in ((0.1, True), (0.2, False)):
        (gate,) = judged(pairs, names, min_class_similarity=limit)
        assert gate.passed == passed
        assert gate.value == pytest.approx(0.1)
    assert gate.reason == (
        "--min-class-similarity 0.2: missed: mean similarity 0.1 (0.1 to 0.1) over 10 pairs of maps of {bee}; the "
        "worst of 2, corrected for that by Holm; not judged: 1 with fewer than 10 pairs of maps"
    )
    (gate,) = judged(pairs.take(np.flatnonzero(map_class == 2)), names, min_class_similarity=-1)
    assert (gate.value, gate.passed) == (None, False)
    assert "no sample is of a class with 10 pairs of maps" in gate.reason
