"""What every dataset looks like to a run: stable ids, labels and sizes at once, images one by one."""

from __future__ import annotations

import abc
import dataclasses
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from batchcam.errors import DatasetError
from batchcam.images.decoding import RGB, UnreadableImageError, decode_image
from batchcam.images.passing_faults import passing_fault
from batchcam.images.planes import Decoded, Decoding
from batchcam.images.regular_files import MOST_BYTES, NotRegularError, TooLargeError
from batchcam.images.remote import absolute, is_url, joined, read_file
from batchcam.images.tables import numbers
from batchcam.job.stop import stop_if_asked

UNKNOWN_LABEL: Final = -1

UNKNOWN_SIZE: Final = -1
"""Size of a file that does not exist, or of an image whose stored bytes a dataset keeps to itself."""

GONE: Final = "is gone"
"""Why a sample is unreadable that was there when it was listed."""


class Numbers(Protocol):
    """int64 (n,): an array, or what reads the rows that it is asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Any: ...
    def __array__(self) -> NDArray[Any]: ...


class Texts(Sequence[str]):
    """Texts that are kept as bytes.

    Bytes that are not UTF-8, as in file names of other systems, read as backslash escapes such as `\\xff`.
    """

    @abc.abstractmethod
    def raw(self, index: int) -> bytes:
        """Return the bytes of one text.

        Raises:
            IndexError: there is none at `index`.
        """

    @abc.abstractmethod
    def raws(self) -> Iterator[bytes]:
        """Yield the bytes of each text."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        return _readable(self.raw(index))

    def __iter__(self) -> Iterator[str]:
        return map(_readable, self.raws())


class PackedText(Texts):
    """Texts in one block of bytes: a million of them copy to a loader process as two objects."""

    def __init__(self, texts: Iterable[bytes]) -> None:
        """Pack `texts`, each the bytes of one text."""
        parts = list(texts)
        self._ends = np.cumsum(np.fromiter(map(len, parts), dtype=np.int64, count=len(parts)))
        self._block = b"".join(parts)

    def raw(self, index: int) -> bytes:
        """Return the bytes of one text."""
        index = range(len(self))[index]
        start = int(self._ends[index - 1]) if index else 0
        return self._block[start : int(self._ends[index])]

    def raws(self) -> Iterator[bytes]:
        """Yield the bytes of each text."""
        start = 0
        for end in self._ends.tolist():
            yield self._block[start:end]
            start = end

    def __len__(self) -> int:
        return len(self._ends)


@dataclasses.dataclass(frozen=True, eq=False)
class StoredSample:
    """One sample as read.

    Attributes:
        sha256: digest (32 bytes) of the stored file, or where there is no file of the decoded array: in order height,
            width, channel, uint8 or with --range float32; or float32 of a tensor, in order channel, height, width.
        image: an image still to be preprocessed, or a float32 tensor (C, H, W) that counts as preprocessed.
    """

    sha256: bytes
    image: Decoded | Tensor


T = TypeVar("T")

Read: TypeAlias = "Callable[[int], StoredSample]"
"""Gives the sample at an index, or raises UnreadableImageError."""


class Source(abc.ABC):
    """A dataset, listed without decoding it.

    Attributes:
        spec: the words that name it, as in `open_source`.
        sample_ids: unique texts, one a sample, stable from run to run.
        labels: class index of each sample, -1 where not known, int64 (n,).
        sizes: bytes of each stored image, -1 where not known, int64 (n,).
        class_names: by class index; None when the dataset does not name its classes.
        notes: what was passed over while listing, a line each.
        code: callable and digest of its module where the dataset is the user's own code, by what they are.
        empty_classes: what would be classes if there were an image of them.
        digests_of: what the samples' digests are of: "files", or "pixels" where there are none.
        numeric: labels are written as whole numbers, which may be class indices or names. They count as indices where
            they can be some, and `class_names` is None, else as names.
        decoding: as for `decode_image`; set before the first read.
        paths: where the samples' files lie below the dataset's folder; None where they are no files.
        numbered: whether the ids only count the samples, which have none of their own.
        meta: what a manifest says besides: a text of each sample, by column, sorted, as `Plan.meta` names them.
        manifest_sha256: digest of the manifest that lists the samples, "" where none does.
        several: why labels can't be taken as one class each: they are several; "" where they can.
        multi_hot: labels that are vectors, as `hot_vectors` gives them; `class_names` names their places, if any.
    """

    digests_of: str = "pixels"
    paths: Texts | None = None
    numbered = False
    meta: Mapping[str, Texts] = {}
    manifest_sha256 = ""
    several = ""
    multi_hot: NDArray[np.int8] | None = None

    def __init__(
        self,
        spec: str,
        sample_ids: Sequence[str],
        labels: Numbers,
        sizes: Numbers,
        class_names: tuple[str, ...] | None = None,
        notes: Iterable[str] = (),
        empty_classes: tuple[str, ...] = (),
        numeric: bool = False,
    ) -> None:
        """Keep the listing.

        Raises:
            DatasetError: it is empty.
        """
        if not len(sample_ids):
            raise DatasetError(f"{spec}: no samples: give a dataset with at least one image")
        self.spec = spec
        self.code: dict[str, str] = {}
        self.decoding = RGB
        self.sample_ids = sample_ids
        self.labels = labels
        self.sizes = sizes
        self.class_names = class_names
        self.notes = tuple(notes)
        self.empty_classes = empty_classes
        self.numeric = numeric

    def __len__(self) -> int:
        return len(self.sample_ids)

    def each(self, indices: Sequence[int], load: Callable[[int, Read], T]) -> list[T]:
        """Return load(index, read) for each index, where `read` is this source's, or one that refuses the sample.

        Raises:
            StoppedEarlyError: the work should stop.
        """
        loaded: list[T] = []
        for index in indices:
            if loaded:
                stop_if_asked()
            loaded.append(load(index, self.read))
        return loaded

    @abc.abstractmethod
    def read(self, index: int) -> StoredSample:
        """Read one sample.

        Raises:
            UnreadableImageError: it can't be read or decoded; `sha256` says of which bytes, where they are known.
            IndexError: there is none at `index`.
        """


