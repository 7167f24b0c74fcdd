"""A network in memory is explained as its checkpoint would be, and stays as it is."""

from __future__ import annotations

import copy
import hashlib
import struct

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from batchcam.errors import ModelError
from batchcam.network.in_memory import as_checkpoint, copied, state_digest, unwrapped
from tests.helpers.networks import GapNetwork, hook_count, random_images, seeded


def test_the_digest_is_that_of_the_formula() -> None:
    state = {"b": torch.tensor([[1.5, -2.0]]), "a": torch.tensor(7)}
    text = b"a\0int64\0\n" + struct.pack("<q", 7) + b"b\0float32\x001,2\n" + struct.pack("<ff", 1.5, -2.0)
    assert state_digest(state) == hashlib.sha256(text).hexdigest()


def test_the_digest_is_of_values_and_not_of_how_they_lie_or_of_the_order_of_names() -> None:
    network = seeded(GapNetwork)
    state = network.state_dict()
    assert state_digest(dict(reversed(state.items()))) == state_digest(state)
    assert state_digest(network.to(memory_format=torch.channels_last).state_dict()) == state_digest(state)


@pytest.mark.parametrize("change", ["value", "name", "dtype", "shape", "missing"])
def test_the_digest_tells_any_change(change: str) -> None:
    state = dict(seeded(GapNetwork).state_dict())
    before = state_digest(state)
    bias = state.pop("head.bias")
    if change == "value":
        state["head.bias"] = torch.from_numpy(np.nextafter(bias.numpy(), np.float32(9)))
    elif change == "name":
        state["head.bias_"] = bias
    elif change == "dtype":
        state["head.bias"] = bias.view(torch.int32)
    elif change == "shape":
        state["head.bias"] = bias[None]
    assert state_digest(state) != before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.int64, torch.complex64])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_every_type_and_shape_of_tensor_has_a_digest(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    assert len(state_digest({"a": torch.ones(shape, dtype=dtype)})) == 64


@pytest.mark.parametrize("entry", ["text", torch.ones(2, 2).to_sparse()], ids=["text", "sparse"])
def test_a_state_dict_with_something_else_is_refused(entry: object) -> None:
    with pytest.raises(ModelError, match="state dict: extra is no dense tensor"):
        state_digest({"extra": entry})


def test_the_class_is_the_architecture() -> None:
    assert str(as_checkpoint(seeded(GapNetwork)).path) == "in memory: tests.helpers.networks.GapNetwork"


@pytest.mark.parametrize(
    "wrap", [AveragedModel, nn.DataParallel, torch.compile, lambda n: torch.compile(nn.DataParallel(n))]
)
def test_what_torch_wraps_a_network_in_is_taken_off(wrap) -> None:
    network = seeded(GapNetwork)
    wrapped = wrap(network)
    assert type(unwrapped(wrapped)) is GapNetwork
    assert as_checkpoint(wrapped).sha256 == as_checkpoint(network).sha256


def test_a_network_of_the_users_own_that_holds_another_is_itself() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = seeded(GapNetwork)

    network = Normalised()
    assert unwrapped(network) is network


def test_a_copy_computes_the_same_and_shares_nothing() -> None:
    network = seeded(GapNetwork).train()
    images = random_images(2, 8, 8)
    before = copy.deepcopy(network.state_dict())
    copy_of_it = copied(network)
    torch.testing.assert_close(copy_of_it(images), network(images), rtol=0, atol=0)
    with torch.no_grad():
        for parameter in copy_of_it.parameters():
            parameter.zero_()
    copy_of_it.eval()
    assert network.training
    assert hook_count(network) == 0
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    network = seeded(GapNetwork)
    network.seen = network(random_images(1, 8, 8))  # not a leaf of autograd's graph
    with pytest.raises(ModelError, match=r"GapNetwork: can't be copied: RuntimeError"):
        copied(network)
