"""One output: two logits whose softmax is its sigmoid, a sigmoid at the end taken off, and all the rest as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchcam.errors import ModelError
from batchcam.maps.gradients import GradientMaps
from batchcam.maps.preparation import prepare
from batchcam.network.one_output import as_two_classes
from tests.helpers.networks import (
    CHANNELS,
    ConvolutionalHeadNetwork,
    FunctionalReluNetwork,
    GapNetwork,
    NormedNetwork,
    TwoLinearNetwork,
    random_images,
    seeded,
)

IMAGES = random_images(3, 32, 32)


class OneOutput(GapNetwork):
    """One linear layer, and what is done to its output z (N, 1)."""

    def __init__(self, end: Callable[[Tensor], Tensor], size: float = 20) -> None:
        super().__init__()
        self.head = nn.Linear(CHANNELS, 1)
        with torch.no_grad():
            self.head.weight *= size
        self.end = end

    def forward(self, images: Tensor) -> Tensor:
        return self.end(super().forward(images))

    def output(self, images: Tensor) -> Tensor:
        """Return z (N, 1)."""
        return GapNetwork.forward(self, images)


def with_end(end: Callable[[Tensor], Tensor], size: float = 20) -> OneOutput:
    return seeded(lambda: OneOutput(end, size))


SHAPES = {
    "(N, 1)": nn.Identity(),
    "(N,)": lambda z: z.squeeze(1),
    "(N,), () of one image": lambda z: z.squeeze(),
    "(N, 1, 1, 1)": lambda z: z[:, :, None, None],
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_of_the_two_logits_is_the_sigmoid_of_the_output(shape, count):
    network, images = with_end(SHAPES[shape]), IMAGES[:count]
    with torch.no_grad():
        z = network.output(images)
        assert as_two_classes(network, images) == ""
        logits = network(images)
    assert torch.equal(logits, torch.cat([-z / 2, z / 2], 1))
    torch.testing.assert_close(logits.softmax(1)[:, 1:], z.sigmoid())


SIGMOIDS = {
    "module": nn.Sigmoid(),
    "function": torch.sigmoid,
    "by hand": lambda z: 1 / (1 + (-z).exp()),
    "then squeezed": lambda z: z.sigmoid().squeeze(),
    "of what is squeezed": lambda z: z.squeeze().sigmoid(),
}


@pytest.mark.parametrize("size", [20, 1e5], ids=["between", "0 or 1 for every image"])
@pytest.mark.parametrize("end", SIGMOIDS)
def test_sigmoid_at_the_end_is_taken_off_and_told(end, size):
    network = with_end(SIGMOIDS[end], size)
    with torch.no_grad():
        told = as_two_classes(network, IMAGES)
        for images in (IMAGES, IMAGES[:1]):
            assert torch.equal(network(images)[:, 1:], network.output(images) / 2)
    assert told == "the network ends in a sigmoid: the logits are what enters it, from 'head'"


@pytest.mark.parametrize(
    "end",
    [
        lambda z: F.linear(z, torch.full((1, 1), 2.0)).sigmoid(),
        lambda z: (z / 3).sigmoid(),
        nn.Softmax(1),
        lambda z: z.clamp(0, 1),
    ],
    ids=["functional layer before", "temperature before", "softmax of one number", "clamp"],
)
@pytest.mark.parametrize("size", [20, 1e5])
def test_probability_whose_logit_no_module_gives_is_refused_with_the_way_out(end, size):
    with pytest.raises(ModelError, match=r"one output lies in 0…1 for every image.*return that, its logit \(--model"):
        as_two_classes(with_end(end, size), IMAGES)


def test_logits_between_0_and_1_of_a_linear_layer_are_logits():
    network = with_end(nn.Identity())
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.fill_(0.25)
        assert as_two_classes(network, IMAGES) == ""
        assert torch.equal(network(IMAGES), torch.tensor([[-0.125, 0.125]]).expand(3, 2))


def test_small_logits_that_no_linear_layer_gives_are_logits():
    network = with_end(lambda z: z / 1000)
    with torch.no_grad():
        network.head.bias.fill_(300)
        assert 0 <= network(IMAGES).min() <= network(IMAGES).max() <= 1
        assert as_two_classes(network, IMAGES) == ""


def of_one(network: nn.Module) -> nn.Module:
    """Return one of the helper networks with a single output."""
    head = network.head
    if isinstance(head, nn.Linear):
        network.head = nn.Linear(head.in_features, 1, bias=head.bias is not None)
    else:
        head[0], head[1] = nn.Conv2d(CHANNELS, 1, 1), nn.Identity()
    return network


def sequential() -> nn.Module:
    network = GapNetwork()
    return nn.Sequential(
        network.stem, network.body, network.pool, nn.Flatten(), nn.Dropout(0.5), nn.Linear(CHANNELS, 1)
    )


def two_linear() -> nn.Module:
    network = TwoLinearNetwork()
    network.head[-1] = nn.Linear(network.head[-1].in_features, 1)
    return network


FACTORIES = {
    "linear": lambda: of_one(GapNetwork()),
    "without bias": lambda: of_one(GapNetwork(bias=False)),
    "functional ReLU": lambda: of_one(FunctionalReluNetwork()),
    "layer norm": lambda: of_one(NormedNetwork()),
    "two linear layers": two_linear,
    "convolution": lambda: of_one(ConvolutionalHeadNetwork()),
    "Sequential with dropout": sequential,
    "sigmoid": lambda: OneOutput(nn.Sigmoid()),
    "temperature": lambda: OneOutput(lambda z: z / 1.7),
}


@pytest.mark.parametrize("kind", FACTORIES)
def test_identity_is_proved_for_both_classes_and_their_weights_are_half_the_outputs(kind):
    network = seeded(FACTORIES[kind])
    names = [name for name, _ in network.named_modules()]
    as_two_classes(network, IMAGES)
    with torch.no_grad():
        logits = network(IMAGES)
    proved = prepare(network, IMAGES, "cam", "none", None)
    assert proved.residual < 1e-5
    assert (proved.class_count, logits.shape) == (2, (3, 2))
    torch.testing.assert_close(proved.weight[0], -proved.weight[1])
    torch.testing.assert_close(proved.bias[0], -proved.bias[1])
    assert [name for name, _ in network.named_modules()] == names
    last = next(module for module in reversed(list(network.modules())) if isinstance(module, (nn.Linear, nn.Conv2d)))
    if kind in ("linear", "functional ReLU", "Sequential with dropout", "sigmoid"):
        assert torch.equal(proved.weight[1], last.weight[0] / 2)
        assert torch.equal(proved.bias[1:], last.bias / 2)


def test_gradient_methods_explain_half_the_output():
    network = seeded(lambda: of_one(GapNetwork()))
    with torch.no_grad():
        activations = network.body(network.stem(IMAGES))
    (gradient,) = torch.autograd.grad(
        network.head(network.pool(leaf := activations.clone().requires_grad_()).flatten(1)).sum(), leaf
    )
    expected = (gradient.mean((2, 3), keepdim=True) * activations).sum(1) / 2
    as_two_classes(network, IMAGES)
    explainable = prepare(network, IMAGES, "gradcam", "none", "body")
    with GradientMaps(explainable) as maps:
        maps.forward(IMAGES)
        cams = maps.all_cams().cams
    torch.testing.assert_close(cams, torch.stack([-expected, expected], 1))


@pytest.mark.parametrize("control", ["head", "weights"])
def test_control_makes_the_head_random_and_not_the_halves(control):
    network = seeded(lambda: of_one(GapNetwork()))
    before = network.head.weight.clone()
    as_two_classes(network, IMAGES)
    proved = prepare(network, IMAGES, "cam", control, None)
    assert not torch.equal(network.head.weight, before)
    assert torch.equal(proved.weight, torch.cat([-network.head.weight, network.head.weight]) / 2)
