"""Logits as a sum of linear maps: some of what lies in the cells of a grid, some of what lies in none."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

LAYER_NORM: Final = "layer_norm"
RMS_NORM: Final = "rms_norm"


class Norm(NamedTuple):
    """What each sample's vector is divided by: s of a layer norm or an RMS norm."""

    kind: str
    eps: float

    def inverse(self, vector: Tensor) -> Tensor:
        """Return 1 / s (N,) of vectors (N, C)."""
        square = vector.var(1, unbiased=False) if self.kind == LAYER_NORM else vector.square().mean(1)
        inverse: Tensor = (square + self.eps).rsqrt()
        return inverse


def inverse_of(norm: Norm | None, vector: Tensor) -> Tensor:
    """Return what a norm multiplies each sample's vector (N, C) by, (N,); ones where there is none."""
    return torch.ones_like(vector[:, 0]) if norm is None else norm.inverse(vector)


@dataclasses.dataclass(frozen=True)
class Term:
    """One linear map, W A times a factor of each sample.

    Attributes:
        values: A, (N, C, h, w); what lies in no cell is (N, C, 1, 1).
        weight: W, (K, C), same dtype and device.
        scale: the factor, (N,); None: 1.
    """

    values: Tensor
    weight: Tensor
    scale: Tensor | None = None

    def scaled(self, maps: Tensor) -> Tensor:
        """Return W A (N, ...) times the factor."""
        return maps if self.scale is None else maps * self.scale.view(-1, *[1] * (maps.ndim - 1))


@dataclasses.dataclass(frozen=True)
class Terms:
    """Of each class, the mean over cells of the sum of `cells`, the sum of `rest` and a bias add up to the logit.

    A network that ends in global average pooling has one term, activations and the classifier's weight, and no rest.
    """

    cells: tuple[Term, ...]
    rest: tuple[Term, ...] = ()

    def logits(self) -> Tensor:
        """Return the sum without the bias, (N, K)."""
        parts = [term.scaled(term.values.mean((2, 3)) @ term.weight.T) for term in (*self.cells, *self.rest)]
        return sum(parts[1:], parts[0])


@dataclasses.dataclass(frozen=True)
class Gain:
    """An activation or a norm between what is pooled and the classifier, as what each sample's own numbers multiply by.

    u = W x + b; f(u) = f(0) + gain · u with gain = (f(u) - f(0)) / u, so that a sum of u's parts stays one of f(u)'s,
    at each sample's own gains: as a layer norm's deviation, and attention's weights, are the sample's own.

    Attributes:
        weight: W, float32 (H, C).
        bias: b, float32 (H,).
        activation: f, of each number alone.
        norm: behind f.
    """

    weight: Tensor
    bias: Tensor
    activation: nn.Module
    norm: Norm | None

    def values(self, terms: Terms) -> Tensor:
        """Return f(u) behind the norm, (N, H), of the terms of W x."""
        values: Tensor = self.activation(terms.logits() + self.bias)
        return values * inverse_of(self.norm, values)[:, None]

    def through(self, terms: Terms, weight: Tensor) -> Terms:
        """Return the terms of what `weight` (K, H) makes of f(u) behind the norm, from those of W x."""
        u = terms.logits() + self.bias
        start, end = self.activation(torch.zeros_like(u)), self.activation(u.clone())
        gain = torch.where(u == 0, 0, (end - start) / u)
        scale = inverse_of(self.norm, end)

        def of(term: Term) -> Term:
            values = term.scaled(torch.einsum("ncyx,hc->nhyx", term.values, term.weight))
            return Term(values * gain[:, :, None, None], weight, scale)

        constant = Term((gain * self.bias + start)[:, :, None, None], weight, scale)
        return Terms(tuple(map(of, terms.cells)), (*map(of, terms.rest), constant))
