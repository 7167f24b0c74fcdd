"""Intervals over patients, against plain counts over the images."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import statsmodels.api as sm
import torch
from PIL import Image
from scipy.stats import norm, t

from batchcam import open_run
from batchcam.commands.compare.compare import CompareSummary, compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.text import compare_text
from batchcam.commands.evaluate.config import EvaluateConfig
from batchcam.commands.evaluate.evaluate import evaluate
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.faithfulness.config import FaithfulnessConfig
from batchcam.commands.faithfulness.faithfulness import faithfulness
from batchcam.commands.info.command import info
from batchcam.commands.info.config import InfoConfig
from batchcam.commands.localize.config import LocalizeConfig
from batchcam.commands.localize.localize import LocalizeSummary, localize
from batchcam.commands.localize.protocol import Tally, Verdict
from batchcam.commands.localize.scores import errors as box_errors
from batchcam.commands.report.config import ReportConfig
from batchcam.commands.report.report import report
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import ConfigError
from batchcam.record.clusters import design_of
from batchcam.record.intervals import needed, wilson
from tests.helpers.networks import GapNetwork, seeded

CLASSES = ("ant", "bee", "cat")
PATIENTS, EACH = 12, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Classifier]:
    """Two runs of four images each of twelve patients, which are alike, and the network of the first."""
    folder = tmp_path_factory.mktemp("clusters")
    rows, boxes = ["path,label,patient,ward,room"], ["sample_id,x0,y0,x1,y1"]
    for number in range(PATIENTS * EACH):
        patient, rng = number // EACH, np.random.default_rng(number)
        colour = np.random.default_rng(1000 + patient).integers(0, 256, (1, 1, 3))
        pixels = colour + rng.integers(-60, 60, (16, 16, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")
        own = f"p{patient}" if patient else ""
        rows.append(f"{number:02d}.png,{CLASSES[patient % 3]},p{patient},w,{own}")
        boxes.append(f"{number:02d}.png,{patient % 6},3,{patient % 6 + 8},12")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    (folder / "boxes.csv").write_text("\n".join(boxes) + "\n")
    (folder / "names.txt").write_text("\n".join(CLASSES))
    classifiers = {}
    for run, seed in (("old", 3), ("new", 24)):
        torch.save(seeded(GapNetwork, seed).state_dict(), folder / f"{run}.pth")
        told = {"model": "tests.helpers.networks:GapNetwork", "preprocess": "stl10", "image_size": "16"}
        classifier = Classifier(folder / f"{run}.pth", class_names=folder / "names.txt", **told)
        compute = Compute(batch_size=8, workers=0, threads=1, device="cpu")
        explain(ExplainConfig(classifier, str(folder / "list.csv"), folder / run, compute=compute, quiet=True))
        classifiers[run] = classifier
    return folder / "old", folder / "new", classifiers["old"]


def compared(made: tuple[Path, Path, Classifier], **options: Any) -> CompareSummary:
    return compare(CompareConfig(*made[:2], quiet=True, **options))


def over_patients(values: np.ndarray, groups: np.ndarray) -> tuple[float, float, float]:
    """Return mean, standard error and half of the interval of a mean, by regression with clustered errors."""
    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    return float(fit.params[0]), float(fit.bse[0]), float(np.diff(fit.conf_int()[0])[0] / 2)


def columns(made: tuple[Path, Path, Classifier]) -> dict[str, np.ndarray]:
    with open_run(made[0]) as old, open_run(made[1]) as new:
        label, patients = old.label[:], np.unique(old["meta/patient"][:], return_inverse=True)[1]
        return {"label": label, "patient": patients, "old": old.prediction[:], "new": new.prediction[:]}


@pytest.mark.parametrize("column", ["patient", "meta/patient"])
def test_flips_over_patients_are_wilsons_of_the_effective_number_of_images(made, column: str) -> None:
    told = columns(made)
    flips = (told["old"] != told["new"]).astype(float)
    assert 0 < flips.mean() < 1
    share, error, _ = over_patients(flips, told["patient"])

    summary = compared(made, cluster=column)

    assert (summary.clusters, summary.totals.compared) == (PATIENTS, 48)
    effect = error**2 / (flips.var(ddof=1) / 48)
    assert summary.design_effects["flips"] == pytest.approx(effect)
    n = 48 / effect * (norm.ppf(0.975) / t.ppf(0.975, PATIENTS - 1)) ** 2
    expected = [100 * end for end in wilson(share * n, n) or ()]
    assert summary.intervals["flips_percent"] == pytest.approx(expected, rel=1e-3)


def test_over_patients_intervals_are_wider_and_gates_are_judged_by_them(made) -> None:
    plain, clustered = (
        compared(made, cluster=cluster, max_flips=90, min_cam_similarity=-1, group_by=("ward",), max_group_drop=99)
        for cluster in (None, "patient")
    )
    for gate, other in zip(plain.gates, clustered.gates, strict=True):
        if gate.low is not None:
            assert gate.value == other.value
            assert other.high - other.low > 1.2 * (gate.high - gate.low), gate.option
    assert clustered.groups[0].flips_interval == pytest.approx(
        [end / 100 for end in clustered.intervals["flips_percent"]]
    )
    assert (plain.cluster, plain.clusters, plain.design_effects) == (None, None, {})
    assert any("48 samples in 12 clusters by patient" in line for line in compare_text(clustered).splitlines())


def test_the_similarity_of_maps_is_that_of_regression_with_clustered_errors(made, tmp_path: Path) -> None:
    summary = compared(made, cluster="patient", out=tmp_path / "out")
    with h5py.File(tmp_path / "out" / "compare.h5") as file:
        values, groups = file["spearman"][:], np.unique(file["meta/patient"][:], return_inverse=True)[1]
    known = np.isfinite(values)
    mean, _, half = over_patients(values[known], groups[known])
    assert summary.intervals["spearman"] == pytest.approx((mean - half, mean + half))


def test_images_without_a_patient_are_patients_of_their_own(made) -> None:
    summary = compared(made, cluster="room")

    assert summary.clusters == 11 + EACH
    assert any(note.startswith("4 samples without a value of room") for note in summary.notes)


def test_one_cluster_or_no_such_column_is_refused(made) -> None:
    for ask in (
        lambda column: compared(made, cluster=column),
        lambda column: localized(made, cluster=column),
        lambda column: measured(made, cluster=column, samples=2),
    ):
        with pytest.raises(ConfigError, match="--cluster ward: all samples are of one ward"):
            ask("ward")
        with pytest.raises(ConfigError, match="no column 'site'; it has patient, room, ward"):
            ask("site")


def test_the_error_of_boxes_found_is_that_of_leaving_out_one_sample_after_the_other() -> None:
    found, parts = np.random.default_rng(0).random((40, 3)) < [0.8, 0.5, 0.2], {}
    for number, levels in enumerate(found):
        flags = np.zeros((2, 3, 1000), bool)
        flags[:, :, 500] = levels
        parts[number] = Tally()
        parts[number].add(Verdict(flags, None, None, None, math.nan), right=True)
    nothing = np.zeros(0, np.int64)
    judged = SimpleNamespace(
        group_tallies=parts, rows=nothing, columns={"points": nothing}, classes=nothing, groups=nothing
    )

    errors = box_errors(judged, sum(parts.values(), Tally()))

    assert errors["max_box_acc_v2"] == pytest.approx(100 * found.mean(1).std(ddof=1) / 40**0.5)
    assert errors["top_1_loc"] == pytest.approx(100 * found[:, 1].std(ddof=1) / 40**0.5)


def localized(made: tuple[Path, Path, Classifier], **options: Any) -> LocalizeSummary:
    boxes = made[0].with_name("boxes.csv")
    return localize(LocalizeConfig(made[0], boxes, target="predicted", quiet=True, workers=1, **options))


def test_localisation_over_patients_is_that_of_plain_means(made, tmp_path: Path) -> None:
    plain, clustered = (localized(made, cluster=cluster, out=tmp_path / str(cluster)) for cluster in (None, "patient"))
    table = np.genfromtxt(tmp_path / "None" / "localize.csv", delimiter=",", names=True, encoding="utf-8")
    known = np.isfinite(table["energy"])
    mean, _, half = over_patients(table["energy"][known], columns(made)["patient"][known])
    assert clustered.scores["energy_inside"].interval == pytest.approx(
        (100 * (mean - half), 100 * (mean + half)), rel=1e-4
    )
    hits = int(table["peak_inside"].sum())
    assert plain.scores["peak_inside"].interval == pytest.approx([100 * end for end in wilson(hits, 48) or ()])
    for name in ("peak_inside", "pointing_game"):
        (low, high), (lower, higher) = plain.scores[name].interval, clustered.scores[name].interval
        assert low <= plain.scores[name].percent <= high
        assert higher - lower > high - low, name
    assert (plain.clusters, clustered.clusters) == (None, PATIENTS)


def measured(made: tuple[Path, Path, Classifier], **options: Any) -> Any:
    data = str(made[0].with_name("list.csv"))
    return faithfulness(
        FaithfulnessConfig(made[0], made[2], data, steps=2, threads=1, device="cpu", quiet=True, **options)
    )


def test_faithfulness_over_patients_is_that_of_regression_with_clustered_errors(made, tmp_path: Path) -> None:
    plain, clustered = (measured(made, cluster=cluster, out=tmp_path / str(cluster)) for cluster in (None, "patient"))
    table = np.genfromtxt(tmp_path / "None" / "faithfulness.csv", delimiter=",", names=True, encoding="utf-8")
    for order in ("centre", "random_map"):
        ahead = table[f"deletion_{order}"] - table["deletion_map"]
        score = clustered.scores["deletion"][order]
        mean, error, half = over_patients(ahead, columns(made)["patient"])
        assert (score.ahead, score.ahead_error) == pytest.approx((mean, error), abs=1e-5)
        assert score.ahead_interval == pytest.approx((mean - half, mean + half), abs=1e-5)
        single = plain.scores["deletion"][order]
        assert single.ahead_interval == pytest.approx(t.interval(0.95, 47, mean, ahead.std(ddof=1) / 48**0.5), abs=1e-5)
        assert single.ahead_percent_interval == pytest.approx(
            [100 * e for e in wilson(int((ahead > 0).sum()), 48) or ()]
        )
    assert any(note.startswith("48 samples in 12 clusters by patient") for note in clustered.notes)


def test_the_accuracy_of_a_run_over_patients_is_wilsons_of_the_effective_number_of_images(made, tmp_path: Path) -> None:
    told = columns(made)
    right = (told["old"] == told["label"]).astype(float)
    share, error, _ = over_patients(right, told["patient"])
    effect = error**2 / (right.var(ddof=1) / 48)
    n = 48 / effect * (norm.ppf(0.975) / t.ppf(0.975, PATIENTS - 1)) ** 2
    expected = wilson(share * n, n)

    about = info(InfoConfig(made[0], cluster="patient", group_by=("ward",)))
    data = str(made[0].with_name("list.csv"))
    compute = Compute(batch_size=8, workers=0, threads=1, device="cpu")
    evaluated = evaluate(EvaluateConfig(made[2], data, compute, cluster="meta/patient", group_by=("ward",), quiet=True))
    reported = report(ReportConfig(made[0], tmp_path / "r.html", cluster="patient", group_by=("ward",), quiet=True))

    for summary in (about, evaluated, reported):
        assert summary.intervals["accuracy"] == pytest.approx(expected, rel=1e-3)
        assert summary.needed == math.ceil(effect * needed(share))
        assert (summary.clusters, summary.notes[-1][:34]) == (PATIENTS, "48 samples in 12 clusters by patie")
    for summary in (about, evaluated):
        assert summary.groups[0].interval == summary.intervals["accuracy"]
        own = told["label"] == 1
        assert summary.classes[1].intervals["accuracy"] == pytest.approx(
            design_of(right[own], told["patient"][own]).wilson(int(right[own].sum()), int(own.sum()))
        )
    page = (tmp_path / "r.html").read_text()
    assert "48 samples in 12 clusters by patient" in page
    assert "of samples that hang together" not in page


def test_one_cluster_or_no_such_column_is_refused_of_one_run_too(made, tmp_path: Path) -> None:
    for ask in (
        lambda column: info(InfoConfig(made[0], cluster=column)),
        lambda column: report(ReportConfig(made[0], tmp_path / "r.html", cluster=column, quiet=True)),
        lambda column: evaluate(
            EvaluateConfig(made[2], str(made[0].with_name("list.csv")), cluster=column, quiet=True)
        ),
    ):
        with pytest.raises(ConfigError, match="--cluster ward: all samples are of one ward"):
            ask("ward")
        with pytest.raises(ConfigError, match="no column 'site'; it has patient, room, ward"):
            ask("site")
