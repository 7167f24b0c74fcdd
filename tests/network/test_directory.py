"""Directories of transformers and timm: the network that the library itself loads, or a refusal; nothing runs."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import transformers
from timm.models import save_for_hf
from torch import nn

from batchcam.errors import CheckpointError, ConfigError, ModelError
from batchcam.network.checkpoint import load_checkpoint
from batchcam.network.directory import described
from batchcam.network.forward import forward
from batchcam.network.libraries import fitted_transformers_network, transformers_network
from batchcam.network.model import build_network, load_network

NAMES = ("cat", "dog", "owl")
LABELS = {"num_labels": 3, "id2label": dict(enumerate(NAMES)), "label2id": {n: k for k, n in enumerate(NAMES)}}


def of(name: str, **config: object) -> Callable[[], nn.Module]:
    """Return what makes transformers' classifier of that name."""

    def make() -> nn.Module:
        settings = getattr(transformers, f"{name}Config")(**LABELS, **config)
        return getattr(transformers, f"{name}ForImageClassification")(settings)

    return make


MADE = {
    "ResNet": of("ResNet", layer_type="basic", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
    "RegNet": of("RegNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4),
    "ConvNext": of("ConvNext", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
    "ConvNextV2": of("ConvNextV2", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
    "EfficientNet": of("EfficientNet", width_coefficient=0.2, depth_coefficient=0.2, hidden_dim=256, image_size=32),
    "MobileNetV2": of("MobileNetV2", depth_multiplier=0.1),
    "Swin": of("Swin", image_size=64, embed_dim=8, depths=[1, 1], num_heads=[2, 2]),
    "Bit": of("Bit", embedding_size=32, hidden_sizes=[128, 128], depths=[1, 1]),
}


@pytest.fixture(scope="module", params=MADE)
def saved(request, tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    MADE[request.param]().save_pretrained(folder)
    return folder


@pytest.fixture
def resnet(tmp_path) -> Path:
    torch.manual_seed(0)
    MADE["ResNet"]().save_pretrained(tmp_path / "resnet")
    return tmp_path / "resnet"


def edit(folder: Path, **more: object) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, **more}))


def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_logits_are_those_of_the_network_that_transformers_loads(saved):
    checkpoint = load_checkpoint(saved)
    network, class_count = transformers_network(checkpoint.config, checkpoint.state, "here")
    theirs = transformers.AutoModelForImageClassification.from_pretrained(saved).eval()
    with torch.inference_mode():
        assert torch.equal(forward(network.eval(), images()), theirs(images()).logits)
    assert (class_count, set(checkpoint.carried_names.values())) == (3, {NAMES})


def test_weights_in_several_files_are_those_of_one(resnet, tmp_path):
    whole = load_checkpoint(resnet).state
    network = transformers.AutoModelForImageClassification.from_pretrained(resnet)
    network.save_pretrained(tmp_path / "parts", max_shard_size="5KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    parts = load_checkpoint(tmp_path / "parts").state
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_digest_is_that_of_the_list_that_sha256sum_prints(resnet):
    transformers.ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(resnet)
    (resnet / "README.md").write_text("does not count")
    files = ["config.json", "model.safetensors", "preprocessor_config.json"]
    listed = subprocess.run(["sha256sum", *files], cwd=resnet, capture_output=True, check=True).stdout
    assert load_checkpoint(resnet).sha256 == hashlib.sha256(listed).hexdigest()


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_directory_of_timm_says_network_classes_and_preprocessing(safe, tmp_path):
    torch.manual_seed(0)
    made = timm.create_model("test_resnet", num_classes=3, global_pool="avg")
    save_for_hf(made, tmp_path, model_config={"label_names": list(NAMES)}, safe_serialization=safe)
    checkpoint = load_checkpoint(tmp_path)
    network, class_count, _ = load_network(checkpoint.architecture, checkpoint.state, "here", {**checkpoint.options})
    with torch.inference_mode():
        assert torch.equal(network.eval()(images()), made.eval()(images()))
    assert (class_count, checkpoint.carried_names) == (3, {"label_names": NAMES})
    assert checkpoint.preprocessing["resize"] == [int(160 / 0.95)]


def test_timms_network_inside_of_transformers_is_timms(tmp_path):
    torch.manual_seed(0)
    config = transformers.TimmWrapperConfig(architecture="test_resnet", **LABELS)
    made = transformers.TimmWrapperForImageClassification(config)
    made.save_pretrained(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    network, _, _ = load_network(checkpoint.architecture, checkpoint.state, "here", checkpoint.options)
    with torch.inference_mode():
        assert torch.equal(network.eval()(images()), made.eval()(images()).logits)


def test_code_beside_the_weights_never_runs(resnet, tmp_path):
    (resnet / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Network: pass\n")
    auto = {"AutoConfig": "mine.Config", "AutoModelForImageClassification": "mine.Network"}
    edit(resnet, auto_map=auto)
    checkpoint = load_checkpoint(resnet)
    transformers_network(checkpoint.config, checkpoint.state, "here")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["timm:hf-hub:somebody/net", "timm:local-dir:/tmp/net", "timm:resnet19"])
def test_name_that_timm_would_load_from_elsewhere_is_no_network(name):
    with pytest.raises(ModelError, match="timm has no such network"):
        build_network(name, 3)


def test_what_a_directory_does_not_say_of_its_preprocessing_is_told(resnet):
    assert load_checkpoint(resnet).unsaid == "it has no preprocessor_config.json"
    transformers.MobileViTImageProcessor().save_pretrained(resnet)
    found = load_checkpoint(resnet)
    assert found.preprocessing is None
    assert found.unsaid == ("its preprocessor_config.json asks for a MobileViTImageProcessor, which is not known here")


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    return str(caught.value)


def test_directory_that_is_not_whole_is_refused(resnet):
    (resnet / "model.safetensors").rename(resnet / "elsewhere")
    assert "has a config.json, and no weights" in refusal(resnet)
    index = resnet / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "../elsewhere"}}))
    assert "refused: ../elsewhere lies outside of the directory" in refusal(resnet)
    index.write_text(json.dumps({"weight_map": {"a.weight": "part-1.safetensors"}}))
    assert "part-1.safetensors: cannot read the checkpoint: No such file or directory" in refusal(resnet)
    index.write_text(json.dumps({"weight_map": None}))
    assert "names no files of weights" in refusal(resnet)


