"""Whether one class of a sample is true in a run, or each by itself."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from batchcam.errors import ConfigError, RunError
from batchcam.store.opening import open_run
from batchcam.store.plan import Plan, open_plan
from batchcam.store.run import Run
from batchcam.store.series import find_runs, is_series

WORDS: Final = {
    False: "is single-label: one class of a sample is true, by softmax",
    True: "is multi-label: each class is true or not by itself, by sigmoid",
}


def require_single_label(asked: str, *paths: Path, why: str = "can't tell it yet; use batchcam info") -> None:
    """Refuse multi-label runs where `asked` tells of them as if one class of a sample were true.

    What can't be read as a run is left to the command to tell; `why` says what is in the way, and what to use.

    Raises:
        ConfigError: a path is such a run, a shard of one, or a series of such.
    """
    for path in paths:
        if is_multi_label(path):
            raise ConfigError(f"{path}: is multi-label: {asked} {why}")


def is_multi_label(path: Path) -> bool | None:
    """Return whether a run, a shard of one, or a series is multi-label; None where that can't be read."""
    with contextlib.suppress(RunError, OSError):
        return _plan(path).is_multi_label
    return None


def require_one_problem(old: Run, new: Run) -> None:
    """Refuse two open runs of which one is single-label and one multi-label.

    Raises:
        ConfigError: they are.
    """
    first, second = old.plan.is_multi_label, new.plan.is_multi_label
    if first != second:
        raise ConfigError(
            f"{old.path} {WORDS[first]}; {new.path} {WORDS[second]}: explain one again with the other's --problem-type"
        )


def require_traced(asked: str, run: Path, plan: Plan) -> None:
    """Refuse a run of which it is not known what part of its images the maps cover.

    Raises:
        ConfigError: it is one.
    """
    if not plan.is_traced:
        raise ConfigError(
            f"{run}: which part of its images --transform showed can't be traced: {asked} can't lay maps over them"
        )


def _plan(path: Path) -> Plan:
    if path.is_file():
        with open_run(path) as shard:
            return shard.plan
    return open_plan(find_runs(path).complete[-1] if is_series(path) else path)
