"""The network: build it, and load a checkpoint into it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torchvision
from torch import Tensor, nn

from batchcam.errors import CheckpointError, ModelError

MANY_CLASSES = 100_000  # from here on a network is built for what the checkpoint's other tensors prove, not claim
WITH_AUXILIARY = ("googlenet", "inception_v3")  # they warn unless told how to initialise


def build_network(architecture: str, class_count: int) -> nn.Module:
    """Return torchvision's network of that name, untrained, with `class_count` outputs.

    Raises:
        ModelError: torchvision has no classifier of that name.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        close = ", ".join(difflib.get_close_matches(architecture, known, 3)) or "see torchvision.models.list_models()"
        raise ModelError(f"architecture {architecture!r}: torchvision has no such classifier; did you mean: {close}")
    extra: dict[str, Any] = {"init_weights": False} if architecture in WITH_AUXILIARY else {}
    network: nn.Module = torchvision.models.get_model(architecture, weights=None, num_classes=class_count, **extra)
    return network


def network_for(architecture: str, state: Mapping[str, Tensor], where: str) -> nn.Module:
    """Return torchvision's network of that name with as many outputs as the state dict's classifier has.

    Args:
        architecture: torchvision's name.
        state: the checkpoint's.
        where: the checkpoint, for messages.

    Raises:
        CheckpointError: the state dict has no classifier.
        ModelError: torchvision has no classifier of that name.
    """
    guess = class_count_of(state, where)
    if guess > MANY_CLASSES:
        _require_layers(build_network(architecture, 2), state, where)
    network = build_network(architecture, guess)
    # in the network's order: safetensors sorts its keys
    class_count = class_count_of({k: state[k] for k in network.state_dict() if k in state} or state, where)
    return network if class_count == guess else build_network(architecture, class_count)


def _require_layers(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Refuse a state dict whose tensors differ from the network's in more than the number of classes.

    Only then is a network for as many classes no larger than the file that claims them.
    """
    for name, own in network.state_dict().items():
        if name not in state or state[name].shape[1:] != own.shape[1:]:
            raise CheckpointError(f"{where}: its {name} is not this network's: is --arch right?")


def class_count_of(state: Mapping[str, Tensor], where: str) -> int:
    """Return K from the classifier's weight: the last matrix (K, C), or else the last 1x1 convolution (K, C, 1, 1).

    Raises:
        CheckpointError: the state dict has neither.
    """
    filled = [v for v in state.values() if v.numel()]
    matrices = [v for v in filled if v.ndim == 2]
    convolutions = [v for v in filled if v.ndim == 4 and v.shape[2:] == (1, 1)]
    for weights in (matrices, convolutions):
        if weights:
            return int(weights[-1].shape[0])
    raise CheckpointError(f"{where}: has no linear layer: which network is it? name it with --arch or --model")


def load_state(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load `state` into `network`, strictly.

    Raises:
        CheckpointError: keys are missing or unexpected, or shapes differ; all kinds are named.
    """
    own = network.state_dict()
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    shapes = [
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise CheckpointError(f"{where}: its keys are not this network's: {'; '.join(problems)}; is --arch right?")
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:  # tensors without data, or of a layout that can't be copied
        reason = str(error).rpartition("occurred :")[2].strip() or "no reason given"
        raise CheckpointError(f"{where}: its tensors cannot be copied into the network: {reason}") from error
