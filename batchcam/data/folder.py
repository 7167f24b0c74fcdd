"""A folder of class folders, as torchvision's `ImageFolder` reads it, without what systems leave there."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np

from batchcam.data.passing_faults import passing_fault
from batchcam.data.samples import UNKNOWN_SIZE, FileSource, PackedText
from batchcam.errors import BatchcamError, DatasetError, one_line
from batchcam.images.decoding import IMAGE_ENDINGS

_NAMED: Final = 5
"""Ignored folders, or endings of ignored files, that a note names."""

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

_SPLIT: Final = re.compile(
    r"(train(ing)?|val(id(ation)?)?|dev|test(ing)?|eval(uation)?|hold[ _-]?out)([ _-]?(set|data|images|split))?"
    r"|(fold|split)[ _-]?[0-9]+"
)
"""What parts of a dataset are called, in lower case; class folders lie below."""

_Identity: TypeAlias = tuple[int, int]
"""Device and inode of a folder."""


def open_folder(spec: str, root: str) -> FileSource:
    """List the images of every class folder under `root`.

    Classes are the folders directly under `root` that hold images, sorted. A class's images follow in `ImageFolder`'s
    order on every file system: by folder, then by name, both as text. Names that start with a dot are passed over, and
    folders that systems leave. A link to an image that leads nowhere counts as a sample, to be reported as unreadable.

    Raises:
        DatasetError: there are no class folders, no images, or a folder can't be listed; or its folders are the parts
            of a dataset.
    """
    listing = _Listing(root)
    folders = listing.list_classes()
    counts = {name: count for name in folders if (count := listing.list_class(name))}
    empty = [name for name in folders if name not in counts]
    if not counts:
        raise DatasetError(f"{root}: no images in its class folders: looked for {', '.join(IMAGE_ENDINGS)}")
    _check_no_splits(root, tuple(counts), listing.paths)
    _check_unique(root, listing.paths)
    if empty:
        named = ", ".join(map(_shown, empty))
        listing.notes.append(f"{_count(len(empty), 'class folder')} without images, which count as no classes: {named}")
    return FileSource(
        spec,
        root,
        PackedText(listing.paths),
        np.repeat(np.arange(len(counts), dtype=np.int64), list(counts.values())),
        np.array(listing.sizes, dtype=np.int64),
        tuple(_text(name) for name in counts),
        listing.all_notes(),
        empty_classes=tuple(map(_text, empty)),
    )


class _Listing:
    """Paths and sizes found so far under a root, and a count of what was passed over."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.paths: list[bytes] = []
        self.sizes: list[int] = []
        self.notes: list[str] = []
        self._other: Counter[str] = Counter()
        self._folders: Counter[str] = Counter()
        self._special = self._hidden = self._loops = self._nowhere = 0

    def list_classes(self) -> list[str]:
        """Return the names of the class folders, sorted."""
        folders, images = [], 0
        for entry in self._scan(""):
            if _is_folder(entry):
                if not self._passes_over(entry.name):
                    folders.append(entry.name)
            elif not entry.name.startswith("."):
                images += _is_image(entry.name)
                if not _is_image(entry.name) and _leads_nowhere(entry):
                    path = _shown(entry.path)
                    raise DatasetError(f"{path}: a link that leads nowhere: is its storage there? else remove the link")
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
                if _is_folder(entry):
                    if not self._passes_over(entry.name):
                        to_visit.append((f"{folder}/{entry.name}", (*ancestors, identity)))
                elif entry.name.startswith("."):
                    self._hidden += _is_image(entry.name)
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
        for counts, thing, why in (
            (self._folders, "folder", "that systems and programs leave"),
            (self._other, "file", "that are not images"),
        ):
            if counts:
                named = sorted(counts)[:_NAMED] + ["…"] * (len(counts) > _NAMED)
                notes.append(f"{_count(sum(counts.values()), thing)} ignored {why}: {', '.join(named)}")
        for count, thing, why in (
            (self._special, "image name", "of pipes, sockets or devices"),
            (self._hidden, "image file", "whose names start with a dot"),
            (self._loops, "folder link", "that lead back into themselves"),
            (self._nowhere, "link", "that lead nowhere"),
        ):
            if count:
                notes.append(f"{_count(count, thing)} ignored {why}")
        return notes

    def _passes_over(self, folder: str) -> bool:
        """Return whether a folder is none of the user's, and count it then."""
        ours = folder.startswith(".") or folder.lower() in _OF_SYSTEMS
        if ours:
            self._folders[_shown(folder)] += 1
        return ours

    def _add_file(self, entry: os.DirEntry[str], images: list[tuple[str, int]]) -> None:
        if not _is_image(entry.name):
            if _leads_nowhere(entry):
                self._nowhere += 1
                return
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

    def _cannot_list(self, folder: str, error: OSError) -> BatchcamError:
        if fault := passing_fault(error):
            return fault
        path = _shown(os.path.join(self.root, folder))
        return DatasetError(f"{path}: cannot list this folder: {error.strerror}; make it readable or move it away")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS)


def _text(name: str) -> str:
    """Return a file name as valid UTF-8 text, with backslash escapes for bytes that are not."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _check_no_splits(root: str, folders: Sequence[str], paths: Sequence[bytes]) -> None:
    """Refuse the folder above the parts of a dataset: train, val and test are no classes."""
    splits = [name for name in folders if _SPLIT.fullmatch(name.lower())]
    nested = {path.split(b"/", 1)[0] for path in paths if path.count(b"/") > 1}
    nested_splits = [name for name in splits if os.fsencode(name) in nested]
    if (len(splits) == len(folders) and (len(splits) > 1 or nested_splits)) or len(nested_splits) > 1:
        meant = next((name for name in splits if not name.lower().startswith("train")), splits[0])
        raise DatasetError(
            f"{root}: its folders are parts of a dataset, not classes: {', '.join(map(_shown, splits))}; "
            f"did you mean {os.path.join(root, meant)}?"
        )


def _shown(name: str) -> str:
    return one_line(_text(name))


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
