"""One forward pass of a network that somebody else wrote: its logits, or one error in its own words."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from batchcam.errors import BatchcamError, ModelError, one_line

REASON_LENGTH = 300

USUAL_CHANNELS = 3


def forward(network: nn.Module, images: Tensor) -> Tensor:
    """Return the logits (N, K) of normalised images (N, C, H, W); one output an image may come in any shape.

    Raises:
        ModelError: the network raises, or returns something else.
    """
    try:
        logits = network(images)
    except (BatchcamError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the user's network raises
        reason = one_line(error)[:REASON_LENGTH] or "no reason"
        raise ModelError(
            f"the network raised {type(error).__name__}: {reason}; it was given images of shape {tuple(images.shape)}"
            f"{_other_channels(network, images.shape[1])}"
        ) from error
    logits = getattr(logits, "logits", logits)  # transformers' networks return a table
    if isinstance(logits, Tensor):
        if logits.shape[:1] in ((), (len(images),)) and logits.numel() == len(images):
            return logits.reshape(-1, 1)
        if logits.ndim == 2 and len(logits) == len(images):
            return logits
    raise ModelError(
        f"the network does not return logits of shape (N, K), but {_described(logits)}; wrap it with --model "
        "module:callable"
    )


def image_channels(network: nn.Module, size: tuple[int, int]) -> int:
    """Return with how many channels a network takes images of (H, W): three if it can, else as its first layer does."""
    first = _first_channels(network)
    if first == USUAL_CHANNELS:
        return first
    try:
        with torch.inference_mode():
            forward(network, torch.zeros(2, USUAL_CHANNELS, *size))
    except ModelError:
        return first
    return USUAL_CHANNELS


def _first_channels(network: nn.Module) -> int:
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    return USUAL_CHANNELS if first is None else first.in_channels


def _other_channels(network: nn.Module, channels: int) -> str:
    """Return what is wrong where the first convolution takes other images than these, "" where it does not."""
    first = _first_channels(network)
    return "" if first == channels else f": its first layer takes {first} channel{'' if first == 1 else 's'}"


def _described(output: object) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} of {', '.join(map(str, output))}"[:REASON_LENGTH]
    return f"a {type(output).__name__}"
