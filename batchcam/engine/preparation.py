"""From a loaded network to one that is ready to explain: where it lies, its weights, its speed, its target layer."""

from __future__ import annotations

import torch

from batchcam.engine.assembly import Assembly
from batchcam.engine.control import randomise
from batchcam.engine.folding import fold_batch_norms
from batchcam.engine.gradients import with_gradients
from batchcam.engine.proof import ExplainableNetwork, prove
from batchcam.rules import EXACT


def prepare(
    assembly: Assembly, device: torch.device, method: str, control: str, target_layer: str | None
) -> ExplainableNetwork:
    """Return the assembled network on `device` with the layer that `method` explains.

    Args:
        assembly: the network and its dataset; the network is changed in place.
        device: where it runs.
        method: one of rules.METHODS.
        control: one of rules.CONTROLS.
        target_layer: name of the layer; None: the one found.

    Raises:
        ModelError: there is no such layer, or the method does not go with the network.
    """
    network = assembly.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    probe = assembly.normalised_probe(device)
    randomise(network, control, probe)
    fold_batch_norms(network, probe)
    network.to(memory_format=torch.channels_last)
    if method == EXACT:
        return prove(network, probe, target_layer)
    return with_gradients(network, probe, method, target_layer)
