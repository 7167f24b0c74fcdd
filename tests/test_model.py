"""Building, finding and proving: the layer that the classifier pools, or a refusal that says why."""

from __future__ import annotations

import sys

import pytest
import torch
import torchvision
from networks import (
    CHANNELS,
    CLASSES,
    FailingNetwork,
    FunctionalReluNetwork,
    GapNetwork,
    MaxPoolNetwork,
    ResidualNetwork,
    hook_count,
    random_images,
    randomised,
    seeded,
)
from torch import nn

from batchcam.engine.model import build_network, class_count_of, load_callable, load_state, prove, require_identity
from batchcam.errors import CheckpointError, ModelError

CLASS_COUNT = 4


def torchvision_network(name: str, **options) -> nn.Module:
    torch.manual_seed(1)
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, num_classes=CLASS_COUNT, **extra, **options)
    return randomised(network)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4"),
        ("resnet34", "layer4"),
        ("resnet50", "layer4"),
        ("mobilenet_v2", "features"),
        ("efficientnet_b0", "features"),
        ("shufflenet_v2_x1_0", "conv5"),
        ("mnasnet0_5", "layers"),
        ("regnet_y_400mf", "trunk_output"),
        ("googlenet", "inception5b"),
        ("swin_t", "permute"),
    ],
)
def test_pooled_layer_of_torchvisions_network_is_found_and_proved(name, layer):
    network = torchvision_network(name)
    proved = prove(network, random_images(2, 96, 128))
    assert proved.target_layer == layer
    assert proved.grid_size == (3, 4)
    assert proved.residual < 1e-5
    require_identity(proved, "fp32")
    assert hook_count(network) == 0


def test_proved_network_carries_the_classifiers_weight_and_bias_detached():
    network = torchvision_network("resnet18")
    proved = prove(network, random_images(2, 64, 64))
    assert torch.equal(proved.weight, network.fc.weight)
    assert torch.equal(proved.bias, network.fc.bias)
    assert (proved.weight.shape, proved.weight.requires_grad) == ((CLASS_COUNT, 512), False)
    assert proved.network is network


def test_classifier_without_bias_has_a_bias_of_zeros():
    torch.manual_seed(0)
    proved = prove(GapNetwork(bias=False).eval(), random_images(2, 16, 16))
    assert proved.bias.tolist() == [0.0] * CLASSES
    require_identity(proved, "fp32")


@pytest.mark.parametrize("name", ["vgg11", "alexnet"])
def test_network_without_global_average_pooling_is_refused(name):
    network = torchvision_network(name)
    with pytest.raises(ModelError, match="needs global average pooling right before it, which VGG, AlexNet"):
        prove(network, random_images(2, 64, 96))
    assert hook_count(network) == 0


def test_vision_transformer_is_refused():
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=CLASS_COUNT).eval()
    # torchvision starts with a head of zeros
    nn.init.normal_(network.heads.head.weight)
    with pytest.raises(ModelError, match="global average pooling"):
        prove(network, random_images(2, 32, 32))


@pytest.mark.parametrize("factory", [MaxPoolNetwork, FunctionalReluNetwork])
def test_network_whose_pooled_activations_are_no_modules_output_is_refused(factory):
    with pytest.raises(ModelError, match="no module's output, averaged over space"):
        prove(seeded(factory), random_images(2, 32, 32))


def test_densenet_is_refused_because_its_last_rectification_is_no_module():
    with pytest.raises(ModelError, match="no module's output, averaged over space"):
        prove(torchvision_network("densenet121"), random_images(2, 64, 64))


