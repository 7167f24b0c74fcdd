"""Checkpoints: read without executing anything, written with everything that a later job has to know."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batchcam.errors import CheckpointError, one_line
from batchcam.images.regular_files import NotRegularError, read_regular_file
from batchcam.network.carried_names import carried_names
from batchcam.network.file_kinds import looks_like_safetensors, told_by_content, told_by_folder
from batchcam.network.torch_file import NotOfTorchError, read_torch_file
from batchcam.network.training_images import TrainingImages
from batchcam.network.weights import find_weights

FORMAT_KEY = "batchcam"
FORMAT_VERSION = 1
REASON_LENGTH = 200
DEEPEST = 16  # of a description: batchcam writes four levels
MOST_VALUES = 4_000_000  # of a description: a million class names, and a history


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights, and what the file says about them.

    Attributes:
        path: where it was read.
        sha256: of the file, hex.
        state: parameters and buffers by name, on the CPU.
        architecture: torchvision's name of the network, None if the file does not say.
        class_names: by class index, None if the file does not say.
        preprocessing: as `Preprocessing.to_dict` gives it, None if the file does not say.
        training: epoch, accuracies and settings of `batchcam train`, empty for foreign checkpoints.
        weights_key: which of several weights `state` is, "" where the file holds one network's.
        remarks: what was chosen, a line each.
        carried_names: class names of another program's, by where they stand, see `carried_names`.
        trained_on: the images that `batchcam train` showed it, None if the file does not say.
    """

    path: Path
    sha256: str
    state: Mapping[str, Tensor]
    architecture: str | None = None
    class_names: tuple[str, ...] | None = None
    preprocessing: Mapping[str, Any] | None = None
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights_key: str = ""
    remarks: tuple[str, ...] = ()
    carried_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    trained_on: TrainingImages | None = None


def load_checkpoint(path: Path, weights_key: str | None = None) -> Checkpoint:
    """Read a `.pth`/`.pt` or `.safetensors` checkpoint; nothing in it is executed.

    Args:
        path: of the file.
        weights_key: which of several weights, see `find_weights`.

    Raises:
        CheckpointError: no such file, not a checkpoint, or one that asks for code to be run.
    """
    data = _read(path)
    if what := told_by_content(data):
        raise CheckpointError(f"{path}: not a checkpoint, but {what}")
    is_safetensors = looks_like_safetensors(data) or (path.suffix == ".safetensors" and data[:1] not in b"P\x80")
    content, about = _read_safetensors(path, data) if is_safetensors else _read_torch(path, data)
    _check_description(path, about)
    weights = find_weights(path, content, len(data), weights_key)
    names = about.get("class_names")
    return Checkpoint(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        state=weights.state,
        architecture=about.get("architecture"),
        class_names=tuple(map(str, names)) if names else None,
        preprocessing=about.get("preprocessing"),
        training=about.get("training") or {},
        weights_key=weights.key,
        remarks=weights.remarks,
        carried_names={} if names else carried_names(content),
        trained_on=trained_on(path, about),
    )


def trained_on(path: Path, about: Mapping[str, Any]) -> TrainingImages | None:
    """Return which images a checkpoint's description says it was trained on, None if it does not say.

    Raises:
        CheckpointError: what it says are no digests.
    """
    packed = about.get("trained_on")
    try:
        return None if packed is None else TrainingImages.unpacked(packed)
    except ValueError as error:
        raise CheckpointError(f"{path}: its trained_on: {error}: not a checkpoint of batchcam") from error


def load_raw(path: Path, data: bytes) -> Any:
    """Return what torch.save was given: tensors and plain values, and whatever else as `pickles.Foreign`.

    Raises:
        CheckpointError: it is no checkpoint.
    """
    try:
        content = read_torch_file(data)
    except NotOfTorchError as error:
        raise CheckpointError(f"{path}: refused: {error}") from error
    except Exception as error:  # what reading bytes raises that are no checkpoint
        raise CheckpointError(f"{path}: not a checkpoint, or a damaged one: {_reason(error)}") from error
    if isinstance(content, Mapping) and not _is_modest(content.get(FORMAT_KEY)):
        raise CheckpointError(f"{path}: refused: what it says of itself nests too deeply or is too long")
    return content


