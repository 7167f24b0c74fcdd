"""Checkpoints: read without executing anything, written with everything that a later job has to know."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batchcam.errors import CheckpointError, one_line
from batchcam.network.carried_architecture import carried_architecture
from batchcam.network.carried_names import carried_names
from batchcam.network.directory import is_directory, read_directory
from batchcam.network.training_images import TrainingImages
from batchcam.network.weights import find_weights
from batchcam.network.weights_file import FORMAT_KEY, REASON_LENGTH, content_of, read_weights_file
from batchcam.rules import MULTI_LABEL, PROBLEM_TYPES, SINGLE_LABEL

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights, and what the file, or the directory, says about them.

    Attributes:
        sha256: of the file, hex; of a directory, see `Directory`.
        state: parameters and buffers by name, on the CPU.
        architecture: the network's name, see `build_network`, None if the file does not say.
        class_names: by class index, None if the file does not say.
        preprocessing: as `Preprocessing.to_dict` gives it, None if the file does not say.
        training: epoch, scores and settings of `batchcam train`, empty for foreign checkpoints.
        is_multi_label: whether the file says that each class was learned by itself.
        weights_key: which of several weights `state` is, "" where the file holds one network's.
        remarks: what was chosen, a line each.
        carried_names: class names of another program's, by where they stand, see `carried_names`.
        carried_architecture: where another program named a network, and the name, see `carried_architecture`.
        trained_on: the images that `batchcam train` showed it, None if the file does not say.
        options: what the function that builds the network is told besides K.
        config: of transformers' network, empty for any other.
        unsaid: why a directory does not say its preprocessing.
    """

    path: Path
    sha256: str
    state: Mapping[str, Tensor]
    architecture: str | None = None
    class_names: tuple[str, ...] | None = None
    preprocessing: Mapping[str, Any] | None = None
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    is_multi_label: bool = False
    weights_key: str = ""
    remarks: tuple[str, ...] = ()
    carried_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    carried_architecture: tuple[str, str] | None = None
    trained_on: TrainingImages | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unsaid: str = ""


def load_checkpoint(path: Path, weights_key: str | None = None) -> Checkpoint:
    """Read a `.pth`/`.pt` or `.safetensors` checkpoint, or a directory of them; nothing in it is executed.

    Args:
        path: of the file, or of a directory that transformers or timm wrote.
        weights_key: which of several weights, see `find_weights`.

    Raises:
        CheckpointError: no such file, not a checkpoint, or one that asks for code to be run.
    """
    if is_directory(path):
        return _load_directory(path, weights_key)
    data = read_weights_file(path)
    content, about = content_of(path, data)
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
        is_multi_label=about.get("problem_type") == MULTI_LABEL,
        weights_key=weights.key,
        remarks=weights.remarks,
        carried_names={} if names else carried_names(content),
        carried_architecture=carried_architecture(content),
        trained_on=trained_on(path, about),
    )


def _load_directory(path: Path, weights_key: str | None) -> Checkpoint:
    found = read_directory(path)
    weights = find_weights(path, found.state, found.size, weights_key)
    return Checkpoint(
        path=path,
        sha256=found.sha256,
        state=weights.state,
        architecture=found.architecture,
        preprocessing=found.preprocessing,
        weights_key=weights.key,
        remarks=(*found.remarks, *weights.remarks),
        carried_names=carried_names(found.config),
        options=found.options,
        config=found.config,
        unsaid=found.unsaid,
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


def pack_checkpoint(
    state: Mapping[str, Tensor],
    architecture: str,
    class_names: tuple[str, ...],
    preprocessing: Mapping[str, Any],
    training: Mapping[str, Any],
    trained_on: TrainingImages | None = None,
    problem_type: str = SINGLE_LABEL,
    **more: Any,
) -> bytes:
    """Return the bytes of a checkpoint that says everything; it loads with `weights_only=True`.

    Equal content gives equal bytes, also when part of it has been read from a checkpoint before.

    Args:
        architecture: torchvision's name of the network.
        class_names: by class index.
        preprocessing: as `Preprocessing.to_dict` gives it.
        training: epoch, scores and settings, plain values only.
        trained_on: the images that it was trained on, None if that is not known.
        problem_type: one of `PROBLEM_TYPES`.
        more: further top-level entries, such as the optimizer's state.
    """
    about = {
        "version": FORMAT_VERSION,
        "architecture": architecture,
        "class_names": list(class_names),
        "preprocessing": dict(preprocessing),
        "training": dict(training),
    }
    if problem_type != SINGLE_LABEL:
        about["problem_type"] = problem_type
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
        "problem_type": str,
    }
    for name, kind in kinds.items():
        value = about.get(name)
        if value is not None and not isinstance(value, kind):
            raise CheckpointError(f"{path}: its {name} is a {type(value).__name__}: not a checkpoint of batchcam")
    if about.get("problem_type", SINGLE_LABEL) not in PROBLEM_TYPES:
        raise CheckpointError(f"{path}: its problem_type is not known: made by a later batchcam?")
    if len(about.get("architecture") or "") > REASON_LENGTH:
        raise CheckpointError(f"{path}: its architecture's name is too long: not a checkpoint of batchcam")
    if wrong := [n for n in about.get("class_names") or () if not isinstance(n, (str, int))]:
        raise CheckpointError(f"{path}: a class name is a {type(wrong[0]).__name__}: not a checkpoint of batchcam")
