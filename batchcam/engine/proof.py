"""The proof: find the layer that the logits are an exact linear map of, and measure that they are."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from batchcam import cam
from batchcam.engine.tracing import Trace, finite_trace, grid_output
from batchcam.errors import ModelError
from batchcam.rules import EXACT, IDENTITY_TOLERANCE

FEATURE_TOLERANCE = 1e-5
"""A layer is what is pooled when its spatial mean is the pooled vector up to this share of its size."""

WAY_OUT = "--method gradcam explains such networks, without an identity"


@dataclasses.dataclass(frozen=True)
class TargetLayer:
    """The explained activations: a module's output, as the network goes on with it.

    Written `name`, `relu(name)`, `layer_norm(name)` or `layer_norm(relu(name))`.

    Attributes:
        name: of the module.
        rectified: whether the network takes the output's positive part by a function, as DenseNet does.
        normed: whether the pooled output is normalised before the classifier, as ConvNeXt does: the activations are
            then divided by the deviation that the layer norm divides by.
    """

    name: str
    rectified: bool = False
    normed: bool = False

    @classmethod
    def parse(cls, text: str) -> TargetLayer:
        """Return what `str` wrote."""
        match = re.fullmatch(r"(layer_norm\()?(relu\()?([^()]+)(\)*)", text)
        if not match or len(match[4]) != text.count("("):
            return cls(text)
        return cls(match[3], bool(match[2]), bool(match[1]))

    def __str__(self) -> str:
        text = f"relu({self.name})" if self.rectified else self.name
        return f"layer_norm({text})" if self.normed else text

    def activations(self, output: Tensor, norm_eps: float | None) -> Tensor:
        """Return A (N, C, h, w) from the module's output: the CAMs are W A, and mean(CAM) + b is the logit."""
        output = output.relu() if self.rectified else output
        if norm_eps is None:
            return output
        deviation = (output.mean((2, 3)).var(1, unbiased=False) + norm_eps).sqrt()
        return output / deviation[:, None, None, None]


@dataclasses.dataclass(frozen=True)
class Head:
    """What turns pooled features x (C) into logits (K), as a linear map that is exact for each sample.

    logits = W x + b, or, behind a layer norm, logits = W x / s + b with s = sqrt(variance of x + eps): the norm's
    centring and its own weights are linear and part of W and b.

    Attributes:
        weight: W, float64 (K, C).
        bias: b, float64 (K,).
        norm_eps: the layer norm's eps, None where there is no norm.
        layer: name of the module whose input x is; "" for the network itself.
    """

    weight: Tensor
    bias: Tensor
    norm_eps: float | None = None
    layer: str = ""

    def behind_linear(self, weight: Tensor, bias: Tensor | None, layer: str) -> Head:
        """Return the head that starts one linear layer earlier."""
        shift = self.weight @ bias.detach().double() if bias is not None else 0
        return Head(self.weight @ weight.detach().double(), self.bias + shift, None, layer)

    def behind_norm(self, norm: nn.LayerNorm, layer: str) -> Head:
        """Return the head that starts one layer norm earlier."""
        weight, bias = self.weight, self.bias
        if norm.bias is not None:
            bias = bias + weight @ norm.bias.detach().double()
        if norm.weight is not None:
            weight = weight * norm.weight.detach().double()
        return Head(weight - weight.mean(1, keepdim=True), bias, norm.eps, layer)


@dataclasses.dataclass(frozen=True)
class ExplainableNetwork:
    """A network in evaluation mode with its target layer.

    Attributes:
        network: images (N, C, H, W) to logits (N, K).
        target_layer: the activations that are explained, see TargetLayer.
        weight: W of the map from pooled activations to logits, float32 (K, C), detached.
        bias: b of that map, float32 (K,).
        grid_size: (h, w) of the activations.
        residual: largest abs(mean(CAM) + bias - logit) on the probe, relative to max(1, largest abs(logit)).
        norm_eps: eps of the layer norm, None where there is none.
        method: `cam`, or the gradient method; then no identity holds, and weight, bias and residual are NaN.
    """

    network: nn.Module
    target_layer: str
    weight: Tensor
    bias: Tensor
    grid_size: tuple[int, int]
    residual: float
    norm_eps: float | None = None
    method: str = EXACT

    @property
    def module_name(self) -> str:
        """Name of the module whose output is captured."""
        return TargetLayer.parse(self.target_layer).name

    def activations(self, output: Tensor) -> Tensor:
        """Return A (N, C, h, w), float32, from the captured output."""
        return TargetLayer.parse(self.target_layer).activations(output.float(), self.norm_eps)


def prove(network: nn.Module, probe: Tensor, target_layer: str | None = None) -> ExplainableNetwork:
    """Find the layer of whose spatial mean the logits are an exact linear map, and measure the identity on a probe.

    Args:
        network: in evaluation mode, on the probe's device.
        probe: normalised images, (N, C, H, W).
        target_layer: name of a layer to take instead of the one found; the identity is measured all the same.

    Raises:
        ModelError: there is no such layer, none of that name, or no finite logits.
    """
    trace = finite_trace(network, probe)
    heads = list(_heads(network, trace))
    if target_layer is None:
        return _measured(network, trace, *_pooled_layer(network, trace, heads))
    layer = TargetLayer.parse(target_layer)
    channels = grid_output(network, trace, layer.name).shape[1]
    # the logits themselves are what is pooled only where no linear layer gives them
    fitting = [head for _, head in heads[1:] or heads if head.weight.shape[1] == channels]
    if not fitting:
        last = heads[-1][1]
        raise ModelError(
            f"target layer {target_layer!r} has {channels} channels, "
            f"the classifier {last.layer!r} takes {last.weight.shape[1]}"
        )
    return min((_measured(network, trace, layer, head) for head in fitting), key=lambda m: m.residual)


