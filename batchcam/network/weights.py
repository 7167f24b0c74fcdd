"""Which tensors of a checkpoint are a network's weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from batchcam.errors import CheckpointError
from batchcam.network.file_kinds import ROUNDED, SAVE
from batchcam.network.pickles import Foreign

WRAPPERS: Final = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
AVERAGING_COUNTER: Final = "n_averaged"  # torch.optim.swa_utils.AveragedModel keeps it beside the weights
KEYS: Final = ("model", "state_dict", "model_state_dict", "model_state", "weights", "params", "net", "network")
DEEPEST: Final = 3  # tables in tables that are searched for weights
NAME_LENGTH: Final = 200

_AVERAGED: Final = re.compile(r"(.*[._])?(ema|swa|shadow|averaged?)\d*([._].*)?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Weights:
    """A network's weights out of a checkpoint.

    Attributes:
        state: tensors by name, without the prefixes of wrappers.
        key: where they were, if there are others too; "" otherwise.
        remarks: how they were chosen, a line each.
    """

    state: dict[str, Tensor]
    key: str = ""
    remarks: tuple[str, ...] = ()


def find_weights(path: Path, content: Any, file_size: int, key: str | None = None) -> Weights:
    """Return the weights inside `content`: the only ones, those that were asked for, or those beside their average.

    Args:
        path: of the checkpoint, for messages.
        file_size: in bytes; tensors can't take more.
        key: which weights, as the keys that lead to them, joined by dots; or a prefix of names.

    Raises:
        CheckpointError: there are none, several that may be meant, or not those; or tensors do not hold the values that
            they claim.
    """
    found = dict(_state_dicts(content, ""))
    if not found:
        raise CheckpointError(f"{path}: {_why_none(content)}")
    if key is None:
        key, remarks = _choice(path, found)
        state = found[key]
    else:
        state, remarks = _asked(path, found, key), ()
    _require_values(path, state, file_size)
    state, wrapper = _unwrapped(state)
    remarks += (f"weights: those under {wrapper!r}",) if wrapper else ()
    return Weights(state, "" if len(found) == 1 and key in found else key, remarks)


def _choice(path: Path, found: Mapping[str, Mapping[str, Any]]) -> tuple[str, tuple[str, ...]]:
    """Return the key of the weights that are taken where nobody says which, and what to tell of that."""
    raw = [k for k in found if not _AVERAGED.fullmatch(k)] or list(found)
    usual = [k for k in raw if k in KEYS]
    candidates = usual or raw
    if len(candidates) > 1:
        raise CheckpointError(f"{path}: holds several networks' weights: say which with --weights-key {_listed(found)}")
    others = [k for k in found if k != candidates[0]]
    if not others:
        return candidates[0], ()
    return candidates[0], (
        f"weights: {candidates[0]}; the checkpoint holds others too: --weights-key {' or '.join(others)} takes those",
    )


def _asked(path: Path, found: Mapping[str, Mapping[str, Any]], key: str) -> Mapping[str, Any]:
    """Return the weights under a key, or those whose names begin with it."""
    if key in found:
        return found[key]
    for where, state in found.items():
        for start in (f"{key.rstrip('.')}.", f"{key.removeprefix(where).strip('.')}."):
            if inner := {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}:
                return inner
    prefixes = dict.fromkeys(name.partition(".")[0] for state in found.values() for name in state)
    raise CheckpointError(
        f"{path}: --weights-key {key}: no weights there; it holds {_listed(found)}, with names that begin with "
        f"{_listed(prefixes)}"
    )


def _unwrapped(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return the weights by the names that they had before they were wrapped, and what stood before these."""
    state, wrapper = {k: v for k, v in state.items() if k != AVERAGING_COUNTER}, ""
    while prefix := next((p for p in WRAPPERS if state and all(k.startswith(p) for k in state)), None):
        state, wrapper = {k[len(prefix) :]: v for k, v in state.items()}, wrapper + prefix
    return state, wrapper


def _listed(names: Iterable[str]) -> str:
    every = [name or "the top" for name in names]
    return ", ".join(every[:8])[:NAME_LENGTH] + (", …" if len(every) > 8 else "")


def _state_dicts(content: Any, where: str, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield tables of tensors by name, with the keys, joined by dots, that lead to them."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and _is_tensor(v)}
    if _is_state(content, tensors):
        yield where, tensors
        return
    for key, value in content.items():
        if isinstance(key, str) and not key.startswith(("optim", "callbacks", "loops")):
            yield from _state_dicts(value, f"{where}.{key}" if where else key, depth + 1)


def _is_state(content: Mapping[Any, Any], tensors: Mapping[str, Any]) -> bool:
    """Return whether `content` is what a network gives as its state dict: tensors by name, a matrix or more of them.

    Numbers and texts may stand between tensors that are named as a network's are; tables may not.
    """
    if not any(not isinstance(v, Tensor) or v.ndim > 1 for v in tensors.values()):
        return False
    if len(tensors) == len(content):
        return True
    tables = any(isinstance(v, Mapping) and v for v in content.values())
    return not tables and any("." in name for name in tensors)


def _is_tensor(value: object) -> bool:
    """Return whether `value` is a tensor, or would be one of a kind that is not made here: quantised, of NumPy."""
    return isinstance(value, Tensor) or (
        isinstance(value, Foreign)
        and value.name.startswith(
            ("torch._utils._rebuild", "torchao.", "numpy.core.multiarray._rec", "numpy._core.multiarray._rec")
        )
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
    return (
        "holds no state dict: expected tensors by name, at the top or under a key such as model, state_dict, model_ema"
    )


def _require_values(path: Path, state: Mapping[str, Any], file_size: int) -> None:
    """Refuse tensors that are not here, or whose values are not all in the file."""
    for name, value in state.items():
        if isinstance(value, Foreign):
            raise CheckpointError(f"{path}: refused: {name[:NAME_LENGTH]} {_kind(value.name)}")
        if not _is_plain(value):
            raise CheckpointError(f"{path}: tensor {name[:NAME_LENGTH]} does not hold the values it claims")
    if _stored_bytes(state.values()) > file_size:
        raise CheckpointError(f"{path}: refused: its tensors claim more bytes than the file of {file_size} has")


def _kind(name: str) -> str:
    if name.startswith("numpy."):
        return (
            "is a NumPy array: where the table of them is made: "
            "torch.save({k: torch.from_numpy(v) for k, v in state.items()}, 'weights.pth')"
        )
    if "qtensor" in name or "wrapper_subclass" in name or name.startswith("torchao."):
        return f"is quantised ({name[:NAME_LENGTH]}), {ROUNDED}"
    return (
        f"is no plain tensor ({name[:NAME_LENGTH]}): torch.save({{k: v.to_dense() if v.layout != torch.strided else v "
        "for k, v in network.state_dict().items()}, 'weights.pth')"
    )


def _is_plain(tensor: Tensor) -> bool:
    """Return whether every value of `tensor` is in the file: a few bytes could claim a network of any size."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _stored_bytes(tensors: Iterable[Tensor]) -> int:
    """Return how many bytes `tensors` take, shared ones once."""
    storages = {s.data_ptr(): s.nbytes() for s in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())
