"""From a loaded network to one that is ready to explain: where it lies, its weights, its speed, its target layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from batchcam.errors import ConfigError
from batchcam.maps.exact import ExactMaps
from batchcam.maps.gradients import GradientMaps, GradientNetwork, gradient_maps_of, with_gradients
from batchcam.maps.legrad import LeGradMaps
from batchcam.network.compiled import on_engine
from batchcam.network.control import randomise
from batchcam.network.folding import fold_batch_norms
from batchcam.network.independence import independent_logits
from batchcam.network.proof import ExactNetwork, prove
from batchcam.network.tail import without_tail
from batchcam.network.target_layer import TargetLayer
from batchcam.rules import EXACT, OPENVINO, Tokens

ExplainableNetwork = ExactNetwork | GradientNetwork
"""What can be explained: both know their target layer, grid, classes and what a record holds of the classifier."""


def prepare(
    network: nn.Module,
    probe: Tensor,
    method: str,
    control: str,
    target_layer: str | None,
    tell: Callable[[str], None] = lambda _: None,
    tokens: Tokens | None = None,
) -> ExplainableNetwork:
    """Return the network on the probe's device with the layer that `method` explains.

    Args:
        network: in evaluation mode; changed in place.
        probe: normalised images, (m, C, H, W), on the device where the network is to run.
        method: one of rules.METHODS.
        control: one of rules.CONTROLS.
        target_layer: name of the layer; None: the one found.
        tell: called with what was done to the network that changes its numbers.
        tokens: which tokens are cells; None: to be found.

    Raises:
        ModelError: there is no such layer, the method does not go with the network, or an answer for an image depends
            on more than the image.
        ConfigError: `tokens` are not those of the layer.
    """
    network = network.to(probe.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    logits = independent_logits(network, probe)
    if tail := without_tail(network, logits, probe):
        tell(tail)
    randomise(network, control, probe)
    fold_batch_norms(network, probe)
    network.to(memory_format=torch.channels_last)
    explained: ExplainableNetwork
    if method == EXACT:
        explained = prove(network, probe, target_layer, tokens)
        if explained.told:
            tell(explained.told)
    else:
        explained = with_gradients(network, probe, method, target_layer, tokens)
    if tokens and TargetLayer.parse(explained.target_layer).tokens != tokens:
        raise ConfigError(f"--tokens {tokens}: the maps are of {explained.target_layer}; leave the option out")
    return explained


def with_engine(
    explainable: ExplainableNetwork,
    engine: str,
    probe: Tensor,
    precision: str,
    source: Sequence[str] | None,
) -> ExplainableNetwork:
    """Return the network as an engine computes it, see `on_engine`.

    Raises:
        ConfigError: OpenVINO is asked for where there have to be gradients or calls of attention, on a GPU, or in
            another precision than fp32.
        ModelError: it can't compute the network.
    """
    if isinstance(explainable, ExactNetwork) and explainable.ledger:
        if engine == OPENVINO:
            raise ConfigError(f"--engine {engine}: attention is heard in torch only; leave the option out")
        return explainable
    if isinstance(explainable, ExactNetwork):
        layer = TargetLayer.parse(explainable.target_layer).name
        network, choice = on_engine(engine, explainable.network, layer, probe, precision, source)
        return dataclasses.replace(explainable, network=network, engine_choice=choice)
    if engine == OPENVINO:
        raise ConfigError(f"--engine {engine}: has no gradients; --method {explainable.method} takes --engine torch")
    return explainable


def maps_of(explainable: ExplainableNetwork, with_features: bool = False) -> ExactMaps | GradientMaps | LeGradMaps:
    """Return what makes the network's maps, and features of exact ones; use it with `with`."""
    if isinstance(explainable, ExactNetwork):
        return ExactMaps(explainable, with_features)
    return gradient_maps_of(explainable)
