"""A run's dataset is put together again with its labels read as the run read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config import Classifier, Compute


@pytest.mark.parametrize("kind", [None, "names", "indices"])
def test_labels_that_are_numbers_are_read_as_planned(tmp_path: Path, kind: str | None) -> None:
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(weights=None, num_classes=3).state_dict(), tmp_path / "m.pth")
    (tmp_path / "names.txt").write_text("2\n1\n0\n")
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,label\n0.png,0.0\n1.png,2.0\n2.png,\n")
    options = {"arch": "resnet18", "image_size": "32", "mean": "0.5", "std": "0.5"}
    classifier = Classifier(tmp_path / "m.pth", class_names=tmp_path / "names.txt", label_kind=kind, **options)
    compute = Compute(workers=0, threads=1, device="cpu")
    explain(ExplainConfig(classifier, str(manifest), tmp_path / "run", compute, quiet=True))

    again = VerifyConfig(tmp_path / "run", recompute=3, classifier=Classifier(tmp_path / "m.pth"), data=str(manifest))
    assert not verify(again).found
    manifest.write_text("path,label\n0.png,0.0\n1.png,1.0\n2.png,\n")
    assert {finding.array for finding in verify(again).found} == {"label"}
