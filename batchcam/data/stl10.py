"""STL10's binary files, read without torchvision's check for the one original download."""

from __future__ import annotations

import hashlib
import os
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batchcam.data.samples import UNKNOWN_LABEL, Source, StoredSample, default_split, numbered_ids, unreadable
from batchcam.errors import DatasetError, one_line
from batchcam.images.decoding import UnreadableImageError, image_of
from batchcam.images.stl10_files import IMAGE_BYTES, SPLITS, binary_folder, images_file, read_pixels, root_and_split

_CLASSES: Final = 10


class STL10Source(Source):
    """One split: `{split}_X.bin` of uint8 (n, 3, width, height), labels 1…10 in `{split}_y.bin`."""

    numbered = True

    def __init__(self, spec: str, root: str, split: str) -> None:
        """List the split under `root`/stl10_binary, or under `root` itself.

        Raises:
            DatasetError: files are missing or do not fit together.
        """
        folder = binary_folder(root)
        self._file = os.path.abspath(images_file(folder, split))
        count = _image_count(self._file)
        if split == "unlabeled":
            labels = np.full(count, UNKNOWN_LABEL, np.int64)
        else:
            labels = _read_labels(os.path.join(folder, f"{split}_y.bin"), count)
        sizes = np.full(count, IMAGE_BYTES, np.int64)
        super().__init__(spec, numbered_ids(count, f"{split}/"), labels, sizes, _class_names(folder))

    def read(self, index: int) -> StoredSample:
        """Read one image; a file cut short since it was listed makes it unreadable."""
        index = range(len(self))[index]
        try:
            pixels = read_pixels(self._file, index)
        except OSError as error:
            raise unreadable(error) from error
        except EOFError as error:
            raise UnreadableImageError(str(error)) from error
        return StoredSample(hashlib.sha256(pixels.tobytes()).digest(), image_of(pixels, self.decoding))


def open_stl10(spec: str, rest: str) -> STL10Source:
    """Open `ROOT[:split]`; without a split it is train."""
    root, split = root_and_split(rest)
    source = STL10Source(spec, os.path.expanduser(root), split or "train")
    source.notes += () if split else (default_split("train"),)
    return source


def _image_count(file: str) -> int:
    where = one_line(file)
    try:
        size = os.stat(file).st_size
    except OSError as error:
        raise DatasetError(
            f"{where}: {error.strerror}: unpack stl10_binary.tar.gz there, or name a split of {', '.join(SPLITS)}"
        ) from error
    if size % IMAGE_BYTES:
        raise DatasetError(f"{where}: {size} bytes are not whole images of {IMAGE_BYTES}: unpack the archive again")
    return size // IMAGE_BYTES


def _read_labels(file: str, count: int) -> NDArray[np.int64]:
    where = one_line(file)
    try:
        labels = np.fromfile(file, np.uint8)
    except OSError as error:
        raise DatasetError(f"{where}: {error.strerror}: unpack stl10_binary.tar.gz there") from error
    if len(labels) != count:
        raise DatasetError(f"{where}: {len(labels)} labels for {count} images: unpack the archive again")
    wrong = np.flatnonzero((labels < 1) | (labels > _CLASSES))
    if len(wrong):
        raise DatasetError(f"{where}: label {labels[wrong[0]]} of image {wrong[0]} is outside 1…{_CLASSES}")
    return labels.astype(np.int64) - 1


def _class_names(folder: str) -> tuple[str, ...] | None:
    file = os.path.join(folder, "class_names.txt")
    try:
        with open(file, encoding="utf-8") as stream:
            names = tuple(line.strip() for line in stream.read().splitlines() if line.strip())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: cannot read the class names: {error}") from error
    if len(set(names)) != _CLASSES or len(names) != _CLASSES:
        raise DatasetError(f"{file}: expected {_CLASSES} different class names, one a line")
    return names
