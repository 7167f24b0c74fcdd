"""From a loaded network to one that is ready to explain: where it lies, its weights, its speed, its target layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from batchcam.maps.exact import ExactMaps
from batchcam.maps.gradients import GradientMaps, GradientNetwork, with_gradients
from batchcam.network.control import randomise
from batchcam.network.folding import fold_batch_norms
from batchcam.network.independence import independent_logits
from batchcam.network.proof import ExactNetwork, prove
from batchcam.network.tail import without_tail
from batchcam.rules import EXACT

ExplainableNetwork = ExactNetwork | GradientNetwork
"""What can be explained: both know their target layer, grid, classes and what a record holds of the classifier."""


def prepare(
    network: nn.Module,
    probe: Tensor,
    method: str,
    control: str,
    target_layer: str | None,
    tell: Callable[[str], None] = lambda _: None,
) -> ExplainableNetwork:
    """Return the network on the probe's device with the layer that `method` explains.

    Args:
        network: in evaluation mode; changed in place.
        probe: normalised images, (m, C, H, W), on the device where the network is to run.
        method: one of rules.METHODS.
        control: one of rules.CONTROLS.
        target_layer: name of the layer; None: the one found.
        tell: called with what was done to the network that changes its numbers.

    Raises:
        ModelError: there is no such layer, the method does not go with the network, or an answer for an image depends
            on more than the image.
    """
    network = network.to(probe.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    logits = independent_logits(network, probe)
    if tail := without_tail(network, logits, probe):
        tell(tail)
    randomise(network, control, probe)
    fold_batch_norms(network, probe)
    network.to(memory_format=torch.channels_last)
    if method == EXACT:
        return prove(network, probe, target_layer)
    return with_gradients(network, probe, method, target_layer)


def maps_of(explainable: ExplainableNetwork) -> ExactMaps | GradientMaps:
    """Return what makes the network's maps; use it with `with`."""
    return ExactMaps(explainable) if isinstance(explainable, ExactNetwork) else GradientMaps(explainable)
