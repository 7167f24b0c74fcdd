"""What moved in groups of samples, such as those of one hospital."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from batchcam.commands.compare.designs import SideColumns
from batchcam.commands.compare.movement import Flip, Pairs
from batchcam.commands.compare.reading import Part, Sides
from batchcam.commands.compare.sigmoids import SigmoidGroupMovement, SigmoidPairs
from batchcam.record.clusters import INDEPENDENT, ClusterMeans, Design
from batchcam.record.groups import Grouped, RowGroups, Tally, grouped_by
from batchcam.record.intervals import LEVEL, Interval
from batchcam.rules import FEWEST_IN_GROUP
from batchcam.store.run import Run
from batchcam.store.schema import meta_array


@dataclasses.dataclass(frozen=True)
class GroupMovement:
    """What moved in one group.

    Attributes:
        group: its value of each column.
        compared: samples.
        flips: of these, predictions that are another class.
        flips_interval: of their share, by Wilson.
        labelled: samples that have one label in both runs.
        old_correct, new_correct: of those, predicted right.
        fixed: of those, by the new run alone.
        accuracy_drop: accuracy lost, in percentage points; None without labels.
        spearman: mean similarity of the maps, None without a pair of them.
        design: of the drop.
        intervals: of the drop of accuracy, by name, if there is any.
    """

    group: tuple[str, ...]
    compared: int
    flips: int
    flips_interval: tuple[float, float] | None
    labelled: int
    old_correct: int
    new_correct: int
    fixed: int
    accuracy_drop: float | None
    spearman: float | None
    design: Design = INDEPENDENT
    intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)

    @property
    def named(self) -> tuple[str, ...]:
        """What tables name the row by."""
        return self.group

    @property
    def is_judged(self) -> bool:
        """Whether enough samples are labelled."""
        return self.labelled >= FEWEST_IN_GROUP


class GroupMovements:
    """What moved in each group, counted part by part.

    Args:
        sides: the runs; the columns are those of the new one, or of the old one where only that has them all.
        columns: of the manifest.

    Raises:
        ConfigError: neither run has them.
    """

    def __init__(self, sides: Sides, columns: Sequence[str]) -> None:
        self._grouped, self._rows, self._are_multi_label = Grouped(), RowGroups(), sides.are_multi_label
        find = functools.partial(_stored, columns=columns)
        self._columns = SideColumns(sides, ("groups", ", ".join(columns)), find) if columns else None
        self._flips, self._drops = ClusterMeans(), ClusterMeans()

    def add(self, part: Part, pairs: Pairs, clusters: np.ndarray | None = None) -> None:
        """Count the compared samples of a part, of these clusters.

        Raises:
            ConfigError: there are too many groups.
            RunError: a column can't be read.
        """
        if not self._columns:
            return
        columns = self._columns.of(part)
        if self._are_multi_label:
            self._rows.add(columns)
            return
        labelled = pairs.label >= 0
        kinds = (
            np.ones(len(labelled), bool),
            pairs.flip != Flip.SAME,
            labelled,
            labelled & (pairs.old_prediction == pairs.label),
            labelled & (pairs.new_prediction == pairs.label),
            pairs.flip == Flip.FIXED,
        )
        groups = self._grouped.add(columns, kinds, (pairs.spearman,))
        self._flips.add(kinds[1], clusters, groups)
        self._drops.add(np.where(labelled, kinds[3].astype(float) - kinds[4], np.nan), clusters, groups)

    @property
    def notes(self) -> list[str]:
        """Whose groups they are, where the runs differ in that."""
        return self._columns.notes if self._columns else []

    def found(
        self, sigmoids: SigmoidPairs | None, level: float = LEVEL
    ) -> list[GroupMovement] | list[SigmoidGroupMovement]:
        """Return what moved in each group: the largest drop of accuracy first, then those with too few labels.

        Args:
            sigmoids: of multi-label runs: then each class in each group, the largest drop of AUROC first.
            level: of confidence.
        """
        if sigmoids:
            return sorted((m for each in self._rows for m in sigmoids.group(*each)), key=lambda m: m.rank)
        moved = []
        for number, tally in enumerate(self._grouped.tallies()):
            moved.append(_movement(tally, self._flips.design_of(number), self._drops.design_of(number), level))
        drops = {m.group: -math.inf if m.accuracy_drop is None else m.accuracy_drop for m in moved}
        return sorted(moved, key=lambda m: (not m.is_judged, -drops[m.group], m.group))


def _stored(run: Run, columns: Sequence[str]) -> list[str]:
    return [meta_array(name).name for name in grouped_by(columns, run.plan.meta, run.path)]


def _movement(tally: Tally, of_flips: Design, of_drop: Design, level: float) -> GroupMovement:
    compared, flips, labelled, old, new, fixed = tally.counts
    return GroupMovement(
        group=tally.group,
        compared=compared,
        flips=flips,
        flips_interval=of_flips.wilson(flips, compared, level),
        labelled=labelled,
        old_correct=old,
        new_correct=new,
        fixed=fixed,
        accuracy_drop=100 * (old - new) / labelled if labelled else None,
        spearman=tally.means[0],
        design=of_drop,
    )
