"""Columns of a run's samples in memory: what each is filtered, counted and sorted by."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

MOST_LISTED: Final = 500
"""Values of a column that a page lists, with their counts."""


class QueryError(Exception):
    """A question that no answer fits; the message says why."""


class Column(abc.ABC):
    """What samples have one of each: a number, or one or several of some texts."""

    @property
    @abc.abstractmethod
    def about(self) -> dict[str, Any]:
        """What a page has to know of it."""

    @abc.abstractmethod
    def matching(self, asked: str) -> np.ndarray:
        """Return which samples are asked for, bool (n,); raises QueryError where none can be."""

    @abc.abstractmethod
    def told(self, rows: np.ndarray) -> list[Any]:
        """Return what a page shows of some rows."""

    def keys(self, descending: bool) -> np.ndarray:
        """Return what samples are sorted by, ascending; raises QueryError where they have no order."""
        raise QueryError("samples with several values each have no order by them")

    def counts(self, chosen: np.ndarray) -> list[int] | None:
        """Return how many of the chosen samples, bool (n,), have each value, and none; None of too many values."""
        return None


@dataclasses.dataclass(frozen=True)
class Numbers(Column):
    """A number of each sample, NaN where there is none, float32 (n,)."""

    values: np.ndarray

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        finite = self.values[np.isfinite(self.values)]
        ends = (finite.min(), finite.max()) if len(finite) else (np.nan, np.nan)
        low, high = map(plain, ends)
        return {"kind": "numbers", "low": low, "high": high}

    def matching(self, asked: str) -> np.ndarray:
        low, dots, high = asked.partition("..")
        try:
            bounds = [float(text) if text else None for text in (low, high)]
        except ValueError:
            bounds = [None, None]
        if not dots or bounds == [None, None] or any(bound != bound for bound in bounds):
            raise QueryError(f"{asked!r} is no range: say LOW..HIGH, LOW.. or ..HIGH")
        wanted: np.ndarray = ~np.isnan(self.values)
        with np.errstate(over="ignore"):  # beyond float32 is beyond all values
            if bounds[0] is not None:
                wanted &= self.values >= np.float32(bounds[0])
            if bounds[1] is not None:
                wanted &= self.values <= np.float32(bounds[1])
        return wanted

    def keys(self, descending: bool) -> np.ndarray:
        return -self.values if descending else self.values  # NaN comes last either way

    def told(self, rows: np.ndarray) -> list[Any]:
        return [plain(value) for value in self.values[rows]]


@dataclasses.dataclass(frozen=True)
class Choice(Column):
    """One of some texts for each sample: its place among `choices`, int32 (n,), -1 where there is none."""

    values: np.ndarray
    choices: Sequence[str]

    @property
    def about(self) -> dict[str, Any]:
        return {"kind": "choice", "choices": list(self.choices) if len(self.choices) <= MOST_LISTED else None}

    def matching(self, asked: str) -> np.ndarray:
        return np.asarray(self.values == place_of(asked, self.choices))

    def keys(self, descending: bool) -> np.ndarray:
        last = len(self.choices)
        return np.where(self.values < 0, last, last - 1 - self.values if descending else self.values)

    def told(self, rows: np.ndarray) -> list[Any]:
        return [None if place < 0 else self.choices[place] for place in self.values[rows].tolist()]

    def counts(self, chosen: np.ndarray) -> list[int] | None:
        if len(self.choices) > MOST_LISTED:
            return None
        none, *found = np.bincount(self.values[chosen] + 1, minlength=len(self.choices) + 1).tolist()
        return [*found, none]


@dataclasses.dataclass(frozen=True)
class Members(Column):
    """Any of the choices for each of `count` samples: the rows that have each choice, ascending."""

    members: Sequence[np.ndarray]
    choices: Sequence[str]
    count: int

    @property
    def about(self) -> dict[str, Any]:
        return {"kind": "members", "choices": list(self.choices) if len(self.choices) <= MOST_LISTED else None}

    def matching(self, asked: str) -> np.ndarray:
        place = place_of(asked, self.choices)
        wanted = np.zeros(self.count, bool)
        for rows in self.members if place < 0 else (self.members[place],):
            wanted[rows] = True
        return ~wanted if place < 0 else wanted

    def told(self, rows: np.ndarray) -> list[Any]:
        has = [np.isin(rows, members, assume_unique=True) for members in self.members]
        return [
            ", ".join(name for name, its in zip(self.choices, has, strict=True) if its[i]) for i in range(len(rows))
        ]

    def counts(self, chosen: np.ndarray) -> list[int] | None:
        if len(self.choices) > MOST_LISTED:
            return None
        none = self.matching("") & chosen
        return [*(int(chosen[members].sum()) for members in self.members), int(none.sum())]


class Coder:
    """Texts as numbers, a block after the other."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._parts: list[np.ndarray] = []

    def add(self, texts: Iterable[str]) -> None:
        codes = self._codes
        self._parts.append(np.array([codes.setdefault(text, len(codes)) for text in texts], np.int32))

    @property
    def column(self) -> Choice:
        """The texts in their order; an empty one is none."""
        choices = sorted(filter(None, self._codes))
        places = {text: place for place, text in enumerate(choices)}
        place_of_code = np.array([places.get(text, -1) for text in self._codes], np.int32)
        return Choice(place_of_code[np.concatenate(self._parts)], choices)


def place_of(asked: str, choices: Sequence[str]) -> int:
    """Return the place of a text among the choices, -1 of an empty one."""
    if not asked:
        return -1
    try:
        return choices.index(asked)
    except ValueError:
        raise QueryError(f"no sample can have {asked!r}") from None


def plain(value: Any) -> float | None:
    """Return a number as JSON takes it, with as many digits as are shown at most; None for what is not finite."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
