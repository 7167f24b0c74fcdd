"""torch's compiler stays out of the process until somebody compiles: importing it takes a second and 170 MB."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any, Final

MODULE: Final = "torch._dynamo.utils"
FUNCTION: Final = "is_compile_supported"


@contextlib.contextmanager
def imported_late() -> Iterator[None]:
    """Let torchvision, which is imported in the block, have torch's compiler when it first asks for something of it.

    `torchvision.ops.roi_align` imports one function of it by name, for object detection on a GPU: it gets one that
    imports the compiler when it is called. Whatever else is asked of the module in the block imports it at once, and
    behind the block it is itself again.
    """
    if MODULE in sys.modules:
        yield
        return
    stand_in = types.ModuleType(MODULE)

    def leave() -> None:
        if sys.modules.get(MODULE) is stand_in:
            del sys.modules[MODULE]

    def attribute(name: str) -> Any:
        if name.startswith("__"):  # which `inspect` asks of every module
            raise AttributeError(name)
        leave()
        return getattr(importlib.import_module(MODULE), name)

    vars(stand_in)["__getattr__"] = attribute
    vars(stand_in)[FUNCTION] = lambda device: attribute(FUNCTION)(device)
    sys.modules[MODULE] = stand_in
    try:
        yield
    finally:
        leave()
