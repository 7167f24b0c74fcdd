"""Two multi-label runs compared: by class against scikit-learn, scipy and plain loops, by group against fairlearn."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from fairlearn.metrics import MetricFrame
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, f1_score, recall_score, roc_auc_score

import batchcam
from batchcam.commands.compare.compare import measure_all, set_side_by_side
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.noise import means_of
from batchcam.commands.compare.reading import Sides
from batchcam.commands.compare.sigmoids import SigmoidTotals
from batchcam.record.clusters import auroc_influence_of_clusters
from batchcam.record.intervals import auroc_influence, placements
from batchcam.record.noise import Value
from tests.commands.test_every_command import COMPUTE, write_images
from tests.commands.test_multi_label import CLASSIFIER, NAMES, network
from tests.helpers.outputs import Ended, run_json
from tests.helpers.report_pages import table_of
from tests.helpers.small_blocks import small_blocks

COUNT = 160
SITES = ("a", "b", "few")
SCORES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "auroc": lambda true, logits, above: roc_auc_score(true, logits),
    "average_precision": lambda true, logits, above: average_precision_score(true, logits),
    "f1": lambda true, logits, above: f1_score(true, above, zero_division=np.nan),
    "sensitivity": lambda true, logits, above: recall_score(true, above),
    "specificity": lambda true, logits, above: recall_score(true, above, pos_label=0),
}
ROWS = {"old": np.arange(COUNT), "new": np.random.default_rng(5).permutation(COUNT)[:-4]}
NEW_NAMES = tuple(np.random.default_rng(6).permutation(NAMES).tolist())


def other_network() -> torch.nn.Module:
    """The network after some further training, its classes in another order."""
    made, order = network(), [NAMES.index(name) for name in NEW_NAMES]
    torch.manual_seed(8)
    with torch.no_grad():
        made.classifier.weight[:] = made.classifier.weight[order] + torch.randn(len(NAMES), 12)
        made.classifier.bias[:] = made.classifier.bias[order]
    return made


def labels_of(side: str) -> np.ndarray:
    """Labels of all images, classes as NAMES has them: NEW knows some that OLD does not, and says some otherwise."""
    labels = np.random.default_rng(1).choice(np.array([-1, 0, 1], np.int8), (COUNT, len(NAMES)))
    labels[:, 0] = -1  # which nobody knows
    if side == "new":
        labels[:6] = np.where(labels[:6] >= 0, 1 - labels[:6], 1)
    return labels


def write_list(path: Path, side: str) -> None:
    labels, texts = labels_of(side), {1: "1", 0: "0", -1: ""}
    with path.open("w", encoding="utf-8", newline="") as stream:
        write = csv.writer(stream).writerow
        write(("Path", "site", *NAMES))
        for row in ROWS[side].tolist():
            write((f"images/{row}.png", SITES[row % 2 if row > 8 else 2], *(texts[v] for v in labels[row].tolist())))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs OLD and NEW, each class with a threshold that about half of the images reach."""
    folder = tmp_path_factory.mktemp("multi")
    write_images(folder / "images", COUNT)
    for side, made, names in (("old", network(), NAMES), ("new", other_network(), NEW_NAMES)):
        torch.save(made.state_dict(), folder / f"{side}.pth")
        (folder / f"{side}.txt").write_text("\n".join(names), encoding="utf-8")
        write_list(folder / f"{side}.csv", side)
        words = (*CLASSIFIER, "--class-names", folder / f"{side}.txt", "--shard-size", 32, *COMPUTE)
        again = ("explain", folder / f"{side}.pth", folder / f"{side}.csv", *words)
        assert run_json(*again, "--out", folder / f"first-{side}").code == 0
        with batchcam.open_run(folder / f"first-{side}") as run:
            middle = 1 / (1 + np.exp(-np.median(run.logits[:].astype(float), 0)))
        told = {name: float(np.clip(p, 1e-6, 1 - 1e-6)) for name, p in zip(names, middle, strict=True)}
        (folder / f"{side}.json").write_text(json.dumps(told))
        assert run_json(*again, "--out", folder / side, "--threshold", folder / f"{side}.json").code == 0
    return folder


