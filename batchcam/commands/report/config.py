"""What `report` is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchcam.config import (
    AnyPath,
    Gates,
    Given,
    PartialConfig,
    field,
    flag,
    originals,
    overwriting,
    require_outside,
    required,
)
from batchcam.errors import ConfigError

SUFFIXES: Final = (".html", ".htm")
MOST_TOP: Final = 200  # pictures of a kind: about 15 kB each, in a file that mail should carry

OF_ONE_RUN: Final = ("group_by", "confidence", "cluster")
"""What of `Gates` means something without an older run."""


class ReportConfig(Gates, PartialConfig):
    """Everything that `report` is asked."""

    out: Given[Path, AnyPath] = required("FILE.html: one file that needs nothing else.")
    data: str | None = originals()
    against: Given[Path | None, AnyPath | None] = field(
        "An older run of the same samples: tell what moved since; a gate that stops ends with 3.",
        metavar="OLD",
        reads_run=True,
    )
    review: tuple[AnyPath, ...] = field(
        "A file with people's verdicts on samples of the run, or a folder of them; may be repeated: show what follows.",
        default=(),
        metavar="PATH",
    )
    top: int = field("Most pictures of each kind.", default=24, low=0, high=MOST_TOP)
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"--out {self.out}: want a name that ends in .html")
        if self.against is None and (asked := [name for name in self.given if name not in OF_ONE_RUN]):
            raise ConfigError(f"{flag(asked[0])} needs --against")
        for run in (self.run, self.against):
            if run is not None:
                require_outside(self.out, run.parent if run.is_file() else run)
