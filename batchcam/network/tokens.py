"""Tokens (N, T, C) as a grid: which of them are cells, and where these lie in the image."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

from batchcam.errors import BatchcamError, ModelError
from batchcam.network.forward import forward
from batchcam.network.tracing import Trace
from batchcam.rules import Tokens

MOST_PREFIX: Final = 16
"""Tokens before the cells that are looked for: one of class, one of distillation, registers."""

_DISTURBED: Final = 6
"""Cells whose pixels are changed to see which tokens follow."""


def token_grid(values: Tensor, tokens: Tokens) -> Tensor:
    """Return the cells among values (N, T, C), the last ones, as (N, C, h, w), a view."""
    return values[:, -tokens.cells :].movedim(2, 1).view(len(values), -1, tokens.height, tokens.width)


class TokenGrids:
    """Finds the grid of each number of tokens of one network.

    Args:
        network: in evaluation mode, on the probe's device.
        probe: normalised images, (N, C, H, W).
        trace: of the network.
        asked: what the user says of the tokens; None: nothing.
    """

    def __init__(self, network: nn.Module, probe: Tensor, trace: Trace, asked: Tokens | None = None) -> None:
        self._network, self._probe, self._trace, self._asked = network, probe, trace, asked
        self._found: dict[int, list[Tokens]] = {}

    def of(self, count: int) -> Tokens | None:
        """Return the grid of `count` tokens, None where none of the readings is one.

        Raises:
            ModelError: more than one is.
        """
        if self._asked:
            return self._asked if self._asked.count == count else None
        if count not in self._found:
            readings = list(self._readings(count))
            # convolutions with a stride and a margin centre a token at its cell's corner
            by_centre = ([tokens for tokens in readings if self._holds(tokens, centre)] for centre in (0.5, 0.0))
            self._found[count] = next(filter(None, by_centre), [])
        found = self._found[count]
        if len(found) > 1:
            raise ModelError(f"its {count} tokens may be {' or '.join(map(str, found))}: say which with --tokens")
        return found[0] if found else None

    def _readings(self, count: int) -> Iterator[Tokens]:
        """Yield the grids of several cells that leave a few tokens: of patches, and those that a module gives."""
        height, width = self._trace.image_size
        patches = {(height // side, width // side) for side in range(1, min(height, width) + 1)}
        grids = {(output.shape[2], output.shape[3]) for output in self._trace.outputs.values() if output.ndim == 4}
        for h, w in sorted(patches | grids, reverse=True):
            if h * w > 1 and 0 <= count - h * w <= MOST_PREFIX and abs(h * width - w * height) <= max(height, width):
                yield Tokens(h, w, count - h * w)

    def _holds(self, tokens: Tokens, centre: float) -> bool:
        """Return whether noise on the pixels of a cell changes most its own token, where there first are so many.

        Args:
            centre: of the pixels, as a share of the cell's height and width.
        """
        generator = torch.Generator().manual_seed(0)
        places = torch.randperm(tokens.cells, generator=generator)[:_DISTURBED].tolist()
        images = self._probe[:1].repeat(1 + len(places), 1, 1, 1)
        high, wide = images.shape[2] / tokens.height, images.shape[3] / tokens.width
        for image, place in zip(images[1:], places, strict=True):
            y, x = divmod(place, tokens.width)
            # half of the cell: patches need not end where the image does
            rows, columns = (
                slice(max(0, int((i + centre - 0.25) * n)), math.ceil((i + centre + 0.25) * n))
                for i, n in ((y, high), (x, wide))
            )
            part = image[:, rows, columns]
            part += torch.randn(part.shape, generator=generator).to(part) * 3
        values = _first(self._network, images, tokens.count)
        if values is None:
            return False
        changed = (values[1:].float() - values[:1].float()).square().sum(2).argmax(1)
        return changed.tolist() == [tokens.prefix + place for place in places]


class _EnoughError(BatchcamError):
    """Ends a forward pass."""


def _first(network: nn.Module, images: Tensor, count: int) -> Tensor | None:
    """Return the first tensor (N, count, C) that a module of the network takes or gives."""
    kept: list[Tensor] = []

    def look(module: nn.Module, args: tuple[Any, ...], *output: Any) -> None:
        for values in (*args[:1], *output):
            if isinstance(values, Tensor) and values.ndim == 3 and values.shape[:2] == (len(images), count):
                kept.append(values.clone())
                raise _EnoughError

    modules = [module for module in network.modules() if module is not network]
    handles = [m.register_forward_pre_hook(look) for m in modules] + [m.register_forward_hook(look) for m in modules]
    try:
        with torch.inference_mode(), contextlib.suppress(_EnoughError):
            forward(network, images)
    finally:
        for handle in handles:
            handle.remove()
    return kept[0] if kept else None
