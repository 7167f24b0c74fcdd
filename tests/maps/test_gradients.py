"""Gradient methods inside networks: the layer found, one backward pass for a batch, runs without an identity."""

from __future__ import annotations

import dataclasses
import itertools
import json

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from batchcam.commands.compare.compare import compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.info.info import info
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import ConfigError, ModelError, RunError
from batchcam.maps.gradient_maps import METHODS
from batchcam.maps.gradients import GradientMaps, with_gradients
from batchcam.rules import Tokens
from tests.helpers import mostly_slow, networks
from tests.helpers.networks import GapNetwork, hook_count, random_images, seeded, torchvision_network
from tests.network.test_ledger import vision_transformer

CLASSES = ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("name", "layer", "grid"),
    [
        ("alexnet", "features", (3, 5)),
        ("vgg11", "features", (4, 6)),
        ("mobilenet_v3_small", "features", (4, 6)),
        ("resnet18", "layer4", (4, 6)),
    ],
)
def test_last_layer_with_weights_that_gives_a_grid_is_found(name, layer, grid):
    network = torchvision_network(name)
    found = with_gradients(network, random_images(2, 128, 192), "gradcam")
    assert (found.target_layer, found.grid_size, found.method) == (layer, grid, "gradcam")
    assert all(np.isnan(values).all() for values in found.classifier())
    assert hook_count(network) == 0


def test_transformer_of_tokens_is_refused():
    torch.manual_seed(0)
    network = torch.nn.Sequential(nn.Flatten(2), nn.Linear(256, 8), nn.Flatten(1), nn.Linear(24, 3)).eval()
    with pytest.raises(ModelError, match="--tokens says which are cells"):
        with_gradients(network, random_images(2, 16, 16), "gradcam")


