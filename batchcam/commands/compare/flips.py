"""How many predictions are another class than in an older run, or in multi-label runs how many samples have a flip.

What compare counts, without reading a map.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from batchcam.commands.compare.matching import match_classes
from batchcam.commands.compare.reading import Sides
from batchcam.commands.compare.sigmoids import SigmoidPairs
from batchcam.job.stop import stop_if_asked
from batchcam.store.opening import open_run
from batchcam.store.problem import require_one_problem


@dataclasses.dataclass(frozen=True)
class Flips:
    """How many samples two runs have in common that can be compared, and how many flips there are among them."""

    compared: int
    flips: int


def count_flips(old: Path, new: Path) -> Flips:
    """Return what moved between two runs; a class that only one of them has is another class.

    Raises:
        ConfigError: the runs have no class in common, or one is multi-label and one is not.
        RunError: not a run, or one of them is damaged.
    """
    with open_run(old) as old_run, open_run(new) as new_run:
        require_one_problem(old_run, new_run)
        classes = match_classes(old_run.class_names, new_run.class_names, shared_only=True)
        sides = Sides(old_run, new_run, classes)
        sigmoids = SigmoidPairs(sides) if sides.are_multi_label else None
        compared = flips = 0
        for part in sides.parts():
            before = classes.number(part.compared.old["prediction"], classes.old)
            after = classes.number(part.compared.new["prediction"], classes.new)
            flipped = sigmoids.read(part.compared).flips.any(1) if sigmoids else before != after
            compared, flips = compared + len(before), flips + int(flipped.sum())
            stop_if_asked()
        return Flips(compared, flips)
