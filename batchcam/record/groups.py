"""How groups of samples fare, such as those of one hospital: a row for each, the worst first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from batchcam.errors import ConfigError
from batchcam.record.intervals import LEVEL, fewer_by_chance, holm, wilson

FEWEST: Final = 20
"""Labelled samples below which a group is not judged."""

MOST_GROUPS: Final = 10_000
"""More are no groups, but a name a sample."""

_COUNTED: Final = ("samples", "labelled", "correct", "predicted", "unreadable")


@dataclasses.dataclass(frozen=True)
class GroupScore:
    """How one group fares.

    Attributes:
        group: its value of each column.
        samples: of the group.
        labelled: with a label and a prediction.
        correct: of these.
        accuracy: their share; None without any labelled sample.
        interval: of the accuracy, by Wilson; None likewise.
        confidence: mean softmax of the predicted class; None without a prediction, or where it is not known.
        unreadable: samples that could not be read.
        p: probability of so few correct ones if the group were drawn from all labelled samples at random, by Fisher's
            exact test, corrected by Holm for the groups that are judged; None of a group below `FEWEST`.
    """

    group: tuple[str, ...]
    samples: int
    labelled: int
    correct: int
    accuracy: float | None
    interval: tuple[float, float] | None
    confidence: float | None
    unreadable: int
    p: float | None

    @property
    def falls_behind(self) -> bool:
        """Whether its accuracy is lower than that of the others by more than chance."""
        return self.p is not None and self.p < 1 - LEVEL


class GroupCounts:
    """What scores of groups are made of, counted part by part."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, ...], int] = {}
        self._counts = np.zeros((len(_COUNTED), 0), np.int64)
        self._confidence = np.zeros(0)

    def add(self, columns: Sequence[Iterable[str]], rows: Mapping[str, np.ndarray]) -> None:
        """Count some samples.

        Args:
            columns: a value of each sample, by column.
            rows: `label`, `prediction` (-1: none), `unreadable` and, if known, `confidence` (NaN: none) of each, (n,).

        Raises:
            ConfigError: there are more than `MOST_GROUPS` groups.
        """
        groups = self._number(columns)
        label, prediction = rows["label"], rows["prediction"]
        confidence = rows.get("confidence", np.full(len(label), np.nan))
        labelled, predicted = (label >= 0) & (prediction >= 0), np.isfinite(confidence)
        kinds = (np.ones(len(label), bool), labelled, labelled & (label == prediction), predicted, rows["unreadable"])
        count = len(self._numbers)
        grown = count - len(self._confidence)
        self._counts = np.pad(self._counts, ((0, 0), (0, grown)))
        self._counts += [np.bincount(groups[kind], minlength=count) for kind in kinds]
        sums = np.bincount(groups[predicted], confidence[predicted].astype(float), count)
        self._confidence = np.pad(self._confidence, (0, grown)) + sums

    def scores(self) -> list[GroupScore]:
        """Return a score for each group: the least accurate first, then those below `FEWEST`, then unlabelled ones."""
        samples, labelled, correct, predicted, unreadable = self._counts
        judged = np.flatnonzero(labelled >= FEWEST).tolist()
        whole = int(correct.sum()), int(labelled.sum())
        chances = [fewer_by_chance(int(correct[g]), int(labelled[g]), *whole) for g in judged]
        p = dict(zip(judged, holm(chances), strict=True))
        scores = [
            GroupScore(
                group=group,
                samples=int(samples[g]),
                labelled=int(labelled[g]),
                correct=int(correct[g]),
                accuracy=float(correct[g] / labelled[g]) if labelled[g] else None,
                interval=wilson(int(correct[g]), int(labelled[g])),
                confidence=float(self._confidence[g] / predicted[g]) if predicted[g] else None,
                unreadable=int(unreadable[g]),
                p=p.get(g),
            )
            for group, g in self._numbers.items()
        ]
        return sorted(scores, key=lambda s: (s.p is None, s.accuracy is None, s.accuracy or 0, s.group))

    def _number(self, columns: Sequence[Iterable[str]]) -> np.ndarray:
        """Return the number of each sample's group, int64 (n,)."""
        numbers = self._numbers
        found = [numbers.setdefault(group, len(numbers)) for group in zip(*columns, strict=True)]
        if len(numbers) > MOST_GROUPS:
            raise ConfigError(f"--group-by: more than {MOST_GROUPS} groups: name a column that many samples share")
        return np.array(found, np.int64)


def require_groups(columns: Sequence[str], there: Iterable[str], multi_label: bool, whose: object) -> None:
    """Refuse to group samples by what no manifest said, or where several classes of one are true.

    Raises:
        ConfigError: a column is not there, or named twice; or each class is true by itself.
    """
    require_columns(columns, there, whose)
    if columns and multi_label:
        raise ConfigError(f"{whose}: is multi-label: --group-by can't tell it yet; leave it out")


def require_columns(wanted: Sequence[str], there: Iterable[str], whose: object) -> None:
    """Refuse columns that no manifest said.

    Raises:
        ConfigError: a column is not there, or named twice.
    """
    known = [*there]
    for name in wanted:
        if name not in known:
            told = f"it has {', '.join(known)}" if known else "it has none: only a manifest's further columns are kept"
            raise ConfigError(f"{whose}: no column {name!r}; {told}")
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"--group-by {' '.join(wanted)}: a column is named twice")
