"""Heads that no chain of layers shows: temperatures, functional layers, means of several; found by their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from batchcam.network.forward import forward
from batchcam.network.heads import Head
from batchcam.network.target_layer import TargetLayer
from batchcam.network.tracing import Trace

CONSTANT = 1e-4
"""Gradients are constant, and logits those of the map, up to this share of their size."""

NOISE = (1.0, 1e3, 1e6)
"""Sizes of noise, as shares of the largest activation."""

MOST_LAYERS = 8  # from the end: what lies further away is behind an activation


def affine_layer(network: nn.Module, probe: Tensor, trace: Trace) -> tuple[TargetLayer, Head] | None:
    """Return the layer of whose spatial mean the logits are an affine function, and that function.

    Of several layers the one with most cells, then the outermost. What a layer gives is replaced by noise to see that
    the function holds everywhere: an activation behind it may be linear for the images of the probe.

    Args:
        network: in evaluation mode, on the probe's device.
        probe: normalised images, (N, C, H, W).
        trace: of the network.
    """
    best: tuple[int, TargetLayer, Head] | None = None
    grids = [name for name in reversed(trace.outputs) if _is_grid(trace.outputs[name])]
    for name in grids[:MOST_LAYERS]:
        layers = (TargetLayer(name), TargetLayer(name, channels_last=True))
        found = next(((each, head) for each in layers if (head := affine_head(network, probe, each))), None)
        if found is None:
            break  # what lies before it is no further on
        cells = found[0].grid(trace.outputs[name])[0, 0].numel()
        if best is None or cells > best[0]:
            best = cells, *found
    return best[1:] if best else None


def _is_grid(output: Tensor) -> bool:
    return output.ndim == 4 and sorted(output.shape[1:])[-2] > 1  # of one cell only the channels are more than one


def affine_head(network: nn.Module, probe: Tensor, layer: TargetLayer) -> Head | None:
    """Return the affine function of the layer's spatial mean that the logits are, None where they are none."""
    kept: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        kept.append(output.detach().clone().requires_grad_())
        return kept[-1].clone()

    with torch.enable_grad():
        logits = with_output(network, probe, layer.name, keep)
        if not torch.isfinite(logits).all() or len(kept) != 1 or not logits.requires_grad:
            return None
        rows = list(_weights(logits, kept[0], layer))
    if len(rows) < logits.shape[1]:
        return None
    weight, logits = torch.stack(rows).double(), logits.detach().double()
    bias = (logits - _means(kept[0], layer) @ weight.T).mean(0)
    head = Head(weight, bias)
    return head if all(_holds(network, probe, layer, head, values) for values in _other(kept[0], layer)) else None


def _other(output: Tensor, layer: TargetLayer) -> Iterator[Tensor]:
    """Yield what the layer might give: noise, the same in all cells, ordinary and huge, to see whatever clips."""
    generator = torch.Generator().manual_seed(0)
    for scale in NOISE:
        values = torch.zeros_like(output)
        grid = layer.grid(values)
        noise = torch.randn(grid.shape[:2], generator=generator).to(output)
        grid.copy_((noise * scale * output.detach().abs().amax())[:, :, None, None].expand_as(grid))
        yield values


def _holds(network: nn.Module, probe: Tensor, layer: TargetLayer, head: Head, values: Tensor) -> bool:
    with torch.inference_mode():
        given = with_output(network, probe, layer.name, lambda _: values.clone()).double()
    expected = _means(values, layer) @ head.weight.T + head.bias
    return bool((given - expected).abs().amax() <= CONSTANT * expected.abs().amax())


def _weights(logits: Tensor, activations: Tensor, layer: TargetLayer) -> Iterator[Tensor]:
    """Yield each class's weights (C), until a gradient differs between images or cells."""
    for k in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[:, k].sum(), activations, retain_graph=True, materialize_grads=True)
        grid = layer.grid(gradient)
        mean = grid.mean((0, 2, 3))
        if not (grid - mean[:, None, None]).abs().amax() < CONSTANT * mean.abs().amax():
            return
        yield mean * grid[0, 0].numel()


def _means(output: Tensor, layer: TargetLayer) -> Tensor:
    return layer.grid(output.detach()).double().mean((2, 3))


def with_output(network: nn.Module, probe: Tensor, name: str, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the logits where layer `name` gives what `change` makes of its output."""

    def replace(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return change(output)

    handle = network.get_submodule(name).register_forward_hook(replace)
    try:
        return forward(network, probe)
    finally:
        handle.remove()
