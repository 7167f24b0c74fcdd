"""What `compare` is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from batchcam.config import AnyPath, Config, Given, argument, field, overwriting, require_outside

LIMITS: Final = ("max_flips", "max_accuracy_drop", "min_cam_similarity", "min_class_similarity")

MIN_COMPARED: Final = 95.0
"""Per cent of OLD's samples below which what is compared says little of the runs."""

PERCENT: Final[dict[str, Any]] = {"low": 0, "high": 100, "metavar": "P"}
SIMILARITY: Final[dict[str, Any]] = {"low": -1, "high": 1, "metavar": "S"}


class CompareConfig(Config):
    """Everything that `compare` is asked.

    Where a limit of similarity is asked for, `min_compared` holds for the samples with a pair of CAMs, too.
    """

    old: Given[Path, AnyPath] = argument()
    new: Given[Path, AnyPath] = argument()
    max_flips: float | None = field("Gate: percent of compared samples whose prediction changed.", **PERCENT)
    max_accuracy_drop: float | None = field("Gate: percentage points, on samples labelled in both.", **PERCENT)
    min_cam_similarity: float | None = field("Gate: mean similarity (rank correlation) of the CAMs.", **SIMILARITY)
    min_class_similarity: float | None = field("Gate: the same of each class with ten pairs of CAMs.", **SIMILARITY)
    min_compared: float | None = field(
        f"Gate: percent of OLD compared.  [default: {MIN_COMPARED:g} with a gate; 0: off]", **PERCENT
    )
    out: Given[Path | None, AnyPath | None] = field("Folder for compare.h5, compare.json and movers.csv.")
    shared_classes: bool = field("Compare the classes that both runs name, and leave out the others.", default=False)
    target: str = field("Whose class's CAMs to compare.", default="old", choices=("old", "new", "label"))
    top: int = field("Movers to list of each kind.", default=50, low=0, high=10_000)
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out is not None:
            for run in (self.old, self.new):
                require_outside(self.out, run.parent if run.is_file() else run)

    @property
    def limits(self) -> dict[str, float | None]:
        """The gates' limits by name, None where none was asked for."""
        return {name: getattr(self, name) for name in LIMITS}

    @property
    def evidence(self) -> float:
        """Per cent of OLD's samples that have to be compared, 0 where nothing depends on it."""
        if self.min_compared is not None:
            return self.min_compared
        return MIN_COMPARED if any(value is not None for value in self.limits.values()) else 0

    @property
    def is_gate(self) -> bool:
        """Whether a limit was asked for."""
        return self.evidence > 0 or any(value is not None for value in self.limits.values())

    @property
    def judges_maps(self) -> bool:
        """Whether a limit of similarity was asked for."""
        return any(value is not None for name, value in self.limits.items() if name.endswith("similarity"))