class FileSource(Source):
    """A dataset of image files.

    Attributes:
        copies: a folder of copies, each named by its sample's index, that are read instead.
    """

    copies: str | None = None

    digests_of = "files"

    def __init__(
        self,
        spec: str,
        folder: str,
        paths: Texts,
        labels: Numbers,
        sizes: Numbers,
        class_names: tuple[str, ...] | None = None,
        notes: Iterable[str] = (),
        empty_classes: tuple[str, ...] = (),
        numeric: bool = False,
        sample_ids: Texts | None = None,
    ) -> None:
        """Keep a listing of `paths`, relative to `folder`, or URLs, which are the sample ids where none are given."""
        ids = paths if sample_ids is None else sample_ids
        super().__init__(spec, ids, labels, sizes, class_names, notes, empty_classes, numeric)
        # a loader process may work in another folder
        self.folder = absolute(folder)
        self.paths: Texts = paths

    def read(self, index: int) -> StoredSample:
        """Read and decode one file, if it is the one that was listed."""
        size = int(self.sizes[index])
        return decoded(_read(self.path(index), size), size, self.decoding)

    def path(self, index: int) -> bytes:
        """Return the path or URL of the file, or of its copy."""
        if self.copies and os.path.exists(copy := os.path.join(self.copies, str(index))):
            return os.fsencode(copy)
        path = self.paths.raw(index)
        if b"://" in path or is_url(self.folder):
            return os.fsencode(joined(self.folder, os.fsdecode(path)))
        return os.path.join(os.fsencode(self.folder), path)


def default_split(split: str) -> str:
    """Return the note about a split that nobody named."""
    return f"split: {split}, as the dataset's name says none"


def numbered_ids(count: int, prefix: str = "") -> PackedText:
    """Return ids such as "test/00012" for samples that have no names of their own."""
    return PackedText(map(str.encode, numbers(count, prefix)))


def packed_ids(ids: Iterable[object], where: str) -> PackedText:
    """Return a dataset's own ids, packed; whole numbers count as their digits.

    Raises:
        DatasetError: an id is no text, is empty, holds a NUL character, or comes twice.
    """
    seen: dict[bytes, None] = {}
    for index, given in enumerate(ids):
        sample_id = str(given) if isinstance(given, int) else given
        if not isinstance(sample_id, str) or not sample_id or "\0" in sample_id:
            raise DatasetError(f"{where}: sample {index}: id {sample_id!r}: give a text without NUL characters")
        # a lone surrogate has no UTF-8 form
        seen[sample_id.encode("utf-8", "backslashreplace")] = None
        if len(seen) == index:
            raise DatasetError(f"{where}: sample {index}: id {sample_id!r} comes twice: give each sample its own id")
    return PackedText(seen)


def require_planned_size(size: int, planned: int) -> None:
    """Refuse a stored image that has another size than when it was listed, where both are known.

    Raises:
        UnreadableImageError: it says both sizes.
    """
    if UNKNOWN_SIZE not in (size, planned) and size != planned:
        raise UnreadableImageError(f"was changed: {size} bytes, planned {planned}")


def decoded(data: bytes, planned: int, decoding: Decoding) -> StoredSample:
    """Return the sample that stored bytes are, if they are as many as planned.

    Raises:
        UnreadableImageError: they are no image, or others; it says of which bytes.
    """
    digest = hashlib.sha256(data).digest()
    try:
        require_planned_size(len(data), planned)
        return StoredSample(digest, decode_image(data, decoding))
    except UnreadableImageError as error:
        error.sha256 = digest
        raise


def unreadable(error: OSError) -> UnreadableImageError:
    """Return the reason why a file can't be read, without its path.

    Raises:
        PassingFaultError: it says nothing about the file; a rerun may read it.
        OSError: it is no error of the system's.
    """
    if fault := passing_fault(error):
        raise fault from error
    if error.errno is None:
        raise error
    return UnreadableImageError(error.strerror or os.strerror(error.errno))


def _readable(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")


def _read(path: bytes, planned: int) -> bytes:
    try:
        return read_file(path, MOST_BYTES)
    except OSError as error:
        if error.errno == errno.ENOENT and planned != UNKNOWN_SIZE:
            raise UnreadableImageError(GONE) from error
        raise unreadable(error) from error
    except (NotRegularError, TooLargeError) as error:
        raise UnreadableImageError(str(error)) from error
    except MemoryError as error:
        raise UnreadableImageError("not enough memory to read it") from error
