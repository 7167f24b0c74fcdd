"""Batch normalisations folded into the convolutions before them: the same function in fewer passes over memory."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from batchcam.network.forward import forward
from batchcam.network.tracing import finite_trace

TOLERANCE = 1e-4
"""Largest difference of logits on the probe, relative to max(1, largest abs(logit)): as for the identity."""


def fold_batch_norms(network: nn.Module, probe: Tensor) -> int:
    """Fold each batch normalisation that takes exactly a convolution's output into that convolution, in place.

    In evaluation mode it is an affine map of each channel, and so part of the convolution: about a tenth of a ResNet's
    time on a CPU is saved. A network whose logits would change by more than rounding is left as it is, and so is one
    that folding fails on: its weights may be computed, its modules wrapped.

    Args:
        network: in evaluation mode, on the probe's device.
        probe: normalised images, (N, C, H, W).

    Returns:
        How many were folded.

    Raises:
        ModelError: the network raises, or gives no finite logits, as it is.
    """
    pairs = _pairs(network, probe[:1])
    if not pairs:
        return 0
    before = finite_trace(network, probe).logits
    originals = {name: network.get_submodule(name) for pair in pairs for name in pair}
    with contextlib.suppress(Exception):  # whatever modules raise that are not as plain as they look
        for convolution, norm in pairs:
            folded = fuse_conv_bn_eval(originals[convolution], originals[norm])  # type: ignore[type-var, arg-type]
            network.set_submodule(convolution, folded)
            network.set_submodule(norm, nn.Identity())
        if _same(before, finite_trace(network, probe).logits):
            return len(pairs)
    for name, module in originals.items():
        network.set_submodule(name, module)
    return 0


def _same(before: Tensor, after: Tensor) -> bool:
    scale = before.float().abs().amax(1, keepdim=True).clamp(min=1)
    return before.shape == after.shape and bool(((after - before).abs() <= TOLERANCE * scale).all())


def _is_plain(module: nn.Module) -> bool:
    """Return whether `module` does what its class says, with weights that are stored and not computed."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return not any(hooks) and "forward" not in vars(module) and "weight" in module._parameters


def _pairs(network: nn.Module, probe: Tensor) -> list[tuple[str, str]]:
    """Return names of convolutions and batch normalisations that ran once, one on the other's output."""
    names = {module: name for name, module in network.named_modules()}
    sources: dict[int, tuple[Tensor, nn.Module]] = {}  # the tensors are kept so that no id is used twice
    runs: dict[nn.Module, int] = {}
    found: list[tuple[nn.Module, nn.Module]] = []

    def listen(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        runs[module] = runs.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            sources[id(output)] = output, module
        elif args and id(args[0]) in sources:
            found.append((sources[id(args[0])][1], module))

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    handles = [m.register_forward_hook(listen) for m in network.modules() if type(m) in kinds and _is_plain(m)]
    try:
        with torch.inference_mode():
            forward(network, probe)
    finally:
        for handle in handles:
            handle.remove()
    return [
        (names[convolution], names[norm])
        for convolution, norm in found
        if runs[convolution] == runs[norm] == 1 and isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats
    ]
