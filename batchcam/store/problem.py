"""Whether one class of a sample is true in a run, or each by itself."""

from __future__ import annotations

import contextlib
from pathlib import Path

from batchcam.errors import ConfigError, RunError
from batchcam.store.opening import open_run
from batchcam.store.plan import Plan, open_plan
from batchcam.store.series import find_runs, is_series


def require_single_label(asked: str, *paths: Path) -> None:
    """Refuse multi-label runs where `asked` tells of them as if one class of a sample were true.

    What can't be read as a run is left to the command to tell.

    Raises:
        ConfigError: a path is such a run, a shard of one, or a series of such.
    """
    for path in paths:
        with contextlib.suppress(RunError, OSError):
            if _plan(path).is_multi_label:
                raise ConfigError(f"{path}: is multi-label: {asked} can't tell it yet; use batchcam info")


def _plan(path: Path) -> Plan:
    if path.is_file():
        with open_run(path) as shard:
            return shard.plan
    return open_plan(find_runs(path).complete[-1] if is_series(path) else path)
