"""What `jobs` is asked."""

from __future__ import annotations

from pathlib import Path

from batchcam.config.options import argument
from batchcam.config.shared import Config


class JobsConfig(Config):
    """Everything that `jobs` is asked."""

    folder: Path = argument(metavar="DIR")
