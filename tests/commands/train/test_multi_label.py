"""train on several labels a sample: what is learned and what is not known, the best epoch, what the checkpoint says."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import batchcam
from batchcam.cli.commands import cli
from batchcam.commands.train.epochs import loss_of, rarest_classes, split_by_class, validate
from batchcam.data.loader import BatchStream, SampleDataset
from batchcam.data.preprocessing import Preprocessing
from batchcam.network.weights_file import FORMAT_KEY
from tests.helpers.memory_source import MemorySource
from tests.helpers.networks import GapNetwork
from tests.helpers.outputs import Ended, run_json

NAMES = ("Edema", "Mass", "Nodule")
VIEW = ("--image-size", 32, "--mean", 0.5, "--std", 0.5)
WORDS = (*VIEW, "--arch", "shufflenet_v2_x0_5", "--epochs", 3, "--learning-rate", 3e-3, "--batch-size", 8)
PREPROCESSING = Preprocessing((16,), (16, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
COMPUTE = ("-j", 0, "--threads", 1, "--device", "cpu")
SINGLE_LABEL_WORDS = re.compile("accuracy|confusion|softmax|argmax|correct|by heart", re.IGNORECASE)


def labels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([-1, 0, 1], np.int8), (count, 3), p=(0.2, 0.5, 0.3))


def write_data(folder: Path, count: int, seed: int) -> Path:
    """Images whose channels are bright where a finding is; a list in CheXpert's form."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    found = labels(count, seed)
    texts = {1: "1.0", 0: "0.0", -1: ""}
    with (folder / "list.csv").open("w", newline="") as stream:
        write = csv.writer(stream).writerow
        write(("Path", "Age", *NAMES))
        for number, row in enumerate(found.tolist()):
            pixels = rng.integers(0, 120, (32, 32, 3)) + 100 * (np.array(row) == 1)
            cv2.imwrite(str(folder / f"images/{number}.png"), pixels.astype(np.uint8))
            write((f"images/{number}.png", 40 + number, *map(texts.__getitem__, row)))
    return folder / "list.csv"


def trained(data: Path, out: Path, *more: object) -> Ended:
    return run_json("train", data, "--out", out, *WORDS, *COMPUTE, *more)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("train"), 32, 0)


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("val"), 20, 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path, val: Path) -> tuple[Path, Ended]:
    out = tmp_path_factory.mktemp("finished") / "model.pth"
    ended = trained(data, out, "--val", val, "--problem-type", "multi-label")
    assert (ended.code, ended.faults) == (0, [])
    return out, ended


# the loss and the score


def test_loss_is_the_mean_over_known_labels_and_leaves_the_others_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(7, 3, requires_grad=True)
    truth = labels(7, 4)
    losses = []
    for row, each in enumerate(truth):
        for k, known in enumerate(each.tolist()):
            chance = 1 / (1 + np.exp(-float(logits.detach()[row, k])))
            losses += [-np.log(chance if known else 1 - chance)] * (known >= 0)
    loss = loss_of(logits, torch.from_numpy(truth))
    assert float(loss.detach()) == pytest.approx(np.mean(losses), rel=1e-6)
    loss.backward()
    assert logits.grad is not None
    np.testing.assert_array_equal(logits.grad.numpy() == 0, truth < 0)


def test_score_is_scikit_learns_mean_auroc_of_classes_with_both_kinds_whatever_the_batches() -> None:
    torch.manual_seed(0)
    network, truth = GapNetwork().eval(), labels(12, 5)
    truth[truth[:, 2] == 1, 2] = 0
    dataset = SampleDataset(MemorySource([(16, 20)] * 12), PREPROCESSING, (16, 16))
    with BatchStream(dataset, [list(range(12))], 0, torch.device("cpu")) as stream, torch.no_grad():
        logits = network(PREPROCESSING.normalise(next(stream).pixels)).numpy()
    expected = [roc_auc_score(truth[truth[:, k] >= 0, k], logits[truth[:, k] >= 0, k]) for k in (0, 1)]
    for size in (5, 12):
        batches = [list(range(i, min(i + size, 12))) for i in range(0, 12, size)]
        with BatchStream(dataset, batches, 0, torch.device("cpu")) as stream:
            score = validate(network, PREPROCESSING, truth, stream, torch.device("cpu"))
        assert score.aurocs == (pytest.approx(expected[0], abs=1e-12), pytest.approx(expected[1], abs=1e-12), None)
        assert score.score == pytest.approx(np.mean(expected), abs=1e-12)


def test_samples_are_held_out_by_the_rarest_class_that_is_true_of_them() -> None:
    truth = np.array([[1, 0, 1], [1, 1, 0], [1, 0, -1], [0, 0, 0], [-1, -1, 1], [1, 0, 1]], np.int8)
    assert rarest_classes(truth).tolist() == [2, 1, 0, 3, 2, 2]
    many = labels(400, 6)
    learn, hold = split_by_class(rarest_classes(many), 0.25, 0)
    shares = (many[hold] == 1).sum(0) / (many == 1).sum(0)
    assert sorted([*learn, *hold]) == list(range(400))
    assert ((shares > 0.18) & (shares < 0.32)).all()


# the checkpoint


