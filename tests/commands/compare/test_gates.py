"""Gates: what they cover, and how sure they are."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchcam.commands.compare.compare import CompareSummary, compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.gates import Gate
from batchcam.commands.compare.text import compare_text
from batchcam.config.gates import Gates
from batchcam.errors import ConfigError
from batchcam.store.document import read_document
from tests.commands.compare.test_movement import judged, random_pairs
from tests.helpers.run_pairs import COUNT, SPECIAL, make_rows, predict, write
from tests.helpers.synthetic import UNLABELLED


def of(old: Path, new: Path, **options: Any) -> CompareSummary:
    return compare(CompareConfig(old, new, quiet=True, **options))


def gate_of(summary: CompareSummary, option: str) -> Gate:
    (gate,) = (gate for gate in summary.gates if gate.option == option)
    return gate


def all_right(tmp_path: Path, lost: tuple[int, ...] = (), unlabelled: tuple[int, ...] = ()) -> tuple[Path, Path]:
    """Two runs that say the same, OLD's answers right, but for samples that are not finite in NEW."""
    plan, old = make_rows(1)
    for row in range(COUNT):
        if row not in SPECIAL:
            predict(old, row, row % 5, 0.9)
    old.columns["label"][[*unlabelled]] = -1
    new = copy.deepcopy(old)
    for row in lost:
        new.columns["status"][row], new.columns["prediction"][row] = 2, -1
        for name in ("logits", "cams", "confidence"):
            new.columns[name][row] = np.nan
    return write(tmp_path / "old", plan, old), write(tmp_path / "new", plan, new)


def test_what_is_finite_in_old_alone_is_a_broken_flip_and_a_wrong_answer(tmp_path: Path) -> None:
    lost = (0, 1, UNLABELLED)
    pair = all_right(tmp_path, lost)
    summary = of(*pair, max_flips=0, max_accuracy_drop=0, min_compared=80, out=tmp_path / "out")
    t = summary.totals
    assert (t.compared, t.not_finite, t.flips, t.broken, t.fixed, t.changed) == (19, 3, 3, 3, 0, 0)
    assert t.accuracy_drop == pytest.approx(100 * 2 / 18)
    assert [gate.passed for gate in summary.gates[:2]] == [False, False]
    assert [m.reason for m in summary.movers] == ["broken"] * 3
    text = compare_text(summary)
    assert "0.944 (0.74–0.99, n 18) → 0.833 (0.61–0.94, n 18), -11.11 points (-" in text
    assert "3 broken, 0 changed; of the broken 3 are not finite in NEW" in text
    assert "→ not finite" in text
    assert read_document(tmp_path / "out/compare.json")["totals"]["not_finite"] == 3


def test_one_label_is_no_evidence_of_an_accuracy(tmp_path: Path) -> None:
    pair = all_right(tmp_path, unlabelled=tuple(range(1, COUNT)))
    summary = of(*pair, max_accuracy_drop=0, min_compared=85)
    assert gate_of(summary, "--max-accuracy-drop").passed
    assert gate_of(summary, "--max-accuracy-drop").not_judged[-1] == "18 without one label in both"
    labels = summary.gates[-1]
    assert (labels.option, labels.passed, labels.value) == ("--min-compared", False, pytest.approx(5))
    assert not summary.passed
    assert of(*pair, max_accuracy_drop=0, min_compared=0).passed
    assert of(*pair, max_flips=0, min_compared=85).passed


def test_a_class_gate_that_judges_few_classes_does_not_pass(tmp_path: Path) -> None:
    pair = all_right(tmp_path)
    summary = of(*pair, max_count_shift=0, min_compared=85)
    assert [gate.passed for gate in summary.gates] == [False, True, False]
    assert (
        "0 of 5 classes could be judged by --max-count-shift (5 with fewer than 10 predictions"
        in summary.gates[2].reason
    )


