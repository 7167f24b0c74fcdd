"""Class folders, as torchvision's `ImageFolder` reads them, or one flat folder; without what systems leave there."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np

from batchcam.data.samples import UNKNOWN_LABEL, UNKNOWN_SIZE, FileSource, PackedText
from batchcam.errors import BatchcamError, DatasetError, one_line
from batchcam.images.arrays import ARRAY_ENDINGS
from batchcam.images.decoding import IMAGE_ENDINGS
from batchcam.images.names import is_hidden
from batchcam.images.passing_faults import passing_fault
from batchcam.images.remote import entries, is_url, joined

_NAMED: Final = 5
"""Ignored folders, or endings of ignored files, that a note names."""

_SPLIT: Final = re.compile(
    r"(train(ing)?|val(id(ation)?)?|dev|test(ing)?|eval(uation)?|hold[ _-]?out)([ _-]?(set|data|images|split))?"
    r"|(fold|split)[ _-]?[0-9]+"
)
"""What parts of a dataset are called, in lower case; class folders lie below."""

_Identity: TypeAlias = tuple[int, int]
"""Device and inode of a folder."""


class Entry(Protocol):
    """What lies in a folder, as `os.DirEntry` tells it."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    def is_dir(self) -> bool: ...
    def is_symlink(self) -> bool: ...
    def stat(self) -> os.stat_result: ...


class Listed(NamedTuple):
    """The images of a folder: paths below it, class indices, sizes, class names, empty classes, and what to tell."""

    paths: list[bytes]
    labels: np.ndarray
    sizes: np.ndarray
    class_names: tuple[str, ...] | None
    empty_classes: tuple[str, ...]
    notes: list[str]


def open_folder(spec: str, root: str) -> FileSource:
    """List the images of every class folder under `root`, or in `root` itself where there are no folders.

    Classes are the folders directly under `root` that hold images, sorted. A class's images follow in `ImageFolder`'s
    order on every file system: by folder, then by name, both as text. Arrays (.npy) are images where there are no
    others. Names that start with a dot are passed over, and folders that systems leave. A link to an image that leads
    nowhere counts as a sample, to be reported as unreadable.

    Raises:
        DatasetError: there are no images, or only beside class folders, or a folder can't be listed; or its folders are
            the parts of a dataset.
    """
    kind = _Remote if is_url(root) else Listing
    try:
        found = kind(root).all()
    except NoImagesError as error:
        try:
            found = kind(root, ARRAY_ENDINGS).all()
        except NoImagesError:
            raise error from None
    return FileSource(
        spec,
        root,
        PackedText(found.paths),
        found.labels,
        found.sizes,
        found.class_names,
        found.notes,
        empty_classes=found.empty_classes,
    )


class NoImagesError(DatasetError):
    """A folder without images."""


