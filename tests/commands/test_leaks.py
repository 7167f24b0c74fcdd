"""Images that a network was trained on are told and counted wherever its predictions of them are judged."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision

from batchcam import open_run
from batchcam.cli.printing import evaluate_text, explain_text, info_text, train_text
from batchcam.commands.evaluate.config import EvaluateConfig
from batchcam.commands.evaluate.evaluate import EvaluateSummary, evaluate
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import ExplainSummary, explain
from batchcam.commands.info.info import info
from batchcam.commands.report.config import ReportConfig
from batchcam.commands.report.report import report
from batchcam.commands.train.config import TrainConfig
from batchcam.commands.train.train import TrainSummary, train
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import CheckpointError
from batchcam.network.checkpoint import load_checkpoint, pack_checkpoint
from batchcam.network.training_images import TrainingImages
from tests.commands.verify.test_insider import change

NAMES = ("ant", "bee", "cat")
PREPROCESSING = {
    "resize": [32], "image_size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear",
}  # fmt: skip
COMPUTE = Compute(batch_size=4, workers=0, threads=1, device="cpu")


def write_images(root: Path, per_class: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for name in NAMES:
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            size = (32, 32 + int(rng.integers(9)), 3)
            cv2.imwrite(str(root / name / f"{seed}-{number}.png"), rng.integers(0, 256, size, np.uint8))
    return root


def sha256_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*/*.png")
    }


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images to learn from."""
    return write_images(tmp_path_factory.mktemp("learned") / "images", 4, seed=0)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, learned: Path) -> Path:
    """New images, and two of those to learn from under other names and labels."""
    root = write_images(tmp_path_factory.mktemp("mixed") / "images", 3, seed=1)
    shutil.copy(learned / "ant/0-0.png", root / "ant/again.png")
    shutil.copy(learned / "bee/0-1.png", root / "cat/relabelled.png")
    return root


def training(data: Path, out: Path, **changes: Any) -> TrainSummary:
    settings = {
        "arch": "shufflenet_v2_x0_5", "epochs": 1, "batch_size": 4, "preprocess": "stl10", "image_size": "32",
        "workers": 0, "threads": 1, "device": "cpu", "quiet": True, **changes,
    }  # fmt: skip
    return train(TrainConfig(str(data), out, **settings))


