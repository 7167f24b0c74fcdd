"""What torch.save writes, read without torch.load: a zip since torch 1.6, several pickles in a row before."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from batchcam.network.file_kinds import SAVE
from batchcam.network.pickles import Foreign, unpickle

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_MOST_AXES: Final = 64  # that torch computes with

_STORAGES: Final = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "QInt32Storage": torch.int32,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}
"""The kinds of values that tensors have; those of quantised ones are read, and no tensor is made of them."""


class NotOfTorchError(Exception):
    """Bytes that torch.save did not write; the message says why."""


def read_torch_file(data: bytes) -> Any:
    """Return what torch.save was given: tensors and plain values; whatever else it holds as `Foreign`.

    Raises:
        NotOfTorchError: torch.save did not write it.
        Exception: whatever reading a damaged file raises.
    """
    return _read_zip(data) if data.startswith(b"PK") else _read_legacy(data)


class _Values:
    """The stored numbers of a file by their key, each read once, and never more of them than the file has."""

    def __init__(self, most_bytes: int, read: Callable[[str, int], Tensor]) -> None:
        self._left, self._read = most_bytes, read
        self._stored: dict[str, Tensor] = {}

    def __call__(self, identity: Any) -> Tensor | Foreign:
        """Return the numbers (n,) that a pickle names by ("storage", type, key, device, n, …)."""
        if identity[0] == "module":  # the source of a network's class, which torch once stored
            return Foreign(identity[1].name)
        kind, storage, key, _, count, *view = identity
        if kind != "storage" or not isinstance(storage, Foreign) or (type(key), type(count)) != (str, int) or any(view):
            raise ValueError("a stored object that is no tensor's values")
        dtype = _STORAGES.get(storage.name.rpartition(".")[2])
        if dtype is None:
            return Foreign(storage.name)
        if key not in self._stored:
            size = count * dtype.itemsize
            self._left -= size
            if count < 0 or self._left < 0:
                raise ValueError("its tensors claim more bytes than the file has")
            self._stored[key] = self._read(key, size).view(dtype)
        return self._stored[key]


def _read_zip(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = _vetted(archive, len(data))
        roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise NotOfTorchError(f"not a checkpoint: a zip archive with {len(roots)} data.pkl")
        root = roots[0]
        if entry := entries.get(f"{root}byteorder"):
            _require_order(archive.read(entry).decode())

        def read(key: str, size: int) -> Tensor:
            content = archive.read(entries[f"{root}data/{key}"])
            if len(content) != size:
                raise ValueError(f"data/{key} has {len(content)} bytes, not {size}")
            return _tensor_of(content)

        return unpickle(io.BytesIO(archive.read(entries[f"{root}data.pkl"])), _make, _Values(len(data), read))


def _vetted(archive: zipfile.ZipFile, file_size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name; refuse those that grow, come twice, or lead elsewhere."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    total = sum(entry.file_size for entry in entries)
    if total > file_size:
        raise NotOfTorchError(f"it unpacks to {total} bytes from a file of {file_size}")
    if any(e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size for e in entries):
        raise NotOfTorchError("its members are compressed, which torch.save never does")
    if len(set(names)) < len(names) or any(".." in name.split("/") or name.startswith("/") for name in names):
        raise NotOfTorchError("its members come twice or lead out of it")
    for entry in entries:
        if not entry.CRC:
            del entry.CRC  # torch.serialization.set_crc32_options(False) leaves it out: not checked then
    return dict(zip(names, entries, strict=True))


def _read_legacy(data: bytes) -> Any:
    stream = io.BytesIO(data)
    pending: dict[str, Tensor] = {}

    def reserve(key: str, size: int) -> Tensor:
        pending[key] = torch.empty(size, dtype=torch.uint8)
        return pending[key]

    values = _Values(len(data), reserve)

    def following() -> Any:
        return unpickle(stream, _make, values)

    first = following()
    if first != _MAGIC:
        raise NotOfTorchError(f"{_named(first)}; in the program that made it: {SAVE}")
    _, machine, content, keys = (following() for _ in range(4))
    _require_order("little" if machine.get("little_endian", True) else "big")
    for key in map(str, keys):
        stream.seek(8, io.SEEK_CUR)  # how many values follow, which the pickle has said already
        values_of_key = pending.pop(key)
        values_of_key.copy_(_tensor_of(stream.read(len(values_of_key))))
    if pending:
        raise ValueError(f"its values {next(iter(pending))} are not there")
    return content


def _named(content: object) -> str:
    """Return what a pickle is that torch.save did not write."""
    inner = [content, *content.values()] if isinstance(content, dict) else [content]
    foreign = next((value.name for value in inner if isinstance(value, Foreign)), None)
    what = f"it holds more than tensors and plain values ({foreign[:100]}), and" if foreign else "a pickle that"
    return f"{what} torch.save did not write"


def _require_order(byteorder: str) -> None:
    if byteorder != sys.byteorder:
        raise NotOfTorchError(f"written by a machine of another byte order, {byteorder} endian")


def _tensor_of(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def _make(name: str, arguments: Any) -> Any:
    """Return the tensor, table or text that a function of this name makes, or a Foreign of the name."""
    if not isinstance(arguments, tuple):
        raise ValueError("a call without a tuple of arguments")
    if make := _MAKERS.get(name):
        return make(*arguments)
    kind = arguments[0] if name in ("copyreg._reconstructor", "copy_reg._reconstructor") and arguments else None
    return Foreign(kind.name if isinstance(kind, Foreign) else name)


def _tensor(
    values: Any,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    _grad: object = None,
    _hooks: object = None,
    marks: object = None,
) -> Tensor | Foreign:
    if marks or len(size) > _MOST_AXES:
        raise ValueError("a tensor that is conjugated, or of more axes than torch computes with")
    if isinstance(values, Foreign):
        return Foreign(values.name)
    # as_strided raises where size and stride lead beyond the values
    return values.as_strided(size, stride, offset)  # type: ignore[no-any-return]


def _tensor_of_type(
    values: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], _grad: bool, _hooks: object,
    dtype: Foreign, marks: object = None,
) -> Tensor | Foreign:  # fmt: skip
    module, _, name = dtype.name.rpartition(".")
    kind = vars(torch).get(name) if module == "torch" else None  # never getattr, which imports parts of torch
    return _tensor(values.view(kind), offset, size, stride, marks=marks) if isinstance(kind, torch.dtype) else dtype


def _with_attributes(make: Foreign, _kind: object, arguments: Any, _attributes: object) -> Any:
    return _make(make.name, arguments)


def _ordered(pairs: Any = ()) -> Foreign:
    """Return a mapping, empty or of the pairs that Python 2 wrote."""
    mapping = Foreign("collections.OrderedDict")
    if pairs:
        mapping |= {key: value for key, value in pairs if isinstance(key, str)}
        pairs.clear()  # one list may be given many times
    return mapping


_MAKERS: Final[dict[str, Callable[..., Any]]] = {
    "collections.OrderedDict": _ordered,
    "torch.Size": lambda sizes: sizes,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "torch._utils._rebuild_parameter": lambda values, *_: values,
    "torch._utils._rebuild_parameter_with_state": lambda values, *_: values,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch.nn.parameter.Parameter": lambda values, *_: values,
}
"""All that a pickle can call. None of them copies: one list of a million items may be given a million times."""
