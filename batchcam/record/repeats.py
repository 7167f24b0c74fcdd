"""Does a sample id stand twice in a run? Told in constant memory, however many there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

LEAST_BITS: Final = 2**28
"""Of the filter, 32 MiB: of ten million ids, some thousand are looked at a second time."""

BITS_A_SAMPLE: Final = 16

MOST_IDS: Final = 2**28
"""For which a filter of 512 MiB does; a run that claims more may be made up."""

FACTORS: Final = tuple(
    np.uint64(f) for f in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
)
"""One for each of the places that a hash has in the filter: odd, with bits all over."""

MOST_SUSPECTS: Final = 2**20


def hashes(ids: np.ndarray) -> np.ndarray:
    """Return the hash of each encoded id, uint64 (n,); the same in this process and its forks, and in no other."""
    return np.fromiter(map(hash, ids.tolist()), np.int64, len(ids)).view(np.uint64)


class Repeats:
    """Finds ids that stand twice: suspects by a Bloom filter while the ids pass by, then, if there are any, for sure.

    Args:
        count: of the ids, of which no more than MOST_IDS may pass by.
    """

    def __init__(self, count: int) -> None:
        bits = max(LEAST_BITS, BITS_A_SAMPLE * min(count, MOST_IDS))
        self._shift = np.uint64(64 - (bits - 1).bit_length())
        self._filter = np.zeros(1 << ((bits - 1).bit_length() - 3), np.uint8)
        self._suspects: list[np.ndarray] = []
        self._suspected = 0

    def add(self, hashed: np.ndarray) -> None:
        """Take in the hashes of the ids that come next."""
        unique, first = np.unique(hashed, return_index=True)
        there = np.ones(len(unique), bool)
        for factor in FACTORS:
            at = (unique * factor) >> self._shift
            byte, bit = at >> np.uint64(3), np.uint8(1) << (at & np.uint64(7)).astype(np.uint8)
            there &= (self._filter[byte] & bit) > 0
            np.bitwise_or.at(self._filter, byte, bit)
        again = np.delete(hashed, first)
        suspects = np.concatenate([unique[there], again])
        if self._suspected < MOST_SUSPECTS and len(suspects):  # more are no chance: they tell enough
            self._suspects.append(suspects)
            self._suspected += len(suspects)

    def any(self, ids: Iterable[np.ndarray]) -> bool:
        """Return whether an id stands twice.

        Args:
            ids: all of them again, encoded, in parts; they are not looked at where there is no suspect.
        """
        if not self._suspects:
            return False
        suspects, seen = np.unique(np.concatenate(self._suspects)), set[bytes]()
        for part in ids:
            for each in part[np.isin(hashes(part), suspects)].tolist():
                if each in seen:
                    return True
                seen.add(each)
        return False
