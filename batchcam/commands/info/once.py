"""info as the command line asks for it: one look."""

from __future__ import annotations

from batchcam.commands.info import info as reading
from batchcam.commands.info.config import InfoConfig
from batchcam.commands.info.watch import Watcher, require_progress


def info(config: InfoConfig) -> reading.RunInfo:
    """Return what a run is; of a run in progress, what has landed so far.

    Raises:
        RunError: not a run directory, a file of it is damaged, or no shard landed for as long as `--stall` says.
    """
    if config.stall is not None:
        require_progress(Watcher(config.run).look(), config.stall)
    return reading.info(config.run)
