"""What moved since an older run, as columns of the newer one's samples."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from batchcam.commands.compare.compare import set_side_by_side
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.reading import Sides, measure, stated_labels, target_classes
from batchcam.commands.view.columns import Choice, Column, Numbers
from batchcam.store.run import Run

FLIPS: Final = ("same", "fixed", "broken", "changed")
"""By the numbers of `compare`'s `Flip`."""


class Movement:
    """Two runs of the same samples.

    Attributes:
        old: the older run.
        old_rows: where it has each sample of the newer run, -1: nowhere, int64 (n,).

    Raises:
        ConfigError: they have no class in common, or one of them is multi-label.
        RunError: they have no sample in common, or one of them is damaged.
    """

    def __init__(self, old: Run, new: Run, old_path: Path) -> None:
        self.old = old
        self._asked = CompareConfig(old_path, new.path, shared_classes=True, quiet=True)
        # files of their own: what moved is read in another thread
        self._sides: Sides = set_side_by_side(self._asked, copy.deepcopy(old), copy.deepcopy(new))
        self.old_rows = np.full(len(new), -1)
        self.old_rows[self._sides.rows.new] = self._sides.rows.old
        self.rows_to_read = 2 * len(self._sides.rows.old)

    def columns(self, seen: Callable[[int], None]) -> dict[str, Column]:
        """Return what moved for each sample that can be compared; closes the files.

        Args:
            seen: told how many more rows are read.
        """
        sides, count = self._sides, len(self.old_rows)
        flip, before = np.full((2, count), -1, np.int32)
        confidence, change, spearman = np.full((3, count), np.nan, np.float32)
        with sides.old, sides.new:
            for part in sides.parts():
                compared = part.compared
                label, _ = stated_labels(compared, sides.classes)
                target = target_classes(compared, sides.classes, label, self._asked.target)
                pairs = measure(sides, compared, sides.classes, label, target, seen)
                rows = pairs.new_row
                flip[rows], before[rows] = pairs.flip, compared.old["prediction"]
                confidence[rows], change[rows] = pairs.old_confidence, pairs.confidence_change
                spearman[rows] = pairs.spearman
        return {
            "flip": Choice(flip, FLIPS),
            "old_prediction": Choice(before, self.old.class_names),
            "old_confidence": Numbers(confidence),
            "confidence_change": Numbers(change),
            "spearman": Numbers(spearman),
        }