Side = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def sides(folder: Path) -> tuple[Side, Side]:
    """Labels, logits, raw maps and what is at or above its threshold of the images that both have, in one order."""
    found = []
    for side, names in (("old", NAMES), ("new", NEW_NAMES)):
        with batchcam.open_run(folder / side) as run:
            rows = np.argsort(ROWS[side])
            rows = rows[np.isin(ROWS[side][rows], ROWS["new"])]
            order = [names.index(name) for name in NAMES]
            above = run.logits[:] >= run.plan.threshold_logits
            found.append(
                {
                    "labels": run.labels[:][rows][:, order],
                    "logits": run.logits[:][rows][:, order].astype(float),
                    "cams": run.cams[:][rows][:, order].astype(float),
                    "above": above[rows][:, order],
                    "prediction": np.argsort(order)[run.prediction[:][rows]],
                    "site": np.array(run["meta/site"][:])[rows],
                }
            )
    return found[0], found[1]


def agreed(sides: tuple[Side, Side]) -> np.ndarray:
    old, new = (side["labels"] for side in sides)
    return np.where(old == new, old, -1)


def compared(folder: Path, *words: object) -> Ended:
    ended = run_json("compare", folder / "old", folder / "new", *words)
    assert ended.faults == []
    return ended


def test_scores_of_each_class_are_sklearns_over_the_labels_that_both_state(
    folder: Path, sides: tuple[Side, Side]
) -> None:
    said, labels = compared(folder).said, agreed(sides)
    classes = {each["name"]: each for each in said["classes"]}
    assert [*classes] == list(NAMES)
    expected: dict[str, list[list[float]]] = {name: [] for name in SCORES}
    for k, name in enumerate(NAMES[1:], 1):
        known = labels[:, k] >= 0
        assert (classes[name]["old"]["known"], classes[name]["old"]["yes"]) == (known.sum(), (labels[:, k] == 1).sum())
        for score, reference in SCORES.items():
            pair = [reference(labels[known, k], s["logits"][known, k], s["above"][known, k]) for s in sides]
            assert [classes[name][side][score] for side in ("old", "new")] == pytest.approx(pair, abs=1e-12)
            assert classes[name]["change"][score] == pytest.approx(pair[1] - pair[0], abs=1e-12)
            expected[score].append(pair)
    assert classes[NAMES[0]]["change"] == dict.fromkeys(SCORES)
    for score, pairs in expected.items():
        old, new = np.mean(pairs, 0)
        macro = said["totals"]["macro"][score]
        assert [macro["classes"], macro["old"], macro["new"], macro["change"]] == pytest.approx(
            [len(NAMES) - 1, old, new, new - old], abs=1e-12
        )


def test_flips_of_each_class_are_counted_and_a_sample_is_as_its_worst_class(
    folder: Path, tmp_path: Path, sides: tuple[Side, Side]
) -> None:
    said, labels = compared(folder, "--out", tmp_path / "out").said, agreed(sides)
    old, new = (side["above"] for side in sides)
    kinds = np.full(labels.shape, "same", object)
    for place in np.argwhere(old != new):
        row, k = place.tolist()
        kinds[row, k] = "changed" if labels[row, k] < 0 else "fixed" if new[row, k] == labels[row, k] else "broken"
    for k, each in enumerate(said["classes"]):
        told = [each[kind] for kind in ("fixed", "broken", "changed", "flips")]
        assert told == [*((kinds[:, k] == kind).sum() for kind in ("fixed", "broken", "changed")), told[3]]
        assert each["flips"] == (old != new)[:, k].sum()
    worst = [next((k for k in ("broken", "fixed", "changed") if k in row), "same") for row in kinds.tolist()]
    totals = said["totals"]
    assert {kind: totals[kind] for kind in ("fixed", "broken", "changed")} == {
        kind: worst.count(kind) for kind in ("fixed", "broken", "changed")
    }
    assert (totals["flips"], totals["class_flips"]) == ((old != new).any(1).sum(), (old != new).sum())
    stated = [side["labels"] >= 0 for side in sides]
    otherwise = stated[0] & stated[1] & (sides[0]["labels"] != sides[1]["labels"])
    assert (totals["labels"], said["relabelled"]) == ((labels >= 0).sum(), otherwise.any(1).sum())
    assert said["relabelled"] > 0
    with h5py.File(tmp_path / "out/compare.h5") as file:
        names = ("same", "fixed", "broken", "changed")
        np.testing.assert_array_equal(np.array(names, object)[file["flips"][:]], kinds)
        np.testing.assert_array_equal(np.array(names, object)[file["flip"][:]], worst)
        np.testing.assert_array_equal(file["labels"][:], labels)
        assert "label" not in file
        assert not [name for name, array in file.items() if b"softmax" in array.attrs.get("long_name", b"")]


