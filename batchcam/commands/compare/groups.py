"""What moved in groups of samples, such as those of one hospital."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from batchcam.commands.compare.movement import Flip, Pairs
from batchcam.commands.compare.reading import Part, Sides
from batchcam.commands.compare.sigmoids import SigmoidGroupMovement, SigmoidPairs
from batchcam.errors import ConfigError
from batchcam.job.console import counted
from batchcam.record.groups import Grouped, RowGroups, Tally, grouped_by
from batchcam.record.intervals import wilson
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
        self._sides, self._columns = sides, columns
        self._grouped, self._rows = Grouped(), RowGroups()
        self._otherwise = 0
        self._new, self._old = (_stored(run, columns) for run in (sides.new, sides.old))
        if self._new is None and self._old is None:
            grouped_by(columns, sides.new.plan.meta, sides.new.path)

    def add(self, part: Part, pairs: Pairs) -> None:
        """Count the compared samples of a part.

        Raises:
            ConfigError: there are too many groups.
            RunError: a column can't be read.
        """
        if not self._columns:
            return
        new = [self._sides.of_new(name, part.new_rows) for name in self._new or ()]
        old = [self._sides.old[name][part.old_rows] for name in self._old or ()]
        if new and old:
            self._otherwise += int(np.any([a != b for a, b in zip(new, old, strict=True)], 0).sum())
        columns = new or old
        if self._sides.are_multi_label:
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
        self._grouped.add(columns, kinds, (pairs.spearman,))

    @property
    def notes(self) -> list[str]:
        """Whose groups they are, where the runs differ in that."""
        named = ", ".join(self._columns)
        if self._columns and self._new is None:
            return [f"groups by {named} are OLD's: NEW has no such column"]
        if self._otherwise:
            return [f"groups are NEW's: of {counted(self._otherwise, 'compared sample')} OLD says another {named}"]
        return []

    def found(self, sigmoids: SigmoidPairs | None) -> list[GroupMovement] | list[SigmoidGroupMovement]:
        """Return what moved in each group: the largest drop of accuracy first, then those with too few labels.

        Args:
            sigmoids: of multi-label runs: then each class in each group, the largest drop of AUROC first.
        """
        if sigmoids:
            return sorted((m for each in self._rows for m in sigmoids.group(*each)), key=lambda m: m.rank)
        moved = [_movement(tally) for tally in self._grouped.tallies()]
        drops = {m.group: -math.inf if m.accuracy_drop is None else m.accuracy_drop for m in moved}
        return sorted(moved, key=lambda m: (not m.is_judged, -drops[m.group], m.group))


def _stored(run: Run, columns: Sequence[str]) -> list[str] | None:
    """Return the arrays of columns, None where the run lacks one."""
    try:
        names = grouped_by(columns, run.plan.meta, run.path)
    except ConfigError:
        return None
    return [meta_array(name).name for name in names]


def _movement(tally: Tally) -> GroupMovement:
    compared, flips, labelled, old, new, fixed = tally.counts
    return GroupMovement(
        group=tally.group,
        compared=compared,
        flips=flips,
        flips_interval=wilson(flips, compared),
        labelled=labelled,
        old_correct=old,
        new_correct=new,
        fixed=fixed,
        accuracy_drop=100 * (old - new) / labelled if labelled else None,
        spearman=tally.means[0],
    )
