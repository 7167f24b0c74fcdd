"""Sanity controls: the same network with random weights, whose maps must look different (Adebayo et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from batchcam.errors import ModelError
from batchcam.network.tracing import finite_trace

SEED = 181003292
"""A seed that nobody trains with: from the training's own, "random" weights would be those that it started from."""


def randomise(network: nn.Module, control: str, probe: Tensor) -> None:
    """Replace weights by those of a network before training, the same ones at every call.

    The model parameter randomisation test of Adebayo et al. 2018, https://arxiv.org/abs/1810.03292.

    Args:
        network: changed in place.
        control: `head` for the layer that gives the logits, `weights` for every layer, `none` for nothing.
        probe: normalised images, to see which layer gives the logits.

    Raises:
        ModelError: a weight is not a floating-point number.
    """
    if control == "none":
        return
    with_weights = {n: m for n, m in network.named_modules() if n and any(True for _ in m.parameters(recurse=False))}
    if control == "head":
        last = [name for name in finite_trace(network, probe).outputs if name in with_weights][-1]
        with_weights = {last: with_weights[last]}
    devices = sorted({p.device for p in network.parameters() if p.device.type == "cuda"}, key=str)
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(SEED)
        for name, module in with_weights.items():
            reset = getattr(module, "reset_parameters", None)
            if reset is None:
                _normal(name, module)
            else:
                reset()


def _normal(name: str, module: nn.Module) -> None:
    """Give weights that are a module's own, such as a scale of ConvNeXt, the spread they had."""
    for key, parameter in module.named_parameters(recurse=False):
        if not parameter.is_floating_point():
            raise ModelError(f"control: {name}.{key} is no floating-point weight; it cannot be random")
        parameter.copy_(torch.randn_like(parameter) * parameter.std(unbiased=False) + parameter.mean())
