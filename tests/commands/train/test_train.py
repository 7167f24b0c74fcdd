"""train as a whole: stopped and resumed to the same bits, refusals by name, a checkpoint that says everything."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision

import batchcam
from batchcam.cli.printing import evaluate_text, train_text
from batchcam.commands.evaluate import evaluate as evaluate_module
from batchcam.commands.evaluate.config import EvaluateConfig
from batchcam.commands.evaluate.evaluate import evaluate
from batchcam.commands.explain.assembly import assemble
from batchcam.commands.train import train as train_module
from batchcam.commands.train.config import TrainConfig
from batchcam.commands.train.epochs import Score
from batchcam.commands.train.train import TrainSummary, train
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import (
    EXIT_FINDINGS,
    EXIT_STOPPED_EARLY,
    CheckpointError,
    ConfigError,
    DatasetError,
    StoppedEarlyError,
    stopped_by,
)
from tests.helpers import mostly_slow

NAMES = ("ant", "bee", "cat")
EPOCHS = 3
ARCH = "shufflenet_v2_x0_5"  # a checkpoint of which is two megabytes, where the default's is 45


def write_images(root: Path, count: int = 12, seed: int = 0) -> Path:
    """Three classes of `count` noisy images of 32 px, each brightest in another channel."""
    rng = np.random.default_rng(seed)
    for channel, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 120, (32, 32, 3))
            pixels[..., channel] += 100
            cv2.imwrite(str(root / name / f"{number:02d}.png"), pixels.astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def config(images: Path | str, out: Path, **changes) -> TrainConfig:
    settings = {
        "arch": ARCH, "epochs": EPOCHS, "batch_size": 8, "val_fraction": 0.25, "learning_rate": 1e-3,
        "preprocess": "stl10", "image_size": "32", "workers": 0, "threads": 1, "device": "cpu", "quiet": True,
        **changes,
    }  # fmt: skip
    return TrainConfig(str(images), out, **settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, images) -> tuple[Path, TrainSummary]:
    """An uninterrupted training."""
    out = tmp_path_factory.mktemp("finished") / "best.pth"
    return out, train(config(images, out))


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def last_of(out: Path) -> Path:
    return out.with_name("best.last.pth")


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = load(one)["model"], load(other)["model"]
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


def test_training_learns_and_reports_every_epoch(images, tmp_path):
    summary = train(config(images, tmp_path / "best.pth", arch="resnet18"))
    assert summary.epochs == EPOCHS
    assert [e["epoch"] for e in summary.history] == [1, 2, 3]
    assert max(e["train_accuracy"] for e in summary.history) > 0.6  # chance is a third
    assert summary.findings == 0


def test_checkpoint_says_architecture_classes_preprocessing_epoch_and_accuracies(finished):
    out, summary = finished
    about = load(out)["batchcam"]
    assert (about["architecture"], about["class_names"]) == (ARCH, list(NAMES))
    assert about["preprocessing"]["image_size"] == [32, 32]
    assert about["training"]["epoch"] == summary.best_epoch
    assert about["training"]["val_accuracy"] == summary.val_accuracy
    assert about["training"]["train_accuracy"] == summary.train_accuracy
    assert "optimizer" not in load(out)
    assert "optimizer" in load(last_of(out))


def test_best_checkpoint_is_the_first_epoch_with_the_highest_validation_accuracy(images, tmp_path, monkeypatch):
    accuracies = iter([0.25, 0.75, 0.75, 0.5])
    weights: list[torch.Tensor] = []

    def validated(config, network, *rest) -> Score:
        weights.append(network.fc.weight.detach().clone())
        return Score(1.0, next(accuracies), 0, np.empty((0, 32), np.uint8))

    monkeypatch.setattr(train_module, "_validate", validated)
    summary = train(config(images, tmp_path / "best.pth", epochs=4))
    assert (summary.best_epoch, summary.val_accuracy) == (2, 0.75)
    assert torch.equal(load(tmp_path / "best.pth")["model"]["fc.weight"], weights[1])
    assert torch.equal(load(last_of(tmp_path / "best.pth"))["model"]["fc.weight"], weights[3])


def test_recorded_validation_accuracy_is_what_evaluate_finds(images, tmp_path, finished):
    """On a validation dataset of its own, by another command."""
    val = write_images(tmp_path / "val", 5, seed=9)
    out = tmp_path / "best.pth"
    summary = train(config(images, out, val=str(val), epochs=2))
    found = evaluate(
        EvaluateConfig(Classifier(out), str(val), Compute(batch_size=4, workers=0, threads=1, device="cpu"), quiet=True)
    )
    assert found.accuracy == pytest.approx(summary.val_accuracy)
    assert load(out)["batchcam"]["training"]["settings"]["validation_samples"] == 15


def test_evaluate_tells_logits_that_are_not_finite_from_images_that_can_not_be_read(
    images, tmp_path, finished, monkeypatch
):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    broken = sorted(data.rglob("*.png"))[0]
    broken.write_bytes(b"no image")

    def predict(network, preprocessing, batch, class_count, device, precision):  # as fp16 may, of single samples
        logits = np.where(batch.unreadable | (batch.indices.numpy() == 7), np.nan, 0)
        return np.repeat(logits[:, None], class_count, 1)

    monkeypatch.setattr(evaluate_module, "predict", predict)
    compute = Compute(batch_size=4, workers=0, threads=1, device="cpu")
    found = evaluate(EvaluateConfig(Classifier(finished[0]), str(data), compute, quiet=True))
    assert (found.unreadable, found.non_finite, found.findings) == (1, 1, 2)
    assert "1 unreadable, 1 with logits that are not finite" in evaluate_text(found)


def stop_in_epoch(monkeypatch, epoch: int) -> None:
    original = train_module.epochs.train_epoch
    calls = iter(range(1, 100))

    def stopping(*arguments):
        if next(calls) == epoch:
            raise stopped_by("SIGTERM")
        return original(*arguments)

    monkeypatch.setattr(train_module.epochs, "train_epoch", stopping)


@pytest.mark.parametrize("epoch", mostly_slow([1, 2, 3], 2))
def test_training_that_was_stopped_resumes_to_the_same_bits(images, tmp_path, monkeypatch, finished, epoch):
    out = tmp_path / "best.pth"
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, epoch)
        with pytest.raises(StoppedEarlyError, match="run the same command again"):
            train(config(images, out))
    assert last_of(out).exists() == (epoch > 1)
    summary = train(config(images, out))
    assert dataclasses.replace(summary, checkpoint="") == dataclasses.replace(finished[1], checkpoint="")
    assert_same_weights(out, finished[0])
    assert_same_weights(last_of(out), last_of(finished[0]))
    assert out.read_bytes() == finished[0].read_bytes()


def test_training_that_was_killed_between_best_and_last_repeats_the_epoch(images, tmp_path, monkeypatch, finished):
    out, landed = tmp_path / "best.pth", []
    original = train_module.landing.land

    def dying(path: Path, data: bytes) -> None:
        if path == last_of(out) and len(landed) >= 1:
            raise KeyboardInterrupt
        landed.append(path)
        original(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(train_module.landing, "land", dying)
        with pytest.raises(KeyboardInterrupt):
            train(config(images, out))
    assert not last_of(out).exists()
    train(config(images, out))
    assert_same_weights(out, finished[0])


def command(images: Path, out: Path) -> list[str]:
    words = [
        "train", images, "--out", out, "--arch", ARCH, "--epochs", EPOCHS, "-b", 8, "--val-fraction", 0.25,
        "--learning-rate", 1e-3, "--preprocess", "stl10", "--image-size", 32, "-j", 1, "--threads", 1,
        "--device", "cpu",
    ]  # fmt: skip
    return list(map(str, words))


def test_sigterm_stops_training_with_75_and_the_same_command_resumes_to_the_same_bits(images, tmp_path, finished):
    out = tmp_path / "best.pth"
    words = [sys.executable, "-m", "batchcam", *command(images, out)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        end = time.monotonic() + 60
        while not last_of(out).exists() and time.monotonic() < end:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does: to loader processes as well
        _, stderr = process.communicate(timeout=60)
    assert process.returncode in (EXIT_STOPPED_EARLY, 0), stderr  # 0: it was quicker than the signal
    if process.returncode:
        assert "stopped by SIGTERM" in stderr
        ended = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
        assert "starting at epoch 2" in ended.stderr or "starting at epoch 3" in ended.stderr
    assert_same_weights(out, finished[0])


def test_finished_training_is_not_repeated(images, tmp_path, finished, monkeypatch):
    for path in (finished[0], last_of(finished[0])):
        shutil.copy(path, tmp_path / path.name)
    monkeypatch.setattr(train_module.epochs, "train_epoch", lambda *a: pytest.fail("trained again"))
    summary = train(config(images, tmp_path / "best.pth"))
    assert dataclasses.replace(summary, checkpoint="") == dataclasses.replace(finished[1], checkpoint="")


@pytest.mark.parametrize(
    ("change", "named"),
    [({"learning_rate": 1e-4}, "learning rate (0.001 there, 0.0001 here)"), ({"flip": True}, "flip (False there, True"),
     ({"epochs": 2}, "was trained for 3 epochs, more than --epochs 2"),
     ({"batch_size": 4}, "batch size"), ({"seed": 1}, "seed"), ({"image_size": "64"}, "preprocessing"),
     ({"pixels": "tensor"}, "preprocessing"),
     ({"val_fraction": 0.5}, "val fraction"), ({"weight_decay": 0.5}, "weight decay")],
)  # fmt: skip
def test_resuming_with_another_setting_is_refused_by_name(images, tmp_path, finished, change, named):
    shutil.copy(last_of(finished[0]), last_of(tmp_path / "best.pth"))
    with pytest.raises(CheckpointError) as error:
        train(config(images, tmp_path / "best.pth", **change))
    assert named in str(error.value)
    assert "choose another --out" in str(error.value)


def test_a_checkpoint_says_how_the_pixels_were_made_that_it_learned_from(images, tmp_path):
    train(config(images, tmp_path / "best.pth", epochs=1, pixels="draft", image_size="16"))
    assembly = assemble(Classifier(tmp_path / "best.pth"), str(images))
    assert assembly.checkpoint.preprocessing["pixels"] == "draft"
    assert (assembly.preprocessing.pixels, assembly.source.decoding.least) == ("draft", 16)


def test_resuming_with_other_images_is_refused(tmp_path, finished):
    shutil.copy(last_of(finished[0]), last_of(tmp_path / "best.pth"))
    with pytest.raises(CheckpointError, match="dataset fingerprint"):
        train(config(write_images(tmp_path / "other", seed=5), tmp_path / "best.pth"))


def test_resuming_with_another_validation_dataset_of_the_same_size_is_refused(images, tmp_path):
    one, other = (str(write_images(tmp_path / n, 2, seed=s)) for n, s in (("one", 1), ("two", 2)))
    train(config(images, tmp_path / "best.pth", val=one, epochs=1))
    with pytest.raises(CheckpointError, match="validation fingerprint"):
        train(config(images, tmp_path / "best.pth", val=other, epochs=1))


@pytest.mark.parametrize("content", [b"", b"dear diary", None])
def test_last_checkpoint_that_is_none_is_refused_and_kept(images, tmp_path, content):
    last = last_of(tmp_path / "best.pth")
    if content is None:
        torch.save({"model": {}}, last)
    else:
        last.write_bytes(content)
    before = last.read_bytes()
    with pytest.raises(CheckpointError, match=r"best\.last\.pth"):
        train(config(images, tmp_path / "best.pth"))
    assert last.read_bytes() == before


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory, images) -> Path:
    root = tmp_path_factory.mktemp("two")
    for name in NAMES[:2]:
        shutil.copytree(images / name, root / name)
    return root


@pytest.fixture(scope="module")
def one_output(tmp_path_factory, two_classes) -> tuple[Path, TrainSummary]:
    """An uninterrupted training of one output for two classes."""
    out = tmp_path_factory.mktemp("one") / "best.pth"
    return out, train(config(two_classes, out, one_output=True))


def test_checkpoint_of_one_output_says_so_and_its_two_classes(one_output, finished):
    saved = load(one_output[0])
    assert saved["batchcam"]["class_names"] == ["ant", "bee"]
    assert saved["batchcam"]["training"]["settings"]["one_output"] is True
    assert saved["model"]["fc.weight"].shape == (1, 1024)
    assert "one_output" not in load(finished[0])["batchcam"]["training"]["settings"]  # the bytes of older versions


def test_one_output_goes_on_to_the_bytes_of_a_training_from_the_start(two_classes, tmp_path, one_output):
    for epochs in (1, EPOCHS):
        train(config(two_classes, tmp_path / "best.pth", epochs=epochs, one_output=True))
    assert (tmp_path / "best.pth").read_bytes() == one_output[0].read_bytes()
    assert last_of(tmp_path / "best.pth").read_bytes() == last_of(one_output[0]).read_bytes()


@pytest.mark.parametrize("there", [True, False])
def test_resuming_with_another_number_of_outputs_is_refused_by_name(two_classes, tmp_path, there):
    train(config(two_classes, tmp_path / "best.pth", epochs=1, one_output=there))
    with pytest.raises(CheckpointError, match=rf"otherwise: one output \({there} there, {not there} here\); choose"):
        train(config(two_classes, tmp_path / "best.pth", epochs=1, one_output=not there))


def test_one_output_is_told_with_the_class_of_each_sign(two_classes, tmp_path, one_output, capsys):
    for path in (one_output[0], last_of(one_output[0])):
        shutil.copy(path, tmp_path / path.name)
    train(config(two_classes, tmp_path / "best.pth", one_output=True, quiet=False))
    assert "one output z: ant has logit -z/2 and bee has logit z/2\n" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["folders", "0 and 1", "names"])
def test_one_output_is_explained_and_evaluated_as_it_was_validated(two_classes, tmp_path, form):
    val, out = write_images(tmp_path / "val", 5, seed=9), tmp_path / "best.pth"
    shutil.rmtree(val / NAMES[2])
    data = [str(two_classes), str(val)]
    if form != "folders":
        for number, root in enumerate((two_classes, val)):
            data[number] = str(tmp_path / f"{number}.csv")
            labels = NAMES[:2] if form == "names" else (0, 1)
            rows = [(path, labels[k]) for k in (0, 1) for path in sorted((root / NAMES[k]).iterdir())]
            with Path(data[number]).open("w", newline="") as stream:
                csv.writer(stream).writerows([("path", "label"), *rows])
    summary = train(config(data[0], out, val=data[1], epochs=1, one_output=True))
    compute = Compute(batch_size=4, workers=0, threads=1, device="cpu")
    found = evaluate(EvaluateConfig(Classifier(out), data[1], compute, quiet=True))
    assert found.accuracy == pytest.approx(summary.val_accuracy)
    explained = batchcam.explain(str(out), data[1], tmp_path / "run", workers=0, threads=1, device="cpu", quiet=True)
    assert explained.merged.totals["accuracy"] == pytest.approx(summary.val_accuracy)
    with batchcam.open_run(tmp_path / "run") as run:
        assert run.class_names == (("0", "1") if form == "0 and 1" else NAMES[:2])
        logits = torch.from_numpy(run.logits[:])
        loss = F.binary_cross_entropy_with_logits(2 * logits[:, 1], torch.from_numpy(run.label[:]).float())
        assert float(loss) == pytest.approx(summary.history[0]["val_loss"], rel=1e-4)
        assert float(np.abs(run.identity_residual[:]).max()) < 1e-4


def test_one_output_starts_from_the_weights_of_one(two_classes, tmp_path, one_output):
    out = tmp_path / "best.pth"
    train(config(two_classes, out, weights=str(one_output[0]), epochs=1, learning_rate=1e-9, one_output=True))
    before, after = load(one_output[0])["model"], load(out)["model"]
    torch.testing.assert_close(after["conv1.0.weight"], before["conv1.0.weight"], rtol=0, atol=1e-6)
    assert not torch.equal(after["fc.weight"], before["fc.weight"])


def test_one_output_for_more_than_two_classes_is_refused(images, tmp_path):
    with pytest.raises(
        DatasetError, match="has 3 classes; --one-output is for two: leave it out for one output a clas"
    ):
        train(config(images, tmp_path / "best.pth", one_output=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flip", [False, True])
def test_a_training_that_is_told_more_epochs_goes_on_to_what_it_would_have_been_from_the_start(
    images, tmp_path, finished, flip
):
    out, whole = tmp_path / "best.pth", finished[0]
    if flip:
        whole = tmp_path / "whole" / "best.pth"
        train(config(images, whole, flip=True))
        assert load(whole)["model"]["fc.bias"].tolist() != load(finished[0])["model"]["fc.bias"].tolist()
    for epochs in (1, EPOCHS):
        summary = train(config(images, out, epochs=epochs, flip=flip))
        assert summary.epochs == epochs
    assert out.read_bytes() == whole.read_bytes()
    assert last_of(out).read_bytes() == last_of(whole).read_bytes()


def test_a_training_of_an_older_version_goes_on_with_the_epoch_that_it_kept(images, tmp_path, monkeypatch):
    out = tmp_path / "best.pth"
    scores = [Score(loss, 0.75, 0, np.empty((0, 32), np.uint8)) for loss in (1.0, 0.9, 0.95)]
    monkeypatch.setattr(train_module, "_validate", lambda *_: scores.pop(0))
    for epochs in (1, 2):  # of equal accuracy it kept the first
        train(config(images, out, epochs=epochs))
        shutil.copy(out, tmp_path / f"{epochs}.pth")
    shutil.copy(tmp_path / "1.pth", out)
    for path in (out, last_of(out)):
        content = load(path)
        del content["batchcam"]["training"]["settings"]["flip"]
        content["batchcam"]["training"]["settings"]["epochs"] = 2
        torch.save(content, path)
    assert train(config(images, out, epochs=2)).best_epoch == 1
    assert train(config(images, out, epochs=3)).best_epoch == 3


def test_of_epochs_of_equal_validation_accuracy_the_one_with_the_lower_loss_is_kept(images, tmp_path, monkeypatch):
    scores = [
        Score(loss, accuracy, 0, np.empty((0, 32), np.uint8))
        for loss, accuracy in ((1.0, 0.75), (0.5, 0.75), (0.7, 0.75), (0.1, 0.5))
    ]
    monkeypatch.setattr(train_module, "_validate", lambda *_: scores.pop(0))
    out = tmp_path / "best.pth"
    assert train(config(images, out, epochs=4)).best_epoch == 2
    assert load(out)["batchcam"]["training"]["epoch"] == 2


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_beside_the_checkpoint_has_every_epoch_and_what_it_took(images, tmp_path):
    out, table = tmp_path / "best.pth", tmp_path / "best.history.csv"
    train(config(images, out, epochs=1))
    (first,) = rows(table)
    assert float(first["seconds"]) >= 0
    table.write_text(table.read_text().replace(f",{first['seconds']}\n", ",123.4\n"))
    history = train(config(images, out, epochs=2)).history
    assert [row.pop("seconds") != "" for row in rows(table)] == [True, True]
    assert rows(table)[0]["seconds"] == "123.4"  # of the first call
    told = [
        {name: json.loads(row[name] or "null") for name in epoch}
        for row, epoch in zip(rows(table), history, strict=True)
    ]
    assert told == history


def test_a_table_that_is_no_history_is_refused_and_kept(images, tmp_path):
    table = tmp_path / "best.history.csv"
    table.write_text("dear,diary\n")
    with pytest.raises(CheckpointError, match=r"best\.history\.csv: is there.*; choose another --out, or say --overwr"):
        train(config(images, tmp_path / "best.pth", epochs=1))
    assert table.read_text() == "dear,diary\n"
    assert not (tmp_path / "best.pth").exists()
    train(config(images, tmp_path / "best.pth", epochs=1, overwrite=True))
    assert len(rows(table)) == 1


def test_a_best_checkpoint_that_is_gone_is_not_told_to_be_there(images, tmp_path, finished):
    shutil.copy(last_of(finished[0]), last_of(tmp_path / "best.pth"))
    with pytest.raises(CheckpointError, match=r"best\.last\.pth: is there, and no best\.pth lies beside it"):
        train(config(images, tmp_path / "best.pth"))


def test_what_was_learned_by_heart_is_told(finished):
    history = [{**epoch, "train_accuracy": 1.0} for epoch in finished[1].history]
    heart = dataclasses.replace(finished[1], learned_by_heart=True, val_accuracy=0.2333, history=history)
    assert train_text(heart).splitlines()[1] == "training 1.000, validation 0.233: learned by heart"
    assert len(train_text(dataclasses.replace(heart, learned_by_heart=None)).splitlines()) == 1


def put_theirs(kind: str, path: Path, finished: Path, images: Path) -> None:
    """Put a file at `path` that this training did not make."""
    if kind == "text":
        path.write_text("dear diary")
    elif kind == "state dict":
        torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), path)
    elif kind == "other training":
        train(config(images, path, seed=7, epochs=1))
        last_of(path).unlink()
    elif kind == "alone":  # of the same training, but with nothing beside it to go on from
        content = load(finished)
        content["batchcam"]["training"]["history"] *= 2
        torch.save(content, path)
    else:
        path.symlink_to("nowhere.pth")


@pytest.mark.parametrize("kind", ["text", "state dict", "other training", "alone", "link to nothing"])
def test_checkpoint_that_this_training_did_not_make_is_refused_and_kept(images, tmp_path, finished, kind):
    out = tmp_path / "best.pth"
    put_theirs(kind, out, finished[0], images)
    before = out.read_bytes() if out.exists() else None
    with pytest.raises(CheckpointError, match=r"best\.pth: .*; choose another --out, or say --overwrite$"):
        train(config(images, out))
    assert (out.read_bytes() if out.exists() else None) == before
    assert not last_of(out).exists()
    train(config(images, out, overwrite=True))
    assert_same_weights(out, finished[0])


def test_checkpoint_that_took_the_place_of_this_trainings_is_refused(images, tmp_path, finished):
    out = tmp_path / "best.pth"
    for source, target in ((finished[0], out), (last_of(finished[0]), last_of(out))):
        shutil.copy(source, target)
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), out)
    with pytest.raises(CheckpointError, match="choose another --out, or say --overwrite"):
        train(config(images, out))
    train(config(images, out, overwrite=True))
    assert_same_weights(out, finished[0])


def test_overwriting_goes_on_with_its_own_training(images, tmp_path, finished):
    out = tmp_path / "best.pth"
    for source, target in ((finished[0], out), (last_of(finished[0]), last_of(out))):
        shutil.copy(source, target)
    before = last_of(out).stat().st_mtime_ns
    assert train(config(images, out, overwrite=True)) == dataclasses.replace(finished[1], checkpoint=str(out))
    assert last_of(out).stat().st_mtime_ns == before


def test_weights_of_another_class_count_are_fine_tuned(images, tmp_path):
    torch.manual_seed(3)
    pretrained = torchvision.models.get_model(ARCH, num_classes=7)
    torch.save(pretrained.state_dict(), tmp_path / "weights.pth")
    out = tmp_path / "best.pth"
    train(config(images, out, weights=str(tmp_path / "weights.pth"), epochs=1, learning_rate=1e-12))
    state = load(out)["model"]
    assert state["fc.weight"].shape == (3, 1024)
    torch.testing.assert_close(state["conv1.0.weight"], pretrained.conv1[0].weight, rtol=0, atol=1e-8)


def test_dataset_without_labels_is_refused(images, tmp_path):
    paths = sorted(images.rglob("*.png"))
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{os.path.relpath(p, tmp_path)}\n" for p in paths))
    with pytest.raises(DatasetError, match="36 samples have no label"):
        train(config(str(tmp_path / "list.csv"), tmp_path / "best.pth"))


def test_validation_dataset_without_labels_is_refused(images, tmp_path):
    paths = sorted(images.rglob("*.png"))
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{os.path.relpath(p, tmp_path)}\n" for p in paths))
    with pytest.raises(DatasetError, match="validation needs labels"):
        train(config(images, tmp_path / "best.pth", val=str(tmp_path / "list.csv")))


def test_dataset_of_one_class_is_refused(images, tmp_path):
    shutil.copytree(images / "ant", tmp_path / "one" / "ant")
    with pytest.raises(DatasetError, match="has one class"):
        train(config(tmp_path / "one", tmp_path / "best.pth"))


def test_unreadable_training_image_is_a_finding_and_no_end(images, tmp_path, run_cli):
    root = tmp_path / "images"
    shutil.copytree(images, root)
    (root / "bee" / "03.png").write_bytes(b"torn")
    code, told, _ = run_cli(*command(root, tmp_path / "best.pth"), "--epochs", "1", "--json")
    summary = json.loads(told.splitlines()[-1])
    assert (code, summary["unreadable"]) == (EXIT_FINDINGS, 1)


def test_dataset_without_a_readable_image_is_refused_with_the_first_reason(images, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(images, root)
    for path in root.rglob("*.png"):
        path.write_bytes(b"torn")
    with pytest.raises(DatasetError, match="no image to learn from could be read; one that could not: not an image"):
        train(config(root, tmp_path / "best.pth"))
    assert not (tmp_path / "best.pth").exists()


def test_without_validation_the_best_is_the_last_epoch(images, tmp_path):
    summary = train(config(images, tmp_path / "best.pth", val_fraction=0, epochs=2))
    assert (summary.best_epoch, summary.val_accuracy) == (2, None)
    assert load(tmp_path / "best.pth")["batchcam"]["training"]["epoch"] == 2


def test_folder_of_the_checkpoint_is_made_before_the_first_epoch(images, tmp_path):
    train(config(images, tmp_path / "new" / "folder" / "best.pth", epochs=1))
    assert (tmp_path / "new" / "folder" / "best.pth").exists()


def test_folder_in_the_checkpoints_place_is_refused_before_the_first_epoch(images, tmp_path, monkeypatch):
    monkeypatch.setattr(train_module.epochs, "train_epoch", lambda *a: pytest.fail("trained"))
    with pytest.raises(ConfigError, match="a folder"):
        train(config(images, tmp_path))


def test_loader_processes_do_not_change_the_result(images, tmp_path, finished):
    train(config(images, tmp_path / "best.pth", workers=2))
    assert_same_weights(tmp_path / "best.pth", finished[0])
