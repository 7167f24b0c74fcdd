"""What a network does to its logits before it returns them: taken off where it is a softmax or the like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from batchcam.network.affine import with_output
from batchcam.network.tracing import traced

TOLERANCE: Final = 1e-5

_TAILS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "softmax": lambda x: x.softmax(1),
    "log-softmax": lambda x: x.log_softmax(1),
    "sigmoid": torch.sigmoid,
    "log-sigmoid": nn.functional.logsigmoid,
}
_OF_SEVERAL: Final = ("softmax", "log-softmax")  # of one number they are 1 and 0, whatever it is


def without_tail(network: nn.Module, logits: Tensor, probe: Tensor) -> str:
    """Let the network return what enters a softmax or the like at its end, in place; return what it was, "" for none.

    Args:
        network: in evaluation mode, on the probe's device.
        logits: what it returns for some images.
        probe: normalised images, (N, C, H, W).

    Returns:
        What was taken off, for people.
    """
    if not _may_have_tail(logits):
        return ""
    trace = traced(network, probe)
    finite = torch.isfinite(trace.logits).all(1)
    tails = {k: t for k, t in _TAILS.items() if trace.logits.shape[1] > 1 or k not in _OF_SEVERAL}
    for name in reversed(trace.outputs):
        entering = trace.outputs[name]
        if entering.shape[:1] != trace.logits.shape[:1] or entering.numel() != trace.logits.numel():
            continue
        entering = entering.reshape(trace.logits.shape)
        if torch.equal(entering, trace.logits):
            continue
        for kind, tail in tails.items():
            # a softmax is the same for logits that are shifted, but not for the layer that gives them
            same = torch.allclose(tail(entering.float())[finite], trace.logits[finite].float(), TOLERANCE, TOLERANCE)
            if same and _is_tail(network, probe, name, trace.outputs[name], tail):
                _return_output_of(network, name)
                return f"the network ends in a {kind}: the logits are what enters it, from {name!r}"
    return ""


def ending(logits: Tensor) -> str:
    """Return what a network seems to end in by what it returns, "" where that may be logits."""
    values = logits[torch.isfinite(logits).all(1)].double()
    if not len(values):
        return ""
    ones = torch.ones(len(values), dtype=values.dtype, device=values.device)
    if values.amin() >= 0 and torch.allclose(values.sum(1), ones, atol=1e-3):
        return "softmax"
    if values.amax() <= 0 and torch.allclose(values.exp().sum(1), ones, atol=1e-3):
        return "log-softmax"
    return "sigmoid" if values.amin() >= 0 and values.amax() <= 1 else ""


def _may_have_tail(logits: Tensor) -> bool:
    finite = logits[torch.isfinite(logits).all(1)]
    return bool(ending(logits)) or (len(finite) > 0 and bool(finite.amax() <= 0))


def _is_tail(network: nn.Module, probe: Tensor, name: str, output: Tensor, tail: Callable[[Tensor], Tensor]) -> bool:
    """Return whether the network returns `tail` of whatever module `name` gives, and not only where that is 0 or 1."""
    values = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
    with torch.inference_mode():
        returned = with_output(network, probe, name, lambda _: values.clone())
    return torch.allclose(tail(values.reshape(returned.shape).float()), returned.float(), TOLERANCE, TOLERANCE)


def _return_output_of(network: nn.Module, name: str) -> None:
    """Let every call of the network return what module `name` gave in it."""
    latest: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        latest[:] = [output.clone()]  # an activation may work in place

    network.get_submodule(name).register_forward_hook(keep)
    network.register_forward_hook(lambda module, inputs, output: latest.pop().reshape(len(inputs[0]), -1))
