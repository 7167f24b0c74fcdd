"""A file of weights, read without executing anything: what it holds, and what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from batchcam.errors import CheckpointError, one_line
from batchcam.images.regular_files import NotRegularError, read_regular_file
from batchcam.network.file_kinds import AGAIN, looks_like_safetensors, told_by_content, told_by_folder
from batchcam.network.torch_file import NotOfTorchError, read_torch_file

FORMAT_KEY: Final = "batchcam"
"""Under which a checkpoint of batchcam says what it is."""

REASON_LENGTH: Final = 200
DEEPEST: Final = 16  # of a description: batchcam writes four levels
MOST_VALUES: Final = 4_000_000  # of a description: a million class names, and a history


def read_weights_file(path: Path) -> bytes:
    """Return the bytes of a file that may hold weights.

    Raises:
        CheckpointError: it can't be read, or is something else; what, and what to do.
    """
    where = f"{path}: cannot read the checkpoint"
    try:
        data = read_regular_file(path)
    except IsADirectoryError as error:
        raise CheckpointError(f"{path}: not a checkpoint, but {told_by_folder(path)}") from error
    except OSError as error:
        raise CheckpointError(f"{where}: {error.strerror}") from error
    except NotRegularError as error:
        raise CheckpointError(f"{where}: {error}") from error
    except MemoryError as error:
        raise CheckpointError(f"{where}: larger than the memory") from error
    if what := told_by_content(data):
        raise CheckpointError(f"{path}: not a checkpoint, but {what}")
    return data


def content_of(path: Path, data: bytes) -> tuple[Any, Mapping[str, Any]]:
    """Return what a file of weights holds, `.pth`/`.pt` or `.safetensors`, and what batchcam wrote of itself into it.

    Raises:
        CheckpointError: it is neither, or one that asks for code to be run.
    """
    is_safetensors = looks_like_safetensors(data) or (path.suffix == ".safetensors" and data[:1] not in b"P\x80")
    return _read_safetensors(path, data) if is_safetensors else _read_torch(path, data)


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
        raise CheckpointError(f"{path}: not a checkpoint, or a damaged one ({_reason(error)}): {AGAIN}") from error
    if isinstance(content, Mapping) and not _is_modest(content.get(FORMAT_KEY)):
        raise CheckpointError(f"{path}: refused: what it says of itself nests too deeply or is too long")
    return content


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
        raise CheckpointError(
            f"{path}: not a safetensors file, or a damaged one ({_reason(error)}): {AGAIN}"
        ) from error
    return state, about if isinstance(about, Mapping) else {}


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
