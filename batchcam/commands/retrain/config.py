"""What `retrain` is asked."""

from __future__ import annotations

from pathlib import Path

from batchcam.config.gates import Gates
from batchcam.config.options import AnyPath, Given, argument, field, passed_on
from batchcam.config.places import require_version
from batchcam.config.shared import Config
from batchcam.errors import ConfigError


class RetrainConfig(Gates, Config):
    """Everything that `retrain` is asked."""

    train: Given[str, AnyPath] = argument()
    test: Given[str, AnyPath] = argument()
    version_folder: Given[Path, AnyPath] = argument("VERSION")
    options: tuple[str, ...] = passed_on("train")
    seeds: int = field(
        "Once VERSION is promoted, train and explain it again from so many other seeds, into VERSION/noise: what "
        "retraining alone moves, for the limits of the next version that are auto.",
        default=0,
        low=0,
        high=1000,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds == 1:
            raise ConfigError("--seeds 1: one retraining has no spread: say at least 2")
        require_version(self.version_folder)
