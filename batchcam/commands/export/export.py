"""export: a run in the formats of other tools. Reads the run, writes below one folder. No torch."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Final, cast

from batchcam.commands.export import png, table, virelay, wsol
from batchcam.commands.export.folder import ExportFolder, identity_of
from batchcam.config import require_outside
from batchcam.errors import ConfigError
from batchcam.job.console import Progress
from batchcam.pictures import heatmap
from batchcam.pictures.originals import open_originals
from batchcam.pictures.protocol import PROTOCOL_SIZE
from batchcam.record.asked import open_asked
from batchcam.record.rows import Advance, Outcome, Target
from batchcam.store.run import Run

FORMATS: Final = ("virelay", "wsol", "png", "csv", "parquet")
TARGETS: Final = ("predicted", "label")
TAKES: Final = {
    "data": ("virelay", "png"),
    "target": ("virelay", "wsol", "png"),
    "size": ("virelay", "wsol"),
    "palette": ("png",),
}
"""Which formats an option is for."""

FILE_ENDINGS: Final = (".csv", ".parquet")
LARGEST_SIDE: Final = 4096


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What `export` is asked.

    Attributes:
        run: the run directory, or one of its shards.
        to: one of FORMATS.
        out: folder to write; new, empty, or an earlier call of the same export, which goes on.
        data: where the original images are; None: where the run found them, if they are still there.
        target: class explained: predicted or label; None: label for wsol, predicted for the others.
        size: HxW of the maps, or input (the network's), or for virelay grid (raw cells); None: 224x224 for wsol,
            input for virelay.
        palette: of the overlays; None: viridis.
        partial: leave out files that are gone or damaged.
        quiet: no progress.
    """

    run: Path
    to: str
    out: Path
    data: str | None = None
    target: str | None = None
    size: str | None = None
    palette: str | None = None
    partial: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        """Refuse what can't be meant.

        Raises:
            ConfigError: an option is unknown, or not one of this format, or the folder is named like a file.
        """
        _require_one_of("--to", self.to, FORMATS)
        for name, formats in TAKES.items():
            if getattr(self, name) is not None and self.to not in formats:
                raise ConfigError(f"--{name}: not an option of {self.to}, only of {', '.join(formats)}")
        if self.target is not None:
            _require_one_of("--target", self.target, TARGETS)
        if self.palette is not None:
            _require_one_of("--palette", self.palette, tuple(heatmap.PALETTES))
        if self.size not in (None, "input") and (self.size, self.to) != ("grid", "virelay"):
            _sides(str(self.size))
        if self.out.suffix.lower() in FILE_ENDINGS and not self.out.is_dir():
            raise ConfigError(f"--out {self.out}: a folder is made: name it without the ending")
        require_outside(self.out, self.run)


@dataclasses.dataclass(frozen=True)
class ExportSummary:
    """What an export holds.

    Attributes:
        format: one of FORMATS.
        out: its folder.
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
    if config.to == "parquet":
        table.import_pyarrow()  # before anything is written
    with open_asked(config.run, config.partial, config.quiet) as run:
        options: dict[str, Any] = {
            "target": _target(config) if config.to in TAKES["target"] else None,
            "size": _size(config, run),
            "palette": _palette(config) if config.to in TAKES["palette"] else None,
        }
        if run.lost:  # another export than the whole run's
            options["shards"] = [s.file for s in run.shards]
        folder = ExportFolder(config.out, identity_of(run.plan, config.to, options))
        with Progress("export", len(run), "samples", config.quiet) as progress:
            outcome = _write(config, run, folder, progress.advance)
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


def _write(config: ExportConfig, run: Run, folder: ExportFolder, advance: Advance) -> Outcome:
    if config.to == "csv":
        return table.write_csv(run, folder, advance)
    if config.to == "parquet":
        return table.write_parquet(run, folder, advance)
    target, size = _target(config), _size(config, run)
    if config.to == "wsol":
        return wsol.write(run, folder, target, size or PROTOCOL_SIZE, advance)
    originals = open_originals(run, config.data)
    if config.to == "png":
        return png.write(run, folder, originals, target, _palette(config), advance)
    return virelay.write(run, folder, originals, target, size, advance)


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
    return run.plan.input_size if config.size in (None, "input") else _sides(str(config.size))


def _incomplete(run: Run) -> str:
    state = f"{len(run.lost)} files of the run are damaged or gone" if run.lost else "the run is not complete"
    done, planned = len(run.shards), len(run.plan.shards)
    return f"{state}: {done} of {planned} shards, {len(run)} of {run.plan.sample_count} samples"


def _sides(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text, re.ASCII)
    height, width = (int(side) for side in match.groups()) if match else (0, 0)
    if not match or max(height, width) > LARGEST_SIDE:
        raise ConfigError(f"--size {text}: want HxW of at most {LARGEST_SIDE}, input, or grid (virelay)")
    return height, width


def _require_one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{option} {value}: choose one of {', '.join(known)}")