class CutNetwork(GapNetwork):
    """Its logits have no gradient: the head works on detached numbers."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.body(self.stem(images))).detach().flatten(1))


def test_network_that_cuts_the_gradient_is_refused_before_anything_is_explained():
    with pytest.raises(ModelError, match="'body': the logits have no gradient there"):
        with_gradients(seeded(CutNetwork), random_images(2, 16, 16), "gradcam")


@pytest.mark.parametrize(
    ("name", "method"),
    mostly_slow(
        itertools.product(["alexnet", "mobilenet_v3_small"], METHODS),
        *itertools.product(["alexnet"], METHODS),
        ("mobilenet_v3_small", "gradcam"),
    ),
)
def test_maps_of_a_batch_are_those_of_each_image_and_class_alone(name, method):
    network, images = torchvision_network(name), random_images(3, 64, 96)
    classes = torch.tensor([[0, 3], [2, -1], [1, 1]])
    found = with_gradients(network, images, method)
    with GradientMaps(found) as maps:
        logits = maps.forward(images)
        cams = maps.cams(classes).cams
    layer = network.get_submodule(found.target_layer)
    for n in range(3):
        # the reference differentiates the whole network, image by image
        kept = []
        handle = layer.register_forward_hook(lambda m, i, o: kept.append(o))  # noqa: B023
        single = network(images[n : n + 1].clone().requires_grad_())
        handle.remove()
        torch.testing.assert_close(single[0].detach(), logits[n], rtol=1e-4, atol=1e-5)
        for m, k in enumerate(classes[n].tolist()):
            if k < 0:
                assert torch.isnan(cams[n, m]).all()
                continue
            (gradient,) = torch.autograd.grad(single[0, k], kept[0], retain_graph=True)
            expected = METHODS[method](kept[0].detach(), gradient)[0]
            scale = expected.abs().max().item()
            torch.testing.assert_close(cams[n, m], expected, rtol=1e-3, atol=1e-4 * scale)


def test_layer_whose_output_is_rectified_in_place_is_looked_at_as_it_was():
    class InPlace(GapNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(networks.CHANNELS, networks.CHANNELS, 3, 2, 1))

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.pool(torch.relu_(self.body(self.stem(images)))).flatten(1))

    network, images = seeded(InPlace), random_images(2, 32, 32)
    with GradientMaps(with_gradients(network, images, "hirescam", "body")) as maps, torch.no_grad():
        maps.forward(images)
        cams = maps.cams(torch.tensor([[0], [1]])).cams
        before = network.body(network.stem(images))
        gradient = torch.stack([network.head.weight[k] for k in (0, 1)])[:, :, None, None] * (before > 0)
        expected = (gradient * before).sum(1) / before[0, 0].numel()
    assert (before < 0).any()
    torch.testing.assert_close(cams[:, 0], expected)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(1)
    for number in range(9):
        folder = root / CLASSES[number % 3]
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{number:03d}.png"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    (root / "ant" / "broken.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp("checkpoint") / "m.pth"
    torch.save(seeded(networks.FunctionalActivationNetwork).state_dict(), checkpoint)
    model = "tests.helpers.networks:FunctionalActivationNetwork"
    return Classifier(checkpoint, model=model, preprocess="stl10", image_size="32")


def config(classifier, images, out, **changes):
    compute = Compute(batch_size=4, workers=0, threads=1, device="cpu")
    return ExplainConfig(classifier, str(images), out, compute=compute, shard_size=4, quiet=True, **changes)


def test_network_without_exact_maps_is_refused_and_names_the_way_out(classifier, images, tmp_path):
    with pytest.raises(ModelError, match="--method gradcam"):
        explain(config(classifier, images, tmp_path / "run"))


@pytest.mark.parametrize("cams", [None, "predicted+label", "topk:2"])
@pytest.mark.parametrize("method", ["gradcam", "eigencam"])
def test_run_of_a_gradient_method_is_complete_verified_and_marked_as_without_identity(
    classifier, images, tmp_path, method, cams
):
    run = tmp_path / "run"
    summary = explain(config(classifier, images, run, method=method, cams=cams))
    assert (summary.complete, summary.findings) == (True, 1)  # the broken image
    checked = verify(VerifyConfig(run, 5, classifier, str(images), device="cpu", quiet=True), confine=False)
    assert (checked.recomputed, checked.found) == (5, [])
    with h5py.File(run / "run.h5") as file:
        assert file.attrs["method"] in (method, method.encode())
        assert np.isnan(file["identity_residual"][:]).all()
        assert np.isnan(file["classifier/weight"][:]).all()
        assert np.isfinite(file["cams"][np.flatnonzero(file["status"][:] & 1 == 0), 0]).all()
        assert file["cams"].attrs["units"] in ("1", b"1")
        assert "no identity" in str(file["cams"].attrs["long_name"])
    told = info(run)
    assert told.plan["method"] == method
    assert told.totals["largest_identity_residual"] is None


def test_residual_that_a_gradient_run_can_not_have_is_found(classifier, images, tmp_path):
    from tests.helpers.damage import make_digests_right

    run = tmp_path / "run"
    explain(config(classifier, images, run, method="gradcam"))
    with h5py.File(run / "shards" / "shard-00001.h5", "r+") as file:
        file["identity_residual"][2] = 1e-6
    make_digests_right(run)
    found = verify(VerifyConfig(run, quiet=True), confine=False).found
    assert [(f.kind.value, f.array, f.first_sample) for f in found if f.kind.value == "identity"] == [
        ("identity", "identity_residual", 6)
    ]


def test_rerun_takes_the_method_from_the_run_and_refuses_another(classifier, images, tmp_path):
    run = tmp_path / "run"
    explain(config(classifier, images, run, method="layercam"))
    next(run.glob("shards/*.h5")).unlink()
    assert explain(config(classifier, images, run)).shards == 1
    with pytest.raises(RunError, match="method"):
        explain(config(classifier, images, run, method="gradcam"))


def test_all_classes_by_backward_passes_are_refused(classifier, images, tmp_path):
    with pytest.raises(ConfigError, match="--cams all: --method gradcam takes a backward pass for each class"):
        explain(config(classifier, images, tmp_path / "run", method="gradcam", cams="all"))


@pytest.mark.parametrize("control", ["head", "weights"])
def test_control_runs_have_other_weights_each_time_the_same_and_verify(images, tmp_path, control):
    checkpoint = tmp_path / "m.pth"
    torch.save(seeded(GapNetwork).state_dict(), checkpoint)
    classifier = Classifier(checkpoint, model="tests.helpers.networks:GapNetwork", preprocess="stl10", image_size="32")
    explain(config(classifier, images, tmp_path / "real"))
    explain(config(classifier, images, tmp_path / "control", control=control))
    explain(config(classifier, images, tmp_path / "again", control=control))
    shards = [(tmp_path / name / "shards" / "shard-00000.h5").read_bytes() for name in ("real", "control", "again")]
    assert shards[0] != shards[1] == shards[2]
    assert json.loads((tmp_path / "control" / "run.json").read_text())["plan"]["control"] == control
    checked = verify(
        VerifyConfig(tmp_path / "control", 5, classifier, str(images), device="cpu", quiet=True), confine=False
    )
    assert (checked.recomputed, checked.found) == (5, [])
    with h5py.File(tmp_path / "real" / "run.h5") as real, h5py.File(tmp_path / "control" / "run.h5") as other:
        # a random head sees the same features: each map is another mixture of the same channels
        assert not np.array_equal(real["cams"][...], other["cams"][...], equal_nan=True)
        assert not np.array_equal(real["classifier/weight"][...], other["classifier/weight"][...])


def test_compare_shows_how_little_a_control_resembles_the_run(images, tmp_path):
    checkpoint = tmp_path / "m.pth"
    torch.save(seeded(GapNetwork).state_dict(), checkpoint)
    classifier = Classifier(checkpoint, model="tests.helpers.networks:GapNetwork", preprocess="stl10", image_size="32")
    explain(config(classifier, images, tmp_path / "real"))
    explain(config(classifier, images, tmp_path / "control", control="weights"))
    summary = compare(CompareConfig(tmp_path / "real", tmp_path / "control", min_cam_similarity=0.9, quiet=True))
    assert summary.findings
    assert "control" in str(dataclasses.asdict(summary))


@pytest.mark.parametrize("method", ["gradcam", "layercam", "hirescam"])
def test_maps_of_tokens_are_those_of_plain_loops_and_of_torchcam(method):
    network, images = vision_transformer(), random_images(2, 32, 32)
    found = with_gradients(network, images, method)
    assert found.target_layer == "tokens(encoder.layers.encoder_layer_2.ln_1, 4x4+1)"
    with GradientMaps(found) as maps:
        maps.forward(images)
        ours = maps.cams(torch.tensor([[1], [2]])).cams[:, 0]
    layer = network.encoder.layers.encoder_layer_2.ln_1
    kept: list[Tensor] = []
    network.requires_grad_(True)
    handle = layer.register_forward_hook(lambda module, given, output: kept.append(output))
    logits = network(images)
    (gradients,) = torch.autograd.grad(logits[0, 1] + logits[1, 2], kept[0])
    handle.remove()
    expected = torch.zeros(2, 4, 4)
    for sample in range(2):
        weights = gradients[sample, 1:].mean(0)
        for y in range(4):
            for x in range(4):
                a, g = kept[0][sample, 1 + 4 * y + x].detach(), gradients[sample, 1 + 4 * y + x]
                factor = {"gradcam": weights, "layercam": g.relu(), "hirescam": g}[method]
                expected[sample, y, x] = (factor * a).sum()
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    peers = {"gradcam": "GradCAM", "layercam": "LayerCAM"}
    if method in peers:
        methods = pytest.importorskip("torchcam.methods")

        def as_grid(values: Tensor) -> Tensor:
            return values[:, 1:].transpose(1, 2).unflatten(2, (4, 4))

        with getattr(methods, peers[method])(network, layer, reshape_transform=as_grid) as extractor:
            theirs = extractor([1, 2], network(images), normalized=False)[0]
        torch.testing.assert_close(ours.relu(), theirs.detach(), rtol=1e-3, atol=1e-5)


def test_layer_of_tokens_whose_grid_is_not_found_takes_the_one_that_is_said():
    network, images = vision_transformer(), random_images(2, 32, 32)
    said = with_gradients(network, images, "gradcam", tokens=Tokens(2, 8, 1))
    assert (said.grid_size, said.target_layer) == ((2, 8), "tokens(encoder.layers.encoder_layer_2.ln_1, 2x8+1)")
