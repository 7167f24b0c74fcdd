"""Activations and norms between what is pooled and the classifier: where they are, and what enters them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from batchcam.network.heads import Head, chain
from batchcam.network.tracing import Trace


@dataclasses.dataclass(frozen=True)
class Behind:
    """A function of each number, and maybe a norm, that a head takes.

    Attributes:
        activation: the function; the identity where there is a norm alone.
        head: from its values to the logits.
        entering: u (N, H), what it takes.
        found: vectors that u is a linear map of, with the map, as `heads` yields them of the logits.
    """

    activation: nn.Module
    head: Head
    entering: Tensor
    found: list[tuple[Tensor, Head]]


def behind(network: nn.Module, trace: Trace, found: list[tuple[Tensor, Head]]) -> Iterator[Behind]:
    """Yield what the vectors in `found` may come from that is no linear map.

    Args:
        network: in evaluation mode.
        trace: of the network.
        found: what `heads` yields.
    """
    for vector, head in reversed(found):
        for name, module in network.named_modules():
            if name in trace.outputs and (u := _entering(module, name, vector, trace)) is not None:
                yield Behind(module, head, u, [*_start(network, trace, u, name)])
        if head.norm:
            yield Behind(nn.Identity(), head, vector, [*_start(network, trace, vector, "")])


def _start(network: nn.Module, trace: Trace, u: Tensor, name: str) -> Iterator[tuple[Tensor, Head]]:
    head = Head(torch.ones_like(u[0], dtype=torch.float64), torch.zeros_like(u[0], dtype=torch.float64))
    yield from chain(network, trace, u, head, u)
    parent = name.rpartition(".")[0]  # a batch norm that holds its activation
    if parent in trace.inputs and (earlier := head.behind(network.get_submodule(parent), parent)):
        given = trace.inputs[parent].reshape(len(u), -1)
        if given.shape == u.shape and earlier.fits(given, u):
            yield from chain(network, trace, given, earlier, u)


def _entering(module: nn.Module, name: str, vector: Tensor, trace: Trace) -> Tensor | None:
    """Return what an activation made `vector` (N, H) of; None where the module is none, or made something else."""
    if not _same(trace.outputs[name], vector):
        return None
    order = torch.randperm(vector.numel(), generator=torch.Generator().manual_seed(0))
    for values in (trace.inputs[name], *reversed(trace.outputs.values())):  # some change what they take, in place
        if values.numel() != vector.numel() or len(values) != len(vector) or _same(values, vector):
            continue
        u = values.reshape(vector.shape)
        with torch.inference_mode(), contextlib.suppress(Exception):  # whatever modules raise that take a grid
            shuffled = module(u.flatten()[order].view(u.shape)).flatten()
            if torch.allclose(module(u.clone()), vector) and torch.allclose(shuffled, vector.flatten()[order]):
                return u
    return None


def _same(values: Tensor, vector: Tensor) -> bool:
    return values.numel() == vector.numel() and torch.equal(values.reshape(vector.shape), vector)
