"""From the names in a checkpoint to those of a network: what wraps it, its head, what lies beside it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from batchcam.errors import CheckpointError
from batchcam.network.file_kinds import ROUNDED

Shapes = Mapping[str, tuple[int, ...]]

COUNTER: Final = "num_batches_tracked"  # of batch norms, which old files lack; only training looks at it

_OF_THE_LOSS: Final = re.compile(
    r"(.*[._])?(criterion|loss|loss_\w+|loss_fn|\w+_loss|metrics?|\w+_metrics?|acc(uracy)?|\w*_acc(uracy)?|auroc|"
    r"f1(_score)?|conf(usion_)?mat(rix)?)(\..*|$)"
)
"""Tensors that a training keeps beside its network, and that no logit depends on."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A state dict under a network's own names.

    Attributes:
        state: each of the network's tensors, but for the bias if there is none.
        remarks: what was done to the names, a line each.
    """

    state: dict[str, Tensor]
    remarks: tuple[str, ...] = ()


def fit(state: Mapping[str, Tensor], own: Shapes, where: str, head: str = "", network: str = "this network") -> Fitted:
    """Return the checkpoint's tensors under the network's names.

    Args:
        state: the checkpoint's.
        own: the network's names and shapes.
        head: the layer that gives the logits, of which only the number of classes may differ, and which may lie inside
            of a Sequential; "" for a network whose head is as it is.
        network: what it is called in messages.

    Raises:
        CheckpointError: tensors are missing, unexpected or of other shapes, or several networks are there; the message
            says what the cause is.
    """
    body = [n for n in own if not n.endswith(COUNTER) and (not head or not n.startswith(f"{head}."))]
    prefix = _prefix(state, body or list(own), where)
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    beside = {k: v for k, v in state.items() if not k.startswith(prefix)}
    found = {n: inner.pop(n) for n in own if n in inner}
    others = {k: v for k, v in {**inner, **beside}.items() if not _OF_THE_LOSS.fullmatch(k)}
    remarks = [f"weights: those under {prefix!r}"] if prefix else []
    if head and f"{head}.weight" not in found and (name := _moved_head(others, own[f"{head}.weight"])):
        moved = {k: others.pop(k) for k in list(others) if k.startswith(f"{name}.")}
        found |= {k.replace(name, head, 1): v for k, v in moved.items()}
        remarks.append(f"head: {name!r} is taken for the linear layer {head!r}, with no activation before it")
    found |= {n: torch.zeros((), dtype=torch.int64) for n in own if n.endswith(COUNTER) and n not in found}
    bias = f"{head}.bias" if f"{head}.weight" in found else ""
    _require(own, found, others, bias, f"{where}: its keys are not {network}'s", head)
    if left_out := [k for k in (*inner, *beside) if _OF_THE_LOSS.fullmatch(k)]:
        remarks.append(f"left out, as parts of the training: {_listed(left_out)}")
    return Fitted({n: found[n] for n in own if n in found}, tuple(remarks))


def _prefix(state: Mapping[str, Tensor], body: Sequence[str], where: str) -> str:
    """Return what stands before all of the network's names, or most; "" where nothing does or they are not there."""
    starts = [k.removesuffix(body[0]) for k in state if k == body[0] or k.endswith(f".{body[0]}")]
    counts = {p: sum(p + n in state for n in body) for p in starts}
    whole = [p for p in starts if counts[p] == len(body)]
    if len(whole) > 1 and "" not in whole:
        raise CheckpointError(
            f"{where}: holds several networks, under {_listed(whole)}: say which with --weights-key {whole[0]}"
        )
    return next((p for p in starts if "" not in whole and 2 * counts[p] >= len(body)), "")


def _moved_head(others: Mapping[str, Tensor], shape: tuple[int, ...]) -> str:
    """Return the only layer beside the network's own, if it takes what the head takes: one inside of a Sequential."""
    layers = {k.rpartition(".")[0] for k in others}
    name = next(iter(layers), "")
    weight = others.get(f"{name}.weight")
    alone = len(layers) == 1 and set(others) <= {f"{name}.weight", f"{name}.bias"}
    return name if alone and weight is not None and weight.shape[1:] == shape[1:] else ""


def _require(
    own: Shapes, found: Mapping[str, Tensor], others: Mapping[str, Any], bias: str, what: str, head: str
) -> None:
    """Refuse tensors that are missing, unexpected or of other shapes; all kinds are named, and the cause."""
    missing = [n for n in own if n not in found and n != bias]
    classes = len(found[f"{head}.weight"]) if bias else None
    expected = {n: (classes, *shape[1:]) if classes and n.startswith(f"{head}.") else shape for n, shape in own.items()}
    other = [n for n in own if n in found and tuple(found[n].shape) != expected[n]]
    shapes = [f"{n} {tuple(found[n].shape)} for {expected[n]}" for n in other]
    problems = [
        f"{len(names)} {kind} ({_listed(names)})"
        for kind, names in (("missing", missing), ("unexpected", list(others)), ("of another shape", shapes))
        if names
    ]
    if problems:
        cause = _cause(own, found, others, [*missing, *other], head)
        raise CheckpointError(f"{what}: {'; '.join(problems)}; {cause}")


def _cause(
    own: Shapes, found: Mapping[str, Tensor], others: Mapping[str, Any], differing: Sequence[str], head: str
) -> str:
    """Return what the cause is, and what to do, where the tensors `differing` are missing or of other shapes."""
    if any(name.endswith((".zero_point", "._packed_params.dtype")) for name in others):
        return f"it is quantised, {ROUNDED}"
    if pruned := next((name for name in others if name.endswith("_orig") and f"{name[:-5]}_mask" in others), ""):
        layer, _, tensor = pruned.removesuffix("_orig").rpartition(".")
        return (
            f"it is pruned, {layer} and maybe others: in the program that made it torch.nn.utils.prune.remove(network."
            f"get_submodule({layer!r}), {tensor!r}) of each, then torch.save(network.state_dict(), 'weights.pth')"
        )
    first = next((n for n, shape in own.items() if len(shape) == 4), "")
    if list(differing) == [first] and first in found and not others and len(found[first]) == own[first][0]:
        count = found[first].shape[1]
        kind = "1 channel (grey images)" if count == 1 else f"{count} channels"
        return (
            f"its first layer takes {kind}: build it by --model module:callable, or one of timm's by --arch-option "
            f"in_chans={count}"
        )
    if head and any(not n.startswith(f"{head}.") for n in differing):
        return "name its own architecture with --arch; a changed network is built by --model module:callable"
    return "it is a changed network: build the one that was saved with --model module:callable"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