def require_identity(proved: ExplainableNetwork, precision: str) -> None:
    """Raise ModelError, with the measured residual, unless mean(CAM) + bias is the logit."""
    tolerance = IDENTITY_TOLERANCE[precision]
    if not proved.residual <= tolerance:
        raise ModelError(
            f"target layer {proved.target_layer!r} is not what the classifier pools: mean(CAM) + bias misses the logit "
            f"by {proved.residual:.2g} of its size (tolerance {tolerance:g}); leave --target-layer out to find the "
            "right one, or say --no-identity"
        )


def _heads(network: nn.Module, trace: Trace) -> Iterator[tuple[Tensor, Head]]:
    """Yield vectors (N, C) that the logits are an exact linear map of, with the map, from the logits backwards."""
    class_count = trace.logits.shape[1]
    head = Head(
        torch.eye(class_count, dtype=torch.float64, device=trace.logits.device),
        torch.zeros(class_count, dtype=torch.float64, device=trace.logits.device),
    )
    vector = trace.logits
    yield vector, head
    modules = dict(network.named_modules())
    for name in reversed(trace.outputs):
        module, output, given = modules[name], trace.outputs[name], trace.inputs[name]
        if output.numel() != vector.numel() or not torch.equal(output.reshape(vector.shape), vector):
            continue
        if isinstance(module, nn.Linear) and given.ndim == 2:
            head = head.behind_linear(module.weight, module.bias, name)
        elif isinstance(module, nn.LayerNorm) and given.numel() == vector.numel():
            head = head.behind_norm(module, name)
        else:
            continue
        vector = given.reshape(len(given), -1)
        yield vector, head
        if head.norm_eps is not None:
            return  # what lies before it is divided by a number that depends on more than the pooled vector


def _pooled_layer(network: nn.Module, trace: Trace, heads: list[tuple[Tensor, Head]]) -> tuple[TargetLayer, Head]:
    """Return the layer whose mean is one of the vectors, and that vector's head: of several, the one with most cells.

    Raises:
        ModelError: there is none.
    """
    found = [
        (TargetLayer(name, rectified), head)
        for vector, head in heads
        for rectified in (False, True)
        if (name := _layer_with_mean(network, trace, vector, rectified))
    ]
    if found:
        return max(found, key=lambda each: trace.outputs[each[0].name][0, 0].numel())
    if len(heads) == 1:
        raise ModelError(
            "no linear layer gives the network's output: CAM needs global average pooling and one linear layer at the "
            f"end; {WAY_OUT}"
        )
    raise ModelError(
        f"no module's output, averaged over space, is what the last linear layer {heads[1][1].layer!r} takes: CAM "
        "needs global average pooling right before it, which VGG, AlexNet and most transformers do not have; "
        f"{WAY_OUT}"
    )


def _layer_with_mean(network: nn.Module, trace: Trace, vector: Tensor, rectified: bool) -> str | None:
    """Return the layer whose spatial mean `vector` is: of several, the one with most cells, then the outermost."""
    scale = vector.float().abs().amax().clamp(min=1e-30)

    def fits(output: Tensor) -> bool:
        if output.ndim != 4 or output.shape[:2] != vector.shape:
            return False
        mean = TargetLayer("", rectified).activations(output.float(), None).mean((2, 3))
        return bool((mean - vector.float()).abs().amax() <= FEATURE_TOLERANCE * scale)

    fitting = {name: output for name, output in trace.outputs.items() if fits(output)}
    # the first one to run tells where the features come from: a pooling layer's single cell is its own mean
    if not fitting or _pools_otherwise(network, trace, next(iter(fitting))):
        return None
    return min(fitting, key=lambda name: (-fitting[name][0, 0].numel(), name.count(".")))


def _pools_otherwise(network: nn.Module, trace: Trace, name: str) -> bool:
    """Return whether layer `name`, such as a global maximum pooling, makes one cell of many without weights."""
    before, after = trace.inputs[name], trace.outputs[name]
    learned = any(True for _ in network.get_submodule(name).parameters())
    return not learned and before.ndim == 4 and before[0, 0].numel() > 1 and after[0, 0].numel() == 1


def _measured(network: nn.Module, trace: Trace, layer: TargetLayer, head: Head) -> ExplainableNetwork:
    output = trace.outputs[layer.name]
    weight, bias = head.weight.float(), head.bias.float()
    activations = layer.activations(output.float(), head.norm_eps)
    return ExplainableNetwork(
        network=network,
        target_layer=str(dataclasses.replace(layer, normed=head.norm_eps is not None)),
        weight=weight,
        bias=bias,
        grid_size=(output.shape[2], output.shape[3]),
        residual=_relative_residual(activations, weight, bias, trace.logits),
        norm_eps=head.norm_eps,
    )


def _relative_residual(activations: Tensor, weight: Tensor, bias: Tensor, logits: Tensor) -> float:
    cams = cam.class_activation_maps(activations, weight)
    classes = torch.arange(len(weight), device=weight.device).expand(len(logits), -1)
    residual = cam.identity_residual(cams, classes, bias, logits.float())
    return float((residual / logits.float().abs().amax(1).clamp(min=1)).amax())