class Listing:
    """Paths and sizes found so far under a root, and a count of what was passed over."""

    def __init__(self, root: str, endings: tuple[str, ...] = IMAGE_ENDINGS) -> None:
        self.root, self._endings = root, endings
        self.paths: list[bytes] = []
        self.sizes: list[int] = []
        self.notes: list[str] = []
        self._other: Counter[str] = Counter()
        self._folders: Counter[str] = Counter()
        self._special = self._hidden = self._loops = self._nowhere = 0

    def all(self) -> Listed:
        """Return what there is."""
        folders = self._list_classes()
        counts = {name: count for name in folders or [""] if (count := self._list_class(name))}
        empty = [name for name in folders if name not in counts]
        if not counts:
            raise NoImagesError(f"{self.root}: no images in its class folders: looked for {', '.join(IMAGE_ENDINGS)}")
        _check_no_splits(self.root, tuple(counts), self.paths)
        _check_unique(self.root, self.paths)
        if empty:
            named = ", ".join(map(_shown, empty))
            told = f"{_count(len(empty), 'class folder')} without images, which count as no classes: {named}"
            self.notes.append(told)
        if not folders:
            self.notes.append(f"a flat folder of {_count(len(self.paths), 'image')}: no class folders, so no labels")
        labels = np.repeat(np.arange(len(counts), dtype=np.int64), list(counts.values()))
        return Listed(
            self.paths,
            labels if folders else np.full(len(labels), UNKNOWN_LABEL, np.int64),
            np.array(self.sizes, dtype=np.int64),
            tuple(map(_text, counts)) if folders else None,
            tuple(map(_text, empty)),
            self._all_notes(),
        )

    def _list_classes(self) -> list[str]:
        """Return the names of the class folders, sorted; none where the images lie in the root itself."""
        folders, images = [], 0
        for entry in self.scan(""):
            if _is_folder(entry):
                if not self._passes_over(entry.name):
                    folders.append(entry.name)
            elif not entry.name.startswith("."):
                images += self._is_image(entry.name)
                if not self._is_image(entry.name) and _leads_nowhere(entry):
                    path = _shown(entry.path)
                    raise DatasetError(f"{path}: a link that leads nowhere: is its storage there? else remove the link")
        if not folders and not images:
            raise NoImagesError(f"{self.root}: no class folders in it, and no images: check the path")
        if folders and images:
            self.notes.append(f"{_count(images, 'image')} ignored that lie outside the class folders")
        return sorted(folders)

    def _list_class(self, name: str) -> int:
        """Add the images at any depth under the class folder `name`, the root for ""; return how many there are."""
        found: dict[str, list[tuple[str, int]]] = {}
        to_visit: list[tuple[str, tuple[_Identity, ...]]] = [(name, (self.identity(""),) if name else ())]
        while to_visit:
            folder, ancestors = to_visit.pop()
            identity = self.identity(folder)
            if identity in ancestors:
                self._loops += 1
                continue
            images = found.setdefault(folder, [])
            for entry in self.scan(folder):
                if _is_folder(entry):
                    if not self._passes_over(entry.name):
                        to_visit.append((f"{folder}/{entry.name}", (*ancestors, identity)))
                elif entry.name.startswith("."):
                    self._hidden += self._is_image(entry.name)
                else:
                    self._add_file(entry, images)
        before = len(self.paths)
        for folder in sorted(found):
            images, below = sorted(found[folder]), folder and f"{folder}/"
            self.paths += (os.fsencode(below + name) for name, _ in images)
            self.sizes += (size for _, size in images)
        return len(self.paths) - before

    def _all_notes(self) -> list[str]:
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

    def _is_image(self, name: str) -> bool:
        return name.lower().endswith(self._endings)

    def _passes_over(self, folder: str) -> bool:
        """Return whether a folder is none of the user's, and count it then."""
        if hidden := is_hidden(folder):
            self._folders[_shown(folder)] += 1
        return hidden

    def _add_file(self, entry: Entry, images: list[tuple[str, int]]) -> None:
        if not self._is_image(entry.name):
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

    def identity(self, folder: str) -> _Identity:
        """Return what tells a folder from others, by whatever links one comes to it."""
        try:
            status = os.stat(os.path.join(self.root, folder))
        except OSError as error:
            raise self._cannot_list(folder, error) from error
        return status.st_dev, status.st_ino

    def scan(self, folder: str) -> Iterator[Entry]:
        """Yield what lies in a folder below the root."""
        try:
            with os.scandir(os.path.join(self.root, folder)) as entries:
                yield from entries
        except OSError as error:
            raise self._cannot_list(folder, error) from error

    def _cannot_list(self, folder: str, error: OSError) -> BatchcamError:
        if fault := passing_fault(error):
            return fault
        path = _shown(os.path.join(self.root, folder) if folder else self.root)
        return DatasetError(f"{path}: cannot list this folder: {error.strerror}; make it readable or move it away")


class NamedEntry(NamedTuple):
    """A file or folder that is only told of; a folder has no size."""

    name: str
    path: str
    size: int | None

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        return self.size is None

    def is_symlink(self) -> bool:
        """Return False."""
        return False

    def stat(self) -> os.stat_result:
        """Return what is known of a file.

        Raises:
            OSError: its size is not.
        """
        if self.size is None or self.size == UNKNOWN_SIZE:
            raise OSError
        return os.stat_result((stat.S_IFREG, 0, 0, 0, 0, 0, self.size, 0, 0, 0))


class ListingByName(Listing):
    """A folder whose folders are no others by whatever link."""

    def identity(self, folder: str) -> _Identity:
        """Return what tells a folder from those above it."""
        return 0, len(folder)


class _Remote(ListingByName):
    """A folder behind a URL."""

    def scan(self, folder: str) -> Iterator[NamedEntry]:
        try:
            found = entries(joined(self.root, folder))
        except OSError as error:
            raise self._cannot_list(folder, error) from error
        for name, size, is_folder in found:
            yield NamedEntry(name, name, None if is_folder else UNKNOWN_SIZE if size is None else size)


def _is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _leads_nowhere(entry: Entry) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


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
