"""What `trend` is asked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from batchcam.config.options import AnyPath, Given, field, run_argument
from batchcam.config.shared import LARGEST_COUNT, Config, grouping, overwriting
from batchcam.rules import BASELINE_NIGHTS, FEWEST_NIGHTS


class TrendConfig(Config):
    """Everything that `trend` is asked."""

    runs: Given[tuple[Path, ...], AnyPath | Iterable[AnyPath]] = run_argument("RUNS...")
    _: dataclasses.KW_ONLY
    out: Given[Path | None, AnyPath | None] = field(
        "Folder for trend.html, trend.csv and trend.json; what trend.json says of a run, also of one that is gone "
        "since, is not read again."
    )
    reference: Given[Path | None, AnyPath | None] = field(
        "Run that flips and CAM similarity are told against.  [default: that of --out, else the first of RUNS]",
        metavar="RUN",
        reads_run=True,
    )
    baseline: int = field(
        "Nights that are not judged but tell what is usual; begins again with another checkpoint.",
        default=BASELINE_NIGHTS,
        low=FEWEST_NIGHTS,
        high=LARGEST_COUNT,
        metavar="N",
    )
    one_baseline: bool = field("Hold nights against those before a change of the checkpoint, too.", default=False)
    since: str | None = field(
        "Begin the baseline again with this night, where what changed there is meant to stay.", metavar="NIGHT"
    )
    group_by: tuple[str, ...] = grouping()
    alarm: bool = field(
        "Tell the alarms of the newest night alone, a line each; nothing when all is well.", default=False
    )
    prometheus: Path | None = field(
        "Write the newest night's numbers for node_exporter's textfile collector, which reads files whose names end "
        "in .prom.",
        metavar="FILE",
    )
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        given: AnyPath | Iterable[AnyPath] = self.runs
        paths = [given] if isinstance(given, (str, os.PathLike)) else given
        object.__setattr__(self, "runs", tuple(map(Path, paths)))
        super().__post_init__()
