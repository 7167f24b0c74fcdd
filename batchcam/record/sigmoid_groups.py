"""How the classes of a multi-label run fare in groups of samples: a row for each group and class, the worst first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from batchcam.record.groups import fewer_than_others
from batchcam.record.intervals import LEVEL, Interval, holm
from batchcam.record.sigmoid_scores import SigmoidScore, SigmoidScores
from batchcam.rules import FEWEST_IN_GROUP


@dataclasses.dataclass(frozen=True)
class SigmoidGroup:
    """How one class of a multi-label run fares in one group.

    Attributes:
        group: its value of each column.
        samples: of the group.
        score: of the class, over these.
        sensitivity_interval, specificity_interval: those of the score; None without a yes, or a no.
        p: probability that so few of its yes are told, or so few of its no, whichever is less, if the group were drawn
            from all known labels of the class at random: by Fisher's exact test, corrected by Holm for all of these;
            None where there are too few of both. Where samples have clusters, as in `GroupScore`.
    """

    group: tuple[str, ...]
    samples: int
    score: SigmoidScore
    sensitivity_interval: Interval | None
    specificity_interval: Interval | None
    p: float | None

    @property
    def named(self) -> tuple[str, ...]:
        """What tables name the row by."""
        return *self.group, self.score.name

    @property
    def is_judged(self) -> bool:
        """Whether enough labels are known."""
        return self.score.known >= FEWEST_IN_GROUP

    @property
    def falls_behind(self) -> bool:
        """Whether fewer of its yes, or of its no, are told than of the others', by more than chance."""
        return self.p is not None and self.p < 1 - LEVEL

    @property
    def rank(self) -> tuple[object, ...]:
        """What tables of groups are sorted by: the least AUROC first, then without one, then with too few labels."""
        auroc = self.score.auroc
        return not self.is_judged, auroc is None, auroc or 0, self.group, self.score.name


def sigmoid_groups(
    scores: SigmoidScores, of_all: Sequence[SigmoidScore], groups: Iterable[tuple[tuple[str, ...], np.ndarray]]
) -> list[SigmoidGroup]:
    """Return how each class fares in each group, the least AUROC first.

    Args:
        of_all: what they are over all groups.
        groups: each with the rows of its samples, as they were added.
    """
    found: list[tuple[tuple[str, ...], int, SigmoidScore]] = []
    places, chances = [], []
    for group, rows in groups:
        for score, whole in zip(scores.scores(rows), of_all, strict=True):
            for own, design, all_, of_whole in zip(score.hits, score.designs, whole.hits, whole.designs, strict=True):
                if (chance := fewer_than_others(own, design, all_, of_whole)) is not None:
                    places.append(len(found))
                    chances.append(chance)
            found.append((group, len(rows), score))
    least: dict[int, float] = {}
    for place, chance in zip(places, holm(chances), strict=True):
        least[place] = min(chance, least.get(place, 1))
    told = [
        SigmoidGroup(group, samples, s, s.intervals["sensitivity"], s.intervals["specificity"], least.get(place))
        for place, (group, samples, s) in enumerate(found)
    ]
    return sorted(told, key=lambda each: each.rank)
