"""A run's dataset is put together again with its labels read as the run read them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import ConfigError, DatasetError
from batchcam.store.plan import read_plan
from tests.helpers.damage import edit_document, forget_list
from tests.helpers.networks import GapNetwork, seeded

COMPUTE = Compute(workers=0, threads=1, device="cpu")
MODEL = "tests.helpers.networks:GapNetwork"
OPTIONS = {"image_size": "8", "mean": "0.5", "std": "0.5"}
NAMED_BACKWARDS = "2\n1\n0\n"
"""Names by which a label means another class than as an index."""


def listing(folder: Path, *labels: str) -> str:
    rows = "".join(f"{number}.png,{label}\n" for number, label in enumerate(labels))
    (folder / "list.csv").write_text("path,label\n" + rows)
    return str(folder / "list.csv")


def explained(folder: Path, class_names: str, kind: str | None, *labels: str) -> Path:
    """Return a run over a manifest of images with these labels."""
    torch.save(seeded(GapNetwork).state_dict(), folder / "m.pth")
    (folder / "names.txt").write_text(class_names)
    rng = np.random.default_rng(0)
    for number in range(len(labels)):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    classifier = Classifier(folder / "m.pth", model=MODEL, class_names=folder / "names.txt", label_kind=kind, **OPTIONS)
    explain(ExplainConfig(classifier, listing(folder, *labels), folder / "run", COMPUTE, quiet=True))
    return folder / "run"


def again(run: Path, **options: str) -> VerifyConfig:
    classifier = Classifier(run.parent / "m.pth", model=MODEL, **options)
    return VerifyConfig(run, recompute=3, classifier=classifier, data=str(run.parent / "list.csv"))


def rows_found(config: VerifyConfig) -> list[tuple[str | None, int | None, int | None]]:
    return [(finding.array, finding.rows, finding.first_sample) for finding in verify(config, confine=False).found]


@pytest.mark.parametrize(
    ("class_names", "kind", "read_as"),
    [
        (NAMED_BACKWARDS, None, "names"),
        (NAMED_BACKWARDS, "names", "names"),
        (NAMED_BACKWARDS, "indices", "indices"),
        ("0\n1\n2\n", None, "indices"),
        ("ant\nbee\ncat\n", None, "indices"),
        ("ant\nbee\ncat\n", "indices", "indices"),
    ],
)
def test_labels_that_are_numbers_are_read_as_planned_and_those_that_changed_are_counted(
    tmp_path: Path, class_names: str, kind: str | None, read_as: str
) -> None:
    run = explained(tmp_path, class_names, kind, "0.0", "2.0", "")
    assert json.loads((run / "run.json").read_text())["plan"]["label_kind"] == read_as
    assert rows_found(again(run)) == []
    listing(tmp_path, "0.0", "1.0", "")
    assert rows_found(again(run)) == [("label", 1, 1)]


def test_labels_of_a_run_that_does_not_say_how_it_read_them_are_read_as_fits(tmp_path: Path) -> None:
    run = explained(tmp_path, NAMED_BACKWARDS, "indices", "0", "2", "1")
    silent = dataclasses.replace(read_plan(run), label_kind="")
    edit_document(run / "run.json", plan=silent.to_dict())
    forget_list(run)
    shutil.rmtree(run / "shards")
    classifier = Classifier(tmp_path / "m.pth", model=MODEL, class_names=tmp_path / "names.txt", **OPTIONS)
    classifier = dataclasses.replace(classifier, label_kind="indices")
    explain(ExplainConfig(classifier, str(tmp_path / "list.csv"), run, COMPUTE, quiet=True))
    assert read_plan(run) == silent
    assert rows_found(again(run)) == []


def test_a_run_is_gone_on_with_without_saying_again_how_labels_are_read(tmp_path: Path) -> None:
    run = explained(tmp_path, NAMED_BACKWARDS, "indices", "0", "2", "1")
    classifier = Classifier(tmp_path / "m.pth", model=MODEL, class_names=tmp_path / "names.txt", **OPTIONS)
    config = ExplainConfig(classifier, str(tmp_path / "list.csv"), run, COMPUTE, quiet=True)
    assert explain(config).complete


def test_another_reading_of_labels_than_the_runs_is_refused(tmp_path: Path) -> None:
    run = explained(tmp_path, NAMED_BACKWARDS, "indices", "0", "2", "1")
    with pytest.raises(ConfigError, match="--label-kind names: this run's labels are indices: leave it out"):
        verify(again(run, label_kind="names"))


def test_names_among_labels_that_were_indices_are_refused(tmp_path: Path) -> None:
    run = explained(tmp_path, NAMED_BACKWARDS, "indices", "0", "2", "1")
    listing(tmp_path, "0", "2", "one")
    with pytest.raises(DatasetError, match=r"names its classes, such as one, where .* labels are class indices"):
        verify(again(run))
