"""A run that has digests of images and nothing else, made as it is read: a million samples without a disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batchcam.store.run import Run
from tests.helpers.synthetic import synthetic_plan


class DigestsOnly(Run):
    """`count` samples with digests that follow from `seed` and their number, from `first` on."""

    def __init__(self, count: int, seed: int, first: int = 0) -> None:
        self._count, self._seed, self._first = count, seed, first
        self.path, self.plan = Path("run"), synthetic_plan(sample_count=count)

    def __len__(self) -> int:
        return self._count

    @property
    def sample_id(self) -> Any:
        return _Names()

    def blocks(
        self, names: Sequence[str], rows: Any = None, budget: int = 0, held: int = 0
    ) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        for start in range(0, self._count, 100_000):
            number = np.arange(start, min(start + 100_000, self._count))
            mixed = (number + self._first + self._seed).astype(np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
            yield number, {"input_sha256": np.tile(mixed, (1, 4)).view(np.uint8)}


class _Names:
    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.array([f"{row}.png" for row in rows.tolist()], object)
