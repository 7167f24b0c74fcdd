"""The trace of a forward pass: copies of what every module took and gave, each only once."""

from __future__ import annotations

import torch
from torch import nn

from batchcam.network.tracing import traced
from tests.helpers.networks import ResidualNetwork, random_images, seeded


def test_trace_keeps_what_a_module_gave_before_another_changed_it_in_place() -> None:
    network, images = seeded(ResidualNetwork), random_images(2, 16, 16)
    trace = traced(network, images)
    with torch.no_grad():
        features = network.stem(images)
        normed = network.block.bn(network.block.conv(features))
    assert torch.equal(trace.outputs["block.bn"], normed)
    assert torch.equal(trace.outputs["block"], (normed + features).relu())


def test_what_one_module_gives_and_the_next_one_takes_lies_in_memory_once() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1)), nn.Flatten()).eval()
    trace = traced(layers, random_images(2, 8, 8))
    assert trace.inputs["1"] is trace.outputs["0"] is trace.inputs["1.0"]
    assert trace.outputs["1.0"] is trace.outputs["1"] is trace.inputs["2"]