def pack_checkpoint(
    state: Mapping[str, Tensor],
    architecture: str,
    class_names: tuple[str, ...],
    preprocessing: Mapping[str, Any],
    training: Mapping[str, Any],
    trained_on: TrainingImages | None = None,
    **more: Any,
) -> bytes:
    """Return the bytes of a checkpoint that says everything; it loads with `weights_only=True`.

    Equal content gives equal bytes, also when part of it has been read from a checkpoint before.

    Args:
        state: the network's state dict.
        architecture: torchvision's name of the network.
        class_names: by class index.
        preprocessing: as `Preprocessing.to_dict` gives it.
        training: epoch, accuracies and settings, plain values only.
        trained_on: the images that it was trained on, None if that is not known.
        more: further top-level entries, such as the optimizer's state.
    """
    about = {
        "version": FORMAT_VERSION,
        "architecture": architecture,
        "class_names": list(class_names),
        "preprocessing": dict(preprocessing),
        "training": dict(training),
    }
    if trained_on is not None:
        about["trained_on"] = trained_on.packed()
    buffer = io.BytesIO()
    torch.save(_rebuilt({FORMAT_KEY: about, "model": dict(state), **more}), buffer)
    return buffer.getvalue()


def _rebuilt(value: Any) -> Any:
    """Return equal containers in which equal texts are one object, and no container comes twice.

    Pickle writes an object that comes again as a reference, so its bytes tell which equal objects are the same one.
    """
    if isinstance(value, dict):
        return {_rebuilt(k): _rebuilt(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_rebuilt, value))
    return sys.intern(value) if type(value) is str else value


def _read(path: Path) -> bytes:
    where = f"{path}: cannot read the checkpoint"
    try:
        return read_regular_file(path)
    except IsADirectoryError as error:
        raise CheckpointError(f"{path}: not a checkpoint, but {told_by_folder(path)}") from error
    except OSError as error:
        raise CheckpointError(f"{where}: {error.strerror}") from error
    except NotRegularError as error:
        raise CheckpointError(f"{where}: {error}") from error
    except MemoryError as error:
        raise CheckpointError(f"{where}: larger than the memory") from error


def _read_torch(path: Path, data: bytes) -> tuple[Any, Mapping[str, Any]]:
    content = load_raw(path, data)
    about = content.get(FORMAT_KEY, {}) if isinstance(content, Mapping) else {}
    if not isinstance(about, Mapping):
        about = {}
    return content, about


def _read_safetensors(path: Path, data: bytes) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    import safetensors.torch

    try:
        state = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + length]).get("__metadata__", {}).get(FORMAT_KEY, "{}"))
    except Exception as error:  # SafetensorError and whatever json makes of the header
        raise CheckpointError(f"{path}: not a safetensors file, or a damaged one: {_reason(error)}") from error
    return state, about if isinstance(about, Mapping) else {}


def _check_description(path: Path, about: Mapping[str, Any]) -> None:
    """Refuse a description of another version, or whose entries are of other types than ours."""
    if about and about.get("version") != FORMAT_VERSION:
        version = one_line(about.get("version"))[:REASON_LENGTH]
        raise CheckpointError(f"{path}: checkpoint format {version}; this batchcam reads {FORMAT_VERSION}")
    kinds: dict[str, Any] = {
        "architecture": str,
        "class_names": (list, tuple),
        "preprocessing": Mapping,
        "training": Mapping,
    }
    for name, kind in kinds.items():
        value = about.get(name)
        if value is not None and not isinstance(value, kind):
            raise CheckpointError(f"{path}: its {name} is a {type(value).__name__}: not a checkpoint of batchcam")
    if len(about.get("architecture") or "") > REASON_LENGTH:
        raise CheckpointError(f"{path}: its architecture's name is too long: not a checkpoint of batchcam")
    if wrong := [n for n in about.get("class_names") or () if not isinstance(n, (str, int))]:
        raise CheckpointError(f"{path}: a class name is a {type(wrong[0]).__name__}: not a checkpoint of batchcam")


def _is_modest(value: object) -> bool:
    """Return whether `value`, written out, is of a size to compare and to print: references can make it endless."""
    level: list[object] = [value]
    seen = 0
    for _ in range(DEEPEST):
        inner: list[object] = []
        for each in level:
            children = [*each.keys(), *each.values()] if isinstance(each, Mapping) else each
            if isinstance(children, (list, tuple, set)):
                seen += len(children)
                if seen > MOST_VALUES:
                    return False
                inner.extend(children)
        if not inner:
            return True
        level = inner
    return False


def _reason(error: BaseException) -> str:
    return (one_line(error) or type(error).__name__)[:REASON_LENGTH]
