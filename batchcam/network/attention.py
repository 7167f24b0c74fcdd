"""Attention as it is computed, by whatever library: what each token brings into one query's sum of values."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from batchcam.network.forward import forward

_FUSED: Final = F.scaled_dot_product_attention
_PRODUCTS: Final = {torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__}


@dataclasses.dataclass(frozen=True)
class Attended:
    """One call of attention.

    Attributes:
        brought: weight times value of each token, (N, T, C), heads side by side: over tokens they add up to what the
            query gets.
        projection: weight and bias of the linear map behind it, where no module has it.
    """

    brought: Tensor
    projection: tuple[Tensor, Tensor | None] | None = None


class AttentionCalls(TorchFunctionMode):
    """Hears the calls of attention in this thread while a `with` block runs; they are counted from 0.

    Any product of two stacks of matrices counts as one: by its numbers it is told which are attention.

    Args:
        samples: N.
        row: which query is listened to; the only one where there is one.
        wanted: which calls are kept; None: all.
    """

    def __init__(self, samples: int, row: int, wanted: Collection[int] | None = None) -> None:
        super().__init__()
        self.calls: dict[int, Attended] = {}
        self._samples, self._row, self._wanted = samples, row, wanted
        self._count = 0

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if function is F.multi_head_attention_forward:
            first = self._count
            with self._inside():
                result = function(*args, **named)
            for index in range(first, self._count):
                if index in self.calls:
                    self.calls[index] = dataclasses.replace(self.calls[index], projection=(args[11], args[12]))
            return result
        if function is _FUSED:
            return self._fused(*args, **named)
        return self._product(function, *args, **named) if function in _PRODUCTS else function(*args, **named)

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Listen inside of a function of torch's own, where a mode is deaf."""
        bmm = torch.bmm
        F.scaled_dot_product_attention = self._fused
        torch.bmm = lambda *args, **named: self._product(bmm, *args, **named)
        try:
            yield
        finally:
            F.scaled_dot_product_attention, torch.bmm = _FUSED, bmm

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **named: Any) -> Tensor:
        if self._counted(query, value):
            mask, scale = named.get("attn_mask", args[0] if args else None), named.get("scale")
            weights = self._weights(query, key, mask, query.shape[-1] ** -0.5 if scale is None else scale)
            self._keep(weights, value)
        return _FUSED(query, key, value, *args, **named)

    def _weights(self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """Return the query's weight of each token, (N, heads, T)."""
        row = self._row if query.shape[2] > 1 else 0
        with torch.autocast(query.device.type, enabled=False):
            scores = (key.float() @ (query[:, :, row, :, None].float() * scale))[..., 0]
        if mask is not None:
            of_row = mask[..., row if mask.shape[-2] > 1 else 0, :]
            scores = scores.masked_fill(~of_row, -torch.inf) if mask.dtype == torch.bool else scores + of_row
        return scores.softmax(-1)

    def _product(self, function: Callable[..., Tensor], *args: Any, **named: Any) -> Tensor:
        result = function(*args, **named)
        stacks = [a for a in args if isinstance(a, Tensor) and a.ndim in (3, 4) and not len(a) % self._samples]
        if len(stacks) == 2 and stacks[0].shape[:-2] == stacks[1].shape[:-2]:
            weights, values = (a.reshape(self._samples, -1, *a.shape[-2:]) for a in stacks)
            if self._counted(weights, values):
                self._keep(weights[:, :, self._row if weights.shape[2] > 1 else 0], values)
        return result

    def _counted(self, query: Tensor, value: Tensor) -> bool:
        """Count a call that may be attention; return whether it is to be kept."""
        shaped = query.ndim == value.ndim == 4 and query.shape[:2] == value.shape[:2]
        if not shaped or len(query) != self._samples or 1 < query.shape[2] <= self._row:
            return False
        self._count += 1
        return self._wanted is None or self._count - 1 in self._wanted

    def _keep(self, weights: Tensor, value: Tensor) -> None:
        brought = weights.transpose(1, 2)[..., None].float() * value.transpose(1, 2).float()
        self.calls[self._count - 1] = Attended(brought.flatten(2))


def attention_calls(network: torch.nn.Module, images: Tensor, row: int) -> dict[int, Attended]:
    """Return all calls of attention in a forward pass, see `AttentionCalls`."""
    listening = AttentionCalls(len(images), row)
    with torch.inference_mode(), listening:
        forward(network, images)
    return listening.calls
