"""The network's name that other programs' checkpoints carry beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from batchcam.network.pickles import Foreign

NAMES: Final = ("arch", "architecture", "model", "model_name")
TABLES: Final = ("args", "hyper_parameters", "hparams", "config")
LONGEST: Final = 100


def carried_architecture(content: Any) -> tuple[str, str] | None:
    """Return where a checkpoint names a network, as keys joined by dots, and the name; None where it names none.

    PyTorch's ImageNet example and timm write `arch`, torchvision's references the options of their script, of which
    `model` is one, and Lightning what a module was made with.
    """
    if not isinstance(content, Mapping):
        return None
    tables = [("", content), *((f"{key}.", _table(content.get(key))) for key in TABLES)]
    found = ((f"{where}{key}", table.get(key)) for where, table in tables for key in NAMES)
    return next(((k, v) for k, v in found if isinstance(v, str) and 0 < len(v) <= LONGEST), None)


def _table(value: Any) -> Mapping[Any, Any]:
    """Return names and values of a table, or of an object such as argparse's Namespace."""
    if isinstance(value, Foreign) and isinstance(value.state, Mapping):
        return value.state
    return value if isinstance(value, Mapping) else {}
