"""How groups of samples fare, such as those of one hospital: a row for each, the worst first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from batchcam.errors import ConfigError
from batchcam.record.clusters import ClusterMeans, Design
from batchcam.record.intervals import LEVEL, Interval, fewer_by_chance, holm
from batchcam.record.metrics import mean_share_interval
from batchcam.record.names import stored_columns
from batchcam.rules import FEWEST_IN_GROUP

MOST_GROUPS: Final = 10_000
"""More are no groups, but a name a sample."""

MEASURES: Final = ("confidence", "border", "spread")
"""Whose means are told of groups."""


@dataclasses.dataclass(frozen=True)
class GroupScore:
    """How one group fares.

    Attributes:
        group: its value of each column.
        samples: of the group.
        labelled: with a label and a prediction.
        correct: of these.
        accuracy: their share; None without any labelled sample.
        interval: of the accuracy; None likewise.
        confidence: mean softmax of the predicted class; None without a prediction, or where it is not known.
        border, spread: means of border share and spread of the maps (see `evidence`); None where they are not known.
        intervals: of these means; None of less than two values.
        unreadable: samples that could not be read.
        p: probability of so few correct ones if the group were drawn from all labelled samples at random, by Fisher's
            exact test, corrected by Holm for the groups that are judged; None of one with too few. Where samples have
            clusters, of the effective number of samples; None of one cluster.
    """

    group: tuple[str, ...]
    samples: int
    labelled: int
    correct: int
    accuracy: float | None
    interval: Interval | None
    confidence: float | None
    border: float | None
    spread: float | None
    intervals: dict[str, Interval | None]
    unreadable: int
    p: float | None

    @property
    def named(self) -> tuple[str, ...]:
        """What tables name the row by."""
        return self.group

    @property
    def is_judged(self) -> bool:
        """Whether enough samples are labelled."""
        return self.p is not None

    @property
    def falls_behind(self) -> bool:
        """Whether its accuracy is lower than that of the others by more than chance."""
        return self.p is not None and self.p < 1 - LEVEL


@dataclasses.dataclass(frozen=True)
class Tally:
    """What was counted of one group.

    Attributes:
        counts: samples of each kind.
        means: of each measure, None without any.
        moments: of each measure the sum of the values and of their squares, and how many there are.
    """

    group: tuple[str, ...]
    counts: tuple[int, ...]
    means: tuple[float | None, ...]
    moments: tuple[tuple[float, float, float], ...]


class Numbering:
    """Numbers groups as they are met.

    Attributes:
        numbers: of each group.
    """

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, ...], int] = {}

    def of(self, columns: Sequence[Iterable[str]]) -> np.ndarray:
        """Return the number of the group of each sample, int64 (n,).

        Args:
            columns: a value of each sample, by column.

        Raises:
            ConfigError: there are more than `MOST_GROUPS` groups.
        """
        numbers = self.numbers
        found = [numbers.setdefault(group, len(numbers)) for group in zip(*columns, strict=True)]
        if len(numbers) > MOST_GROUPS:
            raise ConfigError(f"--group-by: more than {MOST_GROUPS} groups: name a column that many samples share")
        return np.array(found, np.int64)


class Grouped:
    """Counts and means by group, of samples that are added part by part."""

    def __init__(self) -> None:
        self._numbering = Numbering()
        self._counts, self._known, self._sums, self._squares = (np.zeros((0, 0)) for _ in range(4))

    def add(
        self, columns: Sequence[Iterable[str]], kinds: Sequence[np.ndarray], measures: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Add some samples, and return the number of the group of each, in the order of `tallies`, int64 (n,).

        Args:
            columns: a value of each sample, by column.
            kinds: of which samples each count is, bool (n,).
            measures: of which each mean is, float (n,), NaN where there is none.

        Raises:
            ConfigError: there are more than `MOST_GROUPS` groups.
        """
        groups, known = self._numbering.of(columns), [np.isfinite(values) for values in measures]
        self._counts = self._grown(self._counts, [(groups[kind], None) for kind in kinds])
        self._known = self._grown(self._known, [(groups[there], None) for there in known])
        sums = [(groups[there], values[there]) for there, values in zip(known, measures, strict=True)]
        self._sums = self._grown(self._sums, sums)
        self._squares = self._grown(self._squares, [(of, np.square(values, dtype=float)) for of, values in sums])
        return groups

    def _grown(self, sums: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> np.ndarray:
        grown = np.zeros((len(parts), len(self._numbering.numbers)))
        grown[: len(sums), : sums.shape[1]] = sums
        for row, (groups, weights) in zip(grown, parts, strict=True):
            row += np.bincount(groups, weights, len(row))
        return grown

    def tallies(self) -> Iterator[Tally]:
        """Yield what was counted of each group."""
        for group, number in self._numbering.numbers.items():
            counts = tuple(int(count) for count in self._counts[:, number])
            sums = (sums[:, number].tolist() for sums in (self._sums, self._squares, self._known))
            moments = tuple(zip(*sums, strict=True))
            yield Tally(group, counts, tuple(total / known if known else None for total, _, known in moments), moments)


class GroupCounts:
    """What scores of groups are made of, counted part by part."""

    def __init__(self) -> None:
        self._grouped = Grouped()
        self._right, self._measures = ClusterMeans(), {measure: ClusterMeans() for measure in MEASURES}

    def add(
        self, columns: Sequence[Iterable[str]], rows: Mapping[str, np.ndarray], clusters: np.ndarray | None = None
    ) -> None:
        """Count some samples.

        Args:
            columns: a value of each sample, by column.
            rows: `label`, `prediction` (-1: none), `unreadable` and, if known, `confidence`, `border` and `spread`
                (NaN: none) of each, (n,).
            clusters: number of each one's, int64 (n,).

        Raises:
            ConfigError: there are more than `MOST_GROUPS` groups.
        """
        label, prediction = rows["label"], rows["prediction"]
        labelled = (label >= 0) & (prediction >= 0)
        kinds = (np.ones(len(label), bool), labelled, labelled & (label == prediction), rows["unreadable"])
        unknown = np.full(len(label), np.nan)
        measured = [rows.get(measure, unknown) for measure in MEASURES]
        groups = self._grouped.add(columns, kinds, measured)
        self._right.add(np.where(labelled, label == prediction, np.nan), clusters, groups)
        for means, values in zip(self._measures.values(), measured, strict=True):
            means.add(values, clusters, groups)

    def scores(self, level: float = LEVEL) -> list[GroupScore]:
        """Return a score for each group: the least accurate first, then those not judged, then unlabelled ones.

        Args:
            level: of confidence of the intervals.
        """
        tallies, whole = list(self._grouped.tallies()), self._right.design()
        of_all = (sum(t.counts[2] for t in tallies), sum(t.counts[1] for t in tallies))
        chances = {
            number: fewer_than_others((t.counts[2], t.counts[1]), self._right.design_of(number), of_all, whole)
            for number, t in enumerate(tallies)
        }
        judged = {number: chance for number, chance in chances.items() if chance is not None}
        p = dict(zip(judged, holm([*judged.values()]), strict=True))
        scores = [self._score(number, tally, p.get(number), level) for number, tally in enumerate(tallies)]
        return sorted(scores, key=lambda s: (s.p is None, s.accuracy is None, s.accuracy or 0, s.group))

    def _score(self, number: int, tally: Tally, p: float | None, level: float) -> GroupScore:
        samples, labelled, correct, unreadable = tally.counts
        moments = zip(self._measures.items(), tally.moments, strict=True)
        return GroupScore(
            group=tally.group,
            samples=samples,
            labelled=labelled,
            correct=correct,
            accuracy=correct / labelled if labelled else None,
            interval=self._right.design_of(number).wilson(correct, labelled, level),
            **dict(zip(MEASURES, tally.means, strict=True)),
            intervals={
                name: mean_share_interval(*sums, level, means.design_of(number)) for (name, means), sums in moments
            },
            unreadable=unreadable,
            p=p,
        )


def fewer_than_others(
    part: tuple[int, int], design: Design, whole: tuple[int, int], design_of_whole: Design
) -> float | None:
    """Return the probability that a part has so few successes if it is drawn from the whole at random.

    Args:
        part, whole: successes and trials, those of the part are in the whole.
        design, design_of_whole: how much they tell: of clusters the effective numbers count, rounded.

    Returns:
        None of fewer than `FEWEST_IN_GROUP` trials, or of one cluster.
    """
    share, share_of_others = design.share(), design_of_whole.share()
    if part[1] < FEWEST_IN_GROUP or share is None or share_of_others is None:
        return None
    own = [round(share * count) for count in part]
    others = [round(share_of_others * (all_ - count)) for all_, count in zip(whole, part, strict=True)]
    return fewer_by_chance(own[0], own[1], own[0] + others[0], own[1] + others[1])


class RowGroups:
    """The rows of each group, of samples that are added part by part: 8 bytes are kept of each."""

    def __init__(self) -> None:
        self._numbering, self._parts = Numbering(), [np.empty(0, np.int64)]

    def add(self, columns: Sequence[Iterable[str]]) -> None:
        """Add some samples, as `Grouped` takes them."""
        self._parts.append(self._numbering.of(columns))

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Yield each group and its rows, ascending."""
        found, start = np.concatenate(self._parts), 0
        order = np.argsort(found, kind="stable")
        for group, count in zip(self._numbering.numbers, np.bincount(found).tolist(), strict=True):
            yield group, order[start : start + count]
            start += count


def group_name(group: Sequence[str]) -> str:
    """Return a group's values as people read them."""
    return ", ".join(value or "(empty)" for value in group)


def grouped_by(columns: Sequence[str], there: Iterable[str], whose: object) -> list[str]:
    """Return the columns to group samples by, as they are stored.

    Raises:
        ConfigError: a column is not there, or named twice.
    """
    stored = stored_columns(columns, there, whose)
    if len(set(stored)) < len(stored):
        raise ConfigError(f"--group-by {' '.join(columns)}: a column is named twice")
    return stored
