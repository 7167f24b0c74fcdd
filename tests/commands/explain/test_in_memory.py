"""explain takes a network and a dataset that are in memory, as at the end of an epoch in somebody's trainer."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

import batchcam
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import ExplainSummary, explain
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import ConfigError, ModelError, RunError
from batchcam.network.in_memory import state_digest
from batchcam.store.document import read_document
from tests.helpers.networks import FailingNetwork, GapNetwork, hook_count, randomised, seeded

SETTINGS: dict[str, Any] = {"preprocess": "imagenet", "image_size": "32", "resize": "32"}
COMPUTE = Compute(batch_size=4, workers=0, threads=1, device="cpu")
CLASSES = ("ant", "bee", "cat")


class Photos:
    """Ten pictures in memory; the fourth can't be read."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index == 3:
            raise OSError("torn")
        pixels = np.random.default_rng(index).integers(0, 256, (40, 48, 3), np.uint8)
        return Image.fromarray(pixels), index % 3


class Tensors(Photos):
    """The same as preprocessed tensors."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:  # type: ignore[override]
        picture, label = super().__getitem__(index)
        return torch.from_numpy(np.asarray(picture)).permute(2, 0, 1) / 255, label


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return randomised(torchvision.models.resnet18(weights=None, num_classes=3))


def run_explain(network: Any, out: Path, data: Any = None, classifier: dict[str, Any] | None = None, **changes: Any):
    given = SETTINGS | {"class_names": CLASSES} if classifier is None else classifier
    settings = {"compute": COMPUTE, "shard_size": 4, "quiet": True} | changes
    return explain(ExplainConfig(Classifier(network, **given), Photos() if data is None else data, out, **settings))


@pytest.fixture(scope="module")
def run(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("memory") / "run"
    summary: ExplainSummary = run_explain(network, out)
    assert (summary.complete, summary.samples, summary.unreadable) == (True, 10, 1)
    return out


def test_a_network_in_memory_and_its_checkpoint_give_the_same_arrays(network, run, tmp_path):
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    named = SETTINGS | {"arch": "resnet18", "class_names": tmp_path / "names.txt"}
    run_explain(tmp_path / "weights.pth", tmp_path / "run", classifier=named)
    with batchcam.open_run(run) as here, batchcam.open_run(tmp_path / "run") as there:
        assert here.class_names == there.class_names
        for ours, theirs in zip(here.arrays, there.arrays, strict=True):
            np.testing.assert_array_equal(ours[:], theirs[:], err_msg=ours.name)
        assert len(np.unique(here.prediction[:])) > 1


def test_the_run_says_that_both_were_in_memory_and_the_digest_is_of_the_state_dict(network, run):
    document = read_document(run / "run.json")
    assert document["plan"]["architecture"] == "in memory: torchvision.models.resnet.ResNet"
    assert document["plan"]["checkpoint_sha256"] == state_digest(network.state_dict())
    options = document["origin"]["options"]
    assert options["classifier"]["checkpoint"] == "in memory: torchvision.models.resnet.ResNet"
    assert options["classifier"]["class_names"] == list(CLASSES)
    assert options["data"] == f"in memory: {__name__}.Photos"


def test_the_run_is_checked_told_and_shown_like_any_other(run, run_cli, tmp_path):
    for words in (["verify", run], ["render", run, "--out", tmp_path / "sheet.png"]):
        code, _, stderr = run_cli(*words)
        assert code == 0, stderr
    assert f"in memory: {__name__}.Photos" in run_cli("info", run)[1]
    code, stdout, stderr = run_cli("report", run, "--out", tmp_path / "report.html", "--json")
    assert code == 3, stderr  # a sample is unreadable
    assert json.loads(stdout.splitlines()[-1])["without_image"] > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "method", [{}, {"method": "gradcam"}, {"control": "weights"}], ids=["cam", "gradcam", "control"]
)
def test_the_network_is_left_as_it_was(network, tmp_path, training, method):
    network = copy.deepcopy(network).train(training)
    seen = []
    network.layer1.register_forward_hook(lambda module, args, output: seen.append(module))
    network.fc.weight.requires_grad_(False)
    network.fc.bias.grad = torch.ones(3)
    names = [name for name, _ in network.named_modules()]
    before = copy.deepcopy(network.state_dict())
    run_explain(network, tmp_path / "run", **method)
    assert [name for name, _ in network.named_modules()] == names
    assert {module.training for module in network.modules()} == {training}
    assert hook_count(network) == 1
    assert network.layer1 not in seen
    assert not network.fc.weight.requires_grad
    assert torch.equal(network.fc.bias.grad, torch.ones(3))
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {name: value.stride() for name, value in before.items()} == {n: v.stride() for n, v in after.items()}


def test_a_network_in_training_mode_is_explained_in_evaluation_mode(network, run, tmp_path):
    run_explain(copy.deepcopy(network).train(), tmp_path / "run")
    with batchcam.open_run(run) as here, batchcam.open_run(tmp_path / "run") as there:
        np.testing.assert_array_equal(here.logits[:], there.logits[:])


def settings_of_torch() -> tuple[Any, ...]:
    backends = torch.backends
    flags = (backends.cudnn.allow_tf32, backends.cudnn.benchmark, backends.cudnn.deterministic)
    return (torch.get_num_threads(), *flags, backends.cuda.matmul.allow_tf32, torch.get_rng_state().tolist())


def test_torch_is_left_as_it_was_also_when_the_work_fails(network, tmp_path, monkeypatch):
    for name, value in (("allow_tf32", True), ("benchmark", True), ("deterministic", False)):
        monkeypatch.setattr(torch.backends.cudnn, name, value)
    failing = seeded(FailingNetwork)
    before = settings_of_torch()
    two = dataclasses.replace(COMPUTE, threads=2)
    run_explain(network, tmp_path / "run", compute=two)
    assert settings_of_torch() == before
    with pytest.raises(ModelError, match="out of memory, say"):
        run_explain(failing, tmp_path / "other", compute=two)
    assert settings_of_torch() == before


def test_loader_processes_read_the_dataset_of_this_process(network, run, tmp_path):
    run_explain(network, tmp_path / "run", compute=dataclasses.replace(COMPUTE, workers=2))
    with batchcam.open_run(run) as here, batchcam.open_run(tmp_path / "run") as there:
        np.testing.assert_array_equal(here.cams[:], there.cams[:])


def test_a_dataset_of_tensors_needs_no_preprocessing(network, tmp_path):
    summary = run_explain(network, tmp_path / "run", Tensors(), classifier={})
    with batchcam.open_run(tmp_path / "run") as run:
        assert (summary.complete, run.class_names) == (True, ("0", "1", "2"))
        assert run.plan.preprocessing == {"preprocessed": "by the dataset"}
        tensor = Tensors()[5][0][None]
        with torch.no_grad():
            np.testing.assert_allclose(run.logits[5], network(tensor)[0].numpy(), rtol=1e-4, atol=1e-4)


def test_the_same_network_goes_on_with_a_run_and_another_one_is_refused(network, run, tmp_path):
    assert run_explain(network, run).samples == 0
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.fc.bias[0] += 1
    with pytest.raises(RunError, match="belongs to another run: checkpoint sha256"):
        run_explain(other, run)


def test_verify_explains_samples_again_with_the_network_and_the_dataset(network, run):
    again = VerifyConfig(
        run, 5, Classifier(network, **SETTINGS, class_names=CLASSES), Photos(), device="cpu", quiet=True
    )
    summary = verify(again, confine=False)
    assert (summary.recomputed, summary.found) == (5, [])


def test_a_file_can_neither_go_on_with_such_a_run_nor_check_it(network, run, run_cli, tmp_path):
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    given = ["--arch", "resnet18", "--preprocess", "imagenet", "--image-size", 32]
    again = ["verify", run, "--recompute", 2, "--checkpoint", tmp_path / "weights.pth", "--data", tmp_path]
    for words in (["explain", tmp_path / "weights.pth", tmp_path, "--out", run], again):
        code, _, stderr = run_cli(*words, *given, "--quiet")
        assert code == 1
        assert "explains a network in memory: torchvision.models.resnet.ResNet, and no file has its digest" in stderr
        assert stderr.count("\n") == 1


def test_a_network_in_memory_can_not_go_on_with_a_run_of_a_file(network, make_run):
    with pytest.raises(RunError, match="explains a checkpoint, resnet18: name its file"):
        run_explain(network, make_run())


def test_what_is_no_network_is_refused(tmp_path):
    with pytest.raises(
        ModelError, match=r"a dict is given as the network: expected a checkpoint's path or an nn\.Module"
    ):
        run_explain({}, tmp_path / "run")
    with pytest.raises(ConfigError, match="one in memory is built"):
        Classifier(seeded(GapNetwork), arch="resnet18")


@pytest.mark.parametrize("names", [["a", "a", "b"], []])
def test_class_names_that_cannot_be_meant_are_refused(network, tmp_path, names):
    with pytest.raises(ConfigError, match="class-names"):
        run_explain(network, tmp_path / "run", classifier=SETTINGS | {"class_names": names})