def test_network_that_does_not_end_in_a_linear_layer_is_refused():
    network = nn.Sequential(nn.Conv2d(3, CLASSES, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.raises(ModelError, match="no linear layer gives the network's output"):
        prove(network, random_images(2, 16, 16))


def test_network_that_scales_its_logits_is_refused():
    network = nn.Sequential(seeded(GapNetwork), nn.Softmax(1)).eval()
    with pytest.raises(ModelError, match="no linear layer gives the network's output"):
        prove(network, random_images(2, 16, 16))


def test_network_whose_output_is_no_table_of_logits_is_refused():
    network = nn.Conv2d(3, 3, 1).eval()
    with pytest.raises(ModelError, match=r"does not return logits of shape \(N, K\)"):
        prove(network, random_images(2, 16, 16))


def test_batch_norm_is_measured_as_it_was_before_the_in_place_residual_sum_and_refused():
    """The seed's hook: the layer has the right shape, and its maps do not add up to the logit."""
    network = torchvision_network("resnet18")
    images = random_images(2, 64, 96)
    proved = prove(network, images, "layer4.1.bn2")
    with torch.no_grad():
        features = network.layer4[0](network.layer3(network.layer2(network.layer1(
            network.maxpool(network.relu(network.bn1(network.conv1(images))))
        ))))  # fmt: skip
        block = network.layer4[1]
        bn2 = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(features)))))
        logits = network(images)
        sums = bn2.mean((2, 3)) @ network.fc.weight.T + network.fc.bias
    expected = ((sums - logits).abs().amax(1) / logits.abs().amax(1).clamp(min=1)).max().item()
    assert proved.residual == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ModelError) as error:
        require_identity(proved, "fp32")
    assert f"{proved.residual:.2g}" in str(error.value)
    assert "'layer4.1.bn2' is not what the classifier pools" in str(error.value)


def test_target_layer_that_is_the_found_one_passes_when_named():
    network = seeded(ResidualNetwork)
    named = prove(network, random_images(2, 16, 16), "block")
    assert named.residual == prove(network, random_images(2, 16, 16)).residual
    require_identity(named, "fp32")


def test_residual_that_is_nan_is_refused():
    network = seeded(GapNetwork)
    proved = prove(network, random_images(2, 16, 16))
    object.__setattr__(proved, "residual", float("nan"))
    with pytest.raises(ModelError):
        require_identity(proved, "fp32")


@pytest.mark.parametrize(("wrong", "close"), [("layer5", "layer4"), ("layr4", "layer4"), ("zzz", "conv1")])
def test_unknown_target_layer_is_answered_with_names_that_there_are(wrong, close):
    network = torchvision_network("resnet18")
    with pytest.raises(ModelError, match=rf"{wrong}.*no such module; did you mean: .*{close}"):
        prove(network, random_images(1, 32, 32), wrong)
    assert hook_count(network) == 0


@pytest.mark.parametrize("layer", ["head", "pool"])
def test_layer_whose_output_is_no_grid_of_the_classifiers_channels_is_refused_or_is_the_mean_itself(layer):
    network = seeded(GapNetwork)
    if layer == "head":
        with pytest.raises(ModelError, match="does not give activations"):
            prove(network, random_images(2, 16, 16), layer)
    else:
        assert prove(network, random_images(2, 16, 16), layer).grid_size == (1, 1)


def test_layer_of_other_channels_is_refused():
    network = torchvision_network("resnet18")
    with pytest.raises(ModelError, match="'layer3' has 256 channels, the classifier 'fc' takes 512"):
        prove(network, random_images(1, 64, 64), "layer3")


def test_no_hook_is_left_when_the_network_raises():
    network = seeded(FailingNetwork)
    with pytest.raises(RuntimeError, match="out of memory"):
        prove(network, random_images(1, 16, 16))
    assert hook_count(network) == 0


