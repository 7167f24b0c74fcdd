"""LeGrad: how each class's score after each layer grows with that layer's attention; of networks of tokens.

M = mean over layers, heads and queries of ReLU(dS / dA), A a layer's attention and S the score of its tokens' mean, by
the network's own last norm and classifier: Bousselham et al. 2024, https://arxiv.org/abs/2404.03214.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from batchcam.errors import ModelError
from batchcam.maps.capture import Maps
from batchcam.network.attention import AttentionCalls
from batchcam.network.forward import forward
from batchcam.network.heads import Head, heads
from batchcam.network.target_layer import TargetLayer
from batchcam.network.terms import inverse_of
from batchcam.network.tokens import TokenGrids, token_grid
from batchcam.network.tracing import Trace
from batchcam.rules import Tokens


@dataclasses.dataclass(frozen=True)
class Layers:
    """What LeGrad looks at: layers (modules that each give all tokens), the cells, and what makes scores of tokens."""

    names: tuple[str, ...]
    tokens: Tokens
    head: Head

    @property
    def target_layer(self) -> str:
        """The last layer."""
        return str(TargetLayer(self.names[-1], tokens=self.tokens))


def find_layers(network: nn.Module, trace: Trace, grids: TokenGrids) -> Layers:
    """Return the longest row of modules of one kind, side by side, that ends in what the classifier takes a token of.

    Raises:
        ModelError: there is none, or no grid of its tokens is found.
    """
    rows: dict[tuple[str, type[nn.Module]], list[str]] = {}
    for name, output in trace.outputs.items():
        if output.ndim == 3 and len(output) == len(trace.logits) and output.shape == trace.inputs[name].shape:
            rows.setdefault((name.rpartition(".")[0], type(network.get_submodule(name))), []).append(name)
    for vector, head in reversed(list(heads(network, trace))):
        for names in sorted(rows.values(), key=len, reverse=True):
            last = trace.outputs[names[-1]]
            if not head.layer or last.shape[2] != vector.shape[1] or not _pooled(last, vector):
                continue
            if tokens := grids.of(last.shape[1]):
                return Layers(tuple(names), tokens, head)
    raise ModelError(
        "--method legrad: needs layers side by side whose last one gives the token, or the tokens' mean, that the norm "
        "and the linear layer at the end take, and a grid of these tokens (--tokens); --method gradcam needs none"
    )


def _pooled(values: Tensor, vector: Tensor) -> bool:
    candidates = torch.cat([values, values.mean(1, keepdim=True), values[:, 1:].mean(1, keepdim=True)], 1)
    return bool(((candidates - vector[:, None]).abs().amax((0, 2)) <= 1e-5 * vector.abs().amax()).any())


class _Attention(AttentionCalls):
    """Makes the weights of each call of attention leaves of autograd's graph."""

    def __init__(self, samples: int) -> None:
        super().__init__(samples, 0)
        self.leaves: list[Tensor] = []

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **named: Any) -> Tensor:
        mask, scale = named.get("attn_mask", args[0] if args else None), named.get("scale")
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return self._attended(torch.matmul, scores.softmax(-1), value)

    def _product(self, function: Callable[..., Tensor], *args: Any, **named: Any) -> Tensor:
        first = args[0] if len(args) == 2 and isinstance(args[0], Tensor) else None
        if first is None or first.ndim not in (3, 4) or first.amin() < 0 or (first.sum(-1) - 1).abs().amax() > 1e-2:
            return function(*args, **named)
        return self._attended(function, first, args[1])

    def _attended(self, function: Callable[..., Tensor], weights: Tensor, value: Tensor) -> Tensor:
        self.leaves.append(weights.detach().requires_grad_())
        return function(self.leaves[-1], value)


class LeGradMaps:
    """Logits and LeGrad's maps of one network, with its hooks; use it with `with`."""

    grad_mode = torch.no_grad
    """What `forward` and the maps run in."""

    def __init__(self, network: nn.Module, layers: Layers) -> None:
        self._network, self._layers = network, layers
        self._weight, self._bias = layers.head.weight.float(), layers.head.bias.float()
        self._handles: list[RemovableHandle] = []
        self._attention: _Attention | None = None
        self._passed: list[tuple[Tensor, Tensor]] = []

    def __enter__(self) -> LeGradMaps:
        for name in self._layers.names:
            self._handles.append(self._network.get_submodule(name).register_forward_hook(self._keep(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._passed = [], []

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, K), float32, for normalised images, and keep what `cams` needs."""
        self._passed, self._attention = [], _Attention(len(pixels))
        with torch.enable_grad(), self._attention:
            logits: Tensor = forward(self._network, pixels).float().detach()
        self._attention = None
        return logits

    def all_cams(self) -> Maps:
        """Return the raw maps of all classes (N, K, h, w), float32, as `cams` does."""
        scores = self._passed[0][0]
        return self.cams(torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1))

    def cams(self, classes: Tensor) -> Maps:
        """Return raw maps (N, M, h, w), float32, for classes (N, M) of the latest forward pass; NaN for class -1."""
        passed, self._passed = self._passed, []
        if not passed:
            raise RuntimeError("no forward pass to explain")
        maps = []
        for column in classes.T:
            relevance = torch.stack([self._relevance(scores, leaf, column) for scores, leaf in passed]).mean(0)
            maps.append(token_grid(relevance[:, :, None], self._layers.tokens)[:, 0])
        return Maps(torch.stack(maps, 1).masked_fill((classes < 0)[:, :, None, None], torch.nan))

    def residual(self, maps: Maps, classes: Tensor, logits: Tensor) -> Tensor:
        """Return NaN (N,): no identity covers these maps."""
        return torch.full((len(logits),), torch.nan, device=logits.device)

    def _relevance(self, scores: Tensor, leaf: Tensor, column: Tensor) -> Tensor:
        """Return what each token (N, T) adds to the scores of the classes in `column`."""
        chosen = torch.arange(scores.shape[1], device=scores.device) == column[:, None]
        (gradient,) = torch.autograd.grad(scores, leaf, chosen.to(scores.dtype), retain_graph=True)
        return gradient.float().relu().view(len(scores), -1, *leaf.shape[-2:]).mean((1, 2))

    def _keep(self, name: str) -> Callable[..., Tensor | None]:
        def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if self._attention is None:
                return None
            leaves, self._attention.leaves = self._attention.leaves, []
            if len(leaves) != 1 or leaves[0].shape[-1] != output.shape[1]:
                raise ModelError(f"--method legrad: layer {name!r} has not one attention to all of its tokens")
            mean = output.float().mean(1)
            mean = mean * inverse_of(self._layers.head.norm, mean)[:, None]
            self._passed.append((mean @ self._weight.T + self._bias, leaves[0]))
            return output.detach()

        return keep