def checkpoint(path: Path, images: TrainingImages | None, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    network = torchvision.models.shufflenet_v2_x0_5(num_classes=len(NAMES))
    path.write_bytes(pack_checkpoint(network.state_dict(), "shufflenet_v2_x0_5", NAMES, PREPROCESSING, {}, images))
    return path


def images_of(*folders: Path) -> TrainingImages:
    digests = b"".join(bytes.fromhex(digest) for folder in folders for digest in sha256_of(folder).values())
    return TrainingImages.of(np.frombuffer(digests, np.uint8).reshape(-1, 32), "files")


def explained(path: Path, data: Path | str, out: Path, **changes: Any) -> ExplainSummary:
    settings = {"shard_size": 4, "quiet": True, **changes}
    return explain(ExplainConfig(Classifier(path), str(data), out, COMPUTE, **settings))


def evaluated(path: Path, data: Path | str) -> EvaluateSummary:
    return evaluate(EvaluateConfig(Classifier(path), str(data), COMPUTE, quiet=True))


def held(path: Path, folder: Path) -> set[str]:
    """The images of a folder that a checkpoint says it was trained on."""
    images = load_checkpoint(path).trained_on
    assert images is not None
    found = {name: bytes.fromhex(digest) for name, digest in sha256_of(folder).items()}
    return {name for name, digest in found.items() if images.hold(np.frombuffer(digest, np.uint8)[None]).all()}


def test_a_checkpoint_holds_the_images_of_its_training_and_those_of_validation_not(
    learned: Path, mixed: Path, tmp_path: Path
) -> None:
    training(learned, tmp_path / "m.pth", val=str(mixed))
    assert held(tmp_path / "m.pth", learned) == set(sha256_of(learned))
    assert held(tmp_path / "m.pth", mixed) == {"ant/again.png", "cat/relabelled.png"}
    torch.load(tmp_path / "m.pth", weights_only=True)


def test_images_that_training_could_not_read_are_not_held_and_not_counted(learned: Path, tmp_path: Path) -> None:
    images = Path(shutil.copytree(learned, tmp_path / "images"))
    (images / "bee/broken.png").write_bytes(b"no image")
    summary = training(images, tmp_path / "m.pth", batch_size=13, val_fraction=0)
    assert held(tmp_path / "m.pth", images) == set(sha256_of(learned))
    assert (summary.train_samples, summary.train_left_out, summary.val_samples) == (12, 1, None)
    assert "of 12 images (1 left out; while learning), validation accuracy -" in train_text(summary)


def validated_on_itself(learned: Path, tmp_path: Path) -> TrainSummary:
    return training(learned, tmp_path / "m.pth", val=str(learned))


def validated_on_copies(learned: Path, tmp_path: Path) -> TrainSummary:
    return training(learned, tmp_path / "m.pth", val=str(shutil.copytree(learned, tmp_path / "copy")))


def validated_on_twins(learned: Path, tmp_path: Path) -> TrainSummary:
    """Each image stands twice in the dataset, of which a part is held out."""
    twins = Path(shutil.copytree(learned, tmp_path / "twins"))
    for path in list(twins.glob("*/*.png")):
        shutil.copy(path, path.with_name(f"twin-{path.name}"))
    return training(twins, tmp_path / "m.pth", val_fraction=0.15, seed=1)


def validated_on_what_the_weights_had_seen(learned: Path, tmp_path: Path) -> TrainSummary:
    other = write_images(tmp_path / "other", 2, seed=7)
    before = checkpoint(tmp_path / "before.pth", images_of(learned))
    return training(other, tmp_path / "m.pth", weights=str(before), val=str(learned))


@pytest.mark.parametrize(
    "leaking",
    [validated_on_itself, validated_on_copies, validated_on_twins, validated_on_what_the_weights_had_seen],
    ids=lambda leaking: leaking.__name__,
)
def test_validation_on_training_images_is_told_and_counted(leaking: Any, learned: Path, tmp_path: Path) -> None:
    summary = leaking(learned, tmp_path)
    assert summary.val_trained_on == summary.val_samples > 0
    assert summary.history[0]["val_trained_on"] == summary.val_samples
    assert f"({summary.val_samples} trained on: this says nothing of other images)" in train_text(summary)


def test_a_warning_comes_before_the_first_epoch_where_both_lists_are_one(
    learned: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training(learned, tmp_path / "other.pth", val=str(mixed))
    training(learned, tmp_path / "split.pth")
    assert "warning: --val" not in capsys.readouterr().err
    training(learned, tmp_path / "m.pth", val=str(learned))
    assert f"warning: --val {learned} is the dataset to learn from" in capsys.readouterr().err


def test_validation_on_other_images_counts_none_and_a_part_is_counted(
    learned: Path, mixed: Path, tmp_path: Path
) -> None:
    clean = training(learned, tmp_path / "clean.pth", val=str(write_images(tmp_path / "new", 2, seed=9)))
    assert (clean.val_trained_on, clean.val_samples) == (0, 6)
    assert "trained on" not in train_text(clean)
    part = training(learned, tmp_path / "part.pth", val=str(mixed))
    assert (part.val_trained_on, part.val_samples) == (2, 11)
    assert "of 11 images (2 trained on" in train_text(part)


def test_a_resumed_training_holds_the_same_images_and_one_from_before_says_nothing(
    learned: Path, tmp_path: Path
) -> None:
    """With batches of which one image is left over, another one in each epoch."""
    training(learned, tmp_path / "a.pth", epochs=3, batch_size=11, val_fraction=0)
    training(learned, tmp_path / "b.pth", epochs=3, batch_size=11, val_fraction=0)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    assert held(tmp_path / "a.pth", learned) == set(sha256_of(learned))
    last = tmp_path / "a.last.pth"
    saved = torch.load(last, weights_only=True)
    about = saved["batchcam"]
    assert {(e["train_samples"], e["train_left_out"]) for e in about["training"]["history"]} == {(11, 1)}
    del about["trained_on"], about["training"]["history"][2]
    torch.save(saved, last)
    shutil.copy(last, tmp_path / "a.pth")
    assert training(learned, tmp_path / "a.pth", epochs=3, batch_size=11, val_fraction=0).epochs == 3
    assert load_checkpoint(tmp_path / "a.pth").trained_on is None


def test_rows_manifest_info_and_report_say_which_images_were_trained_on(
    learned: Path, mixed: Path, tmp_path: Path
) -> None:
    path, run = checkpoint(tmp_path / "m.pth", images_of(learned)), tmp_path / "run"
    summary = explained(path, mixed, run)
    with open_run(run) as opened:
        marks = dict(zip(opened.sample_id[:], opened.trained_on[:].tolist(), strict=True))
        assert opened.sample("ant/again.png").trained_on is True
    assert {name for name, mark in marks.items() if mark == 1} == {"ant/again.png", "cat/relabelled.png"}
    assert set(marks.values()) == {0, 1}
    assert json.loads((run / "manifest.json").read_text())["totals"]["trained_on"] == 2
    assert (summary.trained_on, info(run).trained_on) == (2, 2)
    assert "the network was trained on 2 of 11 samples" in explain_text(summary)
    assert "trained on  2 of 11 samples" in info_text(info(run))
    assert report(ReportConfig(run, tmp_path / "report.html", quiet=True)).trained_on == 2
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []


def test_what_was_trained_on_is_told_before_the_work_where_a_few_images_show_it(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(tmp_path / "m.pth", images_of(learned))
    explained(path, learned, tmp_path / "run", quiet=False, dry_run=True)
    assert "trained on: 8 of 8 images looked at are among the 12" in capsys.readouterr().err
    explained(path, learned, tmp_path / "run")
    assert any("trained on: 8 of 8" in note for note in info(tmp_path / "run").notes)


def test_evaluate_counts_training_images_and_judges_the_others_alone(
    learned: Path, mixed: Path, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path / "m.pth", images_of(learned))
    found = evaluated(path, mixed)
    explained(path, mixed, tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        right = run.prediction[:] == run.label[:]
        unseen = ~np.isin(run.sample_id[:], ["ant/again.png", "cat/relabelled.png"])
    assert (found.trained_on, found.unseen_labelled, found.labelled) == (2, 9, 11)
    assert found.unseen_accuracy == pytest.approx(right[unseen].mean())
    assert "the network was trained on 2 of 11 samples; accuracy " in evaluate_text(found)
    everything = evaluated(path, learned)
    assert (everything.trained_on, everything.unseen_labelled, everything.unseen_accuracy) == (12, 0, None)


def test_unreadable_images_are_marked_as_not_known(learned: Path, mixed: Path, tmp_path: Path) -> None:
    images = Path(shutil.copytree(mixed, tmp_path / "images"))
    path = checkpoint(tmp_path / "m.pth", images_of(learned))
    (images / "ant/1-0.png").unlink()
    (images / "ant/1-0.png").symlink_to(tmp_path / "gone")
    summary = explained(path, images, tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        assert run.trained_on[run.row("ant/1-0.png")] == -1
        assert run.sample("ant/1-0.png").trained_on is None
    assert (summary.trained_on, summary.unreadable) == (2, 1)
    assert evaluated(path, images).trained_on == 2


def test_a_checkpoint_that_does_not_say_is_told_as_not_known_and_never_as_none(mixed: Path, tmp_path: Path) -> None:
    path, run = checkpoint(tmp_path / "m.pth", None), tmp_path / "run"
    summary = explained(path, mixed, run)
    assert (summary.trained_on, info(run).trained_on, evaluated(path, mixed).trained_on) == (None, None, None)
    assert "trained on  not known" in info_text(info(run))
    for text in (explain_text(summary), evaluate_text(evaluated(path, mixed))):
        assert "trained on" not in text
    assert "trained_on" not in json.loads((run / "manifest.json").read_text())["totals"]
    with open_run(run) as opened:
        assert opened[0].trained_on is None
        with pytest.raises(AttributeError, match="'trained_on': the checkpoint does not say"):
            _ = opened.trained_on
    assert report(ReportConfig(run, tmp_path / "report.html", quiet=True)).trained_on is None


def test_digests_of_pixels_and_of_files_are_not_compared(mixed: Path, tmp_path: Path, capsys: Any) -> None:
    pixels = np.zeros((1, 32), np.uint8)
    path = checkpoint(tmp_path / "m.pth", TrainingImages.of(pixels, "pixels"))
    summary = explained(path, mixed, tmp_path / "run", quiet=False)
    told = "trained on: not known: the checkpoint has digests of pixels, the dataset of files"
    assert told in capsys.readouterr().err
    assert summary.trained_on is None
    assert evaluated(path, mixed).trained_on is None


def test_shards_are_the_same_bytes_however_many_tasks_made_them(learned: Path, mixed: Path, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "m.pth", images_of(learned))
    explained(path, mixed, tmp_path / "one")
    shares = [explained(path, mixed, tmp_path / "two", task=f"{i}/2") for i in (0, 1)]
    for shard in sorted((tmp_path / "one/shards").iterdir()):
        assert shard.read_bytes() == (tmp_path / "two/shards" / shard.name).read_bytes(), shard.name
    assert (shares[0].complete, shares[1].trained_on) == (False, 2)
    tasks = json.loads((tmp_path / "two/manifest.json").read_text())["tasks"]
    assert sum(task["trained_on"] for task in tasks) == 2
    assert f"trained on {shares[0].trained_on} of 7 samples" in explain_text(shares[0])


def test_recompute_finds_a_mark_that_is_not_what_the_checkpoint_says(
    learned: Path, mixed: Path, tmp_path: Path
) -> None:
    path, run = checkpoint(tmp_path / "m.pth", images_of(learned)), tmp_path / "run"
    explained(path, mixed, run)
    change(run, lambda columns: columns["trained_on"].fill(0), "trained_on")
    found = verify(
        VerifyConfig(run, recompute=1, classifier=Classifier(path), data=str(mixed), quiet=True), confine=False
    ).found
    assert sum(f.rows or 0 for f in found if (f.kind.value, f.array) == ("dataset", "trained_on")) == 2


@pytest.mark.parametrize("images", [[1, 2], {"digests": torch.zeros(3), "kinds": ["files"]}, "all"])
def test_a_checkpoint_whose_digests_are_none_is_refused(tmp_path: Path, images: Any) -> None:
    path = checkpoint(tmp_path / "m.pth", TrainingImages())
    content = torch.load(path, weights_only=True)
    content["batchcam"]["trained_on"] = images
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"its trained_on: .*: not a checkpoint of batchcam"):
        load_checkpoint(path)
