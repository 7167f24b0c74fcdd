"""A network with one output, whose sigmoid is the probability of the second of two classes: made one of two logits."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from batchcam.errors import ModelError
from batchcam.network.forward import forward
from batchcam.network.heads import halves, heads
from batchcam.network.tail import ending, without_tail
from batchcam.network.tracing import traced

STRENGTHS: Final = (1, 1e3, -1e3)
"""Of images: a probability stays one, while a logit may lie in 0…1 for a few ordinary ones."""


def as_two_classes(network: nn.Module, images: Tensor) -> str:
    """Let a network return two logits for its one output z, in place: -z/2 and z/2, whose softmax is sigmoid(z).

    A sigmoid at its end is taken off first: z is what enters it.

    Args:
        network: in evaluation mode, with one output an image.
        images: normalised, (N, C, H, W).

    Returns:
        What was taken off, for people; "" for nothing.

    Raises:
        ModelError: what it returns seems to be a probability, and no module gives what it is made of.
    """
    images = torch.cat([images * strength for strength in STRENGTHS])
    with torch.inference_mode():
        output = forward(network, images)
    tail = without_tail(network, output, images)
    if not tail and ending(output) and not _is_linear(network, images):
        raise ModelError(
            "the network's one output lies in 0…1 for every image, as a sigmoid's does, and no module gives what "
            "enters it: let the network return that, its logit (--model module:callable)"
        )
    network.register_forward_hook(halves)
    return tail


def _is_linear(network: nn.Module, images: Tensor) -> bool:
    """Return whether a linear layer gives what the network returns."""
    return len(list(heads(network, traced(network, images)))) > 1
