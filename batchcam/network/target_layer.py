"""The target layer: which module's output is explained, and as what the network goes on with it."""

from __future__ import annotations

import dataclasses
import re
from typing import Final

import torch
from torch import Tensor

from batchcam.network.terms import Norm, Term, Terms
from batchcam.network.tokens import token_grid
from batchcam.rules import Tokens

TOKENS: Final = "tokens"
ALL_TOKENS: Final = "all_tokens"
CLASS_AND_TOKENS: Final = "class_and_tokens"
ATTENTION: Final = "attention"

_TEXT: Final = re.compile(
    r"(?P<gained>gains\()?(?:(?P<normed>layer_norm|rms_norm)\()?(?P<rectified>relu\()?(?:(?P<kind>channels_last|tokens|all_tokens|class_and_tokens|attention)\()?"
    r"(?P<name>[^(), ]+)(?:, (?P<tokens>\d+x\d+(?:\+\d+)?))?(?:, (?P<layers>\d+))?(?P<ends>\)*)"
)


@dataclasses.dataclass(frozen=True)
class TargetLayer:
    """The explained activations: a module's output, as the network goes on with it.

    Written `name`, or with what is done to the output around it: `layer_norm(relu(channels_last(name)))`, or
    `layer_norm(tokens(name, 14x14+1))`; around all of it, `gains(...)`.

    Attributes:
        name: of the module.
        rectified: whether the network takes the output's positive part by a function, as DenseNet does.
        normed: the kind of norm before the classifier, as ConvNeXt has one: the activations are divided by what it
            divides the pooled ones by; "" for none.
        channels_last: whether the output is (N, h, w, C), as Swin's are.
        tokens: which tokens are cells, where the output is (N, T, C).
        pooled: of tokens, what is pooled: the cells' mean (TOKENS), the mean of all (ALL_TOKENS), the first token and
            the cells' mean side by side (CLASS_AND_TOKENS), or what attention brings from the cells into one of the
            tokens that enter the module (ATTENTION, see `ledger`).
        layers: of ATTENTION, how many layers of it.
        gained: whether activations follow before the classifier, see `Gain`.
    """

    name: str
    rectified: bool = False
    normed: str = ""
    channels_last: bool = False
    tokens: Tokens | None = None
    pooled: str = TOKENS
    layers: int = 0
    gained: bool = False

    @classmethod
    def parse(cls, text: str) -> TargetLayer:
        """Return what `str` wrote."""
        match = _TEXT.fullmatch(text)
        if not match or len(match["ends"]) != text.count("("):
            return cls(text)
        kind, tokens = match["kind"], match["tokens"]
        if (kind in (None, "channels_last")) != (tokens is None) or (kind == ATTENTION) != (
            match["layers"] is not None
        ):
            return cls(text)
        return cls(
            match["name"],
            bool(match["rectified"]),
            match["normed"] or "",
            kind == "channels_last",
            Tokens.parse(tokens) if tokens else None,
            kind if tokens else TOKENS,
            int(match["layers"] or 0),
            bool(match["gained"]),
        )

    def __str__(self) -> str:
        text = f"channels_last({self.name})" if self.channels_last else self.name
        if self.tokens:
            layers = f", {self.layers}" if self.layers else ""
            text = f"{self.pooled}({self.name}, {self.tokens}{layers})"
        text = f"relu({text})" if self.rectified else text
        text = f"{self.normed}({text})" if self.normed else text
        return f"gains({text})" if self.gained else text

    def takes(self, output: Tensor) -> bool:
        """Return whether a module's output has the axes that this layer is read by."""
        return output.ndim == 4 if self.tokens is None else output.ndim == 3 and output.shape[1] == self.tokens.count

    def grid(self, output: Tensor) -> Tensor:
        """Return (N, C, h, w) from the module's output: the order of its axes, and nothing else, may change."""
        if self.tokens:
            return token_grid(output, self.tokens)
        return output.movedim(3, 1) if self.channels_last else output

    def vector(self, output: Tensor) -> Tensor:
        """Return what is pooled of the module's output, (N, C), or (N, 2 C) of CLASS_AND_TOKENS."""
        if self.pooled == ALL_TOKENS:
            return output.mean(1)
        grid = self.grid(output)
        mean = (grid.relu() if self.rectified else grid).mean((2, 3))
        return torch.cat([output[:, 0], mean], 1) if self.pooled == CLASS_AND_TOKENS else mean

    def terms(self, output: Tensor, weight: Tensor, norm: Norm | None) -> Terms:
        """Return what the logits but for their bias are a sum of, from the module's output and W (K, C)."""
        output = self._normed(output, norm)
        grid = self.grid(output)
        grid = grid.relu() if self.rectified else grid
        if self.tokens and self.pooled == ALL_TOKENS:
            before = output[:, : self.tokens.prefix].sum(1) / self.tokens.count
            return Terms(
                (Term(grid * (self.tokens.cells / self.tokens.count), weight),),
                (Term(before[:, :, None, None], weight),),
            )
        if self.pooled == CLASS_AND_TOKENS:
            of_class, of_cells = weight.chunk(2, 1)
            return Terms((Term(grid, of_cells),), (Term(output[:, 0, :, None, None], of_class),))
        return Terms((Term(grid, weight),))

    def features(self, output: Tensor, norm: Norm | None) -> Tensor:
        """Return what W is multiplied with, (N, C): the pooled output, over its deviation where that is normalised."""
        return self.vector(self._normed(output, norm))

    def _normed(self, output: Tensor, norm: Norm | None) -> Tensor:
        return output if norm is None else output * norm.inverse(self.vector(output)).view(-1, *[1] * (output.ndim - 1))
