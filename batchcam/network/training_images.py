"""Which images a network was trained on: digests that its checkpoint carries, so that they are known again anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DIGEST_BYTES: Final = 8
"""Of each SHA-256: that any of a million images is mistaken for one of another million happens once in 18 million."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingImages:
    """A set of images.

    Attributes:
        keys: first DIGEST_BYTES bytes of each one's SHA-256 as a big-endian number, ascending, each once, uint64 (n,).
        kinds: what was digested, see `Source.digests_of`: only digests of one kind can be equal.
    """

    keys: NDArray[np.uint64] = dataclasses.field(default_factory=lambda: np.empty(0, np.uint64))
    kinds: frozenset[str] = frozenset()

    @classmethod
    def of(cls, digests: NDArray[np.uint8], kind: str) -> TrainingImages:
        """Return the set of images with these SHA-256, uint8 (n, 32)."""
        return cls(_each_once(_keys(digests)), frozenset({kind}))

    @classmethod
    def unpacked(cls, packed: Any) -> TrainingImages:
        """Return what `packed` gave.

        Raises:
            ValueError: it is something else.
        """
        digests, kinds = map(packed.get, ("digests", "kinds")) if isinstance(packed, Mapping) else (None, None)
        if not isinstance(digests, Tensor) or digests.dtype != torch.uint8 or digests.shape[1:] != (DIGEST_BYTES,):
            raise ValueError(f"no digests of images, uint8 (n, {DIGEST_BYTES})")
        # a few stored bytes can claim any number of rows
        if digests.numel() > digests.untyped_storage().nbytes():
            raise ValueError("digests that are not in the file")
        if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
            raise ValueError("does not say of what its digests are")
        return cls(_each_once(_keys(digests.numpy())), frozenset(kinds))

    def packed(self) -> dict[str, Any]:
        """Return it as a checkpoint carries it: `digests` in ascending order, uint8 (n, DIGEST_BYTES), and `kinds`."""
        digests = self.keys.astype(">u8").view(np.uint8).reshape(-1, DIGEST_BYTES)
        return {"digests": torch.from_numpy(digests), "kinds": sorted(self.kinds)}

    def __len__(self) -> int:
        return len(self.keys)

    def __or__(self, other: TrainingImages) -> TrainingImages:
        return TrainingImages(_each_once(np.concatenate([self.keys, other.keys])), self.kinds | other.kinds)

    def tell_of(self, kind: str) -> bool:
        """Return whether digests of this kind tell which images are among them."""
        return self.kinds <= {kind}

    def hold(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of the images with these SHA-256, uint8 (n, 32), are among them, bool (n,)."""
        keys = _keys(digests)
        if not len(self.keys):
            return np.zeros(len(keys), bool)
        places = np.searchsorted(self.keys, keys)
        return np.asarray(self.keys[np.minimum(places, len(self.keys) - 1)] == keys)


def _keys(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, :DIGEST_BYTES]).view(">u8")[:, 0].astype(np.uint64)


def _each_once(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    ordered = np.sort(keys, kind="stable")  # np.unique takes forty times as long
    return np.concatenate([ordered[:1], ordered[1:][ordered[1:] != ordered[:-1]]])
