"""What `demo` is asked."""

from __future__ import annotations

from pathlib import Path

from batchcam.config.options import field, like
from batchcam.config.shared import Compute, Config, random_seed


class DemoConfig(Config):
    """Everything that `demo` is asked."""

    out: Path = field("New folder for everything.", default=Path("batchcam-demo"))
    seed: int = random_seed("images, weights and order")
    threads: int | None = like(Compute, "threads")
