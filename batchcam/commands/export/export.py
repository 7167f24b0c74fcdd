"""export: a run in the formats of other tools. Reads the run, writes below one folder. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, cast

from batchcam.commands.export import fiftyone, hdf5, intoto, npz, png, table, virelay, wsol, zarr
from batchcam.commands.export.config import TAKES, ExportConfig
from batchcam.commands.export.folder import ExportFolder, identity_of
from batchcam.commands.export.form import Form, Task
from batchcam.images.arrow_tables import import_pyarrow
from batchcam.job.console import Progress
from batchcam.pictures.protocol import PROTOCOL_SIZE
from batchcam.record.asked import open_asked
from batchcam.record.rows import Target, predicted_as
from batchcam.store.bringing import shown
from batchcam.store.problem import require_single_label
from batchcam.store.run import Run

WRITERS: Final[Mapping[str, Form]] = {
    "virelay": virelay.write,
    "wsol": wsol.write,
    "png": png.write,
    "csv": table.write_csv,
    "parquet": table.write_parquet,
    "npz": npz.write,
    "h5": hdf5.write,
    "zarr": zarr.write,
    "fiftyone": fiftyone.write,
    "intoto": intoto.write,
}


@dataclasses.dataclass(frozen=True)
class ExportSummary:
    """What an export holds.

    Attributes:
        format: one of FORMATS.
        files: of the export, other than export.json.
        kept: of them, those that an earlier call had written.
        samples: shown.
        skipped: samples of the run that are not shown.
        lost_files: shards, or run.h5, left out because they are gone or damaged.
        findings: original images that are no longer those explained, and lost files.
        notes: what a reader should know, a line each.
    """

    format: str
    out: str
    files: int
    kept: int
    samples: int
    skipped: int
    lost_files: int
    findings: int
    notes: tuple[str, ...]


def export(config: ExportConfig) -> ExportSummary:
    """Write a run, or what has landed of it, in another format; a rerun goes on where the last one stopped.

    Raises:
        RunError: not a run, nothing in it to export, or something else lies in the folder.
        BatchcamError: a file can't be written, or a package that the format needs is not installed.
    """
    if config.to == "wsol":
        one = "knows one class and one map of each image; batchcam localize judges the map of each annotated class"
        require_single_label("export --to wsol", config.run, why=one)
    elif config.target == "label":
        several = "is of one label a sample; leave it out, or show one class by batchcam render --class"
        require_single_label("export --target label", config.run, why=several)
    if config.to == "parquet":
        import_pyarrow()  # before anything is written
    with open_asked(config.run, config.partial, config.quiet) as run:
        options: dict[str, Any] = {
            "target": _target(config) if config.to in TAKES["target"] else None,
            "size": _size(config, run),
            "palette": _palette(config) if config.to in TAKES["palette"] else None,
        }
        if config.train_run is not None:
            options["train_run"] = shown(config.train_run)
        if config.predicted is not None:
            options["predicted"] = config.predicted
        if run.lost:  # another export than the whole run's
            options["shards"] = [[s.file for s in each.shards] for each in run.runs]
        meant = predicted_as(run, config.predicted)
        folder = ExportFolder(config.out, identity_of(run.plan, config.to, options))
        with Progress("export", len(run), "samples", config.quiet) as progress:
            task = Task(
                *(run, folder, meant, progress.advance, config.data, _target(config), _size(config, run)),
                *(_palette(config), config.train_run),
            )
            outcome = WRITERS[config.to](task)
            folder.finish()
            progress.advance(outcome.left_out)
        notes = outcome.notes if run.complete else (*outcome.notes, _incomplete(run))
    return ExportSummary(
        format=config.to,
        out=str(config.out),
        files=folder.files,
        kept=folder.kept,
        samples=outcome.samples,
        skipped=outcome.left_out,
        lost_files=len(run.lost),
        findings=outcome.changed + len(run.lost),
        notes=tuple(notes),
    )


def _target(config: ExportConfig) -> Target:
    return cast(Target, config.target or ("label" if config.to == "wsol" else "predicted"))


def _palette(config: ExportConfig) -> str:
    return config.palette or "viridis"


def _size(config: ExportConfig, run: Run) -> tuple[int, int] | None:
    """Return (H, W) of the maps; None for raw cells, and for formats that have no choice."""
    if config.to == "wsol" and config.size is None:
        return PROTOCOL_SIZE
    if config.to not in TAKES["size"] or config.size == "grid":
        return None
    return config.size if isinstance(config.size, tuple) else run.plan.input_size


def _incomplete(run: Run) -> str:
    state = f"{len(run.lost)} files of the run are damaged or gone" if run.lost else "the run is not complete"
    planned = sum(each.plan.sample_count for each in run.runs)
    return f"{state}: {run.state}, {len(run)} of {planned} samples"
