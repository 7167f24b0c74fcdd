"""Networks computed by OpenVINO: torch's numbers, the same bits each time, kept for the next process, or refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from batchcam.errors import ConfigError, ModelError
from batchcam.network import compiled as module
from batchcam.network import compiled_cache as cache
from batchcam.network.compiled import CompiledNetwork, compiled, on_engine
from batchcam.rules import ENGINE_GAIN
from tests.helpers import mostly_slow
from tests.helpers.networks import GapNetwork, ResidualNetwork, hook_count, random_images, seeded, torchvision_network

pytest.importorskip("openvino")

LAYERS = {
    "squeezenet1_1": "classifier.2",
    "shufflenet_v2_x0_5": "conv5",
    "resnet18": "layer4",
    "convnext_tiny": "features",
}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "is_installed", lambda: True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "batchcam" / "compiled"


@torch.inference_mode()
def answers(network: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and the layer's output."""
    kept: list[Tensor] = []
    with network.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output.clone())):
        return network(images), kept[0]


@pytest.mark.parametrize("name", mostly_slow(LAYERS, "squeezenet1_1", "resnet18", "shufflenet_v2_x0_5"))
def test_logits_and_activations_are_those_of_torch(name: str) -> None:
    network, images = torchvision_network(name), random_images(5, 64, 64)
    result, _ = compiled(network, LAYERS[name], images[:4], None)
    for ours, theirs in zip(answers(result, "target", images), answers(network, LAYERS[name], images), strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= 1e-5 * (theirs.max() - theirs.min())
    assert hook_count(network) == 0


def test_what_a_later_layer_changes_in_place_is_given_as_the_target_layer_left_it() -> None:
    network, images = seeded(ResidualNetwork), random_images(4, 32, 32)
    result, _ = compiled(network, "block.bn", images, None)
    ours, theirs = answers(result, "target", images)[1], answers(network, "block.bn", images)[1]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_an_image_has_the_same_bits_among_any_others_in_any_number_by_any_threads() -> None:
    network, images = torchvision_network("resnet18"), random_images(7, 64, 64)
    whole = answers(compiled(network, "layer4", images[:4], None)[0], "target", images)
    torch.set_num_threads(2)
    try:
        result, _ = compiled(network, "layer4", images[:4], None)
    finally:
        torch.set_num_threads(1)
    for rows in (slice(0, 7), slice(3, 5), slice(6, 7)):
        for all_of_them, some in zip(whole, answers(result, "target", images[rows]), strict=True):
            assert torch.equal(all_of_them[rows], some)
    backwards = answers(result, "target", images.flip(0))
    assert torch.equal(backwards[0].flip(0), whole[0])


def test_a_graph_that_was_kept_gives_the_same_bits_and_is_not_converted_again(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = seeded(GapNetwork), random_images(4, 32, 32)
    first = answers(compiled(network, "body", images, ["gap"])[0], "target", images)
    assert [path.name[0] != "." for path in cache_folder.iterdir()] == [True]

    def refuse(*args: object) -> object:
        raise AssertionError("converted again")

    monkeypatch.setattr(module, "_built", refuse)
    again = answers(compiled(network, "body", images, ["gap"])[0], "target", images)
    assert all(map(torch.equal, first, again))
    for other in (["other"], None):
        with pytest.raises(ModelError, match="converted again"):
            compiled(network, "body", images, other)
    with pytest.raises(ModelError, match="converted again"):
        compiled(seeded(GapNetwork, 1), "body", images, ["gap"])


def test_a_kept_graph_that_is_damaged_or_no_graph_is_made_again(cache_folder: Path) -> None:
    network, images = seeded(GapNetwork), random_images(4, 32, 32)
    compiled(network, "body", images, ["gap"])
    (path,) = cache_folder.iterdir()
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    assert cache.read(path.name) is None
    compiled(network, "body", images, ["gap"])
    assert cache.read(path.name)
    cache.keep(path.name, b"no graph")
    torch.testing.assert_close(compiled(network, "body", images, ["gap"])[0](images), network(images))


def test_the_cache_holds_the_latest_graphs_and_a_folder_that_cannot_be_written_is_no_error(cache_folder: Path) -> None:
    for index in range(cache.KEPT + 3):
        cache.keep(f"graph-{index}", b"content")
        os.utime(cache_folder / f"graph-{index}", (index, index))
    assert cache.read("graph-3") == b"content"  # and so the latest used
    cache.keep("newest", b"content")
    names = {path.name for path in cache_folder.iterdir()}
    assert len(names) == cache.KEPT
    assert {"newest", "graph-3", f"graph-{cache.KEPT + 2}"} <= names
    cache.keep("speed-of-it", b"1.3", 1)
    assert {path.name for path in cache_folder.iterdir()} == {*names, "speed-of-it"}
    for path in cache_folder.iterdir():
        path.unlink()
    cache_folder.rmdir()
    cache_folder.write_text("a file")
    cache.keep("graph", b"content")
    assert cache.read("graph") is None


def test_the_cache_lies_in_no_folder_that_a_command_happens_to_be_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cache.keep("graph", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert (tmp_path / "home/.cache/batchcam/compiled/graph").exists()


class OfTwo(GapNetwork):
    """Whose number of images is written into the graph when it is traced."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.pool(self.body(self.stem(images)))
        return self.head(features.reshape(len(images), -1))


class OfAnotherSize(GapNetwork):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits * (2 if len(images) == 2 else 1)  # a branch, which a trace takes once


class Singular(GapNetwork):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.linalg.svdvals(images[:, 0])[:, :3]


@pytest.mark.parametrize("kind", [OfAnotherSize, Singular])
def test_a_network_that_cannot_be_converted_or_gives_other_numbers_stays_torchs_and_that_is_told(
    kind: type[nn.Module],
) -> None:
    network, images = seeded(kind), random_images(4, 32, 32)
    result, told = on_engine("auto", network, "body", images, "fp32", ["a library"])
    assert result is network
    assert told.startswith("engine: torch; OpenVINO")
    assert "\n" not in told
    with pytest.raises(ModelError, match=r"--engine openvino: OpenVINO.*; --engine torch computes this network"):
        on_engine("openvino", network, "body", images, "fp32", None)


def test_any_number_of_images_goes_through_a_network_that_asks_for_it() -> None:
    network, images = seeded(OfTwo), random_images(5, 32, 32)
    torch.testing.assert_close(compiled(network, "body", images, None)[0](images), network(images))


def test_auto_is_torch_without_a_word_where_openvino_is_no_choice_and_for_code_that_nobody_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, images = seeded(GapNetwork), random_images(4, 32, 32)
    assert on_engine("auto", network, None, images, "bf16", ["a library"]) == (network, "")
    assert on_engine("torch", network, None, images, "fp32", None) == (network, "")
    assert on_engine("auto", network, None, images, "fp32", None) == (network, "")
    monkeypatch.setattr(module, "is_installed", lambda: False)
    assert on_engine("auto", network, None, images, "fp32", ["a library"]) == (network, "")
    with pytest.raises(ConfigError, match="computes in fp32, on CPUs"):
        on_engine("openvino", network, None, images, "bf16", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"is not installed: pip install 'batchcam\[cpu\]'"):
        on_engine("openvino", network, None, images, "fp32", None)


def chosen(seed: int = 0, layer: str | None = None, gain: float = ENGINE_GAIN) -> tuple[bool, str]:
    """Whether auto takes OpenVINO for a network, and why."""
    network, images = seeded(GapNetwork, seed), random_images(2, 32, 32)
    result, told = on_engine("auto", network, layer, images, "fp32", ["a library"], gain)
    torch.testing.assert_close(result(images), network(images))
    return isinstance(result, CompiledNetwork), told


@pytest.mark.parametrize(("times", "taken"), [(1.14, False), (1.15, True)])
def test_auto_takes_openvino_where_it_is_clearly_faster_and_tells_how_close_it_is(
    monkeypatch: pytest.MonkeyPatch, times: float, taken: bool
) -> None:
    monkeypatch.setattr(module, "_times_as_fast", lambda *_: times)
    found, told = chosen()
    assert found is taken
    assert told.startswith("engine: OpenVINO 20" if taken else "engine: torch; OpenVINO is 1.14 × as fast")
    assert ", within " in told or not taken
    assert "on this machine" in told


def test_a_measurement_is_kept_for_other_weights_and_layers_but_not_for_other_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = iter([1.05, 1.31])
    monkeypatch.setattr(module, "_times_as_fast", lambda *_: next(measured))
    assert [chosen()[0], chosen(1)[0], chosen(0, "body")[0]] == [False] * 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert chosen() == chosen() != chosen(gain=0)
    assert chosen()[0]


def test_who_follows_a_run_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module, "_times_as_fast")
    assert chosen(gain=0)[0]


def test_engines_are_measured_in_turn_and_by_the_best_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of torch's rounds is disturbed, and OpenVINO's first."""
    costs, clock = iter([0.3, 0.9, 3.0, 0.1, 0.2, 0.15]), [0.0]
    network = nn.Identity()

    def run(each: object, images: Tensor) -> None:
        assert each is (network if len(ran) % 2 == 0 else result)
        ran.append(len(images))
        clock[0] += next(costs)

    ran: list[int] = []
    result = CompiledNetwork(None)  # what it would compute with is not asked
    monkeypatch.setattr(module, "forward", run)
    monkeypatch.setattr(module.time, "process_time", lambda: clock[0])
    assert module._times_as_fast(network, result, random_images(2, 8, 8)) == 2.0
    assert ran == [module.MEASURED_IMAGES] * 6


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    """OpenVINO's telemetry, where it is installed, would send each import and conversion."""
    (tmp_path / "openvino_telemetry").mkdir()
    (tmp_path / "openvino_telemetry/__init__.py").write_text("raise SystemExit('telemetry was imported')")
    program = (
        "import torch; from batchcam.network.compiled import compiled; from tests.helpers.networks import *;"
        "compiled(seeded(GapNetwork), 'body', random_images(2, 32, 32), None); print('done')"
    )
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    ended = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=300)
    assert (ended.stdout, ended.returncode) == ("done\n", 0), ended.stderr
