"""Logits as a sum of linear maps: some of what lies in the cells of a grid, some of what lies in none."""

from __future__ import annotations

import dataclasses

from torch import Tensor


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
