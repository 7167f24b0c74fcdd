"""From the logits backwards: what they are an exact linear map of, through every layer that is one."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from batchcam.network.terms import LAYER_NORM, RMS_NORM, Norm, inverse_of
from batchcam.network.tracing import Trace

HEAD_TOLERANCE = 1e-2
"""A head that misses the logits by more, as a share of their size, is none; TF32 misses them by a tenth of this."""


@dataclasses.dataclass(frozen=True)
class Head:
    """What turns pooled features x (C) into logits (K), as a linear map that is exact for each sample.

    logits = W x + b, or, behind a norm, logits = W x / s + b, s as `Norm` says: a layer norm's centring and its own
    weights are linear and part of W and b.

    Attributes:
        diagonal_or_full: W, float64: (K, C), or only its diagonal (K,), which is all that layers from logits to logits
            have; of 20,000 classes the full one would take gigabytes.
        bias: b, float64 (K,).
        norm: None where there is none.
        layer: name of the module whose input x is; "" for the network itself.
    """

    diagonal_or_full: Tensor
    bias: Tensor
    norm: Norm | None = None
    layer: str = ""

    @property
    def width(self) -> int:
        """C."""
        return self.diagonal_or_full.shape[-1]

    @property
    def weight(self) -> Tensor:
        """W, float64 (K, C)."""
        return _full(self.diagonal_or_full)

    def behind(self, module: nn.Module, layer: str) -> Head | None:
        """Return the head that starts before `module`, None if that is no linear map, nor a norm, of vectors."""
        width = self.width
        if isinstance(module, nn.Linear) and module.out_features == width:
            return self.behind_linear(module.weight, module.bias, layer)
        if isinstance(module, nn.Conv2d) and (module.kernel_size, module.groups) == ((1, 1), 1):
            weight = module.weight[:, :, 0, 0]
            return self.behind_linear(weight, module.bias, layer) if len(weight) == width else None
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.num_features == width:
            return self._behind_batch_norm(module, layer)
        if isinstance(module, nn.LayerNorm) and math.prod(module.normalized_shape) == width:
            return self._behind_layer_norm(module, layer)
        if isinstance(module, nn.GroupNorm) and (module.num_groups, module.num_channels) == (1, width):
            return self._behind_layer_norm(module, layer)
        if "rmsnorm" in type(module).__name__.lower() and type(eps := getattr(module, "eps", None)) is float:
            own = getattr(module, "weight", None)  # of the kinds of several libraries, which it proves to be
            if own is None or own.numel() == width:
                return Head(*self._behind_affine(module), Norm(RMS_NORM, eps), layer)
        return None

    def fits(self, vector: Tensor, logits: Tensor) -> bool:
        """Return whether it turns x (N, C) into the logits (N, K)."""
        x = vector.double()
        x = x * inverse_of(self.norm, x)[:, None]
        misses = (_times(self.diagonal_or_full, x.T).T + self.bias - logits.double()).abs().amax()
        return bool(misses <= HEAD_TOLERANCE * logits.double().abs().amax())

    def behind_linear(self, weight: Tensor, bias: Tensor | None, layer: str) -> Head:
        """Return the head that starts before a linear map."""
        shift = _times(self.diagonal_or_full, bias.detach()) if bias is not None else 0
        return Head(_times(self.diagonal_or_full, weight.detach()), self.bias + shift, None, layer)

    def _behind_batch_norm(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, layer: str) -> Head | None:
        if norm.running_mean is None or norm.running_var is None:
            return None  # it takes the batch's own
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        weight, bias = self._behind_affine(norm)
        weight = weight * scale
        return Head(weight, bias - _times(weight, norm.running_mean), None, layer)

    def _behind_layer_norm(self, norm: nn.LayerNorm | nn.GroupNorm, layer: str) -> Head:
        weight, bias = self._behind_affine(norm)
        weight = _full(weight)
        return Head(weight - weight.mean(1, keepdim=True), bias, Norm(LAYER_NORM, norm.eps), layer)

    def _behind_affine(self, norm: nn.Module) -> tuple[Tensor, Tensor]:
        """Return W and b before the norm's own weight and bias, each of which it may have or not."""
        weight, bias = self.diagonal_or_full, self.bias
        own_weight, own_bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
        if isinstance(own_bias, Tensor):
            bias = bias + _times(self.diagonal_or_full, own_bias.detach().flatten())
        if isinstance(own_weight, Tensor):
            weight = weight * own_weight.detach().flatten().double()
        return weight, bias