def test_maps_are_compared_of_each_class_at_or_above_its_threshold_or_highest_of_all_in_old(
    folder: Path, sides: tuple[Side, Side]
) -> None:
    old, new = sides
    for each, k in zip(compared(folder).said["classes"], range(len(NAMES)), strict=True):
        rows = np.flatnonzero(old["above"][:, k] | (old["prediction"] == k))
        alike = [spearmanr(old["cams"][row, k].ravel(), new["cams"][row, k].ravel())[0] for row in rows]
        assert each["maps"] == len(rows)
        assert each["spearman"] == pytest.approx(np.mean(alike), abs=1e-9)
        assert each["logit_change"] == pytest.approx(np.mean((new["logits"] - old["logits"])[rows, k]), abs=1e-6)


def test_over_clusters_the_error_of_an_auroc_is_obuchowskis(folder: Path, sides: tuple[Side, Side]) -> None:
    said, labels = compared(folder, "--cluster", "site").said, agreed(sides)
    clusters = np.unique(sides[0]["site"], return_inverse=True)[1]
    plain = {each["name"]: each for each in compared(folder).said["classes"]}
    differing = 0
    for k, each in ((NAMES.index(each["name"]), each) for each in said["classes"]):
        known = labels[:, k] >= 0
        true, of = labels[known, k] == 1, clusters[known]
        if true.all() or not true.any():
            assert (each["auroc_error"], each["fewest"]) == (None, 0)
            continue
        old, new = (placements(side["logits"][known, k], true) for side in sides)
        influence = auroc_influence(old - new, true)
        error = (auroc_influence_of_clusters(influence, true, of, clusters.max() + 1) ** 2).sum() ** 0.5
        assert each["auroc_error"] == pytest.approx(error, rel=1e-6)
        assert each["fewest"] == min(len({*of[true]}), len({*of[~true]}))
        differing += each["auroc_error"] != plain[each["name"]]["auroc_error"]
    assert differing
    assert said["clusters"] == clusters.max() + 1


def test_groups_are_fairlearns_and_the_largest_drop_of_auroc_comes_first(
    folder: Path, sides: tuple[Side, Side]
) -> None:
    ended, labels = compared(folder, "--group-by", "site", "--max-group-drop", 0), agreed(sides)
    told = {(each["group"][0], each["name"]): each for each in ended.said["groups"]}
    drops = []
    for k, name in enumerate(NAMES[1:], 1):
        known = (labels[:, k] >= 0) & (sides[0]["site"] != "few")
        frames = [
            MetricFrame(metrics=roc_auc_score, y_true=labels[known, k], y_pred=side["logits"][known, k],
                        sensitive_features=side["site"][known]).by_group
            for side in sides
        ]  # fmt: skip
        for site in ("a", "b"):
            each = told[site, name]
            assert [each[s]["auroc"] for s in ("old", "new")] == pytest.approx([f[site] for f in frames], abs=1e-12)
            flips = (sides[0]["above"] != sides[1]["above"])[sides[0]["site"] == site, k]
            assert (each["compared"], each["flips"]) == (len(flips), flips.sum())
            drops.append(100 * (frames[0][site] - frames[1][site]))
    judged = [each for each in ended.said["groups"] if each["old"]["known"] >= 20]
    found = [-100 * each["change"]["auroc"] for each in judged]
    assert found == sorted(found, reverse=True)
    assert found == pytest.approx(sorted(drops, reverse=True), abs=1e-9)
    (gate,) = (gate for gate in ended.said["gates"] if gate["option"] == "--max-group-drop")
    assert (gate["value"], gate["passed"], ended.code) == (pytest.approx(max(drops)), False, 3)
    table = ended.out[ended.out.index("site, class") :]
    assert sum("too few to judge" in line for line in table.splitlines()) > 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-auroc-drop", lambda said: -100 * said["totals"]["macro"]["auroc"]["change"]),
        ("--max-class-auroc-drop", lambda said: max(-100 * (c["change"]["auroc"] or 0) for c in said["classes"])),
        ("--max-flips", lambda said: said["totals"]["flips_percent"]),
    ],
    ids=["mean", "class", "flips"],
)
def test_a_gate_is_passed_up_to_its_limit(folder: Path, option: str, value: Callable[[Any], float]) -> None:
    limit = value(compared(folder).said)
    assert 0.01 < limit <= 100
    passed, exceeded = (compared(folder, option, f"{limit + more:.9f}") for more in (0, -0.001))
    assert (passed.code, exceeded.code) == (0, 3)
    assert f"{option} {limit:.4g}"[:12] in passed.out


