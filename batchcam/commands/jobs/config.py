"""What `jobs` is asked."""

from __future__ import annotations

from pathlib import Path

from batchcam.config import Config, argument


class JobsConfig(Config):
    """Everything that `jobs` is asked."""

    folder: Path = argument(metavar="DIR")
