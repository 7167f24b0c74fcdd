"""Finding and proving the layer that the logits are a linear map of, or a refusal that says why."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from batchcam.errors import ModelError
from batchcam.network.proof import prove, require_identity
from batchcam.network.target_layer import TargetLayer
from tests.helpers.networks import (
    CHANNELS,
    CLASSES,
    ConvolutionalHeadNetwork,
    FailingNetwork,
    FunctionalActivationNetwork,
    FunctionalReluNetwork,
    GapNetwork,
    MaxPoolNetwork,
    NormedNetwork,
    ResidualNetwork,
    TwoLinearNetwork,
    hook_count,
    random_images,
    seeded,
    torchvision_network,
)

CLASS_COUNT = 4


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


def test_network_without_global_average_pooling_is_refused():
    network = torchvision_network("alexnet")
    with pytest.raises(ModelError, match="needs global average pooling right before it, which VGG, AlexNet"):
        prove(network, random_images(2, 64, 96))
    assert hook_count(network) == 0


@pytest.mark.parametrize("factory", [MaxPoolNetwork, FunctionalActivationNetwork])
def test_network_whose_logits_are_no_linear_map_of_pooled_activations_is_refused(factory):
    with pytest.raises(ModelError, match="no module's output, averaged over space"):
        prove(seeded(factory), random_images(2, 32, 32))


class VectorHeadNetwork(GapNetwork):
    """Layers of any kind behind pooling."""

    def __init__(self, *head: nn.Module) -> None:
        super().__init__()
        self.head = nn.Sequential(*head)
        for module in self.head:
            if isinstance(module, (nn.BatchNorm1d, nn.GroupNorm)):
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
            if isinstance(module, nn.BatchNorm1d):
                nn.init.normal_(module.running_mean)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.body(self.stem(images))))


class ChannelsLastNetwork(GapNetwork):
    """Swin's end: a layer norm of (N, h, w, C), pooled without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)
        nn.init.normal_(self.norm.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.body(self.stem(images)).permute(0, 2, 3, 1)).mean((1, 2)))


class RectifyingNorm(nn.BatchNorm2d):
    """A batch norm that does more, as those of libraries do."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return super().forward(values).relu()


def test_layers_of_one_cell_behind_pooling_are_no_grid_and_refused():
    network = seeded(
        lambda: VectorHeadNetwork(
            nn.Conv2d(CHANNELS, CHANNELS, 1), RectifyingNorm(CHANNELS), nn.Flatten(), nn.Linear(CHANNELS, CLASSES)
        )
    )
    with pytest.raises(ModelError, match=r"'head\.1', has one cell for images of 64x64: .*--method gradcam"):
        prove(network, random_images(2, 32, 32))
    assert hook_count(network) == 0


def test_layer_that_has_one_cell_because_the_image_is_small_is_proved():
    assert prove(torchvision_network("resnet18"), random_images(2, 32, 32)).grid_size == (1, 1)


def loops(activations: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Zhou et al. 2016, eq. 2, as it stands: CAMs in float64."""
    a, w = activations.double(), weight.double()
    cams = torch.zeros(len(a), len(w), *a.shape[2:], dtype=torch.float64)
    for k in range(len(w)):
        for c in range(a.shape[1]):
            cams[:, k] += w[k, c] * a[:, c]
    return cams


def explained(network: nn.Module, images: torch.Tensor) -> tuple[object, torch.Tensor, torch.Tensor]:
    """The proof, the activations A of `images`, and the CAMs from A."""
    proved = prove(network, random_images(2, 32, 32, seed=5))
    kept = []
    handle = network.get_submodule(TargetLayer.parse(proved.target_layer).name).register_forward_hook(
        lambda m, i, o: kept.append(o.clone())
    )
    with torch.no_grad():
        network(images)
    handle.remove()
    activations = proved.terms(kept[0]).cells[0].values
    return proved, activations, loops(activations, proved.weight)


