"""What `info` is asked."""

from __future__ import annotations

from pathlib import Path

from batchcam.config.options import AnyPath, Given, field
from batchcam.config.shared import RunConfig, clustering, confidence, grouping
from batchcam.config.texts import parse_duration


class InfoConfig(RunConfig):
    """Everything that `info` is asked."""

    group_by: tuple[str, ...] = grouping()
    confidence: float = confidence()
    cluster: str | None = clustering()
    watch: bool = field(
        "Show a run in progress until it is complete; with --json a JSON object in a line for each look.", default=False
    )
    stall: float | None = field(
        "End with 1 when no shard has landed for this long and the run is not complete: 90s, 30m, 2h or HH:MM:SS; "
        "without --watch by one look.",
        metavar="TIME",
        parse=parse_duration,
        above=0,
    )
    prometheus: Path | None = field(
        "Write the run's numbers for node_exporter's textfile collector, which reads files whose names end in .prom; "
        "with --watch at each look.",
        metavar="FILE",
    )
    against: Given[Path | None, AnyPath | None] = field(
        "With --prometheus: count the predictions that are another class than in this older run (multi-label: samples "
        "of which a class flipped), once the run is complete.",
        metavar="OLD",
        reads_run=True,
    )
