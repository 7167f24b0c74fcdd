"""A dataset of samples that are made when they are read: images, tensors, or reasons why there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from batchcam.data.samples import Source, StoredSample
from batchcam.images.decoding import UnreadableImageError

UNREADABLE = "unreadable"


def digest(index: int) -> bytes:
    return hashlib.sha256(b"%d" % index).digest()


class MemorySource(Source):
    """`kinds[i]` says what sample i is: (height, width) of a random image, a tensor, or UNREADABLE."""

    def __init__(
        self, kinds: Sequence[object], labels: Sequence[int] | None = None, classes: tuple[str, ...] | None = None
    ) -> None:
        count = len(kinds)
        label = np.array([-1] * count if labels is None else labels, np.int64)
        super().__init__("memory", [f"sample-{i}" for i in range(count)], label, np.arange(count), classes)
        self.kinds = kinds

    def read(self, index: int) -> StoredSample:
        kind = self.kinds[index]
        if isinstance(kind, str):
            raise UnreadableImageError(f"sample {index} is torn", digest(index))
        if isinstance(kind, torch.Tensor):
            return StoredSample(digest(index), kind)
        pixels = np.random.default_rng(index).integers(0, 256, (*kind, 3), dtype=np.uint8)
        return StoredSample(digest(index), Image.fromarray(pixels))
