"""The search for the head: what it costs in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from batchcam.network.heads import heads
from batchcam.network.tracing import traced
from tests.helpers.networks import CHANNELS, GapNetwork, random_images, seeded

CLASS_COUNT = 300


class LargestTensor(TorchDispatchMode):
    """Watches how many numbers the largest tensor has that is computed."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


class ManyClasses(GapNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(CHANNELS, CLASS_COUNT), nn.BatchNorm1d(CLASS_COUNT))


def test_search_makes_nothing_that_is_larger_than_the_classifier_or_the_logits() -> None:
    network, images = seeded(ManyClasses), random_images(2, 32, 32)
    with torch.no_grad(), LargestTensor() as largest:
        found = list(heads(network, traced(network, images)))
    assert [head.layer for _, head in found] == ["", "head.1", "head.0"]
    assert CLASS_COUNT * CHANNELS <= largest.numbers < CLASS_COUNT**2
