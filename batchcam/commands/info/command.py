"""info as the command line asks for it: once, or again and again until the run is complete. No torch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from batchcam.commands.compare.flips import Flips, count_flips
from batchcam.commands.info import info as reading
from batchcam.commands.info import prometheus
from batchcam.commands.info.config import InfoConfig
from batchcam.commands.info.watch import Watch, Watcher, require_progress
from batchcam.errors import ConfigError
from batchcam.job.stop import wait
from batchcam.record.exposition import require_ours
from batchcam.store.bringing import require_here
from batchcam.store.series import is_series, require_run


def info(config: InfoConfig) -> reading.RunInfo:
    """Return what a run is; of a run in progress, what has landed so far.

    Raises:
        RunError: not a run directory, a file of it is damaged, or no shard landed for as long as `--stall` says.
        ConfigError: what lies at `--prometheus` is not ours; `--against` has no class of the run, or is given alone;
            the run has no column to group by, or of clusters.
    """
    _require_ours(config)
    if config.stall is not None:
        require_run(config.run, "--stall")
        require_here(config.run, "--stall")
    about = reading.info(config.run, config.confidence / 100, config.cluster)
    if config.group_by:
        groups = reading.group_scores(config.run, config.group_by, about.level, config.cluster)
        about = dataclasses.replace(about, group_by=config.group_by, groups=groups)
    if config.prometheus:
        tasks = {} if is_series(config.run) else Watcher(config.run).look().tasks
        prometheus.write(config.prometheus, about, tasks, _flips(config, about.complete))
    if config.stall is not None:
        require_progress(Watcher(config.run).look(), config.stall)
    return about


def watch(
    config: InfoConfig,
    interval_s: float = 2.0,
    sleep: Callable[[float], None] = wait,
    now: Callable[[], float] = time.time,
) -> Iterator[Watch]:
    """Yield a look at a run every `interval_s` seconds, the last one when it is complete.

    Raises:
        RunError: not a run directory, its plan is damaged, or no shard landed for as long as `--stall` says.
        ConfigError: what lies at `--prometheus` is not ours; `--against` has no class of the run, or is given alone.
        StoppedEarlyError: a signal came.
    """
    _require_ours(config)
    require_run(config.run, "--watch")
    require_here(config.run, "--watch")
    watcher = Watcher(config.run, now)
    while True:
        seen = watcher.look()
        if config.prometheus:
            about = reading.info(config.run, config.confidence / 100, config.cluster) if seen.complete else seen
            prometheus.write(config.prometheus, about, seen.tasks, _flips(config, seen.complete))
        yield seen
        if seen.complete:
            return
        if config.stall is not None:
            require_progress(seen, config.stall)
            interval_s = min(interval_s, config.stall)
        sleep(interval_s)


def _flips(config: InfoConfig, complete: bool) -> Flips | None:
    return count_flips(config.against, config.run) if config.against and complete else None


def _require_ours(config: InfoConfig) -> None:
    if config.prometheus:
        require_ours(config.prometheus)
    elif config.against:
        raise ConfigError("--against: counts flips for --prometheus: give that too, or see batchcam compare")
