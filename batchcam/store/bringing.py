"""Runs that lie elsewhere: a folder of this machine stands for each, and its files are brought before they are read."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from batchcam.errors import RunError, call, called


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """Where the files of a folder come from.

    Attributes:
        bring: makes the file at a path whole, or raises OSError.
        source: returns the URL of a path.
        is_listed: whether all files are known that lie there.
    """

    bring: Callable[[Path], None]
    source: Callable[[Path], str] = str
    is_listed: bool = True


_URL: Final = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/")
"""As a Path has it, which makes one of several slashes."""

_FOLDERS: dict[Path, Elsewhere] = {}


def is_url(path: Path) -> bool:
    """Return whether a path is a URL, and leads to no place of this machine."""
    return _URL.match(path.as_posix()) is not None and not os.path.lexists(path)


def is_elsewhere(path: Path) -> bool:
    """Return whether a run's files have to be brought: it is named by a URL, or lies in a zip file."""
    return is_url(path) or (path.suffix.lower() == ".zip" and path.is_file())


def require_here(path: Path, purpose: str) -> None:
    """Raise RunError for a run that lies elsewhere, where it has to be looked at again and again for `purpose`."""
    if elsewhere(path):
        raise RunError(f"{path}: {purpose} needs a run that lies in a folder of this machine")


def stand_for(folder: Path, elsewhere: Elsewhere, name: str = "") -> None:
    """Let the files below a folder, which is absolute and no link, be brought from now on.

    Args:
        folder: of this machine.
        elsewhere: where they come from.
        name: what it is called in messages and reports; "": as it is.
    """
    _FOLDERS[folder] = elsewhere
    call(str(folder), name or str(folder))


def elsewhere(path: Path) -> Elsewhere | None:
    """Return where a file or folder comes from, None where it is this machine's own."""
    return next((_FOLDERS[each] for each in (path, *path.parents) if each in _FOLDERS), None) if _FOLDERS else None


def bring(path: Path) -> None:
    """Let a file be whole that is going to be read.

    Raises:
        OSError: it can't be read where it lies.
        StoppedEarlyError: the network or the server is away, or there is no room for it.
    """
    if found := elsewhere(path):
        found.bring(path)


def source(path: Path) -> str:
    """Return what leads to a run from any process: its URL, or an absolute path."""
    return found.source(path) if (found := elsewhere(path)) else os.path.abspath(path)


def shown(path: Path) -> str:
    """Return what a run is called: its URL without secrets, or the path as it is."""
    return called(str(path))
