"""STL10's binary files: where they lie, and one image of them."""

from __future__ import annotations

import os
from typing import Final

import numpy as np
from numpy.typing import NDArray

SPLITS: Final = ("train", "test", "unlabeled")
SIDE: Final = 96
IMAGE_BYTES: Final = 3 * SIDE * SIDE


def root_and_split(words: str) -> tuple[str, str | None]:
    """Return what `ROOT[:split]` names; the split is None where none is named."""
    root, colon, split = words.rpartition(":")
    return (root, split) if colon and split in SPLITS else (words, None)


def binary_folder(root: str) -> str:
    """Return the folder of the binary files: `root`/stl10_binary, or `root` itself."""
    nested = os.path.join(root, "stl10_binary")
    return nested if os.path.isdir(nested) else root


def images_file(folder: str, split: str) -> str:
    """Return the path of a split's images, uint8 (n, 3, width, height)."""
    return os.path.join(folder, f"{split}_X.bin")


def read_pixels(file: str, index: int) -> NDArray[np.uint8]:
    """Return one image of a split's file, RGB uint8 (height, width, 3).

    Raises:
        OSError: the file can't be read.
        EOFError: it ends before this image does.
    """
    # a memory map would end the process with SIGBUS if the file shrank
    with open(file, "rb") as stream:
        stream.seek(index * IMAGE_BYTES)
        data = stream.read(IMAGE_BYTES)
    if len(data) != IMAGE_BYTES:
        raise EOFError("the file ends before this image does")
    # stored column by column: (channel, width, height)
    return np.frombuffer(data, np.uint8).reshape(3, SIDE, SIDE).transpose(2, 1, 0).copy()
