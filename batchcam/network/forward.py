"""One forward pass of a network that somebody else wrote: its logits, or one error in its own words."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from batchcam.errors import BatchcamError, ModelError, one_line

REASON_LENGTH = 300


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


def _other_channels(network: nn.Module, channels: int) -> str:
    """Return what to do where the first convolution takes other images than these, "" where it does not."""
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.in_channels == channels:
        return ""
    return f": {channels_advice(first.in_channels)}"


def channels_advice(channels: int) -> str:
    """Return how to explain a network whose images do not have three channels."""
    kind = " (grey images)" if channels == 1 else ""
    return (
        f"its first layer takes {channels} channel{'' if channels == 1 else 's'}{kind}; give it normalised tensors of "
        f"shape ({channels}, H, W) by a python:module:callable dataset, and the network by --model"
    )


def _described(output: object) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} of {', '.join(map(str, output))}"[:REASON_LENGTH]
    return f"a {type(output).__name__}"
