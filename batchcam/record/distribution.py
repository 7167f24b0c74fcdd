"""How numbers are spread over a span, counted part by part in constant memory: quantiles and histograms."""

from __future__ import annotations

from typing import Final

import numpy as np

PLACES: Final = 64_000
"""Into which a span is cut: quantiles are exact to one of them, and a twentieth of any tenth of it is whole ones."""


class Distribution:
    """Counts finite values from `low` to `high`, others as the nearer of these.

    Of each place the smallest and the largest value are kept, so that what few values share is exact.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self._counts = np.zeros(PLACES, np.int64)
        self._least, self._most = np.full(PLACES, np.inf), np.full(PLACES, -np.inf)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def add(self, values: np.ndarray) -> None:
        """Count some more values, (n,); those that are not finite do not count."""
        values = np.clip(values[np.isfinite(values)].astype(np.float64), self.low, self.high)
        span = self.high - self.low
        place = ((values - self.low) * (PLACES / span)).astype(np.int64).clip(0, PLACES - 1)
        edges = (self.low * PLACES + span * np.arange(PLACES + 1)) / PLACES
        edges[-1] = np.inf
        place -= values < edges[place]  # rounding put it one too high, or one too low
        place += values >= edges[place + 1]
        self._counts += np.bincount(place, minlength=PLACES)
        np.minimum.at(self._least, place, values)
        np.maximum.at(self._most, place, values)

    def joined(self, other: Distribution) -> Distribution:
        """Return the distribution of the values of both, which have the same span."""
        both = Distribution(self.low, self.high)
        both._counts = self._counts + other._counts
        both._least, both._most = np.minimum(self._least, other._least), np.maximum(self._most, other._most)
        return both

    def quantile(self, share: float) -> float | None:
        """Return the value below which a share of the values lies, interpolated as numpy does; None without any."""
        if not len(self):
            return None
        behind = np.cumsum(self._counts)
        rank, rest = divmod(share * (len(self) - 1), 1)
        first, second = (self._ranked(min(int(rank) + i, len(self) - 1), behind) for i in (0, 1))
        return float(np.interp(rest, (0, 1), (first, second)))

    def _ranked(self, rank: int, behind: np.ndarray) -> float:
        """Return the value of a rank, 0 for the smallest; between a place's smallest and largest by even steps."""
        place = int(np.searchsorted(behind, rank, "right"))
        ahead = rank - int(behind[place] - self._counts[place])
        least, most = float(self._least[place]), float(self._most[place])
        return least + (most - least) * ahead / max(1, int(self._counts[place]) - 1)

    def histogram(self, bins: int, low: float | None = None) -> list[int]:
        """Return how many values lie in each of so many bins of equal width, from `low` (default: all of the span) up.

        Raises:
            ValueError: the bins are not whole places each.
        """
        start = 0 if low is None else round((low - self.low) / (self.high - self.low) * PLACES)
        if (PLACES - start) % bins:
            raise ValueError(f"{PLACES - start} places can't be cut into {bins} bins")
        counts: list[int] = self._counts[start:].reshape(bins, -1).sum(1).tolist()
        return counts
