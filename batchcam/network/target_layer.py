"""The target layer: which module's output is explained, and as what the network goes on with it."""

from __future__ import annotations

import dataclasses
import re

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class TargetLayer:
    """The explained activations: a module's output, as the network goes on with it.

    Written `name`, or with what is done to the output around it: `layer_norm(relu(channels_last(name)))` is all of it.

    Attributes:
        name: of the module.
        rectified: whether the network takes the output's positive part by a function, as DenseNet does.
        normed: whether the pooled output is normalised before the classifier, as ConvNeXt does: the activations are
            then divided by the deviation that the layer norm divides by.
        channels_last: whether the output is (N, h, w, C), as Swin's are.
    """

    name: str
    rectified: bool = False
    normed: bool = False
    channels_last: bool = False

    @classmethod
    def parse(cls, text: str) -> TargetLayer:
        """Return what `str` wrote."""
        match = re.fullmatch(r"(layer_norm\()?(relu\()?(channels_last\()?([^()]+)(\)*)", text)
        if not match or len(match[5]) != text.count("("):
            return cls(text)
        return cls(match[4], bool(match[2]), bool(match[1]), bool(match[3]))

    def __str__(self) -> str:
        text = f"channels_last({self.name})" if self.channels_last else self.name
        text = f"relu({text})" if self.rectified else text
        return f"layer_norm({text})" if self.normed else text

    def grid(self, output: Tensor) -> Tensor:
        """Return (N, C, h, w) from the module's output: the order of its axes, and nothing else, may change."""
        return output.movedim(3, 1) if self.channels_last else output

    def activations(self, output: Tensor, norm_eps: float | None) -> Tensor:
        """Return A (N, C, h, w) from the module's output: the CAMs are W A, and mean(CAM) + b is the logit."""
        output = self.grid(output)
        output = output.relu() if self.rectified else output
        if norm_eps is None:
            return output
        deviation = (output.mean((2, 3)).var(1, unbiased=False) + norm_eps).sqrt()
        return output / deviation[:, None, None, None]