def pairs_of(lost: int, won: int, kept: int, wrong: int) -> Any:
    """Samples of one class, by what becomes of their predictions."""
    count = lost + won + kept + wrong
    kinds = np.repeat([0, 1, 2, 3], [lost, won, kept, wrong])
    old, new = np.where(np.isin(kinds, (0, 2)), 0, 1), np.where(np.isin(kinds, (1, 2)), 0, 1)
    flip = np.array([2, 1, 0, 0], np.uint8)[kinds]
    return dataclasses.replace(
        random_pairs(count), label=np.zeros(count, int), old_prediction=old, new_prediction=new, flip=flip
    )


@pytest.mark.parametrize(
    ("lost", "won", "verdict", "passed"),
    [
        (40, 0, "exceeded", {"estimate": False, "proven-within": False, "proven-beyond": False}),
        (12, 0, "undecided", {"estimate": False, "proven-within": False, "proven-beyond": True}),
        (8, 2, "undecided", {"estimate": True, "proven-within": False, "proven-beyond": True}),
        (0, 20, "passed", {"estimate": True, "proven-within": True, "proven-beyond": True}),
    ],
)
def test_who_decides_where_the_interval_holds_the_limit(lost, won, verdict, passed) -> None:
    pairs = pairs_of(lost, won, 150, 200 - 150 - lost - won)
    for decide, expected in passed.items():
        (gate,) = judged(pairs, max_accuracy_drop=5, decide=decide)
        assert (gate.verdict, gate.passed) == (verdict, expected), decide
        assert gate.low < gate.value < gate.high
        assert ("UNDECIDED" in gate.reason) == (verdict == "undecided") == (gate.needed is not None)


def test_as_many_samples_as_are_said_to_decide_do() -> None:
    (gate,) = judged(pairs_of(8, 2, 150, 40), max_accuracy_drop=5)
    assert f"about {gate.needed} would decide" in gate.reason
    times = gate.needed / 200
    (more,) = judged(pairs_of(*(round(times * n) for n in (8, 2, 150, 40))), max_accuracy_drop=5)
    assert more.verdict == "passed"
    (fewer,) = judged(pairs_of(*(round(0.7 * times * n) for n in (8, 2, 150, 40))), max_accuracy_drop=5)
    assert fewer.verdict == "undecided"


def test_an_equally_good_model_is_seldom_proven_to_be_beyond() -> None:
    rng, stopped = np.random.default_rng(0), 0
    drawn, times = np.unique(rng.multinomial(200, [0.05, 0.05, 0.9], 2000)[:, :2], axis=0, return_counts=True)
    for (lost, won), count in zip(drawn.tolist(), times.tolist(), strict=True):
        (gate,) = judged(pairs_of(lost, won, 150, 50 - lost - won), max_accuracy_drop=2, decide="proven-beyond")
        stopped += count * (not gate.passed)
    assert stopped / 2000 <= 0.05


def test_a_higher_confidence_is_a_wider_interval() -> None:
    first, second = (judged(pairs_of(12, 2, 150, 36), max_accuracy_drop=2, confidence=p)[0] for p in (80, 99))
    assert second.low < first.low < first.value == second.value < first.high < second.high


def test_a_rise_is_told_as_one_and_may_be_limited() -> None:
    pairs = pairs_of(0, 26, 150, 24)
    drop, rise = judged(pairs, max_accuracy_drop=1, max_accuracy_rise=3)
    assert "a rise of 13 (" in drop.reason
    assert "a rise of 13 (" in rise.reason
    assert (drop.passed, drop.value, rise.passed, rise.value) == (True, -13, False, 13)
    assert (rise.low, rise.high) == pytest.approx((-drop.high, -drop.low))
    assert "exact McNemar p 3e-08" in drop.reason


def test_an_accuracy_that_is_too_low_is_missed() -> None:
    (gate,) = judged(pairs_of(4, 2, 150, 44), min_accuracy=80)
    assert (gate.value, gate.verdict, gate.passed) == (76, "undecided", False)
    (gate,) = judged(pairs_of(4, 2, 150, 44), min_accuracy=90)
    assert "--min-accuracy 90: missed: accuracy of 76 (" in gate.reason


