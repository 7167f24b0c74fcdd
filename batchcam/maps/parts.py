"""How much of a batch goes through the network at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from batchcam.network.compiled import CompiledNetwork

PIXELS_AT_ONCE, COMPILED_PIXELS_AT_ONCE = 8 * 224 * 224, 128 * 224 * 224
"""What a network on a CPU takes at once: few enough that a layer finds the one before's activations in the cache.
A compiled one divides what it takes itself, among its threads.

Constants, and not measured on the machine: results are equal to the last bit only for equal parts.
"""


def parts(pixels: Tensor, device: torch.device, network: nn.Module) -> list[slice]:
    """Return the parts of a batch (N, C, H, W), in order: on anything but a CPU a batch is one part."""
    at_once = COMPILED_PIXELS_AT_ONCE if isinstance(network, CompiledNetwork) else PIXELS_AT_ONCE
    size = max(1, at_once // math.prod(pixels.shape[2:])) if device.type == "cpu" else len(pixels)
    return [slice(start, start + size) for start in range(0, len(pixels), size)]