def _full(weight: Tensor) -> Tensor:
    """Return W (K, C) from itself or its diagonal."""
    return weight.diag() if weight.ndim == 1 else weight


def _times(weight: Tensor, columns: Tensor) -> Tensor:
    """Return W, given by itself or its diagonal, times a vector (C,) or a matrix (C, n) of any precision."""
    if weight.ndim == 2:
        return weight @ columns.double()
    rows = weight[:, None] if columns.ndim == 2 else weight
    return columns.to(torch.float64, copy=True).mul_(rows)


def halves(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """Return -z/2 and z/2 (N, 2) for a network's one output z: a forward hook, which `heads` looks behind."""
    half = output.reshape(-1, 1) / 2
    return torch.cat([-half, half], 1)


def heads(network: nn.Module, trace: Trace) -> Iterator[tuple[Tensor, Head]]:
    """Yield vectors (N, C) that the logits are an exact linear map of, with the map, from the logits backwards."""
    start = _returned(network, trace.logits)
    *between, last = chain(network, trace, *start, trace.logits)
    yield from [*between, last]
    if not between and (common := _of_two(network, trace, *start)):
        yield from chain(network, trace, *common, trace.logits)


def _of_two(network: nn.Module, trace: Trace, mean: Tensor, head: Head) -> tuple[Tensor, Head] | None:
    """Return the vector that both of two classifiers take whose mean this is, as distilled networks have it."""
    outputs = [output for output in trace.outputs.values() if output.shape == mean.shape]
    for pair in itertools.combinations(outputs, 2):
        if not torch.equal((pair[0] + pair[1]) / 2, mean):
            continue
        half = dataclasses.replace(head, diagonal_or_full=head.diagonal_or_full / 2, bias=head.bias / 2)
        one, other = (
            [*chain(network, trace, output, half, output.double() @ half.weight.T + half.bias)] for output in pair
        )
        for (vector, first), (same, second) in itertools.product(one, other):
            if first.norm is None is second.norm and torch.equal(vector, same):
                return vector, Head(first.weight + second.weight, first.bias + second.bias, None, first.layer)
    return None


def chain(
    network: nn.Module, trace: Trace, vector: Tensor, head: Head, logits: Tensor
) -> Iterator[tuple[Tensor, Head]]:
    """Yield a vector of which the logits are a linear map, and those before it."""
    yield vector, head
    modules = dict(network.named_modules())
    for name in reversed(trace.outputs):
        output, given = trace.outputs[name], trace.inputs[name]
        if (token := _token(output, vector)) is not None and given.shape[:2] == output.shape[:2]:
            given = given[:, token]
        elif output.numel() != vector.numel() or not torch.equal(output.reshape(vector.shape), vector):
            continue
        earlier = head.behind(modules[name], name)
        # more numbers than the map takes are a grid's cells
        if earlier is None or given.numel() != len(given) * earlier.width:
            continue
        # a kind of layer that does more than its kind, such as a batch norm that rectifies too, shows in the numbers
        start = given.reshape(len(given), -1)
        if not earlier.fits(start, logits):
            continue
        vector, head = start, earlier
        yield vector, head
        if head.norm is not None:
            return  # what lies before it is divided by a number that depends on more than the pooled vector


def _token(output: Tensor, vector: Tensor) -> int | None:
    """Return which token of output (N, T, C) the vector (N, C) is, None where it is none of several."""
    if output.ndim != 3 or output.shape[1] == 1 or output.shape[::2] != vector.shape:
        return None
    equal = (output == vector[:, None]).all(2).all(0).nonzero()
    return int(equal[0]) if len(equal) else None


def _returned(network: nn.Module, logits: Tensor) -> tuple[Tensor, Head]:
    """Return what the network's own last layer gives, and the map from there to the logits."""
    halved = halves in network._forward_hooks.values()
    weight = torch.tensor([[-0.5], [0.5]]) if halved else torch.ones(logits.shape[1])
    weight = weight.to(logits.device, torch.float64)
    return 2 * logits[:, 1:] if halved else logits, Head(weight, weight.new_zeros(len(weight)))
