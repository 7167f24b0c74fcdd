"""What a file is that is no checkpoint of ours, told by its first bytes or its members, and how to make one of it."""

from __future__ import annotations

import io
import itertools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from batchcam.images.decoding import LFS_POINTER
from batchcam.rules import CONFIG_FILE

SAVE: Final = "torch.save(network.state_dict(), 'weights.pth')"

AGAIN: Final = "fetch or save it again"

ROUNDED: Final = f"a network of rounded numbers: before quantising it, {SAVE}"

INDEX: Final = ".index.json"
"""End of the name of what says which files the weights are in."""

MOST_LOOKED_AT: Final = 10_000  # files below a folder that is no checkpoint

_ENDINGS: Final = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_OF_TRAINING: Final = ("optimizer", "scheduler", "scaler", "sampler", "rng_state", "random_states", "training_args")
"""What Trainer and Accelerate write beside weights."""

_PARTS: Final = (
    "weights in several files: merge them in their folder: safetensors.torch.save_file({k: v for f in "
    "glob.glob('*.safetensors') for k, v in safetensors.torch.load_file(f).items()}, 'weights.safetensors')"
)
_UNPACK: Final = "unpack it, and name the checkpoint that is in it"

_STARTS: Final = (
    (re.compile(rb"\s*(?:<!doctype html|<html|<\?xml|<head)", re.IGNORECASE), "a page of the web, as links give that "
     "ask for a login or a click: download the file itself"),
    (re.compile(rb"\s*\{.*\"weight_map\"", re.DOTALL), f"the index of {_PARTS}"),
    (re.compile(rb"\s*[\[{]\s*\""), "a JSON text, which holds no weights"),
    (re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!|\x04\x22\x4d\x18"),
     f"a compressed file: {_UNPACK}"),
    (re.compile(rb".{257}ustar", re.DOTALL), f"a tar archive: {_UNPACK}"),
    (re.compile(rb"\x93NUMPY"), "a NumPy array: torch.save({name: torch.from_numpy(numpy.load(file))}, 'weights.pth') "
     "for each of the network's names"),
    (re.compile(rb"\x89HDF\r\n"), f"an HDF5 file, as Keras writes: load it into the PyTorch network, then {SAVE}"),
    (re.compile(rb"GGUF|.{4}(?:TFL3|PTMF|ET1)", re.DOTALL), "a network for another runtime (GGUF, TFLite, "
     f"ExecuTorch): where the PyTorch network is, {SAVE}"),
    (re.compile(rb"\x08[\x01-\x20](?:\x12|\x1a|\x3a|\x42)"), "an ONNX network, a program for another runtime: where "
     f"the PyTorch network is, {SAVE}"),
    (re.compile(rb"\x00{64}"), f"nothing but zeros where a file begins: a download or a disk that broke off: {AGAIN}"),
)  # fmt: skip

_MEMBERS: Final = (
    ("constants.pkl", f"a TorchScript archive, which is a program: where the network is, {SAVE}"),
    ("model.json", "an exported program (.pt2): torch.save(torch.export.load(file).state_dict, 'weights.pth')"),
    ("serialized_exported_program.json", "an exported program (.pt2): "
     "torch.save(torch.export.load(file).state_dict, 'weights.pth')"),
    (".npy", "an archive of NumPy arrays (.npz): "
     "torch.save({k: torch.from_numpy(v) for k, v in numpy.load(file).items()}, 'weights.pth')"),
    (".weights.h5", f"a Keras network: load it into the PyTorch network, then {SAVE}"),
    (".pth", f"a zip archive with a checkpoint in it: {_UNPACK}"),
    (".pt", f"a zip archive with a checkpoint in it: {_UNPACK}"),
    (".ckpt", f"a zip archive with a checkpoint in it: {_UNPACK}"),
    (".safetensors", f"a zip archive with a checkpoint in it: {_UNPACK}"),
)  # fmt: skip


def told_by_content(data: bytes) -> str | None:
    """Return what a file is that can hold no state dict, and what to do; None where its bytes may be a checkpoint."""
    if data.startswith(LFS_POINTER):
        return "a Git LFS pointer, which stands for the file: fetch it with `git lfs pull`"
    if not data:
        return f"an empty file: a download or a disk that broke off: {AGAIN}"
    if data.startswith(b"PK"):
        return told_by_members(data)
    if looks_like_safetensors(data):
        return None
    return next((told for start, told in _STARTS if start.match(data)), None)


def told_by_members(data: bytes) -> str | None:
    """Return what a zip archive is that torch.save did not write; None where it may have."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except Exception:  # a damaged one, of which the reader says what it finds
        return None
    return next((told for ending, told in _MEMBERS if any(name.endswith(ending) for name in names)), None)


def told_by_folder(folder: Path) -> str:
    """Return what a folder given as a checkpoint is, and what to name instead."""
    names = {path.name for path in folder.iterdir()}
    if any(name.endswith((".distcp", ".metadata")) for name in names):
        return (
            "a directory of a distributed checkpoint: python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
            f"{folder} weights.pth"
        )
    if "zero_to_fp32.py" in names:
        return f"a directory of DeepSpeed's: cd {folder} && python zero_to_fp32.py . weights, which makes a checkpoint"
    if "saved_model.pb" in names:
        return f"a directory of TensorFlow's: load it into the PyTorch network, then {SAVE}"
    inner = min(_checkpoints_in(folder), default=None)
    if inner and inner[1].name.endswith(INDEX):
        return f"a directory of {_PARTS}"
    return f"a directory: name the checkpoint in it{f', such as {inner[1]}' if inner else ''}"


def _checkpoints_in(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield what may be a checkpoint below a folder, of which the least is the likeliest."""
    for path in itertools.islice(folder.rglob("*"), MOST_LOOKED_AT):
        inner = path.relative_to(folder)
        if path.name in (CONFIG_FILE, ".metadata"):
            yield 0, inner.parent
        elif path.name.endswith(INDEX):
            yield 1, inner
        elif path.suffix in _ENDINGS and not path.name.startswith(_OF_TRAINING):
            yield 2, inner


def looks_like_safetensors(data: bytes) -> bool:
    """Return whether the file starts as safetensors do: the header's length, then the header, a JSON table."""
    return 8 < int.from_bytes(data[:8], "little") + 8 <= len(data) and data[8:9] == b"{"
