"""One forward pass, written down: what went into and came out of every module."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from batchcam.errors import ModelError
from batchcam.network.forward import forward


@dataclasses.dataclass
class Trace:
    """What one forward pass went through: each module's latest first input and output, in order of execution.

    Attributes:
        calls: name, first input and output of each run of a module, as far as they are vectors or tokens.
    """

    image_size: tuple[int, int]
    logits: Tensor
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    calls: list[tuple[str, Tensor, Tensor]]


def finite_trace(network: nn.Module, probe: Tensor) -> Trace:
    """Trace the network on the samples of the probe whose logits are finite.

    Args:
        network: in evaluation mode, on the probe's device.
        probe: normalised images, (N, C, H, W).

    Raises:
        ModelError: it returns no logits (N, K), or no sample has finite ones.
    """
    trace = traced(network, probe)
    finite = torch.isfinite(trace.logits).all(1)
    if not finite.any():
        raise ModelError("the network's logits are not finite for any sample of the probe: NaN or infinity in weights?")
    return trace if finite.all() else traced(network, probe[finite])


def traced(network: nn.Module, probe: Tensor) -> Trace:
    """Trace the network, whatever its logits are.

    Raises:
        ModelError: it returns no logits (N, K).
    """
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    calls: list[tuple[str, Tensor, Tensor]] = []
    copies: dict[int, Tensor] = {}

    def copied(tensor: Tensor) -> Tensor:
        """Return a copy: ResNet's blocks change the output of bn2 in place into their own."""
        copy = copies.get(id(tensor))
        # one module's output is the next one's input, and mostly its parent's output: they share a copy
        if copy is None or (copy.dtype, copy.device) != (tensor.dtype, tensor.device) or not torch.equal(copy, tensor):
            copies[id(tensor)] = copy = tensor.clone()
        return copy

    def listen(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                outputs.pop(name, None)  # a module that runs again moves to the end
                inputs[name], outputs[name] = copied(args[0]), copied(output)
                if max(args[0].ndim, output.ndim) <= 3:
                    calls.append((name, inputs[name], outputs[name]))

        return keep

    with _hooks(network, listen), torch.inference_mode():
        logits = forward(network, probe)
    return Trace((probe.shape[2], probe.shape[3]), logits, inputs, outputs, calls)


@contextlib.contextmanager
def _hooks(network: nn.Module, listen: Callable[[str], Callable[..., None]]) -> Iterator[None]:
    handles = [m.register_forward_hook(listen(name)) for name, m in network.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def grid_output(network: nn.Module, trace: Trace, name: str) -> Tensor:
    """Return what module `name` gave, (N, C, h, w), see `output_of`."""
    return output_of(network, trace, name, lambda output: output.ndim == 4)


def output_of(network: nn.Module, trace: Trace, name: str, takes: Callable[[Tensor], bool]) -> Tensor:
    """Return what module `name` gave.

    Raises:
        ModelError: there is no such module, or it gives no grid, or not the tokens that `takes` wants.
    """
    modules = [name for name, _ in network.named_modules() if name]
    if name not in modules:
        close = ", ".join(difflib.get_close_matches(name, modules, 3)) or ", ".join(
            n for n, _ in network.named_children()
        )
        raise ModelError(f"target layer {name!r}: the network has no such module; did you mean: {close}")
    output = trace.outputs.get(name)
    if output is None or not takes(output):
        raise ModelError(f"target layer {name!r} does not give activations of shape (N, C, h, w)")
    return output
