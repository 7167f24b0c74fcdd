"""What `view` is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchcam.config.options import AnyPath, Given, field
from batchcam.config.places import require_outside
from batchcam.config.shared import PartialConfig, originals

HIGHEST_PORT: Final = 65535


class ViewConfig(PartialConfig):
    """Everything that `view` is asked."""

    against: Given[Path | None, AnyPath | None] = field(
        "An older run of the same samples, to be seen beside this one.", metavar="OLD", reads_run=True
    )
    data: str | None = originals()
    verdicts: Given[Path | None, AnyPath | None] = field(
        "CSV file outside of the run to which verdicts are added; what sample drew, into it or beside it, comes first.",
        metavar="FILE",
    )
    reviewer: str | None = field("Who judges.  [default: the name of this user]", metavar="NAME")
    at: str = field("Filter, order and sample to begin with: what stands after # in the page's address.", default="")
    port: int = field("Of 127.0.0.1; 0: any that is free.", default=0, low=0, high=HIGHEST_PORT)

    def __post_init__(self) -> None:
        super().__post_init__()
        for run in (self.run, self.against):
            if run is not None and self.verdicts is not None:
                require_outside(self.verdicts, run.parent if run.is_file() else run)
