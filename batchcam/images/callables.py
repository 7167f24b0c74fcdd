"""The user's own objects, named `module:callable`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import operator
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchcam.errors import BatchcamError, one_line


def load_callable(spec: str, raises: type[BatchcamError], prefix: str = "") -> Any:
    """Return what `module:callable` names, dots allowed on either side; modules of the current folder are found too.

    Args:
        spec: what the user wrote, without its prefix.
        raises: the error to tell by.
        prefix: the words in front of `spec` where the user wrote it, "python:" or "--model ".

    Raises:
        BatchcamError: of the kind `raises`: there is no such object, or its module can't be imported.
    """
    where = one_line(f"{prefix}{spec}")
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise raises(f"{where}: write {prefix}module:callable")
    if module_name.endswith(".py"):
        raise raises(f"{where}: a module is named without its ending: write {prefix}{Path(module_name).stem}:{name}")
    if os.getcwd() not in sys.path:
        # last, so that no file of the current folder hides an installed module; it stays for loader processes
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module can fail with anything when it is first run
        raise raises(f"{where}: can't import {module_name}: {type(error).__name__}: {error}") from error
    try:
        return operator.attrgetter(name)(module)
    except AttributeError as error:
        hint = did_you_mean(name, [known for known in vars(module) if not known.startswith("_")])
        raise raises(f"{where}: module {module_name} has no {name}{hint}") from error
    except Exception as error:  # a module that imports its parts when they are asked for
        raise raises(f"{where}: can't get {name}: {type(error).__name__}: {error}") from error


def module_digest(spec: str) -> str:
    """Return the SHA-256, hex, of the file of the module that `load_callable` imported; "" where it has none."""
    path = getattr(sys.modules[spec.partition(":")[0]], "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path and os.path.isfile(path) else ""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return the end of a message that offers names like `name`, "" where none is like it."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    return f": did you mean {', '.join(close)}?" if close else ""
