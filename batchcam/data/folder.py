"""A folder of class folders, as torchvision's `ImageFolder` reads it."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from batchcam.data.samples import UNKNOWN_SIZE, FileSource, PackedText
from batchcam.errors import DatasetError, one_line

_EXTENSIONS: Final = tuple(IMG_EXTENSIONS)

_NAMED_EXTENSIONS: Final = 5
"""Extensions of ignored files that a note names."""

_Identity: TypeAlias = tuple[int, int]
"""Device and inode of a folder."""


def open_folder(spec: str, root: str) -> FileSource:
    """List the images of every class folder under `root`.

    Classes are the folders directly under `root`, sorted. A class's images follow in `ImageFolder`'s order on every
    file system: by folder, then by name, both as text. Names that start with a dot are passed over.
    A link that leads nowhere counts as a sample, to be reported as unreadable.

    Raises:
        DatasetError: there are no class folders, no images, or a folder can't be listed.
    """
    listing = _Listing(root)
    class_names = listing.list_classes()
    counts = [listing.list_class(name) for name in class_names]
    if not listing.paths:
        raise DatasetError(f"{root}: no images in its class folders: looked for {', '.join(_EXTENSIONS)}")
    _check_unique(root, listing.paths)
    empty = [one_line(_text(name)) for name, count in zip(class_names, counts, strict=True) if not count]
    if empty:
        listing.notes.append(f"{_count(len(empty), 'class folder')} without images: {', '.join(empty)}")
    return FileSource(
        spec,
        root,
        PackedText(listing.paths),
        np.repeat(np.arange(len(counts), dtype=np.int64), counts),
        np.array(listing.sizes, dtype=np.int64),
        tuple(_text(name) for name in class_names),
        listing.all_notes(),
    )


class _Listing:
    """Paths and sizes found so far under a root, and a count of what was passed over."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.paths: list[bytes] = []
        self.sizes: list[int] = []
        self.notes: list[str] = []
        self._other: Counter[str] = Counter()
        self._special = self._hidden = self._loops = 0

    def list_classes(self) -> list[str]:
        """Return the names of the class folders, sorted."""
        folders, images = [], 0
        for entry in self._scan(""):
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                folders.append(entry.name)
            else:
                images += _is_image(entry.name)
        if not folders:
            found = (
                f"{_count(images, 'image')} but no class folders: name images and labels in a CSV manifest instead"
                if images
                else "no class folders in it, and no images: check the path"
            )
            raise DatasetError(f"{self.root}: {found}")
        if images:
            self.notes.append(f"{_count(images, 'image')} ignored that lie outside the class folders")
        return sorted(folders)

    def list_class(self, name: str) -> int:
        """Add the images at any depth under the class folder `name`; return how many there are."""
        found: dict[str, list[tuple[str, int]]] = {}
        to_visit: list[tuple[str, tuple[_Identity, ...]]] = [(name, (self._identity(""),))]
        while to_visit:
            folder, ancestors = to_visit.pop()
            identity = self._identity(folder)
            if identity in ancestors:
                self._loops += 1
                continue
            images = found.setdefault(folder, [])
            for entry in self._scan(folder):
                if entry.name.startswith("."):
                    self._hidden += _is_image(entry.name)
                elif _is_folder(entry):
                    to_visit.append((f"{folder}/{entry.name}", (*ancestors, identity)))
                else:
                    self._add_file(entry, images)
        before = len(self.paths)
        for folder in sorted(found):
            images = sorted(found[folder])
            self.paths += (os.fsencode(f"{folder}/{name}") for name, _ in images)
            self.sizes += (size for _, size in images)
        return len(self.paths) - before

    def all_notes(self) -> list[str]:
        """Return a line for each kind of thing that was passed over."""
        notes = list(self.notes)
        if self._other:
            named = sorted(self._other)[:_NAMED_EXTENSIONS] + ["…"] * (len(self._other) > _NAMED_EXTENSIONS)
            total = sum(self._other.values())
            notes.append(f"{_count(total, 'file')} ignored that are not images: {', '.join(named)}")
        for count, thing, why in (
            (self._special, "image name", "of pipes, sockets or devices"),
            (self._hidden, "image file", "whose names start with a dot"),
            (self._loops, "folder link", "that lead back into themselves"),
        ):
            if count:
                notes.append(f"{_count(count, thing)} ignored {why}")
        return notes

    def _add_file(self, entry: os.DirEntry[str], images: list[tuple[str, int]]) -> None:
        if not _is_image(entry.name):
            self._other[one_line(_text(os.path.splitext(entry.name)[1].lower())) or "no extension"] += 1
            return
        try:
            status = entry.stat()
        except OSError:
            images.append((entry.name, UNKNOWN_SIZE))
            return
        if stat.S_ISREG(status.st_mode):
            images.append((entry.name, status.st_size))
        else:
            self._special += 1

    def _identity(self, folder: str) -> _Identity:
        try:
            status = os.stat(os.path.join(self.root, folder))
        except OSError as error:
            raise self._cannot_list(folder, error) from error
        return status.st_dev, status.st_ino

    def _scan(self, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(os.path.join(self.root, folder)) as entries:
                yield from entries
        except OSError as error:
            raise self._cannot_list(folder, error) from error

    def _cannot_list(self, folder: str, error: OSError) -> DatasetError:
        path = one_line(_text(os.path.join(self.root, folder)))
        return DatasetError(f"{path}: cannot list this folder: {error.strerror}; make it readable or move it away")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(name: str) -> bool:
    return name.lower().endswith(_EXTENSIONS)


def _text(name: str) -> str:
    """Return a file name as valid UTF-8 text, with backslash escapes for bytes that are not."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _check_unique(root: str, paths: list[bytes]) -> None:
    """Refuse two files whose ids agree because one's name spells the escape of the other's invalid byte."""
    escaped = Counter(path.decode("utf-8", "backslashreplace") for path in paths if b"\\" in path or not _is_utf8(path))
    for sample_id, count in escaped.items():
        if count > 1:
            raise DatasetError(f"{root}: two files would both be {sample_id!r}: rename one of them")


def _is_utf8(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True
