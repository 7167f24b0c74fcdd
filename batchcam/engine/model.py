"""The network: build it, and find and prove the layer that its classifier pools."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from batchcam import cam
from batchcam.errors import CheckpointError, ModelError
from batchcam.rules import IDENTITY_TOLERANCE

FEATURE_TOLERANCE = 1e-5
"""A layer is pooled by the classifier when its spatial mean is the classifier's input up to this share of its size."""

WITH_AUXILIARY = ("googlenet", "inception_v3")  # they warn unless told how to initialise


@dataclasses.dataclass(frozen=True)
class ExplainableNetwork:
    """A network in evaluation mode with its proved target layer.

    Attributes:
        network: images (N, C, H, W) to logits (N, K).
        target_layer: name of the module whose output A is explained.
        weight: W of the last linear layer, float32 (K, C), detached.
        bias: b of the last linear layer, float32 (K,), zeros if it has none.
        grid_size: (h, w) of A.
        residual: largest abs(mean(CAM) + bias - logit) on the probe, relative to max(1, largest abs(logit)).
    """

    network: nn.Module
    target_layer: str
    weight: Tensor
    bias: Tensor
    grid_size: tuple[int, int]
    residual: float


def build_network(architecture: str, class_count: int) -> nn.Module:
    """Return torchvision's network of that name, untrained, with `class_count` outputs.

    Raises:
        ModelError: torchvision has no classifier of that name.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        close = ", ".join(difflib.get_close_matches(architecture, known, 3)) or "see torchvision.models.list_models()"
        raise ModelError(f"architecture {architecture!r}: torchvision has no such classifier; did you mean: {close}")
    extra: dict[str, Any] = {"init_weights": False} if architecture in WITH_AUXILIARY else {}
    network: nn.Module = torchvision.models.get_model(architecture, weights=None, num_classes=class_count, **extra)
    return network


def load_callable(spec: str) -> Any:
    """Return the object that `module:name` points to; the current directory counts, as with `python -m`.

    Raises:
        ModelError: it can't be imported; the message says why.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise ModelError(f"{spec!r}: expected module:callable")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module_name), name)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise ModelError(f"{spec!r}: cannot import: {type(error).__name__}: {error}") from error


def class_count_of(state: Mapping[str, Tensor]) -> int:
    """Return K from the state dict's last matrix, the classifier's weight (K, C).

    Raises:
        CheckpointError: it has no matrix.
    """
    matrices = [v for v in state.values() if v.ndim == 2 and v.numel()]
    if not matrices:
        raise CheckpointError("the checkpoint has no linear layer: which network is it? name it with --arch or --model")
    return int(matrices[-1].shape[0])


