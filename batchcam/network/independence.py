"""A network's answer for an image depends on the image: not on its neighbours, on chance, or on earlier calls."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from batchcam.errors import ModelError
from batchcam.network.forward import forward
from batchcam.network.tracing import traced

NEIGHBOURS_TOLERANCE: Final = 1e-4
REPEAT_TOLERANCE: Final = 1e-5
"""Largest differences of logits, relative to max(1, largest abs(logit)): batches of other sizes round otherwise."""


def independent_logits(network: nn.Module, probe: Tensor) -> Tensor:
    """Return the logits of two images, after the check that they are these images' own.

    The network runs twice on both and once on the first alone.

    Args:
        network: in evaluation mode, on the probe's device.
        probe: normalised images, (N, C, H, W).

    Raises:
        ModelError: an answer depends on something else; on what, and by which layer.
    """
    pair = probe[:2] if len(probe) > 1 else torch.cat([probe, probe.flip(3)])
    with torch.inference_mode():
        before = {n: b.clone() for n, b in network.named_buffers()}
        logits = forward(network, pair)
        changed = [n for n, b in network.named_buffers() if n not in before or not _equal(b, before[n])]
        again = forward(network, pair)
    if (miss := _miss(again, logits)) > REPEAT_TOLERANCE:
        what = f"what it saw before, which changes its {changed[0]!r}" if changed else "chance"
        where = "" if changed else _first_difference(network, pair, pair)
        raise ModelError(f"the network's answers depend on {what}: called again, logits differ by {miss:.2g}{where}")
    _require_same_alone(network, pair, logits)
    return logits


def _require_same_alone(network: nn.Module, pair: Tensor, logits: Tensor) -> None:
    neighbours = "the network's answer for an image depends on the other images of its batch: alone, "
    try:
        with torch.inference_mode():
            miss = _miss(forward(network, pair[:1]), logits[:1])
    except ModelError as error:
        if statistics := _batch_statistics(network):
            raise ModelError(f"{neighbours}it has no answer{statistics}") from error
        raise
    if miss > NEIGHBOURS_TOLERANCE:
        why = _batch_statistics(network) or _first_difference(network, pair, pair[:1])
        raise ModelError(f"{neighbours}its logits differ by {miss:.2g}{why}")


def _miss(logits: Tensor, expected: Tensor) -> float:
    """Return the largest difference of finite logits, relative to max(1, largest abs(logit))."""
    finite = torch.isfinite(logits).all(1) & torch.isfinite(expected).all(1)
    if not finite.any():
        return 0.0
    scale = expected[finite].float().abs().amax(1, keepdim=True).clamp(min=1)
    return float(((logits[finite].float() - expected[finite].float()).abs() / scale).amax())


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())


def _batch_statistics(network: nn.Module) -> str:
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and (module.running_mean is None or module.training):
            why = "has no running ones (track_running_stats=False)" if module.running_mean is None else "is training"
            kind = type(module).__name__
            return f"; {name!r} ({kind}) normalises by the statistics of the batch, as it {why}"
    return ""


def _first_difference(network: nn.Module, one: Tensor, other: Tensor) -> str:
    """Return the first layer that gives the first image something else, though it takes the same."""
    first, second = (traced(network, images) for images in (one, other))
    for name, output in first.outputs.items():
        if name not in second.outputs or any(True for _ in network.get_submodule(name).children()):
            continue
        pairs = ((first.inputs[name], second.inputs[name]), (output, second.outputs[name]))
        same_input, same_output = (torch.allclose(a[0].float(), b[0].float(), 1e-3, 1e-4, True) for a, b in pairs)
        if not same_output:
            by = f"by layer {name!r} ({type(network.get_submodule(name)).__name__})"
            return f", first {by}" if same_input else f", before layer {name!r}"
    return ""
