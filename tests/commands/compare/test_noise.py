"""Honest retrainings as the null: what compare says of NEW beside them, and which runs it does not take for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from batchcam.commands.compare.compare import CompareSummary, compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.text import compare_text
from batchcam.errors import ConfigError, RunError
from batchcam.record.noise import Spread
from tests.helpers.run_pairs import COUNT, SPECIAL, make_rows, predict, write
from tests.helpers.synthetic import CLASS_NAMES


def trained(folder: Path, seed: int, spread: float = 0.3, flips: int = 0, **changes: Any) -> Path:
    """Write a run of OLD's samples: OLD's maps and a share of others, of so many samples another class."""
    plan, rows = make_rows(1, **{"checkpoint_sha256": f"{seed:064x}"} | changes)
    rng = np.random.default_rng(seed)
    ordinary = [row for row in range(COUNT) if row not in SPECIAL]
    for row in ordinary:
        predict(rows, row, row % 2, 0.9)
        rows.columns["cams"][row] += spread * rng.normal(size=rows.columns["cams"][row].shape)
    for row in ordinary[:flips]:
        predict(rows, row, 2, 0.8)
    return write(folder, plan, rows)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("old") / "old", 1, spread=0)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("honest")
    return [trained(folder / f"noise {n}", 1 + n, flips=n % 3) for n in (1, 2, 3)]


def of(old: Path, new: Path, noise: list[Path], **options: Any) -> CompareSummary:
    return compare(CompareConfig(old, new, noise=tuple(noise), quiet=True, **options))


def spread_of(summary: CompareSummary, measure: str, class_name: str | None = None) -> Spread:
    assert summary.noise is not None
    (found,) = (s for s in summary.noise.spreads if (s.measure, s.class_name) == (measure, class_name))
    return found


def test_what_retrainings_move_is_what_compare_says_of_each_of_them(
    tmp_path: Path, old: Path, honest: list[Path]
) -> None:
    new = trained(tmp_path / "new", 9, flips=1)
    summary = of(old, new, honest)
    alone = [compare(CompareConfig(old, run, quiet=True)) for run in (*honest, new)]
    for measure in ("flips_percent", "spearman", "cosine", "top_iou", "peak_shift"):
        found = spread_of(summary, measure)
        assert [*found.retrained, found.new] == [getattr(each.totals, measure) for each in alone]
    found = spread_of(summary, "accuracy")
    assert [*found.retrained, found.new] == [each.totals.new_accuracy for each in alone]
    found = spread_of(summary, "spearman", CLASS_NAMES[0])
    assert [*found.retrained, found.new] == [each.classes[0].spearman for each in alone]


def test_an_honest_run_passes_and_one_with_other_maps_is_stopped(tmp_path: Path, old: Path, honest: list[Path]) -> None:
    options = {"min_cam_similarity": "auto", "max_flips": "auto", "min_compared": 80}
    passed = of(old, trained(tmp_path / "new", 9), honest, **options)
    assert passed.passed
    stopped = of(old, trained(tmp_path / "other", 10, spread=6, flips=1), honest, **options)
    assert [gate.option for gate in stopped.gates if not gate.passed] == ["--min-cam-similarity"]
    text = compare_text(stopped)
    assert "NEW's CAMs differ more than retraining does (p " in text
    assert "3 retrainings: similarity 0." in text
    assert "NEW's predictions don't clearly flip more than retraining does (p " in text
    assert "these move more than retraining moves them: ant (p " not in compare_text(passed)
    (gate,) = (gate for gate in stopped.gates if gate.option == "--min-cam-similarity")
    assert "limit by 3 retrainings (0." in gate.reason
    assert "97.5 % of such pass" in gate.reason


def test_a_limit_is_students_prediction_limit_of_fishers_z(tmp_path: Path, old: Path, honest: list[Path]) -> None:
    summary = of(old, trained(tmp_path / "new", 9), honest, min_cam_similarity="auto", min_compared=80)
    z = np.arctanh(spread_of(summary, "spearman").retrained)
    deviation = max(z.std(ddof=1), 1 / (2 * np.sqrt(summary.totals.maps)))
    expected = np.tanh(z.mean() - stats.t.ppf(0.95, 2) * deviation * np.sqrt(4 / 3))
    assert summary.noise is not None
    assert summary.noise.limits == {"min_cam_similarity": pytest.approx(expected, abs=1e-9)}
    assert summary.gates[0].limit == summary.noise.limits["min_cam_similarity"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"preprocessing": {"resize": [48, 80], "mean": [0.4, 0.5, 0.5]}}, "no retraining by OLD's recipe: preproc"),
        ({"architecture": "resnet34"}, "no retraining by OLD's recipe: architecture"),
        ({"class_names": CLASS_NAMES[::-1]}, "other classes than OLD"),
        ({"sample_ids": [f"蝶/фото {i:05d}.png" for i in range(1, COUNT + 1)]}, "other samples than OLD"),
        ({"checkpoint_sha256": f"{1:064x}"}, "has OLD's weights"),
        ({"checkpoint_sha256": f"{2:064x}"}, "noise 1's weights"),
        ({"checkpoint_sha256": f"{9:064x}"}, "has NEW's weights"),
    ],
)
def test_a_run_that_is_no_retraining_is_refused_in_one_line(
    tmp_path: Path, old: Path, honest: list[Path], changes: dict[str, Any], told: str
) -> None:
    other = trained(tmp_path / "other", 20, **changes)
    with pytest.raises((ConfigError, RunError), match=told) as refused:
        of(old, trained(tmp_path / "new", 9), [honest[0], other])
    assert "\n" not in str(refused.value)


def test_old_saved_again_under_another_digest_is_no_retraining(tmp_path: Path, old: Path, honest: list[Path]) -> None:
    again = trained(tmp_path / "again", 30, spread=0)
    with pytest.raises(ConfigError, match="says what OLD says"):
        of(old, trained(tmp_path / "new", 9), [honest[0], again])


def test_one_retraining_and_auto_without_any_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--noise a: one retraining has no spread"):
        CompareConfig("old", "new", noise=("a",)).require_meant(multi_label=False)
    with pytest.raises(ConfigError, match="--max-flips auto: from which retrainings"):
        CompareConfig("old", "new", max_flips="auto")
    with pytest.raises(ConfigError, match="--min-cam-similarity 'fair': expected a number, or auto"):
        CompareConfig("old", "new", min_cam_similarity="fair")


def test_new_of_other_samples_is_not_judged_by_retrainings_of_olds(
    tmp_path: Path, old: Path, honest: list[Path]
) -> None:
    new = trained(tmp_path / "new", 9, sample_ids=[f"蝶/фото {i:05d}.png" for i in range(1, COUNT + 1)])
    with pytest.raises(ConfigError, match=r"NEW has other samples than OLD \(1 removed, 1 added"):
        of(old, new, honest)


def test_new_of_other_classes_is_not_judged_by_retrainings_of_olds(
    tmp_path: Path, old: Path, honest: list[Path]
) -> None:
    new = trained(tmp_path / "new", 9, class_names=("wasp", *CLASS_NAMES[1:]))
    with pytest.raises(ConfigError, match=r"NEW has other classes than OLD .*1 class only in NEW: wasp"):
        of(old, new, honest, shared_classes=True)
    renamed = of(old, new, honest, rename=(f"{CLASS_NAMES[0]}=wasp",))
    assert renamed.noise is not None
    assert {s.class_name for s in renamed.noise.spreads if s.class_name} == {CLASS_NAMES[0]}


def test_new_with_other_labels_has_no_accuracy_beside_that_of_retrainings(
    tmp_path: Path, old: Path, honest: list[Path]
) -> None:
    plan, rows = make_rows(1, checkpoint_sha256=f"{9:064x}")
    rows.columns["label"][0] += 1
    summary = of(old, write(tmp_path / "new", plan, rows), honest)
    assert summary.relabelled == 1
    assert summary.noise is not None
    assert {s.measure for s in summary.noise.spreads if not s.class_name} >= {"flips_percent", "spearman"}
    assert "accuracy" not in {s.measure for s in summary.noise.spreads}


def test_a_retraining_has_olds_images_whatever_new_may_have(tmp_path: Path, old: Path, honest: list[Path]) -> None:
    def of_other_bytes(folder: Path, seed: int) -> Path:
        plan, rows = make_rows(1, checkpoint_sha256=f"{seed:064x}")
        rows.columns["input_sha256"][0, 0] ^= 1
        return write(folder, plan, rows)

    new = of_other_bytes(tmp_path / "new", 9)
    assert of(old, new, honest, changed_inputs="compare").changed_inputs == 1
    other = of_other_bytes(tmp_path / "other", 20)
    with pytest.raises(ConfigError, match=r"other: has other samples than OLD \(1 changed input\)"):
        of(old, new, [honest[0], other], changed_inputs="compare")


def test_a_limit_that_stops_nothing_is_refused(tmp_path: Path, old: Path) -> None:
    wild = [trained(tmp_path / f"wild {n}", 40 + n, spread=spread) for n, spread in enumerate((0.1, 40))]
    with pytest.raises(ConfigError, match=r"2 retrainings make it -.*nothing in common pass: name more, or say"):
        of(old, trained(tmp_path / "new", 9), wild, min_cam_similarity="auto", min_compared=0)


def test_json_has_the_noise_and_is_as_before_without_any(tmp_path: Path, old: Path, honest: list[Path]) -> None:
    new = trained(tmp_path / "new", 9)
    of(old, new, honest, out=tmp_path / "out")
    noise = json.loads((tmp_path / "out" / "compare.json").read_text())["noise"]
    assert noise["runs"] == [str(run) for run in honest]
    assert {"measure", "class_name", "retrained", "new", "p", "corrected_p"} == noise["spreads"][0].keys()
    assert compare(CompareConfig(old, new, quiet=True)).noise is None