def load_state(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load `state` into `network`, strictly.

    Raises:
        CheckpointError: keys are missing or unexpected, or shapes differ; all kinds are named.
    """
    own = network.state_dict()
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    shapes = [
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise CheckpointError(f"{where}: its keys are not this network's: {'; '.join(problems)}; is --arch right?")
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:  # tensors without data, or of a layout that can't be copied
        reason = str(error).rpartition("occurred :")[2].strip() or "no reason given"
        raise CheckpointError(f"{where}: its tensors cannot be copied into the network: {reason}") from error


def prove(network: nn.Module, probe: Tensor, target_layer: str | None = None) -> ExplainableNetwork:
    """Find the layer whose spatial mean feeds the last linear layer, and measure the identity on a probe batch.

    Args:
        network: in evaluation mode, on the probe's device.
        probe: normalised images, (N, C, H, W).
        target_layer: name of a layer to take instead of the one found; the identity is measured all the same.

    Raises:
        ModelError: no last linear layer, no global average pooling before it, no layer of that name, or no finite
            logits.
    """
    trace = _finite_trace(network, probe)
    name, classifier = _classifier(network, trace)
    if target_layer is None:
        target_layer = _pooled_layer(network, trace, name)
    activations = _activations(network, trace, target_layer)
    weight = classifier.weight.detach().float()
    bias = (
        classifier.bias.detach().float()
        if classifier.bias is not None
        else torch.zeros(len(weight), device=weight.device)
    )
    if activations.shape[1] != weight.shape[1]:
        raise ModelError(
            f"target layer {target_layer!r} has {activations.shape[1]} channels, "
            f"the classifier {name!r} takes {weight.shape[1]}"
        )
    return ExplainableNetwork(
        network=network,
        target_layer=target_layer,
        weight=weight,
        bias=bias,
        grid_size=(activations.shape[2], activations.shape[3]),
        residual=_relative_residual(activations, weight, bias, trace.logits),
    )


def require_identity(proved: ExplainableNetwork, precision: str) -> None:
    """Raise ModelError, with the measured residual, unless mean(CAM) + bias is the logit."""
    tolerance = IDENTITY_TOLERANCE[precision]
    if not proved.residual <= tolerance:
        raise ModelError(
            f"target layer {proved.target_layer!r} is not what the classifier pools: mean(CAM) + bias misses the logit "
            f"by {proved.residual:.2g} of its size (tolerance {tolerance:g}); leave --target-layer out to find the "
            "right one, or say --no-identity"
        )


@dataclasses.dataclass
class _Trace:
    """What one forward pass went through: each module's latest first input and output, in order of execution."""

    logits: Tensor
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def _finite_trace(network: nn.Module, probe: Tensor) -> _Trace:
    """Trace the network on the samples of the probe whose logits are finite."""
    trace = _trace(network, probe)
    finite = torch.isfinite(trace.logits).all(1)
    if not finite.any():
        raise ModelError("the network's logits are not finite for any sample of the probe: NaN or infinity in weights?")
    return trace if finite.all() else _trace(network, probe[finite])


def _trace(network: nn.Module, probe: Tensor) -> _Trace:
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def listen(name: str) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                outputs.pop(name, None)  # a module that runs again moves to the end
                # copied: ResNet's blocks change the output of bn2 in place into their own
                inputs[name], outputs[name] = args[0].clone(), output.clone()

        return keep

    with _hooks(network, listen), torch.inference_mode():
        logits = network(probe)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ModelError("the network does not return logits of shape (N, K); wrap it with --model module:callable")
    return _Trace(logits, inputs, outputs)


@contextlib.contextmanager
def _hooks(network: nn.Module, listen: Any) -> Iterator[None]:
    handles = [m.register_forward_hook(listen(name)) for name, m in network.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _classifier(network: nn.Module, trace: _Trace) -> tuple[str, nn.Linear]:
    modules = dict(network.named_modules())
    for name in reversed(trace.outputs):
        module = modules[name]
        if isinstance(module, nn.Linear) and torch.equal(trace.outputs[name], trace.logits):
            return name, module
    raise ModelError(
        "no linear layer gives the network's output: CAM needs global average pooling and one linear layer at the end"
    )


def _pooled_layer(network: nn.Module, trace: _Trace, classifier: str) -> str:
    """Return the layer whose mean `classifier` takes: of several, the one with most cells, then the outermost."""
    features = trace.inputs[classifier]
    scale = features.float().abs().amax().clamp(min=1e-30)
    fitting = {
        name: output
        for name, output in trace.outputs.items()
        if output.ndim == 4
        and output.shape[:2] == features.shape
        and bool((output.float().mean((2, 3)) - features.float()).abs().amax() <= FEATURE_TOLERANCE * scale)
    }
    # the first one to run tells where the features come from: a pooling layer's single cell is its own mean
    if not fitting or _pools_otherwise(network, trace, next(iter(fitting))):
        raise ModelError(
            f"no module's output, averaged over space, is what the last linear layer {classifier!r} takes: CAM needs "
            "global average pooling right before it, which VGG, AlexNet and most transformers do not have"
        )
    return min(fitting, key=lambda name: (-fitting[name][0, 0].numel(), name.count(".")))


def _pools_otherwise(network: nn.Module, trace: _Trace, name: str) -> bool:
    """Return whether layer `name`, such as a global maximum pooling, makes one cell of many without weights."""
    before, after = trace.inputs[name], trace.outputs[name]
    learned = any(True for _ in network.get_submodule(name).parameters())
    return not learned and before.ndim == 4 and before[0, 0].numel() > 1 and after[0, 0].numel() == 1


def _activations(network: nn.Module, trace: _Trace, target_layer: str) -> Tensor:
    modules = [name for name, _ in network.named_modules() if name]
    if target_layer not in modules:
        close = ", ".join(difflib.get_close_matches(target_layer, modules, 3)) or ", ".join(
            n for n, _ in network.named_children()
        )
        raise ModelError(f"target layer {target_layer!r}: the network has no such module; did you mean: {close}")
    output = trace.outputs.get(target_layer)
    if output is None or output.ndim != 4:
        raise ModelError(f"target layer {target_layer!r} does not give activations of shape (N, C, h, w)")
    return output


def _relative_residual(activations: Tensor, weight: Tensor, bias: Tensor, logits: Tensor) -> float:
    cams = cam.class_activation_maps(activations.float(), weight)
    classes = torch.arange(len(weight), device=weight.device).expand(len(logits), -1)
    residual = cam.identity_residual(cams, classes, bias, logits.float())
    return float((residual / logits.float().abs().amax(1).clamp(min=1)).amax())