def test_proving_changes_neither_weights_nor_mode():
    network = torchvision_network("resnet18")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    prove(network, random_images(2, 32, 32))
    assert not network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_weights_that_are_nan_are_named_as_the_reason():
    network = seeded(GapNetwork)
    nn.init.constant_(network.head.weight, float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        prove(network, random_images(2, 16, 16))


def test_a_probe_with_one_nan_image_is_proved_on_the_others():
    images = random_images(3, 16, 16)
    images[1] = float("nan")
    assert prove(seeded(GapNetwork), images).target_layer == "body"


def test_layer_is_found_when_features_are_as_small_as_an_untrained_network_may_have_them():
    network = seeded(GapNetwork)
    with torch.no_grad():
        for parameter in network.body.parameters():
            parameter.mul_(1e-6)
    assert prove(network, random_images(2, 32, 32)).target_layer == "body"


def test_architecture_that_torchvision_does_not_know_is_answered_with_close_names():
    with pytest.raises(ModelError, match=r"resnet19.*did you mean: resnet1"):
        build_network("resnet19", 3)


@pytest.mark.parametrize("name", ["fcn_resnet50", "raft_small", "maskrcnn_resnet50_fpn", "quantized_resnet18"])
def test_torchvisions_networks_for_other_tasks_are_no_classifiers(name):
    with pytest.raises(ModelError, match="no such classifier"):
        build_network(name, 3)


def test_state_that_fits_is_loaded():
    source, target = seeded(GapNetwork, 1), seeded(GapNetwork, 2)
    load_state(target, source.state_dict(), "a.pth")
    assert all(torch.equal(v, target.state_dict()[k]) for k, v in source.state_dict().items())


def test_state_that_does_not_fit_is_refused_with_all_kinds_of_keys_and_loads_nothing():
    network = seeded(GapNetwork)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = {k: v + 1 for k, v in network.state_dict().items()}
    state["extra.weight"] = state.pop("head.bias")
    state["head.weight"] = torch.zeros(7, CHANNELS)
    with pytest.raises(CheckpointError) as error:
        load_state(network, state, "a.pth")
    message = str(error.value)
    for part in ("a.pth", "1 missing (head.bias)", "1 unexpected (extra.weight)", f"head.weight (7, {CHANNELS}) for"):
        assert part in message
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_only_the_first_of_many_wrong_keys_are_listed():
    state = {f"layer{i}": torch.zeros(1) for i in range(50)}
    with pytest.raises(CheckpointError, match=r"50 unexpected \(layer0, layer1, layer2, …\)"):
        load_state(seeded(GapNetwork), state, "a.pth")


def test_tensors_that_can_not_be_copied_into_the_network_are_refused():
    network = seeded(GapNetwork)
    state = {k: torch.empty_like(v, device="meta") for k, v in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        load_state(network, state, "a.pth")


def test_class_count_is_the_height_of_the_last_matrix():
    assert class_count_of(torchvision_network("resnet18").state_dict()) == CLASS_COUNT


def test_state_without_a_matrix_has_no_class_count():
    with pytest.raises(CheckpointError, match="no linear layer"):
        class_count_of({"conv.weight": torch.zeros(3, 3, 1, 1)})


def test_matrix_without_columns_claims_no_classes():
    with pytest.raises(CheckpointError, match="no linear layer"):
        class_count_of({"fc.weight": torch.zeros(10**12, 0)})


def test_callable_is_found_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_own_networks.py").write_text("def build():\n    return 'built'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_callable("my_own_networks:build")() == "built"


@pytest.mark.parametrize("spec", ["os", "os:", ":path", ""])
def test_callable_that_is_no_module_and_name_is_refused(spec):
    with pytest.raises(ModelError, match="expected module:callable"):
        load_callable(spec)


@pytest.mark.parametrize(
    ("spec", "reason"), [("no_such_module_here:x", "No module named"), ("os:no_such_name", "has no attribute")]
)
def test_callable_that_can_not_be_imported_says_why(spec, reason, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ModelError, match=reason):
        load_callable(spec)


def test_callable_whose_module_raises_says_why(tmp_path, monkeypatch):
    (tmp_path / "my_broken_networks.py").write_text("raise OSError('no licence\\nfile')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ModelError, match="OSError: no licence"):
        load_callable("my_broken_networks:build")
