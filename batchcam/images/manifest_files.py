"""Image files as a manifest names them: which column does, and where the file lies."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

from batchcam.images.remote import is_url, joined

SYNONYMS: Final = {
    "path": (
        *("filename", "file_name", "filepath", "file_path", "image", "image_path", "imagepath", "image_file", "img"),
        *("image_name", "img_path", "img_name", "image_filename"),
    ),
    "label": (
        *("class", "target", "category", "diagnosis", "labels", "class_name", "classname", "class_label"),
        *("category_name", "label_name", "species"),
    ),
    "id": (),
}
"""What other tools call the columns of a manifest, in lower case."""


def columns_for(known: str, header: Sequence[str], said: Mapping[str, str]) -> list[int]:
    """Return the columns that could be `known`, one of SYNONYMS.

    These are the ones that are said to be, else those of its name, else those of its synonyms.
    """
    if known in said:
        return [i for i, name in enumerate(header) if name.strip() == said[known].strip()]
    taken = {name.strip() for name in said.values()}
    names = ["" if name.strip() in taken else name.strip().lower() for name in header]
    return [i for i, name in enumerate(names) if name == known] or [
        i for i, name in enumerate(names) if name in SYNONYMS[known]
    ]


def stored_path(folder: str, path: str) -> str:
    """Return `path` as the file in `folder` is named that it means: as written, if there is none in another form.

    Manifests made on Windows have backslashes; a name's Unicode form may change on the way from or to a Mac.
    """
    if path.isascii() and "\\" not in path:
        return path
    if is_url(joined(folder, path)):
        return path.replace("\\", "/")
    if _lies(folder, path):
        return path
    forms = [unicodedata.normalize(form, path) for form in ("NFC", "NFD")]
    others = (*forms, *(form.replace("\\", "/") for form in forms))
    return next((other for other in others if _lies(folder, other)), path)


def is_of_windows(path: str) -> bool:
    """Return whether a path begins with a drive."""
    return re.match(r"[A-Za-z]:[\\/](?!/)", path) is not None


def _lies(folder: str, path: str) -> bool:
    try:
        return os.path.lexists(os.path.join(folder, path))
    except ValueError:  # a NUL, or half a character
        return False
