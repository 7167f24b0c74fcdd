"""A multi-label run from a CheXpert-style list of labels: its record, and every command on it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import batchcam
from batchcam.cli.commands import cli
from batchcam.commands.render.render import WRONG_COLOUR
from batchcam.commands.verify.audit import audit
from batchcam.commands.verify.check import check_list
from batchcam.pictures import sheet
from batchcam.store.plan import open_plan
from tests.commands.test_every_command import COMMANDS, COMPUTE, write_images
from tests.helpers.damage import edit_document, write_digest
from tests.helpers.outputs import Ended, Words, files_of, run_json
from tests.helpers.report_pages import table_of
from tests.helpers.small_blocks import small_blocks
from tests.helpers.synthetic import bilinear
from tests.helpers.wellformed import Page

NAMES = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
COUNT = 23
UNREADABLE = 5
THRESHOLDS = {"Edema": 0.2, "Fracture": 0.7}
SINGLE_LABEL_WORDS = re.compile(r"accura|confusion|softmax|argmax|correct|\bwrong\b|(?<!multi-)label: ", re.IGNORECASE)
CLASSIFIER = ("--model", f"{__name__}:network", "--image-size", 24, "--mean", 0.5, "--std", 0.5)


class SmallDenseNet(nn.Module):
    """DenseNet's end: a ReLU that is no module, a mean, and a linear layer of 14 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.features = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.classifier = nn.Linear(12, len(NAMES))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(self.stem(images).relu()).relu().mean((2, 3)))


def network() -> nn.Module:
    torch.manual_seed(3)
    network = SmallDenseNet()
    nn.init.normal_(network.classifier.weight, std=3)
    return network


def labels() -> np.ndarray:
    return np.random.default_rng(1).choice(np.array([-1, 0, 1], np.int8), (COUNT, len(NAMES)))


def write_list(path: Path) -> None:
    """CheXpert's form: a column a finding, 1.0, 0.0, -1.0 for uncertain, nothing where it is not mentioned."""
    texts = {1: "1.0", 0: "0.0"}
    rng = np.random.default_rng(2)
    with path.open("w", encoding="utf-8", newline="") as stream:
        write = csv.writer(stream).writerow
        write(("Path", "Sex", *NAMES))
        for number, row in enumerate(labels().tolist()):
            write((f"images/{number}.png", "Male", *(texts.get(v, rng.choice(["", "-1.0"])) for v in row)))


