"""What a pickle would load and call, read from its opcodes before anything is unpickled.

torch's restricted unpickler runs nothing foreign, but the functions that it does allow can be made to fill the memory
or to compute for hours from a few bytes. Checkpoints need far fewer of them.
"""

from __future__ import annotations

import codecs
import io
import pickle
import pickletools
import re
from collections.abc import Iterator
from typing import Final

PLAIN: Final = frozenset(
    {
        "argparse.Namespace",
        "builtins.complex",
        "builtins.set",
        "collections.Counter",
        "collections.OrderedDict",
        "torch.Size",
        "torch._utils._rebuild_meta_tensor_no_storage",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
    }
)
"""What the tensors and plain values of a state dict, an optimizer's and a scheduler's state are made of."""

ENCODE: Final = "_codecs.encode"
"""How protocol 2 writes bytes; the same function can double them again and again, as hex."""

_DTYPE_OR_STORAGE: Final = re.compile(
    r"torch\.(storage\.(Typed|Untyped)|cuda\.[A-Z]\w*|[A-Z]\w*)Storage|torch\.b?(u?int|float|bfloat|complex)\d\w*|torch\.bool"
)

_TEXT_ENCODINGS: Final = frozenset({"ascii", "iso8859-1", "utf-8"})
_CODEC_NAME_LENGTH: Final = 40
_MOST_OPCODES: Final = 10_000_000
"""A million class names take a third of it; an opcode of one byte makes an object of 60."""
_LEGACY_PICKLES: Final = 5
"""Magic number, protocol, machine, content, keys of storages; the tensors' bytes follow."""


class UnwantedPickleError(Exception):
    """A pickle asks for more than tensors and plain values; the message names what."""


def require_plain(pickled: bytes, legacy: bool = False) -> None:
    """Refuse a pickle that asks for more than tensors and plain values.

    Args:
        pickled: the pickle.
        legacy: it is a file of torch before 1.6, which holds several in a row.

    Raises:
        UnwantedPickleError: it does; the message says for what.
        ValueError: it is no pickle, or one of more opcodes than any checkpoint needs.
    """
    stream = io.BytesIO(pickled)
    for _ in range(_LEGACY_PICKLES if legacy else 1):
        encodes, texts = False, set[str]()
        for name, text in _names_and_texts(stream):
            encodes |= name == ENCODE
            if name and name not in PLAIN and name != ENCODE and not _DTYPE_OR_STORAGE.fullmatch(name):
                raise UnwantedPickleError(name)
            if text:
                texts.add(text)
        if encodes and (codec := next(filter(_grows, texts), None)):
            raise UnwantedPickleError(f"{ENCODE} with {codec}")


def _names_and_texts(stream: io.BytesIO) -> Iterator[tuple[str, str]]:
    """Yield the full name of each global that is loaded, and each short text; the other one is empty."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count == _MOST_OPCODES:
            raise ValueError(f"a pickle of more than {_MOST_OPCODES} opcodes")
        if opcode.name == "GLOBAL":
            yield _full_name(*str(argument).split(" ", 1)), ""
        elif opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
            raise UnwantedPickleError(f"a global by opcode {opcode.name}")
        elif isinstance(argument, str) and len(argument) <= _CODEC_NAME_LENGTH:
            yield "", argument


def _full_name(module: str, name: str = "") -> str:
    """Return a global's name as Python 3 has it: pickles of protocol 2 use Python 2's."""
    names = pickle._compat_pickle.NAME_MAPPING, pickle._compat_pickle.IMPORT_MAPPING  # type: ignore[attr-defined]
    module, name = names[0].get((module, name), (names[1].get(module, module), name))
    return f"{module}.{name}"


def _grows(text: str) -> bool:
    """Return whether `text` names a codec other than those of plain text."""
    try:
        return codecs.lookup(text).name not in _TEXT_ENCODINGS
    except (LookupError, ValueError, UnicodeError):
        return False
