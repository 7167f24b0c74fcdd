"""Checkpoints: read without executing anything, written with everything that a later job has to know."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batchcam.errors import CheckpointError, one_line
from batchcam.images.regular_files import NotRegularError, read_regular_file
from batchcam.network.pickles import UnwantedPickleError, require_plain

FORMAT_KEY = "batchcam"
FORMAT_VERSION = 1
STATE_KEYS = ("model", "state_dict", "model_ema")
PREFIXES = ("module.", "_orig_mod.")
AVERAGING_COUNTER = "n_averaged"  # torch.optim.swa_utils.AveragedModel keeps it beside the weights
REASON_LENGTH = 200
TORCHSCRIPT = "a TorchScript archive, which is a program: save the network's state_dict() instead"
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
    """

    path: Path
    sha256: str
    state: Mapping[str, Tensor]
    architecture: str | None = None
    class_names: tuple[str, ...] | None = None
    preprocessing: Mapping[str, Any] | None = None
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a `.pth`/`.pt` or `.safetensors` checkpoint; nothing in it is executed.

    Raises:
        CheckpointError: no such file, not a checkpoint, or one that asks for code to be run.
    """
    data = _read(path)
    is_safetensors = path.suffix == ".safetensors"
    content, about = _read_safetensors(path, data) if is_safetensors else _read_torch(path, data)
    _check_description(path, about)
    state = _clean_state(path, content, len(data))
    names = about.get("class_names")
    return Checkpoint(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        state=state,
        architecture=about.get("architecture"),
        class_names=tuple(map(str, names)) if names else None,
        preprocessing=about.get("preprocessing"),
        training=about.get("training") or {},
    )


def load_raw(path: Path, data: bytes) -> Any:
    """Return what `torch.load` makes of `data`, tensors and plain values only.

    Raises:
        CheckpointError: it is no checkpoint, or one that asks for code to be run; nothing ran.
    """
    try:
        if data.startswith(b"PK"):
            _vet_zip(path, data)
        else:
            require_plain(data, legacy=True)
        # torchvision's reference training stores its arguments as a Namespace: a plain record
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on foreign pickles, TorchScript and sparse tensors
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except UnwantedPickleError as error:
        name = one_line(error)[:REASON_LENGTH]
        raise CheckpointError(f"{path}: refused: it holds more than tensors and plain values: {name}") from error
    except pickle.UnpicklingError as error:
        reason = _reason(error)
        kind = "refused: it holds more than tensors and plain values" if "GLOBAL" in reason else "not a checkpoint"
        raise CheckpointError(f"{path}: {kind}: {reason}") from error
    except Exception as error:  # the unpickler raises anything on bytes that are no checkpoint
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
        more: further top-level entries, such as the optimizer's state.
    """
    about = {
        "version": FORMAT_VERSION,
        "architecture": architecture,
        "class_names": list(class_names),
        "preprocessing": dict(preprocessing),
        "training": dict(training),
    }
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


def _vet_zip(path: Path, data: bytes) -> None:
    """Refuse a zip that torch.save did not write: of members that grow, that come twice, that lead elsewhere."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if any(name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(f"{path}: not a checkpoint: {TORCHSCRIPT}")
        total = sum(entry.file_size for entry in entries)
        if total > len(data):
            raise CheckpointError(f"{path}: refused: unpacks to {total} bytes from a file of {len(data)}")
        if any(e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size for e in entries):
            raise CheckpointError(f"{path}: refused: its members are compressed, which torch.save never does")
        if len(set(names)) < len(names) or any(".." in name.split("/") or name.startswith("/") for name in names):
            raise CheckpointError(f"{path}: refused: its members come twice or lead out of it")
        for name in names:
            if name.endswith(".pkl"):
                require_plain(archive.read(name))


def _clean_state(path: Path, content: Any, file_size: int) -> dict[str, Tensor]:
    """Return the state dict inside `content`, without the prefixes of wrappers."""
    if isinstance(content, Mapping) and not _is_state(content):
        content = next((content[k] for k in STATE_KEYS if _is_state(content.get(k))), None)
    state = {k: v for k, v in content.items() if k != AVERAGING_COUNTER} if _is_state(content) else {}
    if not state:
        raise CheckpointError(
            f"{path}: holds no state dict: expected tensors by name, at the top or under {', '.join(STATE_KEYS)}"
        )
    for name, tensor in state.items():
        if not _is_plain(tensor):
            raise CheckpointError(f"{path}: tensor {name[:REASON_LENGTH]} does not hold the values it claims")
    if _stored_bytes(state.values()) > file_size:  # torch lets a tensor that reaches beyond its values grow them
        raise CheckpointError(f"{path}: refused: its tensors claim more bytes than the file of {file_size} has")
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in state)), None):
        state = {k[len(prefix) :]: v for k, v in state.items()}
    return state


def _is_plain(tensor: Tensor) -> bool:
    """Return whether every value of `tensor` is in the file: a few bytes could claim a network of any size."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _stored_bytes(tensors: Iterable[Tensor]) -> int:
    """Return how many bytes `tensors` take, shared ones once."""
    storages = {s.data_ptr(): s.nbytes() for s in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


def _reason(error: BaseException) -> str:
    """Return what is wrong, in one line, without torch's advice to load the file unsafely."""
    # torch raises its advice from within the handler of the error that tells what is wrong
    inner = error.__context__ if isinstance(error, pickle.UnpicklingError) and error.__context__ else error
    text = str(inner)
    if "TorchScript" in text:
        return TORCHSCRIPT
    for advice in ("Please use", "Please file", "If you are seeing", "Check the documentation", "(call 'torch.jit"):
        text = text.partition(advice)[0]
    return (one_line(text) or type(inner).__name__)[:REASON_LENGTH]
