"""info --prometheus: numbers of a run for node_exporter's textfile collector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from batchcam.commands.compare.flips import Flips
from batchcam.commands.info.info import RunInfo
from batchcam.commands.info.watch import STATES, Watch, working_seconds
from batchcam.job.scheduler import epoch_seconds
from batchcam.record.exposition import exposition
from batchcam.rules import Status, flag_name
from batchcam.store import landing
from batchcam.store.document import read_document
from batchcam.store.schema import MANIFEST_FILE

METRICS: Final = {
    "samples": "Samples in the shards that have landed.",
    "unreadable": "Samples that could not be read; of a run that is watched, as its tasks found until now.",
    "labelled": "Samples with label and prediction, of which accuracy is the share; not of a run that is watched.",
    "accuracy": "Correct predictions by labelled samples, 0 to 1; absent without labels.",
    "accuracy_low": "Lower end of the interval of the accuracy, over samples or --cluster, at --confidence.",
    "accuracy_high": "Upper end of it.",
    "compared": "Samples compared with the run that --against names; absent without, and before the run is complete.",
    "flips": "Of these, predictions that are another class; in multi-label runs samples of which a class flipped.",
    "shards": "Shards of the plan.",
    "shards_landed": "Shards on disk.",
    "complete": "1 when the manifest and all shards are there, else 0.",
    "last_success_timestamp_seconds": "When the run was completed, in seconds of the epoch; absent before.",
    "task_seconds": "Seconds that all tasks have worked together.",
    "tasks": "Tasks by state, without those whose share a later one took over.",
}


def write(path: Path, about: RunInfo | Watch, tasks: Mapping[str, int], flips: Flips | None) -> None:
    """Land the metrics of a run under `path`, whole: a collector that reads meanwhile sees the old ones or these.

    Args:
        tasks: how many are in each state.
        flips: what a comparison counted, None where there is none.
    """
    counted = _of_watch(about) if isinstance(about, Watch) else _of_run(about)
    values = {
        **counted,
        "compared": flips.compared if flips else None,
        "flips": flips.flips if flips else None,
        "shards": about.shards,
        "shards_landed": about.shards_landed,
        "complete": int(about.complete),
        "last_success_timestamp_seconds": _completed(about) if about.complete else None,
    }
    states = {state: tasks.get(state, 0) for state in STATES}
    landing.land(path, text(about.run, values, states).encode())


def text(run: str, values: Mapping[str, float | None], tasks: Mapping[str, int]) -> str:
    """Return metrics of `run` in Prometheus's text format; those that have no value are left out.

    Args:
        run: what the label says.
        values: by name in METRICS; of tasks none.
        tasks: by state.
    """
    label = {"run": run}
    counts = [(label | {"state": state}, count) for state, count in tasks.items()]
    known = {name: [(label, value)] for name, value in values.items() if value is not None} | {"tasks": counts}
    return exposition((name, meaning, known.get(name, ())) for name, meaning in METRICS.items())


def _of_run(about: RunInfo) -> dict[str, float | None]:
    totals = about.totals
    return {
        "samples": totals["samples"],
        "unreadable": totals["status"][flag_name(Status.UNREADABLE)],
        "labelled": totals.get("labelled"),
        "accuracy": totals.get("accuracy"),
        **dict(zip(("accuracy_low", "accuracy_high"), about.intervals.get("accuracy") or (None, None), strict=True)),
        "task_seconds": working_seconds(about.tasks),
    }


def _of_watch(seen: Watch) -> dict[str, float | None]:
    return {
        "samples": seen.samples_landed,
        "unreadable": seen.unreadable,
        "task_seconds": seen.task_seconds,
    }


def _completed(about: RunInfo | Watch) -> float | None:
    """Return when the manifest of a complete run, or the last of a series, was written: as it says, not its copy."""
    names = [run.run for run in about.runs] if isinstance(about, RunInfo) else []
    manifests = [Path(about.run, name, MANIFEST_FILE) for name in names or ["."]]
    times = [epoch_seconds(read_document(manifest)["made"].get("when")) for manifest in manifests]
    return max((time for time in times if time is not None), default=None)