def test_config_that_is_no_classifiers_is_refused(resnet):
    edit(resnet, architectures=["ResNetModel"])
    assert "describes no classifier of images, but ResNetModel" in refusal(resnet)
    (resnet / "config.json").write_text("[" * 100_000)
    assert "config.json: cannot be read: " in refusal(resnet)
    (resnet / "config.json").write_text("[]")
    assert "is no table of names and values" in refusal(resnet)


def test_config_of_other_widths_than_the_weights_is_refused(resnet):
    edit(resnet, hidden_sizes=[8, 24])
    checkpoint = load_checkpoint(resnet)
    with pytest.raises(CheckpointError, match="can't be built"):
        transformers_network(checkpoint.config, checkpoint.state, "here")
    edit(resnet, hidden_sizes=[8, 16], depths=[1, 2])
    config = load_checkpoint(resnet).config
    with pytest.raises(CheckpointError, match=r"not those of its ResNetForImageClassification: \d+ missing \(resnet\."):
        transformers_network(config, checkpoint.state, "here")
    with pytest.raises(CheckpointError, match="has no such image classifier"):
        transformers_network({**checkpoint.config, "model_type": "gpt2"}, checkpoint.state, "here")
    with pytest.raises(CheckpointError, match="can't be built"):
        transformers_network({**checkpoint.config, "depths": "deep"}, checkpoint.state, "here")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_weights_without_their_directory_are_those_of_the_one_that_is_named(resnet, prefix):
    made = transformers.AutoModelForImageClassification.from_pretrained(resnet).eval()
    state = {f"{prefix}{name}": tensor for name, tensor in made.state_dict().items()}
    config, path, digest = described(f"hf:{resnet}")
    edit(resnet, num_labels=5, id2label=dict(enumerate("abcde")))
    assert (path, digest != described(f"hf:{resnet}")[2]) == (str(resnet / "config.json"), True)
    for said in (config, described(f"hf:{resnet}")[0]):  # of as many classes as the weights, whatever is said
        network, class_count, remarks = fitted_transformers_network(said, {}, state, "w.ckpt", "hf:net")
        with torch.inference_mode():
            assert torch.equal(forward(network.eval(), images()), made(images()).logits)
        assert (class_count, remarks) == (3, (f"weights: those under {prefix!r}",) if prefix else ())


def test_kind_of_network_is_as_options_say_and_unknown_ones_are_refused(resnet):
    made = transformers.AutoModelForImageClassification.from_pretrained(resnet).eval()
    config, path, digest = described("hf:resnet")
    assert (path, digest) == ("", "")
    options = {"layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    network, _, _ = fitted_transformers_network(config, options, made.state_dict(), "w.ckpt", "hf:resnet")
    with torch.inference_mode():
        assert torch.equal(forward(network.eval(), images()), made(images()).logits)
    with pytest.raises(ConfigError, match="--arch-option depth: hf:resnet has none of that name"):
        fitted_transformers_network(config, {"depth": [1, 1]}, made.state_dict(), "w.ckpt", "hf:resnet")
    with pytest.raises(CheckpointError, match=r"w.ckpt: its keys are not hf:resnet's: \d+ missing"):
        fitted_transformers_network(config, {}, made.state_dict(), "w.ckpt", "hf:resnet")


def test_model_in_the_cache_of_the_hub_is_found_there_and_another_is_not_downloaded(resnet, tmp_path, monkeypatch):
    model = tmp_path / "hub/models--somebody--resnet"
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text("0123")
    (model / "snapshots").mkdir()
    resnet.rename(model / "snapshots/0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    config, path, _ = described("hf:somebody/resnet")
    assert (config["hidden_sizes"], path) == ([8, 16], str(model / "snapshots/0123/config.json"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asks for what is not here"))
    with pytest.raises(ConfigError, match=r"`hf download somebody/other config.json` brings it to the cache"):
        described("hf:somebody/other")


def test_name_after_hf_that_is_nothing_or_two_things_is_refused(resnet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"a kind of network, and a directory: say hf:\./resnet for that one"):
        described("hf:resnet")
    assert described("hf:./resnet")[1] == "resnet/config.json"
    with pytest.raises(ConfigError, match="such as resnet: name one of them, or give the directory"):
        described("hf:ResNetForImageClassification")
    edit(resnet, architecture="resnet18")
    with pytest.raises(ConfigError, match="is a network of timm's: say --arch timm:resnet18"):
        described("hf:./resnet")