@pytest.mark.parametrize(
    ("factory", "layer"),
    [
        (FunctionalReluNetwork, "relu(body)"),
        (TwoLinearNetwork, "body"),
        (NormedNetwork, "layer_norm(body)"),
        (lambda: NormedNetwork(affine=False), "layer_norm(body)"),
        (ConvolutionalHeadNetwork, "head.1"),
        (lambda: VectorHeadNetwork(nn.Conv2d(CHANNELS, CLASSES, 1), nn.Flatten()), "body"),
        (lambda: VectorHeadNetwork(nn.BatchNorm2d(CHANNELS), nn.Flatten(), nn.Linear(CHANNELS, CLASSES)), "body"),
        (lambda: VectorHeadNetwork(nn.Flatten(), nn.BatchNorm1d(CHANNELS), nn.Linear(CHANNELS, CLASSES)), "body"),
        (
            lambda: VectorHeadNetwork(nn.GroupNorm(1, CHANNELS), nn.Flatten(), nn.Linear(CHANNELS, CLASSES)),
            "layer_norm(body)",
        ),
        (ChannelsLastNetwork, "channels_last(norm)"),
        (lambda: VectorHeadNetwork(nn.Flatten(), nn.Linear(CHANNELS, CLASSES), nn.BatchNorm1d(CLASSES)), "body"),
        (lambda: VectorHeadNetwork(nn.Flatten(), nn.LayerNorm(CHANNELS)), "layer_norm(body)"),
    ],
    ids=[
        *("functional relu", "two linear layers", "layer norm", "layer norm without weights", "convolutional head"),
        *("convolution of one cell", "batch norm of one cell", "batch norm", "group norm of one group"),
        *("channels last", "batch norm of logits", "layer norm of logits"),
    ],
)
def test_maps_of_every_kind_of_head_add_up_to_the_logits(factory, layer):
    network, images = seeded(factory), random_images(3, 32, 48)
    proved, _, cams = explained(network, images)
    assert proved.target_layer == layer
    assert proved.grid_size[0] > 1
    with torch.no_grad():
        logits = network(images).double()
    assert logits.std() > 0.01
    torch.testing.assert_close(cams.mean((2, 3)) + proved.bias.double(), logits, rtol=0, atol=1e-5)
    assert prove(network, images, layer).target_layer == layer  # a rerun takes the layer from the plan


def test_layer_norms_map_is_the_gradient_of_the_logit_where_the_deviation_is_held_fixed():
    network, images = seeded(NormedNetwork), random_images(1, 32, 32)
    _, _, cams = explained(network, images)
    activations = network.body(network.stem(images)).detach().double().requires_grad_()
    pooled = activations.mean((2, 3))
    deviation = (pooled.var(1, unbiased=False) + network.norm.eps).sqrt().detach()
    normed = (pooled - pooled.mean(1, keepdim=True)) / deviation[:, None]
    logits = (normed * network.norm.weight + network.norm.bias) @ network.head.weight.double().T + network.head.bias
    for k in range(CLASSES):
        (gradient,) = torch.autograd.grad(logits[0, k], activations, retain_graph=True)
        cells = activations.shape[2] * activations.shape[3]
        torch.testing.assert_close((gradient * activations).sum(1)[0] * cells, cams[0, k], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        *("layer4", "relu(features)", "layer_norm(features)", "layer_norm(relu(a.b))", "channels_last(a.b)"),
        "layer_norm(relu(channels_last(a)))",
    ],
)
def test_target_layer_reads_what_it_writes(text):
    assert str(TargetLayer.parse(text)) == text


@pytest.mark.parametrize("text", ["relu(features", "relu)features(", "sigmoid(features)", "()", ""])
def test_target_layer_that_is_not_so_written_is_a_name_that_no_module_has(text):
    assert TargetLayer.parse(text) == TargetLayer(text)
    with pytest.raises(ModelError, match="no such module"):
        prove(seeded(GapNetwork), random_images(1, 16, 16), text)


