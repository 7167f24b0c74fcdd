"""What `promote` is asked."""

from __future__ import annotations

from pathlib import Path

from batchcam.config.gates import Gates
from batchcam.config.options import AnyPath, Given, argument, passed_on
from batchcam.config.places import require_version
from batchcam.config.shared import Config


class PromoteConfig(Gates, Config):
    """Everything that `promote` is asked."""

    checkpoint: Given[Path, AnyPath] = argument("CKPT")
    test: Given[str, AnyPath] = argument()
    version_folder: Given[Path, AnyPath] = argument("VERSION")
    options: tuple[str, ...] = passed_on("explain")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_version(self.version_folder)
