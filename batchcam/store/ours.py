"""What may be replaced: what batchcam made, which its files say, and nothing else."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from batchcam.errors import ConfigError
from batchcam.store import landing

MARKS: Final = {
    ".html": b"<title>batchcam report ",
    ".htm": b"<title>batchcam report ",
    ".png": b"tEXtSoftware\0batchcam",
    ".json": b'"batchcam_version"',
}
"""What a file of ours has somewhere, by its ending."""

ADVICE: Final = "choose another --out, or say --overwrite"


def require_ours(path: Path, overwrite: bool) -> None:
    """Refuse to replace a file that batchcam did not make.

    Raises:
        ConfigError: something else lies there, and `overwrite` was not asked for.
    """
    if not overwrite and _holds_something(path) and not _is_marked(path):
        raise ConfigError(f"--out {path}: is there, and batchcam did not make it; {ADVICE}")


def require_own_files(folder: Path, document: str, others: Iterable[str], overwrite: bool) -> None:
    """Refuse to replace files of a folder that batchcam did not make.

    Args:
        folder: where they are to land.
        document: the one that lands last and is known as ours by itself; it, or its claim, stands for the others.
        others: names of the others.
        overwrite: whether to replace them all the same.

    Raises:
        ConfigError: something else lies there, and `overwrite` was not asked for; or it can't be a folder.
    """
    if not next(place for place in (folder, *folder.parents) if place.exists()).is_dir():
        raise ConfigError(f"--out {folder}: not a folder, or lies in none; choose another --out")
    there = [name for name in (document, *others) if _holds_something(folder / name)]
    if overwrite or not there or _is_marked(folder / document) or _is_claimed(folder / document):
        return
    raise ConfigError(f"--out {folder}: holds {', '.join(there)} of something else than {document}; {ADVICE}")


def claim(document: Path) -> None:
    """Leave a temporary file of a document that lands last, so that what lands before it is ours after a kill.

    It goes with the other temporary files when all has landed.
    """
    if not _is_claimed(document):
        landing.leave_partial(document)


def _is_claimed(document: Path) -> bool:
    if document.parent.is_dir():
        return any(final == document.name for _, final in landing.partials(document.parent))
    return False


def _holds_something(path: Path) -> bool:
    """Return whether anything lies there that would be lost: not an empty file."""
    return os.path.lexists(path) and not (path.is_file() and path.stat().st_size == 0)


def _is_marked(path: Path) -> bool:
    if not path.is_file() or not _holds_something(path):
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(MARKS[path.suffix.lower()]) >= 0