def test_an_accuracy_of_one_or_less_is_asked_about() -> None:
    with pytest.raises(ConfigError, match=r"--min-accuracy 0\.9: in per cent: say 90 for 0\.900"):
        Gates(min_accuracy=0.9)
    with pytest.raises(ConfigError, match="--min-accuracy: multi-label runs have no accuracy"):
        Gates(min_accuracy=90).require_meant(multi_label=True)


def test_a_class_that_is_predicted_far_more_or_less_often_is_told() -> None:
    old = np.repeat([0, 1, 2], [200, 200, 4])
    new = np.concatenate([np.repeat([0, 1], [80, 120]), old[200:]])
    pairs = dataclasses.replace(random_pairs(404), old_prediction=old, new_prediction=new)
    (gate,) = judged(pairs, max_count_shift=35)
    assert gate.value == pytest.approx(60)
    assert "60 (" in gate.reason
    assert "% fewer samples predicted as ant, 200 → 80" in gate.reason
    assert gate.not_judged == ("1 with fewer than 10 predictions in either run",)
    assert (gate.verdict, gate.low < 60 < gate.high) == ("exceeded", True)


def test_intervals_of_classes_are_corrected_for_how_many_there_are() -> None:
    rng = np.random.default_rng(1)
    names = tuple(f"class {k}" for k in range(40))
    stopped = {"corrected": 0, "alone": 0}
    for _ in range(60):
        map_class = np.repeat(np.arange(40), 20)
        alike = np.clip(0.5 + 0.2 * rng.normal(size=800), -1, 1)
        pairs = dataclasses.replace(
            random_pairs(800), map_class=map_class, spearman=alike, pairing=np.zeros(800, np.uint8)
        )
        (gate,) = judged(pairs, names, min_class_similarity=0.5, decide="proven-beyond")
        stopped["corrected"] += not gate.passed
        assert "the worst of 40, corrected for that by Holm" in gate.reason
        alone = [
            judged(pairs.take(map_class == k), names, min_class_similarity=0.5, decide="proven-beyond")
            for k in range(5)
        ]
        stopped["alone"] += any(not gate.passed for (gate,) in alone)
    assert stopped["corrected"] <= 6
    assert stopped["alone"] > 0


def test_another_setup_is_told_and_stopped_where_that_is_asked_for(tmp_path: Path) -> None:
    plan, rows = make_rows(1)
    other = dataclasses.replace(plan, precision="fp16", preprocessing={**plan.preprocessing, "mean": [0.1, 0.2, 0.3]})
    old, new = write(tmp_path / "old", plan, rows), write(tmp_path / "new", other, rows)
    summary = of(old, new, same_setup=True)
    assert (summary.passed, len(summary.gates)) == (False, 1)
    note = next(note for note in summary.notes if note.startswith("the runs differ in"))
    for text in ("precision fp32 → fp16", "preprocessing mean", "→ [0.1, 0.2, 0.3]"):
        assert text in summary.gates[0].reason
        assert text in note
    assert of(old, old, same_setup=True).passed
    assert of(old, new).passed


def test_the_verdict_comes_first(tmp_path: Path) -> None:
    pair = all_right(tmp_path, (0, 1))
    first, second, *_ = compare_text(of(*pair, max_flips=5, min_accuracy=10, min_compared=0)).splitlines()
    assert first == "verdict     STOPPED by --max-flips; 1 of 2 gates undecided"
    assert "--max-flips 5:" in second
    assert compare_text(of(*pair, min_accuracy=10, min_compared=0)).startswith("verdict     passed")
    assert not compare_text(of(*pair)).startswith("verdict")


def test_who_decides_is_asked_only_where_a_limit_is() -> None:
    for gates in ({}, {"same_setup": True}, {"min_compared": 99}):
        with pytest.raises(ConfigError, match="--decide proven-within: of which gate"):
            CompareConfig("old", "new", decide="proven-within", **gates)
    CompareConfig("old", "new", decide="proven-within", max_flips=1)
