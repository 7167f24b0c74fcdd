"""Copies to and from a device: same values, in any layout, and on a GPU without waiting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from batchcam.maps.transfer import Transfer

CPU = torch.device("cpu")
DEVICES = [
    CPU,
    pytest.param(torch.device("cuda"), marks=pytest.mark.gpu),
]


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 3, 8, 6, generator=generator)
    return {
        "plain": images,
        "channels last": images.to(memory_format=torch.channels_last),
        "expanded": torch.arange(4).expand(5, -1),
        "part": images[:, 1:, ::2],
        "bytes": torch.arange(250, dtype=torch.uint8).reshape(5, 50).T,
        "nothing": torch.empty(0, 3),
    }


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_there_and_back_nothing_changes(device):
    transfer, sent = Transfer(device), tensors()
    there = {name: transfer.to_device(tensor) for name, tensor in sent.items()}
    assert {tensor.device.type for tensor in there.values()} == {device.type}
    arrays = transfer.to_host(there).arrays()
    assert list(arrays) == list(sent)
    for name, tensor in sent.items():
        assert arrays[name].dtype == tensor.numpy().dtype, name
        assert arrays[name].flags.c_contiguous, name
        np.testing.assert_array_equal(arrays[name], tensor.numpy(), name)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_arrays_stay_as_they_were_while_later_tensors_come_and_go(device):
    transfer = Transfer(device)
    first = transfer.to_host({"x": transfer.to_device(torch.full((1000, 1000), 7.0))}).arrays()["x"]
    for value in range(20):
        transfer.to_host({"x": transfer.to_device(torch.full((1000, 1000), float(value)))}).arrays()
    assert (first == 7).all()


@pytest.mark.gpu
def test_a_gpus_results_are_complete_although_the_host_asks_at_once():
    device = torch.device("cuda")
    transfer = Transfer(device)
    values = transfer.to_device(torch.ones(4096, 4096))
    product = values @ values @ values / 4096**2  # still being computed when the copy is asked for
    assert (transfer.to_host({"product": product}).arrays()["product"] == 1).all()