def test_what_is_finite_in_old_alone_breaks_every_class_and_is_ranked_worst(
    folder: Path, sides: tuple[Side, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_new = Sides.of_new

    def with_lost(self: Sides, name: str, rows: np.ndarray) -> np.ndarray:
        values = of_new(self, name, rows)
        return np.where(np.isin(of_new(self, "sample_id", rows), lost), 2, values) if name == "status" else values

    with batchcam.open_run(folder / "old") as run:
        lost = run.sample_id[np.intersect1d(ROWS["new"], np.arange(20, 40))]
    monkeypatch.setattr(Sides, "of_new", with_lost)
    ended = compared(folder, "--max-auroc-drop", 0, "--max-flips", 0, "--target", "new")
    said, labels = ended.said, agreed(sides)
    assert (ended.code, said["totals"]["not_finite"], said["totals"]["compared"]) == (3, len(lost), len(labels))
    chosen = np.isin(np.intersect1d(ROWS["old"], ROWS["new"]), np.arange(20, 40))
    for k, each in enumerate(said["classes"][1:], 1):
        known = labels[:, k] >= 0
        logits = np.where(chosen, np.where(labels[:, k] == 1, -1e9, 1e9), sides[1]["logits"][:, k])
        assert each["new"]["auroc"] == pytest.approx(roc_auc_score(labels[known, k], logits[known]), abs=1e-12)
        assert each["broken"] >= len(lost)


def refusals(folder: Path, single: Path) -> Iterator[tuple[list[object], str]]:
    old, new = folder / "old", folder / "new"
    yield ["compare", old, single], "is multi-label: each class is true or not by itself, by sigmoid; .*is single-label"
    yield ["compare", single, new], "is single-label: one class of a sample is true, by softmax; .*is multi-label"
    yield ["report", single, "--against", old, "--out", folder / "r.html"], "explain one again with the other's"
    yield ["info", new, "--against", single, "--prometheus", folder / "x.prom"], "--problem-type"
    yield ["compare", old, new, "--max-accuracy-drop", 1], "say --max-auroc-drop P .* or --max-class-auroc-drop P"
    yield ["compare", old, new, "--target", "label"], "several labels of a sample may be true"
    yield ["compare", single, single, "--max-auroc-drop", 1], "goes with multi-label runs: say --max-accuracy-drop P"
    for run, gate, message in (
        (old, "accuracy", "say --max-auroc-drop P"),
        (single, "auroc", "say --max-accuracy-drop"),
    ):
        yield ["submit", "--dry-run", "--against", run, f"--max-{gate}-drop", 1, "m.pth", "photos", "next"], message


def test_what_means_nothing_is_refused_with_both_readings_or_the_gate_that_does(folder: Path, sound_run: Path) -> None:
    for words, message in refusals(folder, sound_run):
        ended = run_json(*words)
        assert (ended.code, ended.faults) == (2, []), words
        assert re.search(message, ended.err), (words, ended.err)
    assert not (folder / "r.html").exists()


def test_info_counts_the_samples_with_a_flip_that_compare_tells(folder: Path, tmp_path: Path) -> None:
    words = ("--prometheus", tmp_path / "x.prom", "--against", folder / "old")
    assert run_json("info", folder / "new", *words).code == 0
    lines = (tmp_path / "x.prom").read_text().splitlines()
    found = {line.partition("{")[0]: float(line.split()[-1]) for line in lines if not line.startswith("#")}
    totals = compared(folder).said["totals"]
    assert (found["batchcam_compared"], found["batchcam_flips"]) == (totals["compared"], totals["flips"])


def test_the_report_tells_what_compare_tells(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    ended = run_json("report", folder / "new", "--against", folder / "old", "--out", page)
    assert (ended.code, ended.faults) == (0, [])
    said = compared(folder).said
    assert ended.said["flips"] == said["totals"]["flips"]
    head, *rows = table_of(page.read_text("utf-8"), "What moved by class")
    told = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    for each in said["classes"]:
        assert told[each["name"]]["flips"] == str(each["flips"])
        if each["change"]["auroc"] is not None:
            assert float(told[each["name"]]["AUROC NEW"]) == pytest.approx(each["new"]["auroc"], abs=5.1e-4)
    assert len(told) == len(NAMES)


def test_means_beside_retrainings_are_those_that_compare_tells(folder: Path) -> None:
    config = CompareConfig(folder / "old", folder / "new", shared_classes=True, quiet=True)
    with batchcam.open_run(config.old) as old, batchcam.open_run(config.new) as new:
        totals, classes = measure_all(config, set_side_by_side(config, old, new)).moved()
    means = means_of(totals, classes)
    assert isinstance(totals, SigmoidTotals)
    assert means["auroc", None].value == totals.macro["auroc"].new
    assert means["spearman", None] == Value(totals.spearman or 0, totals.maps)
    alike = [means["spearman", c.name].value for c in classes if c.maps >= 10]
    assert alike == [c.spearman for c in classes if c.maps >= 10]
    assert means["worst_class_spearman", None].value == min(alike)


def test_sigmoids_of_different_classes_have_no_mean(folder: Path, tmp_path: Path) -> None:
    ended = compared(folder)
    assert [ended.said["totals"][f"{side}_confidence"] for side in ("old", "new")] == [None, None]
    assert not re.search("^confidence", ended.out, re.MULTILINE)
    run_json("report", folder / "new", "--against", folder / "old", "--out", tmp_path / "r.html")
    measures = [row[0] for row in table_of((tmp_path / "r.html").read_text("utf-8"), "Over all compared samples")]
    assert "mean logit of the class that OLD predicts" in measures
    assert "mean confidence" not in measures


def test_thresholds_that_differ_are_told(folder: Path) -> None:
    (told,) = (note for note in compared(folder).said["notes"] if "own thresholds" in note)
    with batchcam.open_run(folder / "old") as old, batchcam.open_run(folder / "new") as new:
        first, second = (dict(zip(run.class_names, run.plan.thresholds, strict=True)) for run in (old, new))
    assert f"Edema {first['Edema']:.3g} → {second['Edema']:.3g}" in told
    same = run_json("compare", folder / "old", folder / "old").said
    assert not any("own thresholds" in note for note in same["notes"])
    assert same["totals"]["flips"] == 0


def test_blocks_of_any_size_say_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--group-by", "site", "--out")
    compared(folder, *words, tmp_path / "whole")
    small_blocks(monkeypatch, 1)
    monkeypatch.setattr("batchcam.commands.compare.reading.PICKED_BYTES", 100_000)
    compared(folder, *words, tmp_path / "parts")
    for name in ("compare.json", "movers.csv", "compare.h5"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_classes_of_one_run_alone_are_left_out_where_that_is_wanted(folder: Path, tmp_path: Path) -> None:
    names = [name if name != "Edema" else "Oedema" for name in NEW_NAMES]
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    text = (folder / "new.csv").read_text("utf-8").replace("Edema", "Oedema", 1)
    (folder / "other.csv").write_text(text, encoding="utf-8")
    words = (*CLASSIFIER, "--class-names", tmp_path / "names.txt", *COMPUTE, "--out", tmp_path / "run")
    assert run_json("explain", folder / "new.pth", folder / "other.csv", *words).code == 0
    runs = (folder / "old", tmp_path / "run")
    assert "1 class only in OLD: Edema; 1 class only in NEW: Oedema" in run_json("compare", *runs).err
    said = run_json("compare", *runs, "--shared-classes", "--out", tmp_path / "out").said
    assert {each["name"] for each in said["classes"]} == {*NAMES} - {"Edema"}
    with h5py.File(tmp_path / "out/compare.h5") as file:
        edema = [*file["class_name"].asstr()[:]].index("Edema")
        assert (file["flips"][:, edema] == 255).all()
        assert (np.delete(file["flips"][:, : len(NAMES)], edema, 1) <= 3).all()
