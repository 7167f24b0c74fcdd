"""sample: draw samples of a run at random, for people to judge. No torch."""

from __future__ import annotations

import dataclasses

import numpy as np

from batchcam.commands.render.selection import select
from batchcam.commands.report.reading import show
from batchcam.commands.sample.config import SampleConfig
from batchcam.commands.sample.sheet import write_sheet
from batchcam.errors import ConfigError
from batchcam.job.console import note
from batchcam.pictures.originals import State, open_originals
from batchcam.record.asked import open_asked
from batchcam.record.draw import CLASS, DRAW_FILE, Draw, Stratum, draw, read_draw
from batchcam.record.study import land_study, require_place, run_notes
from batchcam.record.verdicts import sheet_of
from batchcam.store import bringing
from batchcam.store.ours import ADVICE
from batchcam.store.problem import require_single_label

VERDICTS_FILE = "verdicts.csv"
SHEET_FILE = "sheet.html"
LAYOUT = 1


@dataclasses.dataclass(frozen=True)
class SampleSummary:
    """What was drawn.

    Attributes:
        out: the folder.
        pool: the options that chose the samples drawn from, "": all of the run.
        size: samples drawn from.
        drawn: of them.
        strata: in which they were drawn.
        without_image: shown without their original.
        changed: of these, images that are no longer those explained.
        lost_files: shards, or run.h5, left out because they are gone or damaged.
        notes: what a reader should know, a line each.
    """

    run: str
    out: str
    pool: str
    size: int
    drawn: int
    strata: tuple[Stratum, ...]
    without_image: int
    changed: int
    lost_files: int
    notes: tuple[str, ...]

    @property
    def findings(self) -> int:
        """How many images are not those explained, and lost files."""
        return self.changed + self.lost_files


def sample(config: SampleConfig) -> SampleSummary:
    """Draw samples of a run, and write what people need to judge them.

    Raises:
        ConfigError: there are fewer samples, strata are too many, or something else lies in the folder.
        RunError: not a run.
    """
    require_place(config.out, "draw", (VERDICTS_FILE, SHEET_FILE), config.overwrite)
    if config.selection.of_one_label or config.stratify == CLASS:
        asked = config.selection.of_one_label or f"--stratify {CLASS}"
        require_single_label(f"sample {asked}", config.run, why="is of one label a sample")
    with open_asked(config.run, config.partial, config.quiet) as run:
        pool = np.sort(select(run, config.selection))
        drawn, rows = draw(run, pool, config.n, config.seed, config.stratify, config.verdicts, config.pool)
        table = sheet_of(drawn.samples)
        _require_not_judged(config, drawn, table)
        originals = open_originals(run, config.data)
        if originals.where is None:
            note("the original images are not at hand: showing maps alone", config.quiet)
        order = np.argsort(rows)
        ascending = show(run, rows[order], run.prediction[rows[order]], originals, config.quiet)
        shown = [ascending[place] for place in np.argsort(order).tolist()]
        notes = tuple(run_notes(run))
        page = write_sheet(drawn, shown, notes).encode()
        lost = len(run.lost)
    land_study(config.out, "draw", LAYOUT, {VERDICTS_FILE: table, SHEET_FILE: page}, drawn.content)
    states = [each.picture.state for each in shown]
    return SampleSummary(
        run=bringing.shown(config.run),
        out=str(config.out),
        pool=drawn.pool,
        size=drawn.size,
        drawn=len(drawn.samples),
        strata=drawn.strata,
        without_image=len(states) - states.count(State.FOUND),
        changed=states.count(State.CHANGED),
        lost_files=lost,
        notes=notes,
    )


def _require_not_judged(config: SampleConfig, drawn: Draw, table: bytes) -> None:
    """Refuse to replace a sheet that people may have filled in, or the draw that their copies of it are of."""
    path, document = config.out / VERDICTS_FILE, config.out / DRAW_FILE
    if config.overwrite:
        return
    if (path.exists() and path.read_bytes() != table) or (document.exists() and read_draw(document) != drawn):
        raise ConfigError(f"--out {config.out}: {path.name} is of another draw, or holds verdicts; {ADVICE}")
