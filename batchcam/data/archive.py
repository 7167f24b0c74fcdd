"""A folder of class folders, or a flat one, as it lies in a tar or a zip: as it would be read if it were unpacked."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from batchcam.data.csv_manifest import refusing
from batchcam.data.folder import ListingByName, NamedEntry
from batchcam.data.samples import PackedText
from batchcam.data.stored_source import StoredSource
from batchcam.errors import one_line
from batchcam.images.archives import Archive, open_archive, root_in


def open_packed(spec: str, file: str, inside: str) -> StoredSource:
    """List the images of an archive.

    Args:
        inside: the folder in it that is meant; "" for the one that holds its images.

    Raises:
        DatasetError: it can't be read, or holds no dataset.
    """
    where = one_line(spec)
    with refusing(where):
        archive = open_archive(file)
        root = root_in(archive, inside)
    found = _Packed(where, archive, root).all()
    rows = {os.fsencode(name): row for row, name in enumerate(archive.names)}
    below = os.fsencode(root)
    notes = [*found.notes, *([f"read from its folder {one_line(root)}"] if root and not inside else ())]
    return StoredSource(
        spec,
        PackedText(found.paths),
        found.labels,
        archive.stored,
        found.class_names,
        notes,
        found.empty_classes,
        rows=np.array([rows[below + path] for path in found.paths], np.int64),
    )


class _Packed(ListingByName):
    """The folder of an archive, as it would lie on a disk."""

    def __init__(self, where: str, archive: Archive, root: str) -> None:
        super().__init__(where)
        self._names, self._sizes = archive.names, archive.stored.sizes
        self._rows: dict[str, list[int]] = {}
        for row, name in enumerate(archive.names):
            if name.startswith(root):
                folder = name[len(root) :].rpartition("/")[0]
                (self._rows.get(folder) or self._rows.setdefault(folder, [])).append(row)
        self._below: dict[str, list[str]] = {}
        for folder in list(self._rows):
            self._put(folder)

    def scan(self, folder: str) -> Iterator[NamedEntry]:
        for name in self._below.get(folder, ()):
            yield NamedEntry(name.rpartition("/")[2], name, None)
        for row in self._rows.get(folder, ()):
            name = self._names[row]
            yield NamedEntry(name.rpartition("/")[2], name, int(self._sizes[row]))

    def _put(self, folder: str) -> None:
        """Put a folder into the one above it, and so on."""
        if folder and folder not in self._below:
            above = folder.rpartition("/")[0]
            self._put(above)
            self._below.setdefault(above, []).append(folder)
            self._below.setdefault(folder, [])
