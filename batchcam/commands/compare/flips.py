"""How many predictions are another class than in an older run: what compare counts, without reading a map."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from batchcam.commands.compare.matching import match_classes
from batchcam.commands.compare.reading import Sides
from batchcam.job.stop import stop_if_asked
from batchcam.store.opening import open_run


@dataclasses.dataclass(frozen=True)
class Flips:
    """How many samples two runs have in common that can be compared, and of how many the predictions differ."""

    compared: int
    flips: int


def count_flips(old: Path, new: Path) -> Flips:
    """Return what moved between two runs; a class that only one of them has is another class.

    Raises:
        ConfigError: the runs have no class in common.
        RunError: not a run, or one of them is damaged.
    """
    with open_run(old) as old_run, open_run(new) as new_run:
        classes = match_classes(old_run.class_names, new_run.class_names, shared_only=True)
        compared = flips = 0
        for part in Sides(old_run, new_run, classes).parts():
            before = classes.number(part.compared.old["prediction"], classes.old)
            after = classes.number(part.compared.new["prediction"], classes.new)
            compared, flips = compared + len(before), flips + int((before != after).sum())
            stop_if_asked()
        return Flips(compared, flips)
