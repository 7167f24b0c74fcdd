"""A network in memory, such as a trainer's: explained as a checkpoint of it would be, and left as it is."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from batchcam.errors import ModelError
from batchcam.network.checkpoint import Checkpoint
from batchcam.rules import in_memory

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
"""Networks that hold the one that is meant as `module`; a checkpoint's keys lose that prefix too."""


def as_checkpoint(network: nn.Module) -> Checkpoint:
    """Return what a checkpoint of the network would say.

    Raises:
        ModelError: its state dict holds something else than tensors.
    """
    state = unwrapped(network).state_dict()
    return Checkpoint(Path(in_memory(unwrapped(network))), state_digest(state), state)


def state_digest(state: Mapping[str, Any]) -> str:
    """Return the SHA-256, hex, of a state dict.

    It is taken over each tensor in order of name: the UTF-8 text `name NUL dtype NUL shape NEWLINE`, as in
    `fc.bias\\0float32\\010\\n` (lengths separated by commas), then its values in C order, little-endian.

    Args:
        state: tensors by name, on any device; a copy of one at a time is made on the CPU.

    Raises:
        ModelError: an entry is no dense tensor.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
            raise ModelError(f"the network's state dict: {name} is no dense tensor, and has no digest")
        shape = ",".join(map(str, tensor.shape))
        digest.update(f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{shape}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def copied(network: nn.Module) -> nn.Module:
    """Return a copy of the network to be changed: twice its weights are in memory as long as it lives.

    Hooks come along, since some compute weights; those of a trainer that record run on the copy too.

    Raises:
        ModelError: it can't be copied.
    """
    try:
        return copy.deepcopy(unwrapped(network))
    except Exception as error:  # whatever an attribute that can't be copied raises
        raise ModelError(f"{in_memory(network)}: can't be copied: {type(error).__name__}: {error}") from error


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network inside of what torch wraps it in to train, average or compile it.

    Raises:
        ModelError: it is a TorchScript program, or holds one.
    """
    while isinstance(inner := _inner(network), nn.Module):
        network = inner
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise ModelError("the network is a TorchScript program, whose layers can't be seen: give the network itself")
    return network


def _inner(network: nn.Module) -> object:
    return network.module if isinstance(network, WRAPPERS) else getattr(network, "_orig_mod", None)
