"""What `nightly` is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchcam.config.options import AnyPath, Given, argument, field, passed_on
from batchcam.config.places import require_link
from batchcam.config.shared import LARGEST_COUNT, Config
from batchcam.errors import ConfigError

LATEST: Final = "latest"
"""The link to the newest run that was verified."""

TREND: Final = "trend"
"""The folder of what moves over the nights, and the name of its document."""


class NightlyConfig(Config):
    """Everything that `nightly` is asked."""

    checkpoint: Given[Path, AnyPath] = argument("CKPT")
    data: Given[str, AnyPath] = argument()
    runs: Given[Path, AnyPath] = argument()
    options: tuple[str, ...] = passed_on("explain")
    keep: int | None = field(
        "Remove runs that are older than the N newest complete ones that verify has passed, but not those that the "
        "file RUNS/keep names, one a line, nor the reference of --trend.  [default: keep all]",
        low=1,
        high=LARGEST_COUNT,
        metavar="N",
    )
    incremental: bool = field(
        "Explain only what no complete run of RUNS holds already, as `explain --new-since` tells it.", default=False
    )
    sign: Given[Path | None, AnyPath | None] = field(
        "Sign the manifest of each verified run with this SSH key: RUN/signatures/manifest.json.sig.", metavar="KEY"
    )
    trend: bool = field(
        "Hold each verified run against the nights before it: RUNS/trend/trend.html, and a finding (3) for an alarm.",
        default=False,
    )
    on_end: str | None = field(
        "Run this by the shell when the night has ended, with NIGHT_OUTCOME (done, findings, stopped, failed), "
        "NIGHT_EXIT_CODE and NIGHT_RUN in its environment.",
        metavar="COMMAND",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.incremental and self.keep:
            raise ConfigError("--incremental and --keep exclude each other: an older run may alone hold a photo")
        require_link(self.runs / LATEST)
