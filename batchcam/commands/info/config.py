"""What `info` is asked."""

from __future__ import annotations

from batchcam.config import RunConfig, field


class InfoConfig(RunConfig):
    """Everything that `info` is asked."""

    watch: bool = field("Show a run in progress until it is complete.", default=False)
