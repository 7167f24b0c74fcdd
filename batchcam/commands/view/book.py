"""The verdicts of one reviewer on samples of one run, in a file that only grows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import numpy as np

from batchcam.commands.view.columns import Choice
from batchcam.errors import BatchcamError
from batchcam.record.draw import DRAW_FILE, read_draw
from batchcam.record.rows import label_text
from batchcam.record.verdicts import Verdict, append_verdict, has_verdicts, read_verdicts
from batchcam.rules import VERDICTS, composed
from batchcam.store.run import Run, Sample

TO_JUDGE: Final = "to judge"
"""Of a sample that was drawn for review."""

NOTHING: Final = ("", "")
"""Verdict and comment of who has not judged, or took it back."""


class Book:
    """A file of verdicts, of which this reviewer's own are shown: what others say should sway nobody.

    Attributes:
        words: that can be said: those of the draw beside the file, if there is one.
        written: how many verdicts were added.

    Raises:
        BatchcamError: the file is there and can't be read, or is no such file; or its folder is not there.
    """

    def __init__(self, path: Path, run: Run, reviewer: str) -> None:
        self.written = 0
        self._path, self._run, self._reviewer = path, run, reviewer
        self._drawn: dict[int, Verdict] = {}
        self._own: dict[int, tuple[str, str]] = {}
        self._places = np.full(len(run), -1, np.int32)
        if not path.parent.is_dir():
            raise BatchcamError(f"{path}: there is no such folder: make it first")
        document = path.parent / DRAW_FILE
        draw = read_draw(document) if document.exists() else None
        self.words = draw.verdicts if draw else VERDICTS
        told = [*draw.samples] if draw else []
        if path.exists():
            told += read_verdicts(path, self.words)
            has_verdicts(path)
        found = [verdict for verdict in told if verdict.run_id == run.plan.run_id]
        rows = _rows_of({verdict.sample_id for verdict in found}, run)
        for verdict in found:
            if (row := rows.get(verdict.sample_id)) is not None:
                self._take(row, verdict)

    def _take(self, row: int, verdict: Verdict) -> None:
        if composed(verdict.reviewer).casefold() == composed(self._reviewer).casefold():
            self._own[row] = verdict.verdict, verdict.comment
        if verdict.weight:
            self._drawn[row] = verdict
        own, _ = self._own.get(row, NOTHING)
        self._places[row] = self.words.index(own) if own else len(self.words) if row in self._drawn else -1

    @property
    def column(self) -> Choice:
        """How each sample stands."""
        return Choice(self._places.copy(), (*self.words, TO_JUDGE))

    @property
    def has_to_judge(self) -> bool:
        """Whether samples were drawn that this reviewer has not judged."""
        return bool((self._places == len(self.words)).any())

    def said(self, row: int) -> dict[str, str]:
        """Return what this reviewer said of a sample, and why it was drawn."""
        drawn, (verdict, comment) = self._drawn.get(row), self._own.get(row, NOTHING)
        reason = drawn.reason if drawn else ""
        return {"reviewer": self._reviewer, "verdict": verdict, "comment": comment, "reason": reason}

    def write(self, sample: Sample, verdict: str, comment: str) -> None:
        """Add a verdict to the file; the reviewer's last one on a sample counts."""
        label = sample.label if sample.labels is None else label_text(self._run, sample.labels)
        fresh = Verdict(self._run.plan.run_id, sample.id, sample.input_sha256, sample.prediction or "", label or "")
        drawn = self._drawn.get(sample.row, fresh)
        said = dataclasses.replace(drawn, verdict=verdict, reviewer=self._reviewer, comment=comment)
        append_verdict(self._path, said)
        self._take(sample.row, said)
        self.written += 1


def _rows_of(wanted: set[str], run: Run) -> dict[str, int]:
    found: dict[str, int] = {}
    for rows, block in run.blocks(("sample_id",)) if wanted else ():
        found |= {i: row for i, row in zip(block["sample_id"].tolist(), rows.tolist(), strict=True) if i in wanted}
    return found
