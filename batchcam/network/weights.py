"""Which tensors of a checkpoint are a network's weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batchcam.errors import CheckpointError
from batchcam.network.file_kinds import SAVE
from batchcam.network.pickles import Foreign

WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
AVERAGING_COUNTER = "n_averaged"  # torch.optim.swa_utils.AveragedModel keeps it beside the weights
KEYS = ("model", "state_dict", "model_ema", "model_state_dict", "model_state", "weights", "params", "net", "network")
DEEPEST = 3  # tables in tables that are searched for weights
NAME_LENGTH = 200


def find_weights(path: Path, content: Any, file_size: int) -> dict[str, Tensor]:
    """Return the state dict inside `content`, without the prefixes of wrappers.

    Raises:
        CheckpointError: there is none, or its tensors do not hold the values that they claim.
    """
    found = dict(_state_dicts(content, ""))
    if not found:
        raise CheckpointError(f"{path}: {_why_none(content)}")
    state = found.get("") or next((found[k] for k in KEYS if k in found), None) or next(iter(found.values()))
    _require_values(path, state, file_size)
    state = {k: v for k, v in state.items() if k != AVERAGING_COUNTER}
    while prefix := next((p for p in WRAPPERS if all(k.startswith(p) for k in state)), None):
        state = {k[len(prefix) :]: v for k, v in state.items()}
    return state


def _state_dicts(content: Any, where: str, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield tables of tensors by name, with the keys, joined by dots, that lead to them."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    if _is_state(content):
        yield where, content
        return
    for key, value in content.items():
        if isinstance(key, str) and not key.startswith(("optim", "callbacks", "loops")):
            yield from _state_dicts(value, f"{where}.{key}" if where else key, depth + 1)


def _is_state(content: Mapping[Any, Any]) -> bool:
    """Return whether `content` is what a network gives as its state dict: tensors by name, a matrix or more of them."""
    values = [v for k, v in content.items() if isinstance(k, str) and (isinstance(v, Tensor) or _is_tensor_like(v))]
    return len(values) == len(content) and any(not isinstance(v, Tensor) or v.ndim > 1 for v in values)


def _is_tensor_like(value: object) -> bool:
    """Return whether `value` would be a tensor of a kind that is not made here: quantised, sparse, of NumPy."""
    return isinstance(value, Foreign) and value.name.startswith(
        ("torch._utils._rebuild", "torchao.", "numpy.core.multiarray._rec", "numpy._core.multiarray._rec")
    )


def _why_none(content: Any) -> str:
    """Return why `content` has no state dict, and what to do."""
    inner = [content, *(content.values() if isinstance(content, Mapping) else ())]
    if isinstance(content, Mapping) and {"state", "param_groups"} <= set(content):
        return f"holds an optimizer's state, and no state dict of a network: save it too: {SAVE}"
    foreign = [v.name for v in inner if isinstance(v, Foreign) and v.name != "collections.OrderedDict"]
    if foreign:
        return (
            f"refused: it holds more than tensors and plain values: an object of {foreign[0][:NAME_LENGTH]}, and no "
            f"state dict; in the program that made it: {SAVE}"
        )
    return f"holds no state dict: expected tensors by name, at the top or under a key such as {', '.join(KEYS[:4])}"


def _require_values(path: Path, state: Mapping[str, Any], file_size: int) -> None:
    """Refuse tensors that are not here, or whose values are not all in the file.

    Raises:
        CheckpointError: there is one; its name is told.
    """
    for name, value in state.items():
        if isinstance(value, Foreign):
            raise CheckpointError(f"{path}: refused: {name[:NAME_LENGTH]} {_kind(value.name)}")
        if not _is_plain(value):
            raise CheckpointError(f"{path}: tensor {name[:NAME_LENGTH]} does not hold the values it claims")
    if _stored_bytes(state.values()) > file_size:
        raise CheckpointError(f"{path}: refused: its tensors claim more bytes than the file of {file_size} has")


def _kind(name: str) -> str:
    if name.startswith("numpy."):
        return "is a NumPy array: torch.save({k: torch.from_numpy(v) for k, v in state.items()}, 'weights.pth')"
    if "qtensor" in name or "wrapper_subclass" in name or name.startswith("torchao."):
        return f"is quantised ({name[:NAME_LENGTH]}), a network of rounded numbers: before quantising it, {SAVE}"
    return f"is no plain tensor ({name[:NAME_LENGTH]}): torch.save({{k: v.to_dense() for k, v in …}}, 'weights.pth')"


def _is_plain(tensor: Tensor) -> bool:
    """Return whether every value of `tensor` is in the file: a few bytes could claim a network of any size."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _stored_bytes(tensors: Iterable[Tensor]) -> int:
    """Return how many bytes `tensors` take, shared ones once."""
    storages = {s.data_ptr(): s.nbytes() for s in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())
