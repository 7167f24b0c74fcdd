"""Formats that Pillow reads by a package of their own, which each process looks for when it meets one."""

from __future__ import annotations

import functools
import importlib
from typing import Final, NamedTuple

_HEIF_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class Plugin(NamedTuple):
    """A package that teaches Pillow a format.

    Attributes:
        format: as Pillow calls it then.
        package: as pip calls it.
        module: as Python does.
        registers: its function that does so; "" where it is enough to import it.
        endings: of the format's files, in lower case.
    """

    format: str
    package: str
    module: str
    registers: str
    endings: tuple[str, ...]


_HEIF: Final = Plugin("HEIF", "pillow-heif", "pillow_heif", "register_heif_opener", (".heic", ".heif", ".hif"))
_JXL: Final = Plugin("JXL", "pillow-jxl-plugin", "pillow_jxl", "", (".jxl",))
PLUGINS: Final = (_HEIF, _JXL)


def plugin_for(data: bytes) -> Plugin | None:
    """Return what reads stored bytes of a format that Pillow itself does not know, None for others."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return _HEIF
    return _JXL if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")) else None


@functools.cache
def is_registered(plugin: Plugin) -> bool:
    """Register a plugin with Pillow; return whether it is installed."""
    try:
        module = importlib.import_module(plugin.module)
    except ImportError:
        return False
    if plugin.registers:
        getattr(module, plugin.registers)()
    return True
