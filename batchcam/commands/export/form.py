"""What each form of an export is given; a form is a function of it, and says what it did."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from batchcam.commands.export.folder import ExportFolder
from batchcam.record.rows import Advance, Choice, Outcome, Target, choose
from batchcam.store.run import Run


@dataclasses.dataclass(frozen=True)
class Task:
    """A run to be written in some form.

    Attributes:
        run: it.
        folder: where to.
        meant: which samples, bool (n,).
        advance: told of samples that are done.
        data: where the original images are, as `open_originals` takes it.
        target: class explained.
        size: (H, W) of the maps; None: raw cells.
        palette: one of `rules.PALETTES`.
        train_run: another run, in which nearest samples are looked for too.
    """

    run: Run
    folder: ExportFolder
    meant: np.ndarray
    advance: Advance
    data: str | None
    target: Target
    size: tuple[int, int] | None
    palette: str
    train_run: Path | None = None

    def choose(self, finite: bool = True) -> Choice:
        """Return the samples that are meant and have a CAM of the class explained, see `rows.choose`."""
        return choose(self.run, self.target, finite, self.meant)


Form = Callable[[Task], Outcome]