def explain(folder: Path, out: str, *more: object, data: str = "chexpert.csv") -> Ended:
    words = (*CLASSIFIER, "--class-names", folder / "names.txt", "--shard-size", 8, *COMPUTE)
    return run_json("explain", folder / "weights.pth", folder / data, "--out", folder / out, *words, *more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("multi")
    torch.save(network().state_dict(), folder / "weights.pth")
    (folder / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
    write_images(folder / "images", COUNT)
    (folder / f"images/{UNREADABLE}.png").write_bytes(b"no image")
    write_list(folder / "chexpert.csv")
    (folder / "boxes.csv").write_text("sample_id,class,x0,y0,x1,y1\nimages/0.png,Edema,5,6,20,25\n", encoding="utf-8")
    told = ",".join(f"{name}={value}" for name, value in THRESHOLDS.items())
    ended = explain(folder, "run", "--threshold", told)
    assert (ended.code, ended.faults) == (3, [])
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def columns(folder: Path) -> dict[str, np.ndarray]:
    with h5py.File(folder / "run/run.h5") as file:
        names = ("label", "labels", "prediction", "confidence", "logits", "cam_class", "identity_residual", "status")
        return {name: file[name][:] for name in (*names, "threshold", "cams", "classifier/bias")}


# the record


def test_the_record_says_what_the_list_says(folder: Path, columns: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(columns["labels"], labels())
    assert (columns["label"] == -1).all()
    expected = [THRESHOLDS.get(name, 0.5) for name in NAMES]
    np.testing.assert_array_equal(columns["threshold"], np.array(expected, np.float32))
    with h5py.File(folder / "run/run.h5") as file, h5py.File(folder / "run/samples.h5") as listed:
        assert (file.attrs["problem_type"], file.attrs["schema_min_reader"]) == (b"multi-label", 2)
        np.testing.assert_array_equal(listed["labels"][:], labels())
        assert [*file["meta"]] == ["Sex"]
        assert file["labels"].dtype == np.int8


def test_the_prediction_stands_highest_above_its_threshold(columns: dict[str, np.ndarray]) -> None:
    readable = columns["status"] & 1 == 0
    logits = columns["logits"][readable].astype(float)
    thresholds = columns["threshold"].astype(float)
    above = logits - np.log(thresholds / (1 - thresholds))
    np.testing.assert_array_equal(columns["prediction"][readable], above.argmax(1))
    assert (above.argmax(1) != logits.argmax(1)).any()
    chosen = np.take_along_axis(logits, above.argmax(1)[:, None], 1)[:, 0]
    np.testing.assert_allclose(columns["confidence"][readable], 1 / (1 + np.exp(-chosen)), atol=1e-6)
    assert columns["prediction"][UNREADABLE] == -1
    assert np.isnan(columns["confidence"][UNREADABLE])


def test_maps_of_every_finding_add_up_to_its_logit(columns: dict[str, np.ndarray]) -> None:
    readable = columns["status"] & 1 == 0
    sums = columns["cams"][readable].astype(float).mean((2, 3)) + columns["classifier/bias"]
    assert np.abs(sums - columns["logits"][readable]).max() < 1e-4
    assert columns["identity_residual"][readable].max() < 1e-4


def test_the_map_is_of_the_prediction(folder: Path, columns: dict[str, np.ndarray]) -> None:
    with batchcam.open_run(folder / "run") as run:
        for row in (0, 7, 22):
            cam = columns["cams"][row, columns["prediction"][row]]
            shown = cv2.resize(cam, (24, 24), interpolation=cv2.INTER_LINEAR)
            assert run.map_range[row] == pytest.approx([shown.min(), shown.max()], abs=1e-4)


@pytest.mark.parametrize("cams", ["predicted", "topk:3"])
def test_stored_classes_are_ranked_by_how_high_they_stand_above_their_thresholds(copy: Path, cams: str) -> None:
    explain(copy, "other", "--cams", cams, "--threshold", "Edema=0.05,Fracture=0.9")
    with batchcam.open_run(copy / "other") as run:
        above = run.logits[:] - np.array([np.log(t / (1 - t)) for t in run.plan.thresholds], np.float32)
        ranked = np.argsort(-above, 1, kind="stable")[:, : run.cam_class.shape[1]]
        readable = run.status[:] & 1 == 0
        np.testing.assert_array_equal(run.cam_class[:][readable], ranked[readable])
    assert run_json("verify", copy / "other").said["found"] == []


def median_chance(columns: dict[str, np.ndarray], rank: int) -> float:
    """The median over samples of their largest, second largest, … sigmoid."""
    chances = 1 / (1 + np.exp(-columns["logits"][columns["status"] & 1 == 0].astype(float)))
    return round(float(np.median(np.sort(chances, 1)[:, -rank])), 5)


@pytest.mark.parametrize("rank", [1, 2])
def test_positive_stores_what_reaches_its_threshold_after_the_prediction_in_little_room(
    copy: Path, columns: dict[str, np.ndarray], rank: int
) -> None:
    limit = median_chance(columns, rank)
    explain(copy, "all", "--threshold", limit, "--maps", "none")
    explain(copy, "positive", "--threshold", limit, "--maps", "none", "--cams", "positive")
    with batchcam.open_run(copy / "positive") as run, batchcam.open_run(copy / "all") as whole:
        counts = []
        for row, logits in enumerate(run.logits[:].astype(float)):
            if row == UNREADABLE:
                assert (run.cam_class[row] == -1).all()
                continue
            ranked = np.argsort(-logits, kind="stable")
            reached = [k for k in ranked.tolist() if 1 / (1 + np.exp(-logits[k])) >= limit]
            stored = reached or ranked[:1].tolist()
            assert run.cam_class[row].tolist() == stored + [-1] * (len(NAMES) - len(stored))
            np.testing.assert_array_equal(run.cams[row, : len(stored)], whole.cams[row, stored])
            assert np.isnan(run.cams[row, len(stored) :]).all()
            counts.append(len(reached))
        assert {*counts} == {rank - 1, rank}
    sizes = [sum(path.stat().st_size for path in files_of(copy / name / "shards")) for name in ("all", "positive")]
    assert sizes[1] < 0.8 * sizes[0]
    for name in ("all", "positive"):
        assert run_json("verify", copy / name).said["found"] == []
    (copy / "positive/shards/shard-00001.h5").unlink()
    (copy / "positive/manifest.json").unlink()
    assert explain(copy, "positive").code == 3
    assert sizes[1] == sum(path.stat().st_size for path in files_of(copy / "positive/shards"))


def drop_the_last(block: dict[str, np.ndarray], row: int) -> None:
    last = (block["cam_class"][row] >= 0).sum() - 1
    block["cam_class"][row, last], block["cams"][row, last] = -1, np.nan


def add_one_more(block: dict[str, np.ndarray], row: int) -> None:
    count = (block["cam_class"][row] >= 0).sum()
    block["cam_class"][row, count] = np.argsort(-block["logits"][row], kind="stable")[count]


def store_one_twice(block: dict[str, np.ndarray], row: int) -> None:
    block["cam_class"][row, 1] = block["cam_class"][row, 0]


@pytest.mark.parametrize("damage", [None, drop_the_last, add_one_more, store_one_twice])
def test_other_classes_than_the_positive_ones_are_found(
    copy: Path, columns: dict[str, np.ndarray], damage: Any
) -> None:
    explain(copy, "positive", "--threshold", median_chance(columns, 2), "--cams", "positive")
    block = block_of(copy / "positive")
    (row, *_) = np.flatnonzero((block["cam_class"] >= 0).sum(1) > 1).tolist()
    if damage:
        damage(block, row)
    with h5py.File(copy / "positive/run.h5") as file:
        found = {wrong.array for wrong in audit(block, open_plan(copy / "positive"), file["classifier/bias"][:])}
    assert ("cam_class" in found) == (damage is not None)
    assert found or not damage


def test_an_interrupted_run_is_finished_to_the_same_bytes_without_its_list_or_options(copy: Path) -> None:
    before = {path.name: path.read_bytes() for path in files_of(copy / "run/shards")}
    (copy / "run/shards/shard-00001.h5").unlink()
    (copy / "run/manifest.json").unlink()
    lines = (copy / "chexpert.csv").read_text().splitlines()
    (copy / "chexpert.csv").write_text("\n".join([*lines, lines[-1].replace("/22.", "/99.")]) + "\n")
    assert explain(copy, "run").code == 3
    assert {path.name: path.read_bytes() for path in files_of(copy / "run/shards")} == before


def test_other_thresholds_are_another_run(copy: Path) -> None:
    ended = explain(copy, "run", "--threshold", 0.4)
    assert ended.code == 1
    assert "belongs to another run: thresholds" in ended.err
    ended = explain(copy, "run", "--problem-type", "single-label")
    assert (ended.code, "planned otherwise: --problem-type" in ended.err) == (1, True)


def test_lists_of_the_same_labels_give_the_same_numbers(copy: Path) -> None:
    known = labels().clip(0)
    with (copy / "nih.csv").open("w", newline="") as stream:
        rows = (("|".join(np.array(NAMES)[row == 1].tolist()), f"images/{i}.png") for i, row in enumerate(known))
        csv.writer(stream).writerows([("label", "path"), *rows])
    explain(copy, "lists", data="nih.csv")
    explain(copy, "columns")
    with batchcam.open_run(copy / "lists") as lists, batchcam.open_run(copy / "columns") as own:
        assert lists.plan.label_separator == "|"
        np.testing.assert_array_equal(lists.labels[:], np.where(known.any(1)[:, None], known, -1))
        for name in ("logits", "cams", "prediction", "maps"):
            np.testing.assert_array_equal(lists[name][:], own[name][:])


# verify


def block_of(run: Path) -> dict[str, np.ndarray]:
    plan = open_plan(run)
    with h5py.File(run / "shards/shard-00001.h5") as file:
        return {array.name: file[array.name][:] for array in plan.arrays}


def set_label(block: dict[str, np.ndarray]) -> None:
    block["label"][2] = 3


def set_labels(block: dict[str, np.ndarray]) -> None:
    block["labels"][2, 4] = 2


def take_the_argmax(block: dict[str, np.ndarray]) -> None:
    block["prediction"][:] = block["logits"].argmax(1)


def take_the_softmax(block: dict[str, np.ndarray]) -> None:
    powers = np.exp(block["logits"] - block["logits"].max(1, keepdims=True))
    block["confidence"][:] = (powers / powers.sum(1, keepdims=True)).max(1)


@pytest.mark.parametrize(
    ("damage", "array"),
    [
        (None, None),
        (set_label, "label"),
        (set_labels, "labels"),
        (take_the_argmax, "prediction"),
        (take_the_softmax, "confidence"),
    ],
)
def test_rows_that_break_a_rule_are_found(folder: Path, damage: Any, array: str | None) -> None:
    block, plan = block_of(folder / "run"), open_plan(folder / "run")
    if damage:
        damage(block)
    with h5py.File(folder / "run/run.h5") as file:
        found = {wrong.array for wrong in audit(block, plan, file["classifier/bias"][:])}
    assert (array in found) if array else not found


@pytest.mark.parametrize("name", ["shards/shard-00001.h5", "run.h5"])
def test_thresholds_that_are_not_the_plans_are_found(copy: Path, name: str) -> None:
    with h5py.File(copy / "run" / name, "r+") as file:
        file["threshold"][5] = 0.3
    write_digest(copy / "run" / name)
    manifest = json.loads((copy / "run/manifest.json").read_bytes())
    sha256 = (copy / f"run/{name}.sha256").read_text().split()[0]
    edit_document(copy / "run/manifest.json", master={**manifest["master"], "sha256": sha256})
    found = run_json("verify", copy / "run").said["found"]
    assert ("schema", name, "threshold") in [(each["kind"], each["file"], each["array"]) for each in found]


def test_labels_belong_to_the_fingerprint(copy: Path) -> None:
    with h5py.File(copy / "run/samples.h5", "r+") as file:
        file["labels"][0, 0] = 1 - abs(file["labels"][0, 0])
    with h5py.File(copy / "run/samples.h5") as file:
        assert [finding.kind for finding in check_list(file, open_plan(copy / "run"))] == ["dataset"]


def test_recompute_compares_labels_and_explains_again(copy: Path) -> None:
    words = ("--checkpoint", copy / "weights.pth", "--model", f"{__name__}:network", "--recompute", 10)
    assert run_json("verify", copy / "run", *words, "--data", copy / "chexpert.csv").said["found"] == []
    text = (copy / "chexpert.csv").read_text()
    (copy / "chexpert.csv").write_text(text.replace("0.0", "1.0", 1))
    (found,) = run_json("verify", copy / "run", *words, "--data", copy / "chexpert.csv").said["found"]
    assert (found["kind"], found["array"], found["rows"]) == ("dataset", "labels", 1)


# thresholds


def test_thresholds_come_from_a_file_or_from_a_labelled_run(copy: Path) -> None:
    (copy / "t.json").write_text(json.dumps(THRESHOLDS))
    (copy / "t.csv").write_text("class,probability\nEdema,0.2\nFracture,0.7\n")
    for name in ("t.json", "t.csv"):
        ended = explain(copy, "run", "--threshold", copy / name)
        assert (ended.code, ended.said["shards"]) == (3, 0)
    ended = explain(copy, "learned", "--thresholds-from", copy / "run")
    assert ended.code == 3
    better = {each["name"]: each for each in run_json("info", copy / "learned").said["sigmoids"]}
    for each in run_json("info", copy / "run").said["sigmoids"]:
        assert (better[each["name"]]["f1"] or 0) >= (each["f1"] or 0) - 1e-12
    (told,) = [remark for remark in remarks(copy / "learned") if "threshold of the largest F1" in remark]
    assert f"{COUNT} of {COUNT} samples are in that run too, and look better than others will" in told
    other = explain(copy, "other", "--thresholds-from", copy / "run", "--interpolation", "nearest")
    assert (other.code, "of other preprocessing: explain it anew as these images are" in other.err) == (2, True)


def remarks(run: Path) -> list[str]:
    told: list[str] = json.loads((run / "run.json").read_bytes())["origin"]["remarks"]
    return told


def test_a_file_of_thresholds_is_refused_with_its_line(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    for text, message in (
        ("class,p\nEdema,high\n", "line 2: Edema: high: want a probability between 0 and 1"),
        ("Edema,0.2\nOedema,0.2\n", "line 2: Oedema: no class of the model: "),
        ("Edema,0.2\nedema,0.3\n", "line 2: edema: named twice"),
        ("Edema,0.2\nMass\n", "line 2: want a class and a probability in each line, or a JSON object"),
    ):
        file.write_text(text)
        assert f"--threshold {file}: {message}" in explain(folder, "never", "--threshold", file).err
    (tmp_path / "p.json").write_text('{"Edema": 0.2, "Edema": 0.9}')
    assert "p.json: Edema: named twice" in explain(folder, "never", "--threshold", tmp_path / "p.json").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--threshold", 1), "want a probability between 0 and 1"),
        (("--threshold", "Edema=high"), "--threshold Edema: high: want a probability"),
        (("--threshold", "Oedema=0.5"), "--threshold Oedema: no class of the model"),
        (("--threshold", "0.5", "--thresholds-from", "x"), "exclude each other"),
        (("--cams", "predicted+label"), "several labels of a sample may be true"),
        (("--problem-type", "single-label"), "sample 0 is of [0-9]+ classes, where --problem-type says one"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(folder: Path, words: tuple[object, ...], message: str) -> None:
    ended = explain(folder, "never", *words)
    assert ended.code in (1, 2)
    assert ended.faults == []
    assert re.search(message, ended.err)
    assert not (folder / "never").exists()


# every command


REFUSED = {
    "export wsol",
}
"""What can't tell of each class, or not yet."""


GATES = ("--max-flips", 0, "--max-auroc-drop", 0, "--max-class-auroc-drop", 0, "--max-group-drop", 0)
MULTI_LABEL_COMMANDS: dict[str, Words] = COMMANDS | {
    "compare gate": lambda run, out: ["compare", run, run, *GATES, "--group-by", "Sex", "--out", out / "compared"],
    "compare a shard": lambda run, out: ["compare", run / "shards/shard-00000.h5", run],
    "compare a series": lambda run, out: ["compare", shutil.copytree(run, out / "runs/one").parent, run],
    "info --group-by": lambda run, out: ["info", run, "--group-by", "Sex"],
    "info --against": lambda run, out: ["info", run, "--prometheus", out / "run.prom", "--against", run],
    "report --against": lambda run, out: [
        *("report", run, "--against", run, "--group-by", "Sex", "--out", out / "report.html"),
    ],
    "evaluate --group-by": lambda run, out: [
        *("evaluate", run.parent / "weights.pth", run.parent / "chexpert.csv", "--group-by", "Sex", *CLASSIFIER),
        *("--class-names", run.parent / "names.txt", *COMPUTE),
    ],
    "submit": lambda run, out: [
        *(
            "submit",
            "--dry-run",
            "--against",
            run,
            "--max-auroc-drop",
            1,
            run.parent / "weights.pth",
            "list.csv",
            "next",
        ),
    ],
}


def text_of(path: Path) -> str:
    text = path.read_text("utf-8")
    return Page(text).text if path.suffix == ".html" else text


@pytest.mark.parametrize("command", MULTI_LABEL_COMMANDS)
def test_no_command_says_anything_of_one_label(folder: Path, tmp_path: Path, command: str) -> None:
    if "parquet" in command:
        pytest.importorskip("pyarrow")
    ended = run_json(*MULTI_LABEL_COMMANDS[command](folder / "run", tmp_path))
    assert ended.faults == []
    assert ended.code in ((2,) if command in REFUSED else (0, 3))
    assert ("is multi-label:" in ended.err) == (command in REFUSED)
    written = [p for p in files_of(tmp_path) if p.suffix in (".csv", ".json", ".html", ".prom")]
    assert any(path.suffix == ".html" for path in written) == command.startswith(("report", "sample"))
    texts = [text.replace("wrong-reasons", "") for text in (ended.out, ended.err, *map(text_of, written))]
    assert [found for text in texts for found in SINGLE_LABEL_WORDS.findall(text)] == []


def other_commands(folder: Path) -> Iterator[tuple[str, list[object]]]:
    run = folder / "run"
    yield "render --confusion", ["render", run, "--confusion", 0, 1, "--out", folder / "wrong.png"]
    yield "render --contrast label", ["render", run, "--contrast", "label", 1, "--out", folder / "wrong.png"]
    yield "export --target label", ["export", run, "--to", "png", "--target", "label", "--out", folder / "png"]
    yield "sample --confusion", ["sample", run, "--confusion", 0, 1, "--out", folder / "drawn"]
    yield "sample --stratify class", ["sample", run, "--n", 4, "--stratify", "class", "--out", folder / "drawn"]
    yield "render --by loss", ["render", run, "--by", "loss", "--top", 2, "--out", folder / "loss.png"]


def test_what_is_of_one_label_is_refused(copy: Path) -> None:
    for name, words in other_commands(copy):
        ended = run_json(*words)
        assert (name, ended.code, ended.faults) == (name, 2, [])
        assert "is multi-label: " in ended.err


def test_functions_refuse_what_commands_refuse(folder: Path) -> None:
    run = folder / "run"
    with pytest.raises(batchcam.ConfigError, match="--max-accuracy-drop: multi-label runs have no accuracy"):
        batchcam.compare(run, run, max_accuracy_drop=1)


@pytest.mark.slow
def test_a_second_version_is_judged_by_its_auroc_and_a_night_ends_well(copy: Path) -> None:
    shutil.copyfile(copy / "images/0.png", copy / f"images/{UNREADABLE}.png")
    factory = ("--model", f"{__name__}:network", "--class-names", copy / "names.txt")
    words = (*factory, "--image-size", 24, "--mean", 0.5, "--std", 0.5, *COMPUTE)
    weights, data = copy / "weights.pth", copy / "chexpert.csv"
    first, second = (run_json("promote", weights, data, copy / "models" / name, *words) for name in ("a", "b"))
    assert (first.said["promoted"], second.said["promoted"], second.code) == ("a", "b", 0)
    told = (copy / "models/b/compare.txt").read_text()
    assert "--max-auroc-drop 1: UNDECIDED, passed by the estimate: a drop of 0 " in told
    refused = run_json("promote", "--max-accuracy-drop", 1, weights, data, copy / "models/c", *words)
    assert (refused.code, "multi-label runs have no accuracy" in refused.err) == (2, True)
    assert not (copy / "models/c/run").exists()
    night = run_json("nightly", weights, data, copy / "nights", *words)
    assert (night.code, night.said["outcome"], night.said["mails"]) == (0, "done", [])
    assert run_json("verify", copy / "nights/latest").said["found"] == []
    page = (copy / f"nights/{night.said['latest']}.html").read_text("utf-8")
    assert "Classes, least AUROC first" in page
    assert SINGLE_LABEL_WORDS.findall(Page(page).text) == []


def test_every_command_on_runs_was_tried() -> None:
    shown = {name: command for name, command in cli.commands.items() if not command.hidden}
    reading = {name for name, command in shown.items() if any(each.name == "run" for each in command.params)}
    assert reading - {command.partition(" ")[0] for command in COMMANDS} == {
        "faithfulness",
        "discover",
        "review",
        "submit",
        "view",
    }


def flat(score: dict[str, Any]) -> dict[str, Any]:
    """A score with the ends of its intervals beside its rates."""
    intervals = score.pop("intervals")
    assert score.pop("designs") == 2 * [{"effect": 1.0, "clusters": None}]
    assert {name for name, ends in intervals.items() if ends} == {name for name in intervals if score[name] is not None}
    return score | {f"{name} {end}": (intervals[name] or (None, None))[end] for name in intervals for end in (0, 1)}


def test_evaluate_and_info_tell_the_same_of_each_finding(folder: Path) -> None:
    words = ("--model", f"{__name__}:network", "--class-names", folder / "names.txt", "--image-size", 24)
    told = ("--threshold", "Edema=0.2,Fracture=0.7", "--mean", 0.5, "--std", 0.5, *COMPUTE)
    ended = run_json("evaluate", folder / "weights.pth", folder / "chexpert.csv", *words, *told, "--group-by", "Sex")
    assert (ended.code, ended.faults, ended.said["unreadable"]) == (3, [], 1)
    info = run_json("info", folder / "run", "--group-by", "Sex")
    assert SINGLE_LABEL_WORDS.findall(ended.out + info.out) == []
    assert [each["name"] for each in info.said["sigmoids"]] == list(NAMES)
    for mine, own in zip(ended.said["classes"], info.said["sigmoids"], strict=True):
        assert mine.pop("name") == own.pop("name")
        assert flat(mine) == pytest.approx(flat(own), rel=1e-4)
    assert [each["group"] for each in info.said["groups"]] == [["Male"]] * len(NAMES)
    for mine, own in zip(ended.said["groups"], info.said["groups"], strict=True):
        assert mine["score"].pop("name") == own["score"].pop("name")
        assert flat(mine["score"]) == pytest.approx(flat(own["score"]), rel=1e-4)
    for text in (ended.out, info.out):
        assert f"predicted: of all {COUNT - 1} readable; the others: of those whose label is known\nclass " in text
    assert info.said["pairs"] == ended.said["pairs"]


# studies and pictures


def annotated(folder: Path, columns: dict[str, np.ndarray], path: Path) -> list[tuple[int, int, list[float]]]:
    """Boxes of drawn samples and classes, in an order of their own; row, class and box of each."""
    rng = np.random.default_rng(7)
    found = []
    for flat in rng.permutation(COUNT * len(NAMES))[:60].tolist():
        x, y = rng.integers(0, (20, 14)).tolist()
        found.append((*divmod(flat, len(NAMES)), [x, y, x + 18.0, y + 14.0]))
    rows = [("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")]
    rows += [
        (f"images/{row}.png", NAMES[k], *map(str, (x0, y0, x1 - x0, y1 - y0))) for row, k, (x0, y0, x1, y1) in found
    ]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([*rows, ("images/1.png", "Infiltrate", 1, 1, 5, 5)])
    return found


def test_each_annotated_class_is_judged_by_its_own_map_as_plain_loops_do(
    folder: Path, columns: dict[str, np.ndarray], tmp_path: Path
) -> None:
    found = annotated(folder, columns, tmp_path / "bbox.csv")
    ended = run_json("localize", folder / "run", "--annotations", tmp_path / "bbox.csv", "--out", tmp_path / "out")
    assert (ended.code, ended.faults) == (0, [])
    view = run_views(folder)
    peaks: dict[str, list[bool]] = {}
    for row, k, (x0, y0, x1, y1) in found:
        if row == UNREADABLE:
            continue
        shown = bilinear(columns["cams"][row, k][None].astype(float), (24, 24))[0]
        left, top, right, bottom = view[row]
        inside = np.zeros((24, 24), bool)
        for y in range(24):
            for x in range(24):
                across, down = left + (x + 0.5) * (right - left) / 24, top + (y + 0.5) * (bottom - top) / 24
                inside[y, x] = x0 <= across < x1 and y0 <= down < y1
        peaks.setdefault(NAMES[k], []).append(bool(inside.flat[shown.argmax()]))
    told = {each["name"]: each["scores"]["peak_inside"] for each in ended.said["classes"]}
    assert {name: each["samples"] for name, each in told.items()} == {name: len(each) for name, each in peaks.items()}
    assert {name: each["percent"] for name, each in told.items()} == pytest.approx(
        {name: 100 * np.mean(each) for name, each in peaks.items()}, abs=1e-9
    )
    macro = ended.said["macro"]["peak_inside"]["percent"]
    assert macro == pytest.approx(100 * np.mean([np.mean(each) for each in peaks.values()]), abs=1e-9)
    unreadable = sum(row == UNREADABLE for row, _, _ in found)
    assert (ended.said["judged"], ended.said["left_out"]) == (60 - unreadable, {"unreadable images": unreadable})
    assert any("1 objects are of classes that the run does not have: Infiltrate" in n for n in ended.said["notes"])
    with (tmp_path / "out/localize.csv").open(newline="") as stream:
        rows = {(row["sample_id"], row["explained"]): row for row in csv.DictReader(stream)}
    above = columns["logits"] - np.log(columns["threshold"] / (1 - columns["threshold"]))
    for row, k, _ in found:
        told_row = rows[f"images/{row}.png", NAMES[k]]
        assert told_row["label"] == {1: "yes", 0: "no", -1: ""}[int(columns["labels"][row, k])]
        assert told_row["prediction"] == ("" if row == UNREADABLE else "yes" if above[row, k] >= 0 else "no")


def run_views(folder: Path) -> np.ndarray:
    with h5py.File(folder / "run/run.h5") as file:
        views: np.ndarray = file["crop_box"][:]
        return views


def test_masks_in_a_folder_for_each_class_give_the_same_as_a_list_of_them(folder: Path, tmp_path: Path) -> None:
    rng, lines = np.random.default_rng(3), ["path,class,mask"]
    for k in (3, 8):
        for row in (0, 7):
            place = tmp_path / f"masks/{NAMES[k]}/images/{row}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place), cv2.resize(rng.random((3, 4)), (40, 30)).round().astype(np.uint8) * 255)
            lines.append(f"images/{row}.png,{NAMES[k]},masks/{NAMES[k]}/images/{row}.png")
    (tmp_path / "masks.csv").write_text("\n".join(lines) + "\n")
    one, other = (
        run_json("localize", folder / "run", "--annotations", tmp_path / name).said for name in ("masks", "masks.csv")
    )
    assert one["judged"] == 4
    assert (one["scores"], one["classes"], one["macro"]) == (other["scores"], other["classes"], other["macro"])


def test_what_no_map_can_be_judged_by_is_told(folder: Path, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("id,x0,y0,x1,y1\nimages/0.png,5,6,20,25\n")
    ended = run_json("localize", folder / "run", "--annotations", tmp_path / "boxes.csv")
    assert (ended.code, "boxes.csv:2: no class: the run is multi-label" in ended.err) == (1, True)
    ended = run_json("localize", folder / "run", "--annotations", folder / "boxes.csv", "--target", "predicted")
    assert (ended.code, "each annotated class has its own map" in ended.err) == (2, True)
    explain(copy, "few", "--cams", "predicted")
    (tmp_path / "two.csv").write_text(
        "id,class,x0,y0,x1,y1\n" + "".join(f"images/0.png,{name},5,6,20,25\n" for name in NAMES)
    )
    ended = run_json("localize", copy / "few", "--annotations", tmp_path / "two.csv")
    told = f"{len(NAMES) - 1} of {len(NAMES)} annotated findings have no CAM in a run with --cams predicted"
    assert (ended.code, told in ended.err, "explain with --cams all" in ended.err) == (1, True, True)


def test_faithfulness_follows_the_sigmoid_of_the_class_highest_above_its_threshold(
    folder: Path, columns: dict[str, np.ndarray], tmp_path: Path
) -> None:
    words = (
        "--checkpoint",
        folder / "weights.pth",
        "--model",
        f"{__name__}:network",
        "--data",
        folder / "chexpert.csv",
    )
    ended = run_json("faithfulness", folder / "run", *words, "--steps", 4, "--out", tmp_path, "--device", "cpu")
    assert (ended.code, ended.faults) == (0, [])
    assert ended.said["probability"] == pytest.approx(np.nanmean(columns["confidence"]), abs=1e-5)
    logits = columns["logits"][columns["status"] & 1 == 0]
    below = (logits < np.log(columns["threshold"] / (1 - columns["threshold"]))).all(1).sum()
    assert ended.said["below_threshold"] == below
    texts = [ended.out, *(path.read_text() for path in files_of(tmp_path))]
    assert [found for text in texts for found in SINGLE_LABEL_WORDS.findall(text)] == []
    with (tmp_path / "faithfulness.csv").open(newline="") as stream:
        assert next(csv.DictReader(stream))["label"] == "|".join(np.array(NAMES)[labels()[0] == 1])


def test_discover_asks_whether_each_class_reaches_its_threshold(
    copy: Path, columns: dict[str, np.ndarray], tmp_path: Path
) -> None:
    middle = 1 / (1 + np.exp(-np.nanmedian(columns["logits"], 0)))
    told = ",".join(f"{name}={value:.5f}" for name, value in zip(NAMES, middle, strict=True))
    assert explain(copy, "half", "--threshold", told).code == 3
    words = ("--checkpoint", copy / "weights.pth", "--model", f"{__name__}:network", "--data", copy / "chexpert.csv")
    ended = run_json("discover", copy / "half", *words, "--out", tmp_path / "out", "--device", "cpu")
    assert (ended.code, ended.faults) == (0, [])
    with h5py.File(copy / "half/run.h5") as file:
        predicted, limits = file["prediction"][:], file["threshold"][:]
        reached = file["logits"][:] >= np.log(limits / (1 - limits))
    says = reached[np.arange(COUNT), predicted] & (predicted >= 0)
    unsaid = ended.said["left_out"].get("the network does not say this class now", 0)
    assert unsaid == (~says & (predicted >= 0)).sum()
    with h5py.File(tmp_path / "out/discover.h5") as file:
        judged = np.flatnonzero(file["left_out"][:] == b"")
        pairs = list(zip(file["sample_index"][judged], file["partner"][judged], strict=True))
    assert len(pairs) == ended.said["judged"] > 10
    assert all(says[own] and not reached[partner, predicted[own]] for own, partner in pairs)
    page, document = ((tmp_path / "out" / name).read_text() for name in ("discover.html", "discover.json"))
    texts = [ended.out, Page(page).text, document]
    assert [found for text in texts for found in SINGLE_LABEL_WORDS.findall(text)] == []


@pytest.mark.parametrize(
    "words", [("--class", "Edema"), ("--wrong",), ("--class", "Edema", "--wrong"), ("--class", 5, "--top", 3)]
)
def test_render_picks_samples_by_class_and_error(
    folder: Path, columns: dict[str, np.ndarray], tmp_path: Path, words: tuple[object, ...]
) -> None:
    expected = []
    for row in range(COUNT):
        limits = np.log(columns["threshold"].astype(float) / (1 - columns["threshold"].astype(float)))
        above, known = columns["logits"][row] >= limits, columns["labels"][row]
        wrong = [known[k] >= 0 and row != UNREADABLE and above[k] != known[k] for k in range(len(NAMES))]
        edema = NAMES.index("Edema")
        if words == ("--wrong",):
            expected += [row] * any(wrong)
        elif "--wrong" in words:
            expected += [row] * bool(wrong[edema])
        else:
            expected += [row] * bool(known[edema] == 1 or (known[edema] < 0 and above[edema]))
    expected = (
        sorted(sorted(expected, key=lambda row: -columns["confidence"][row])[:3]) if "--top" in words else expected
    )
    ended = run_json("render", folder / "run", *words, "--out", tmp_path / "pictures")
    assert ended.faults == []
    assert [int(path.name[:7]) for path in files_of(tmp_path / "pictures")] == expected
    assert 0 < len(expected) < COUNT


def test_render_of_a_class_shows_its_map(folder: Path, tmp_path: Path) -> None:
    for name, words in (("class", ("--class", "Edema")), ("all", ())):
        words = (*words, "--sample", "images/0.png", "--sample", "images/7.png", "--sample", "images/9.png", "--cells")
        run_json("render", folder / "run", *words, "--out", tmp_path / name)
    with batchcam.open_run(folder / "run") as run:
        same = [NAMES[k] == "Edema" for k in run.prediction[:].tolist()]
    shown = [path.name for path in files_of(tmp_path / "class")]
    assert shown
    for name in shown:
        one, other = (cv2.imread(str(tmp_path / each / name))[:-60] for each in ("class", "all"))  # above the caption
        assert np.array_equal(one, other) == same[int(name[:7])]


@pytest.mark.parametrize("class_", [None, "Edema"])
def test_render_names_each_mistake_and_shows_its_map(
    folder: Path, columns: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, class_: str | None
) -> None:
    farthest: dict[int, tuple[float, int, int]] = {}
    for k in range(len(NAMES)) if class_ is None else [NAMES.index(class_)]:
        for label in (0, 1):
            for distance, row in wrong_of_class(columns, k, label):
                farthest[row] = max(farthest.get(row, (0.0, 0, 0)), (distance, k, label))
    expected, caption_of = {}, {}
    for row, (_, k, label) in farthest.items():
        chance = 1 / (1 + np.exp(-float(columns["logits"][row, k])))
        expected[f"images/{row}.png"] = f"{'missed' if label else 'falsely'} {NAMES[k]} {chance:.2f}"
    drawn = sheet.sheet

    def sheet_of_one(tiles: list[np.ndarray], captions: list[str], *more: Any) -> np.ndarray:
        (name, _, caption), (colour,) = captions[0].split("\n"), more[-1]
        caption_of[name] = caption
        assert (colour == WRONG_COLOUR) == (caption.split()[0] in ("missed", "falsely"))
        return drawn(tiles, captions, *more)

    monkeypatch.setattr(sheet, "sheet", sheet_of_one)
    words = () if class_ is None else ("--class", class_)
    run_json("render", folder / "run", "--wrong", *words, "--out", tmp_path / "wrong")
    assert caption_of == expected
    for row, (_, k, _) in list(farthest.items())[:3]:
        sample = ("--sample", f"images/{row}.png", "--class", k)
        run_json("render", folder / "run", "--wrong", *sample, "--out", tmp_path / f"class-{row}")
        (name,) = files_of(tmp_path / f"class-{row}")
        assert name.read_bytes() == (tmp_path / "wrong" / name.name).read_bytes()


def test_a_mistake_without_a_map_is_named_all_the_same(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explain(copy, "few", "--cams", "predicted", "--threshold", 0.9999)
    told: list[str] = []
    monkeypatch.setattr(sheet, "with_banner", lambda picture, text, colour: told.append(text) or picture)
    ended = run_json("render", copy / "few", "--wrong", "--out", copy / "wrong.png")
    missing = [text for text in told if "no CAM of " in text]
    assert len(missing) == ended.said["without_map"] > 0


def test_wrong_without_any_label_is_refused(copy: Path) -> None:
    with (copy / "blank.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("Path", *NAMES), *((f"images/{i}.png", *[""] * 14) for i in range(4))])
    explain(copy, "blank", "--problem-type", "multi-label", data="blank.csv")
    ended = run_json("render", copy / "blank", "--wrong", "--out", copy / "wrong.png")
    assert (ended.code, "--wrong: the run has no labels" in ended.err) == (2, True)


def test_virelay_has_a_yes_or_no_of_each_class(folder: Path, tmp_path: Path) -> None:
    ended = run_json("export", folder / "run", "--to", "virelay", "--out", tmp_path)
    shown = np.arange(COUNT) != UNREADABLE
    for name in ("dataset.input.h5", "cam.attribution.h5"):
        with h5py.File(tmp_path / name) as file:
            assert file["label"].dtype == bool
            np.testing.assert_array_equal(file["label"][:], labels()[shown] == 1)
    assert f"{(labels()[shown] < 0).sum()} labels are not known" in ended.out


# report


def reported(folder: Path, out: Path, *words: object, run: str = "run") -> tuple[Ended, str]:
    ended = run_json("report", folder / run, "--out", out, *words)
    assert (ended.code, ended.faults) == (3, [])
    source = out.read_text("utf-8")
    assert Page(source).wrong == []
    assert SINGLE_LABEL_WORDS.findall(Page(source).text) == []
    return ended, source


def section(source: str, anchor: str) -> str:
    return source.partition(f'<section id="{anchor}"')[2].partition("</section>")[0]


def wrong_of_class(columns: dict[str, np.ndarray], class_: int, label: int) -> list[tuple[float, int]]:
    """Distance from the threshold and row of each sample that is told the opposite of its label, the farthest first."""
    threshold = float(columns["threshold"][class_])
    found = []
    for row, logits in enumerate(columns["logits"].astype(float)):
        distance = logits[class_] - np.log(threshold / (1 - threshold))
        if columns["labels"][row, class_] == label and not np.isnan(distance) and (distance >= 0) != label:
            found.append((abs(distance), row))
    return sorted(found, key=lambda pair: -pair[0])


def test_the_report_tells_of_each_class_what_info_tells(folder: Path, tmp_path: Path) -> None:
    ended, source = reported(folder, tmp_path / "r.html")
    info = run_json("info", folder / "run").said
    assert (ended.said["classes"], ended.said["pairs"]) == (info["sigmoids"], info["pairs"])
    scores = {each["name"]: each for each in info["sigmoids"]}
    head, *rows = table_of(source, "Classes, least AUROC first")
    assert [row[0] for row in rows] == sorted(scores, key=lambda name: scores[name]["auroc"])
    columns = ("known", "yes", "prevalence", "threshold", "predicted", "auroc", "average_precision", "f1")
    columns += ("sensitivity", "specificity", "calibration_error", "left_out")
    assert len(head) == 1 + len(columns)
    for name, *cells in rows:
        expected = [scores[name][column] for column in columns]
        assert [float(cell.partition(" (")[0]) for cell in cells] == pytest.approx(expected, abs=5.1e-4)
    pairs = [[p["first"], p["second"], str(p["labelled"]), str(p["predicted"])] for p in info["pairs"]]
    assert table_of(source, "The pairs of classes")[1:] == pairs
    assert "Edema 0.2, Consolidation 0.5" in section(source, "provenance")


@pytest.mark.parametrize(("anchor", "label"), [("missed", 1), ("flagged", 0)])
def test_the_report_shows_what_lies_farthest_on_the_wrong_side_of_each_threshold(
    folder: Path, tmp_path: Path, columns: dict[str, np.ndarray], anchor: str, label: int
) -> None:
    part = section(reported(folder, tmp_path / "r.html", "--top", 200)[1], anchor)
    wrong = {name: wrong_of_class(columns, k, label) for k, name in enumerate(NAMES)}
    shown = {Page(each).text.partition("</h3>")[0]: each for each in part.split("<h3>")[1:]}
    found = {text[: text.index(" of ")].rsplit(" ", 1)[0]: each for text, each in shown.items()}
    assert [*found] == [name for name in NAMES if wrong[name]]
    for name, each in found.items():
        assert [int(n) for n in re.findall(r"images/(\d+)\.png</", each)] == [row for _, row in wrong[name]]
        assert f"{len(wrong[name])} of {len(wrong[name])} shown" in each
    told = re.findall(
        rf"<dt>({'missed' if label else 'falsely flagged'})</dt><dd>(\d+)", (tmp_path / "r.html").read_text()
    )
    assert [int(count) for _, count in told] == [sum(map(len, wrong.values()))]


def test_each_class_has_one_picture_before_any_has_a_second(
    folder: Path, tmp_path: Path, columns: dict[str, np.ndarray]
) -> None:
    wrong = [found for k in range(len(NAMES)) if (found := wrong_of_class(columns, k, 1))]
    seconds = sorted((pairs[1] for pairs in wrong if len(pairs) > 1), key=lambda pair: -pair[0])[:2]
    expected = sorted([pairs[0][1] for pairs in wrong] + [row for _, row in seconds])
    part = section(reported(folder, tmp_path / "r.html", "--top", len(wrong) + 2)[1], "missed")
    assert sorted(int(n) for n in re.findall(r"images/(\d+)\.png</", part)) == expected
    few = section(reported(folder, tmp_path / "few.html", "--top", 2)[1], "missed")
    assert f"for which there is no room: {len(wrong) - 2}" in few


def test_a_run_without_maps_of_all_classes_shows_those_it_has(copy: Path, tmp_path: Path) -> None:
    explain(copy, "few", "--cams", "predicted")
    _, source = reported(copy, tmp_path / "r.html", "--data", copy / "chexpert.csv", run="few")
    assert "The run stores cams predicted: where they have none of the class, there is no map." in source
    assert "Original, without a map," in section(source, "missed")


def test_reliability_is_that_of_all_known_labels(folder: Path, tmp_path: Path, columns: dict[str, np.ndarray]) -> None:
    known = (columns["labels"] >= 0) & (columns["status"] & 1 == 0)[:, None]
    chances, true = 1 / (1 + np.exp(-columns["logits"][known].astype(float))), columns["labels"][known] == 1
    error = 0.0
    for bin_ in range(15):
        inside = (chances > bin_ / 15) & (chances <= (bin_ + 1) / 15)
        error += abs(true[inside].sum() - chances[inside].sum()) / len(true)
    _, source = reported(folder, tmp_path / "r.html")
    assert f"<dt>expected calibration error</dt><dd>{error:.3f}<small> (" in source
    rows = table_of(source, "Reliability by bin")[1:]
    assert sum(int(row[1]) for row in rows) == known.sum()


def test_a_report_without_any_known_label_judges_nothing(copy: Path, tmp_path: Path) -> None:
    with (copy / "blank.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("Path", *NAMES), *((f"images/{i}.png", *[""] * 14) for i in range(COUNT))])
    explain(copy, "blank", "--problem-type", "multi-label", data="blank.csv")
    _, source = reported(copy, tmp_path / "r.html", run="blank")
    sections = re.findall(r'<section id="([^"]*)"', source)
    assert {"together", "classes", "across"} <= set(sections)
    assert not {"missed", "flagged", "unsure", "mistakes"} & set(sections)
    assert "<dt>missed</dt><dd>–</dd>" in source


def test_blocks_of_any_size_report_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reported(folder, tmp_path / "r.html")[1]
    small_blocks(monkeypatch, 1)
    assert reported(folder, tmp_path / "rows.html")[1] == whole


def test_a_series_and_a_shard_have_a_report_of_each_class(copy: Path, tmp_path: Path) -> None:
    shutil.copytree(copy / "run", copy / "runs/one")
    assert (
        reported(copy, tmp_path / "a.html", run="runs")[0].said["classes"]
        == run_json("info", copy / "run").said["sigmoids"]
    )
    assert reported(copy, tmp_path / "b.html", run="run/shards/shard-00000.h5")[0].said["samples"] == 8


# reading


def test_tables_have_the_label_and_the_sigmoid_of_each_finding(
    folder: Path, columns: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run_json("export", folder / "run", "--to", "csv", "--out", tmp_path)
    with (tmp_path / "samples.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = [[int(row[f"label.{name}"]) for name in NAMES] for row in rows]
    np.testing.assert_array_equal(found, labels())
    assert "label" not in rows[0]
    sigmoids = [[float(row[f"sigmoid.{name}"] or "nan") for name in NAMES] for row in rows]
    np.testing.assert_allclose(sigmoids, 1 / (1 + np.exp(-columns["logits"].astype(float))), rtol=1e-12)
    assert rows[3]["label_name"] == "|".join(np.array(NAMES)[labels()[3] == 1])


def test_an_open_run_gives_labels_by_row_and_as_tables(folder: Path) -> None:
    with batchcam.open_run(folder / "run") as run:
        np.testing.assert_array_equal(run.labels[:], labels())
        sample = run[4]
        assert (sample.label, sample.prediction in NAMES) == (None, True)
        np.testing.assert_array_equal(sample.labels, labels()[4])
        assert "labels" in repr(run.labels)
        pandas = pytest.importorskip("pandas")
        table = run.to_dataframe()
        assert isinstance(table, pandas.DataFrame)
        np.testing.assert_array_equal(table[[f"label.{name}" for name in NAMES]], labels())
        assert "label" not in table


def test_a_single_label_run_has_no_labels(sound_run: Path) -> None:
    with batchcam.open_run(sound_run) as run, pytest.raises(AttributeError, match="the run is single-label"):
        _ = run.labels


def test_runs_of_other_thresholds_are_no_series(copy: Path) -> None:
    explain(copy, "runs/one")
    explain(copy, "runs/two", "--threshold", 0.3)
    ended = run_json("info", copy / "runs")
    assert (ended.code, "can't be read as a series: thresholds" in ended.err) == (1, True)
    shutil.rmtree(copy / "runs/two")
    shutil.copytree(copy / "runs/one", copy / "runs/three")
    ended = run_json("info", copy / "runs")
    assert ended.said["sigmoids"] == run_json("info", copy / "runs/one").said["sigmoids"]
