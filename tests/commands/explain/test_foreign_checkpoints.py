"""Checkpoints of other programs are explained as these programs compute, with as little said as they leave open."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image

import batchcam
from batchcam.commands.explain.assembly import assemble
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import CheckpointError, ConfigError, RunError

NAMES = ("cat", "dog", "owl")
COMPUTE = Compute(workers=0, threads=1, device="cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 256, (40, 49, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A ResNet of transformers that says everything, and whose processor only cuts: 49 - 32 is odd."""
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        layer_type="basic", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3,
        id2label=dict(enumerate(NAMES)), label2id={name: index for index, name in enumerate(NAMES)},
    )  # fmt: skip
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "net")
    processor = transformers.BitImageProcessor(do_resize=False, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def test_directory_of_transformers_needs_no_option_and_gives_the_librarys_own_logits(directory, photos, tmp_path):
    explain(ExplainConfig(Classifier(directory), str(photos), tmp_path / "run", COMPUTE, quiet=True))
    run = batchcam.open_run(tmp_path / "run")
    processor = transformers.AutoImageProcessor.from_pretrained(directory)
    network = transformers.AutoModelForImageClassification.from_pretrained(directory).eval()
    images = [Image.open(photos / sample_id) for sample_id in run.sample_id[:]]
    with torch.inference_mode():
        theirs = network(**processor(images, return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(run.logits[:], theirs, atol=1e-5)
    assert run.plan.class_names == NAMES
    assert run.plan.architecture == "hf:ResNetForImageClassification"
    config = VerifyConfig(tmp_path / "run", recompute=6, classifier=Classifier(directory), data=str(photos))
    assert verify(config, confine=False).found == []


def test_directory_that_was_changed_is_not_the_runs(directory, photos, tmp_path):
    explain(ExplainConfig(Classifier(directory), str(photos), tmp_path / "run", COMPUTE, quiet=True))
    processor = transformers.BitImageProcessor(
        do_resize=False, crop_size={"height": 32, "width": 32}, image_mean=[0.1] * 3
    )
    processor.save_pretrained(directory)
    with pytest.raises((CheckpointError, ConfigError)):
        verify(
            VerifyConfig(tmp_path / "run", recompute=1, classifier=Classifier(directory), data=str(photos)),
            confine=False,
        )


def test_directory_without_a_processor_asks_for_its_preprocessing_with_the_reason(directory, photos):
    (directory / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"does not say its preprocessing: it has no preprocessor_config.json; say "):
        assemble(Classifier(directory), str(photos))
    said = Classifier(directory, image_size="32", mean="0.5", std="0.5")
    assert assemble(said, str(photos)).class_names == NAMES


VIEW = {"image_size": (32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.mark.parametrize(
    ("content", "expected", "told"),
    [
        (
            lambda state: {"arch": "resnet18", "state_dict": state},
            "resnet18",
            "architecture: resnet18, the checkpoint's arch",
        ),
        (lambda state: {"model": state, "args": {"model": "resnet18"}}, "resnet18", "the checkpoint's args.model"),
    ],
    ids=["arch", "args.model"],
)
def test_architecture_that_a_checkpoint_names_is_used_and_told(content, expected, told, photos, tmp_path):
    state = torchvision.models.resnet18(num_classes=3).state_dict()
    torch.save(content(state), tmp_path / "model.pth")
    found = assemble(Classifier(tmp_path / "model.pth", **VIEW), str(photos))
    assert found.architecture == expected
    assert any(told in remark for remark in found.remarks)


def test_architecture_that_only_timm_has_is_timms(photos, tmp_path):
    made = timm.create_model("test_resnet", num_classes=3)
    torch.save({"arch": "test_resnet", "state_dict": made.state_dict()}, tmp_path / "model.pth")
    found = assemble(Classifier(tmp_path / "model.pth", **VIEW), str(photos))
    images = found.normalised_probe(torch.device("cpu"))
    with torch.inference_mode():
        assert torch.equal(found.network(images), made.eval()(images))
    assert "architecture: timm:test_resnet, the checkpoint's arch" in found.remarks


def test_architecture_whose_torchvision_network_has_other_weights_is_timms(photos, tmp_path):
    made = timm.create_model("efficientnet_b0", num_classes=3)
    torch.save({"arch": "efficientnet_b0", "state_dict": made.state_dict()}, tmp_path / "model.pth")
    assert assemble(Classifier(tmp_path / "model.pth", **VIEW), str(photos)).architecture == "timm:efficientnet_b0"


def test_name_that_no_library_knows_is_told_where_one_has_to_be_said(photos, tmp_path):
    for name, such in (("ournet", "resnet18"), ("microsoft/resnet-18", "hf:microsoft/resnet-18")):
        torch.save({"arch": name, "state_dict": {"fc.weight": torch.zeros(3, 4)}}, tmp_path / "model.pth")
        with pytest.raises(
            ConfigError, match=rf"\(its arch, {name}, is none of .*\); name it with --arch, such as {such}"
        ):
            assemble(Classifier(tmp_path / "model.pth", **VIEW), str(photos))


def test_run_of_a_timm_network_goes_on_without_saying_the_network_again(photos, tmp_path):
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "model.pth")
    classifier = Classifier(tmp_path / "model.pth", arch="timm:test_resnet", arch_option=("global_pool=avg",), **VIEW)
    explain(ExplainConfig(classifier, str(photos), tmp_path / "run", COMPUTE, quiet=True))
    again = dataclasses.replace(classifier, arch=None, arch_option=())
    config = VerifyConfig(tmp_path / "run", recompute=6, classifier=again, data=str(photos))
    assert verify(config, confine=False).found == []


def test_run_of_a_config_that_was_changed_is_refused_with_its_digest(directory, photos, tmp_path):
    (directory / "model.safetensors").rename(tmp_path / "model.safetensors")
    classifier = Classifier(tmp_path / "model.safetensors", arch=f"hf:{directory}", **VIEW)
    explain(ExplainConfig(classifier, str(photos), tmp_path / "run", COMPUTE, quiet=True))
    again = VerifyConfig(
        tmp_path / "run", recompute=6, classifier=dataclasses.replace(classifier, arch=None), data=str(photos)
    )
    assert verify(again, confine=False).found == []
    config = directory / "config.json"
    config.write_text(config.read_text().replace("relu", "gelu"))
    with pytest.raises(ConfigError, match=r"config.json is not the run's, whose digest is sha256:[0-9a-f]{64}"):
        verify(again, confine=False)
    with pytest.raises(RunError, match="belongs to another run: architecture options"):
        explain(ExplainConfig(classifier, str(photos), tmp_path / "run", COMPUTE, quiet=True))
