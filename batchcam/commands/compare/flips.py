"""How many predictions are another class than in an older run: what compare counts, without reading a map."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from batchcam.commands.compare.matching import match_classes
from batchcam.commands.compare.reading import keep, match, read_side
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
        first, second = read_side(old_run), read_side(new_run)
        rows = keep(*match(first, second))
        before = classes.number(first.prediction[rows.old], classes.old)
        after = classes.number(second.prediction[rows.new], classes.new)
        return Flips(len(rows.old), int((before != after).sum()))
