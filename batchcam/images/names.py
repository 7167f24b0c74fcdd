"""Which files and folders of a dataset are the user's images, by their names."""

from __future__ import annotations

from typing import Final

from batchcam.images.decoding import IMAGE_ENDINGS

_OF_SYSTEMS: Final = frozenset(
    (
        *("__macosx", "temporary items", "network trash folder", "thevolumesettingsfolder"),  # macOS
        *("$recycle.bin", "recycler", "system volume information"),  # Windows
        *("@eadir", "#recycle", "#snapshot", "@tmp"),  # Synology
        *("@__thumb", "@recycle", "@recently-snapshot"),  # QNAP
        *("lost+found", "~snapshot", "_gsdata_", "__pycache__"),
    )
)
"""Folders that operating systems, file servers and archives leave among the user's, in lower case."""


def is_image(name: str) -> bool:
    """Return whether a file has an ending of images."""
    return name.lower().endswith(IMAGE_ENDINGS)


def is_hidden(folder: str) -> bool:
    """Return whether a folder is none of the user's."""
    return folder.startswith(".") or folder.lower() in _OF_SYSTEMS
