"""How much compared samples tell that are not independent, such as images of one patient: by clusters of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from batchcam.commands.compare.movement import Flip, Pairs
from batchcam.commands.compare.reading import Part, Sides
from batchcam.errors import ConfigError
from batchcam.job.console import counted
from batchcam.record.clusters import ClusterMeans, Clusters, Design, cluster_array, exchanged_by_chance
from batchcam.store.run import Run

WHOLE: Final = ("flips", "old_accuracy", "new_accuracy", "accuracy_drop")


class SideColumns:
    """Columns of the manifest of compared samples: those of the new run, or of the old one where only that has all.

    Args:
        sides: the runs.
        named: what the columns are for, and what they are called.
        find: returns their arrays in a run.

    Raises:
        ConfigError: neither run has them.
    """

    def __init__(self, sides: Sides, named: tuple[str, str], find: Callable[[Run], Sequence[str]]) -> None:
        self._sides, self._named, self._otherwise = sides, named, 0
        self._new, self._old = (_found(find, run) for run in (sides.new, sides.old))
        if self._new is None and self._old is None:
            find(sides.new)

    def of(self, part: Part) -> list[np.ndarray]:
        """Return the values of compared samples, by column.

        Raises:
            RunError: a column can't be read.
        """
        new = [self._sides.of_new(name, part.new_rows) for name in self._new or ()]
        old = [self._sides.old[name][part.old_rows] for name in self._old or ()]
        if new and old:
            self._otherwise += int(np.any([a != b for a, b in zip(new, old, strict=True)], 0).sum())
        return new or old

    @property
    def notes(self) -> list[str]:
        """Whose they are, where the runs differ in that."""
        what, named = self._named
        if self._new is None:
            return [f"{what} by {named} are OLD's: NEW has no such column"]
        if self._otherwise:
            return [f"{what} are NEW's: of {counted(self._otherwise, 'compared sample')} OLD says another {named}"]
        return []


def _found(find: Callable[[Run], Sequence[str]], run: Run) -> Sequence[str] | None:
    try:
        return find(run)
    except ConfigError:
        return None


class Designs:
    """The designs of what is told of compared samples, counted part by part.

    Args:
        sides: the runs.
        column: of the manifest, that says which samples belong together.

    Raises:
        ConfigError: neither run has it.
    """

    def __init__(self, sides: Sides, column: str) -> None:
        self._columns = SideColumns(
            sides, ("clusters", column), lambda run: [cluster_array(column, run.plan.meta, run.path)]
        )
        self.clusters = Clusters(column)
        self._whole = {name: ClusterMeans() for name in WHOLE}
        self.similarity, self.shifts = ClusterMeans(), ClusterMeans()

    def of(self, part: Part) -> np.ndarray:
        """Return the number of the cluster of each of some compared samples, int64 (n,)."""
        return self.clusters.of(self._columns.of(part)[0])

    def add(self, pairs: Pairs, clusters: np.ndarray) -> None:
        """Count the compared samples that come next, of these clusters."""
        old, new = (
            np.where(pairs.label >= 0, predicted == pairs.label, np.nan)
            for predicted in (pairs.old_prediction, pairs.new_prediction)
        )
        for name, values in zip(WHOLE, (pairs.flip != Flip.SAME, old, new, old - new), strict=True):
            self._whole[name].add(values, clusters, pairs.label)
        self.similarity.add(pairs.spearman, clusters, pairs.map_class)
        moved = pairs.old_prediction != pairs.new_prediction
        for classes, sign in ((pairs.new_prediction, 1), (pairs.old_prediction, -1)):
            self.shifts.add(np.full(int(moved.sum()), sign), clusters[moved], classes[moved])

    def found(
        self, of_classes: tuple[ClusterMeans, ClusterMeans], classes: Sequence[int]
    ) -> dict[tuple[str, int], Design]:
        """Return the designs by name and place of the class, -1: of all samples.

        Args:
            of_classes: means of the similarity of the maps, and of how much more often each class is predicted.
            classes: their numbers, by place.
        """
        self.clusters.require_several()
        designs = {(name, -1): means.design() for name, means in self._whole.items()}
        designs["spearman", -1] = self.similarity.design()
        sizes = self._whole["flips"].by_cluster()[0]
        for place, number in enumerate(classes):
            designs["accuracy_drop", place] = self._whole["accuracy_drop"].design_of(number)
            designs["spearman", place] = of_classes[0].design_of(number)
            designs["shift", place] = of_classes[1].design_of(number, sizes)
        return designs

    def change_p(self) -> float:
        """Return the p-value of the change of accuracy if OLD and NEW could be exchanged, cluster by cluster."""
        return exchanged_by_chance(self._whole["accuracy_drop"].by_cluster()[1])

    def notes(self, designs: dict[tuple[str, int], Design]) -> list[str]:
        """Return what readers of the intervals should know."""
        told = {name.replace("_", " "): designs[name, -1] for name in ("flips", "accuracy_drop")}
        return [*self.clusters.notes({**told, "similarity": designs["spearman", -1]}), *self._columns.notes]
