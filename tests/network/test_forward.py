"""A network's forward pass: logits, or one error in the network's own words with the shape that it was given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from batchcam.errors import ModelError
from batchcam.network.forward import forward, image_channels
from batchcam.network.in_memory import unwrapped
from tests.helpers.networks import GapNetwork, random_images, seeded


class Returning(nn.Module):
    """Returns what it is told to, or raises it."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def forward(self, images: Tensor) -> object:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_logits_come_back_as_they_are():
    network, images = seeded(GapNetwork), random_images(2, 16, 16)
    assert torch.equal(forward(network, images), network(images))


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 1, 1)], ids=str)
def test_one_output_an_image_may_come_in_any_shape(shape):
    result = forward(Returning(torch.tensor([3.0, 4.0]).reshape(shape)), random_images(2, 16, 16))
    assert torch.equal(result, torch.tensor([[3.0], [4.0]]))


def test_one_output_of_one_image_may_have_no_axes():
    assert torch.equal(forward(Returning(torch.tensor(3.0)), random_images(1, 16, 16)), torch.tensor([[3.0]]))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Returning(ValueError("two\nlines")), "the network raised ValueError: two lines; .*shape \\(2, 3, 16, 16\\)$"),
        (Returning(KeyError("x")), "the network raised KeyError: 'x'"),
        (Returning(AssertionError()), "the network raised AssertionError: no reason"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), "to have 1 channels.*its first layer takes 1 channel$"),
        (nn.Sequential(nn.Conv2d(4, 2, 3)), "to have 4 channels.*its first layer takes 4 channels$"),
        (nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), "shapes cannot be multiplied.*shape \\(2, 3, 16, 16\\)$"),
        (nn.Sequential(nn.Conv2d(3, 2, 99)), "Kernel size"),
        (seeded(GapNetwork).half(), "the network raised RuntimeError"),
        (Returning((torch.ones(2, 3), None)), "but a tuple of 2; wrap it with --model"),
        (Returning({"breed": torch.ones(2, 3), "age": 1}), "but a dict of breed, age"),
        (Returning(torch.ones(3)), "but a tensor of shape \\(3,\\)"),
        (Returning(torch.ones(())), "but a tensor of shape \\(\\)"),
        (Returning(torch.ones(1, 2)), "but a tensor of shape \\(1, 2\\)"),
        (Returning(torch.ones(3, 3)), "but a tensor of shape \\(3, 3\\)"),
        (Returning(None), "but a NoneType"),
    ],
)
def test_network_that_raises_or_returns_no_logits_is_one_error_in_its_own_words(network, message):
    with pytest.raises(ModelError, match=message):
        forward(network, random_images(2, 16, 16))


def test_memory_that_is_used_up_is_no_fault_of_the_network():
    with pytest.raises(torch.OutOfMemoryError):
        forward(Returning(torch.OutOfMemoryError("full")), random_images(1, 16, 16))


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda n: torch.compile(nn.DataParallel(n))])
def test_network_is_taken_out_of_what_spreads_or_compiles_it(wrap):
    network = seeded(GapNetwork)
    assert unwrapped(wrap(network)) is network
    assert unwrapped(network) is network


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("make", [torch.jit.script, lambda n: torch.jit.trace(n, torch.zeros(1, 3, 16, 16))])
def test_program_of_torchscript_is_refused(make):
    with pytest.raises(ModelError, match=r"TorchScript program.*give the network itself"):
        unwrapped(nn.Sequential(make(seeded(GapNetwork))))


class GreyInside(nn.Module):
    """Takes three channels and makes one of them, which its first convolution takes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images.mean(1, keepdim=True)).mean((2, 3))


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 1),
        (nn.Sequential(nn.Conv2d(5, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 5),
        (seeded(GapNetwork), 3),
        (GreyInside(), 3),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)), 3),
    ],
    ids=["grey", "five", "usual", "grey-inside", "without-convolutions"],
)
def test_channels_of_images_are_three_where_the_network_takes_three_else_its_first_layers(network, channels):
    assert image_channels(network, (8, 8)) == channels