def test_checkpoint_says_problem_type_and_classes_and_explain_needs_no_option(
    finished: tuple[Path, Ended], val: Path, tmp_path: Path
) -> None:
    out, ended = finished
    about = torch.load(out, weights_only=True)[FORMAT_KEY]
    assert (about["problem_type"], about["class_names"]) == ("multi-label", list(NAMES))
    assert about["training"]["val_auroc"] == ended.said["val_auroc"]
    assert SINGLE_LABEL_WORDS.findall(str({key: about[key] for key in about if key != "trained_on"})) == []
    explained = run_json("explain", out, val, "--out", tmp_path / "run", *COMPUTE)
    assert explained.code == 0
    with batchcam.open_run(tmp_path / "run") as run:
        assert run.plan.is_multi_label
        assert run.plan.thresholds == (0.5, 0.5, 0.5)
        np.testing.assert_array_equal(run.labels[:], labels(20, 1))
    assert "the checkpoint learned each class by itself" in (tmp_path / "run/run.json").read_text()


def test_best_epoch_has_the_largest_mean_auroc_and_evaluate_finds_it(finished: tuple[Path, Ended], val: Path) -> None:
    out, ended = finished
    said = ended.said
    aurocs = [epoch["val_auroc"] for epoch in said["history"]]
    assert said["val_auroc"] == max(aurocs) == aurocs[said["best_epoch"] - 1]
    assert max(epoch["train_auroc"] for epoch in said["history"]) > 0.7  # chance is a half
    found = {each["name"]: each["auroc"] for each in run_json("evaluate", out, val, *COMPUTE).said["classes"]}
    assert found == pytest.approx(said["classes"], abs=1e-12)
    assert np.mean([*found.values()]) == pytest.approx(said["val_auroc"], abs=1e-12)
    assert said["train_samples"] == (labels(32, 0) >= 0).any(1).sum() == 32 - said["train_left_out"]


def test_nothing_is_said_of_one_label(
    finished: tuple[Path, Ended], data: Path, val: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, ended = finished
    words = ["train", data, "--out", out, *WORDS, *COMPUTE, "--val", val, "--problem-type", "multi-label"]
    cli([str(word) for word in words], standalone_mode=False)  # nothing is left to do
    told = capsys.readouterr().err
    table = out.with_name("model.history.csv").read_text()
    assert table.startswith("epoch,train_loss,train_auroc,")
    assert [found for text in (ended.out, told, table) for found in SINGLE_LABEL_WORDS.findall(text)] == []
    assert "no thresholds are learned: explain and evaluate count from 0.5" in told
    assert re.search(r"^Edema +[01]\.\d{3}$", ended.out, re.MULTILINE)


def test_training_goes_on_to_the_same_weights(
    finished: tuple[Path, Ended], data: Path, val: Path, tmp_path: Path
) -> None:
    more: tuple[Any, ...] = ("--val", val, "--problem-type", "multi-label", "--epochs")
    trained(data, tmp_path / "model.pth", *more, 1)
    assert trained(data, tmp_path / "model.pth", *more, 3).said["history"] == finished[1].said["history"]
    assert (tmp_path / "model.pth").read_bytes() == finished[0].read_bytes()


# what is meant


def test_a_checkpoint_of_several_labels_explains_none_of_one(
    finished: tuple[Path, Ended], val: Path, tmp_path: Path
) -> None:
    ended = run_json("explain", finished[0], val, "--out", tmp_path / "run", "--problem-type", "single-label", *COMPUTE)
    assert (ended.code, "learned each class by itself" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no column is named label, and columns Edema, Mass, Nodule hold 1 and 0 .*: say --problem-type"),
        (("--findings", "Mass"), "has one class; a classifier needs two: --columns label=COLUMN"),
        (("--findings", "Mass,Scar"), "--findings Scar: .* has no such column"),
        (("--problem-type", "multi-label", "--one-output"), "has several labels a sample; --one-output is for two"),
        (("--problem-type", "single-label"), "sample 0 is of 0 classes, where --problem-type says one"),
    ],
)
def test_what_cannot_be_meant_is_refused(data: Path, tmp_path: Path, words: tuple[object, ...], message: str) -> None:
    ended = trained(data, tmp_path / "model.pth", *words)
    assert ended.code in (1, 2)
    assert re.search(message, ended.err)
    assert SINGLE_LABEL_WORDS.findall(ended.err) in ([], ["softmax"])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["1", "0", ""])
def test_a_class_that_cannot_be_learned_is_named(data: Path, tmp_path: Path, value: str) -> None:
    rows = [*csv.reader(data.read_text().splitlines())]
    rows = [rows[0], *([str(data.parent / row[0]), *row[1:-1], value] for row in rows[1:])]
    with (tmp_path / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    ended = trained(tmp_path / "list.csv", tmp_path / "model.pth", "--findings", ",".join(NAMES))
    assert (ended.code, "no yes, or no no, of 1 classes: Nodule; see --findings" in ended.err) == (1, True)


def test_columns_of_which_one_is_true_train_one_label_a_sample(tmp_path: Path, data: Path) -> None:
    rows = [(str(data.parent / f"images/{i}.png"), *np.eye(3, dtype=int)[i % 3].tolist()) for i in range(12)]
    with (tmp_path / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", *NAMES), *rows])
    ended = trained(tmp_path / "list.csv", tmp_path / "model.pth", "--problem-type", "single-label", "--epochs", 1)
    assert (ended.code, ended.said["problem_type"], "train_accuracy" in ended.said) == (0, "single-label", True)
    assert torch.load(tmp_path / "model.pth", weights_only=True)[FORMAT_KEY]["class_names"] == list(NAMES)