def test_network_whose_logits_are_pooled_otherwise_is_refused():
    network = nn.Sequential(nn.Conv2d(3, CLASSES, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten()).eval()
    with pytest.raises(ModelError, match="no linear layer gives the network's output"):
        prove(network, random_images(2, 16, 16))


def test_network_that_scales_its_logits_is_refused():
    network = nn.Sequential(seeded(GapNetwork), nn.Softmax(1)).eval()
    with pytest.raises(ModelError, match="no linear layer gives the network's output"):
        prove(network, random_images(2, 16, 16))


class ScaledNetwork(GapNetwork):
    """Does something to its logits, or makes them, without a module."""

    def __init__(self, tail) -> None:
        super().__init__()
        self.tail = tail
        self.free = nn.Parameter(torch.randn(CLASSES, CHANNELS))
        self.heads = nn.ModuleList(nn.Linear(CHANNELS, CLASSES) for _ in range(3))
        self.temperature = nn.Parameter(torch.tensor([1.7]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.tail(self, self.pool(self.body(self.stem(images))).flatten(1))


AFFINE = {
    "temperature": lambda n, x: n.head(x) / n.temperature,
    "scale": lambda n, x: n.head(x) * 30,
    "scale and shift of each class": lambda n, x: n.head(x) * n.free[:, 0] + n.free[:, 1],
    "functional linear": lambda n, x: torch.nn.functional.linear(x, n.free),
    "matrix product": lambda n, x: x @ n.free.T,
    "mean of linears": lambda n, x: torch.stack([h(x) for h in n.heads]).mean(0),
    "sum of two heads": lambda n, x: n.heads[0](x) + 0.5 * n.heads[1](x),
    "logits centred": lambda n, x: n.head(x) - n.head(x).mean(1, keepdim=True),
    "functional linear of a linear": lambda n, x: n.head(x) @ n.free[:, :CLASSES],
}


@pytest.mark.parametrize("kind", AFFINE)
def test_affine_head_without_a_module_is_found_and_its_maps_add_up_to_the_logits(kind):
    network, images = seeded(lambda: ScaledNetwork(AFFINE[kind])), random_images(3, 32, 48)
    proved, _, cams = explained(network, images)
    assert (proved.target_layer, proved.grid_size) == ("body", (8, 8))
    with torch.no_grad():
        logits = network(images).double()
    torch.testing.assert_close(cams.mean((2, 3)) + proved.bias.double(), logits, rtol=1e-4, atol=1e-4)
    require_identity(proved, "fp32")
    assert prove(network, images, "body").residual < 1e-5
    assert hook_count(network) == 0


NOT_AFFINE = {
    "cosine": lambda n, x: 16 * torch.nn.functional.normalize(x) @ n.free.T,
    "ReLU": lambda n, x: (n.head(x) + 9).relu(),
    "softplus": lambda n, x: torch.nn.functional.softplus(n.head(x)),
    "scale by the norm": lambda n, x: n.head(x) / x.norm(dim=1, keepdim=True),
    "clamp that is never met": lambda n, x: n.head(x).clamp(-1e3, 1e3) + n.head(x.clamp(max=2)),
    "largest head": lambda n, x: torch.stack([h(x) for h in n.heads]).amax(0),
}


@pytest.mark.parametrize("kind", NOT_AFFINE)
def test_head_that_is_affine_only_for_the_probe_or_not_at_all_is_refused(kind):
    network = seeded(lambda: ScaledNetwork(NOT_AFFINE[kind]))
    with pytest.raises(ModelError, match=r"its last layer is 'head|no linear layer"):
        prove(network, random_images(3, 32, 48))
    assert hook_count(network) == 0


@pytest.mark.parametrize("tail", ["softmax", "log_softmax", "sigmoid"])
def test_refusal_says_what_the_network_ends_in(tail):
    network = seeded(lambda: ScaledNetwork(lambda n, x: getattr(n.head(x).relu(), tail)(*[1] * (tail != "sigmoid"))))
    with pytest.raises(ModelError, match=f"what a {tail.replace('_', '-')} does: .*its last layer is 'head' .Linear"):
        prove(network, random_images(2, 32, 32))


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
    with pytest.raises(ModelError, match=r"raised RuntimeError: out of memory, say; it was given images of shape"):
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
