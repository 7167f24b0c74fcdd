"""report: one HTML file that tells an auditor what a run found, readable without network or script. No torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from batchcam.commands.info import info
from batchcam.commands.merge import needs_a_look
from batchcam.commands.report_content import Content
from batchcam.commands.report_facts import Facts, gather
from batchcam.commands.report_page import write_page
from batchcam.commands.report_pictures import Picture, draw
from batchcam.config import require_outside
from batchcam.console import Progress, note
from batchcam.errors import ConfigError
from batchcam.pictures import Originals, State, open_originals
from batchcam.rules import Status
from batchcam.store import landing
from batchcam.store.run import Run, open_run
from batchcam.store.schema import MANIFEST_FILE

SUFFIXES = (".html", ".htm")
MOST_TOP = 200  # pictures of a kind: about 15 kB each, in a file that mail should carry


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Everything that `report` is asked.

    Attributes:
        run: the run directory.
        out: the HTML file.
        data: where the original images are: folder, CSV manifest or stl10:ROOT; None: the dataset that was explained,
            as far as it is still there.
        top: most samples of each kind to show as pictures.
        quiet: no progress.
    """

    run: Path
    out: Path
    data: str | None = None
    top: int = 24
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.out.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"--out {self.out}: want a name that ends in .html")
        require_outside(self.out, self.run)
        if not 0 <= self.top <= MOST_TOP:
            raise ConfigError(f"--top {self.top}: must be from 0 to {MOST_TOP}")


@dataclasses.dataclass(frozen=True)
class ReportSummary:
    """A report that was written.

    Attributes:
        out: the HTML file.
        bytes: its size.
        complete: whether the run is.
        samples: rows of the run that it covers.
        accuracy: share of labelled samples predicted right, None without labels.
        pictures: samples shown.
        without_image: of those, how many show the map alone.
        changed: of those, how many because the image is no longer the one that was explained.
        findings: unreadable and non-finite samples, and changed images.
    """

    out: str
    bytes: int
    complete: bool
    samples: int
    accuracy: float | None
    pictures: int
    without_image: int
    changed: int
    findings: int


@dataclasses.dataclass(frozen=True)
class Choice:
    """Rows of the samples to show, by what is remarkable about them; at most `top` of each kind, out of `counts`."""

    mistakes: np.ndarray
    hits: np.ndarray
    odd: dict[str, np.ndarray]
    counts: dict[str, int]

    @property
    def rows(self) -> list[int]:
        """All of them, each once, in order."""
        kinds = (self.mistakes, self.hits, *self.odd.values())
        return sorted({int(row) for rows in kinds for row in rows})


def report(config: ReportConfig) -> ReportSummary:
    """Write the report of a run, complete or still being written, as one HTML file.

    Raises:
        RunError: not a run directory, nothing has landed yet, or a file of it is damaged.
        ConfigError: the data can't be searched for images.
        BatchcamError: the file can't be written.
    """
    about = info(config.run)
    with open_run(config.run) as run:
        originals = open_originals(run, config.data)
        if originals.where is None:
            note("the original images are not at hand: showing maps alone", config.quiet)
        facts = gather(run, config.quiet)
        choice = choose(facts, config.top)
        pictures = _pictures(run, choice.rows, originals, config.quiet)
        manifest = config.run / MANIFEST_FILE
        content = Content(
            about=about,
            facts=facts,
            manifest_sha256=landing.file_digest(manifest) if run.complete else None,
            mistakes=[pictures[row] for row in choice.mistakes.tolist()],
            hits=[pictures[row] for row in choice.hits.tolist()],
            odd={kind: [pictures[row] for row in rows.tolist()] for kind, rows in choice.odd.items()},
            counts=choice.counts,
            unreadable=_unreadable(run, facts),
        )
    image = write_page(content).encode("utf-8")
    landing.make_folder(config.out.parent)
    landing.land(config.out, image)
    return _summary(config, facts, list(pictures.values()), about.complete, len(image))


def choose(facts: Facts, top: int) -> Choice:
    """Return which samples to show.

    Args:
        facts: about the run.
        top: most samples of each kind.
    """
    confidence = facts.columns["confidence"]
    rows = np.arange(len(confidence))
    mistakes, hits = rows[facts.wrong], rows[facts.right]
    odd = {
        "non-finite": rows[facts.having(Status.NON_FINITE)],
        "constant": rows[facts.having(Status.CONSTANT_MAP)],
        "no-positive": rows[facts.having(Status.NO_POSITIVE_EVIDENCE)],
        "border-only": rows[facts.on_border_only],
    }
    counts = {"mistakes": len(mistakes), "hits": len(hits), **{kind: len(found) for kind, found in odd.items()}}
    return Choice(
        mistakes=mistakes[np.argsort(-confidence[mistakes], kind="stable")][:top],
        hits=hits[np.argsort(confidence[hits], kind="stable")][:top],
        odd={kind: found[:top] for kind, found in odd.items()},
        counts=counts,
    )


def _pictures(run: Run, rows: list[int], originals: Originals, quiet: bool) -> dict[int, Picture]:
    pictures = {}
    with Progress("draw", len(rows), "samples", quiet) as progress:
        for row in rows:
            pictures[row] = draw(run, row, originals)
            progress.advance(1)
    return pictures


def _unreadable(run: Run, facts: Facts) -> list[tuple[str, str, str]]:
    """Return id, label and error of each unreadable sample."""
    rows = np.flatnonzero(facts.having(Status.UNREADABLE))
    if not len(rows):
        return []
    names = [*run.class_names, ""]  # -1: none
    ids, errors = run.sample_id[rows], run.error[rows]
    labels = [names[label] for label in facts.columns["label"][rows].tolist()]
    return list(zip(ids.tolist(), labels, errors.tolist(), strict=True))


def _summary(config: ReportConfig, facts: Facts, shown: list[Picture], complete: bool, size: int) -> ReportSummary:
    changed = sum(p.state is State.CHANGED for p in shown)
    return ReportSummary(
        out=str(config.out),
        bytes=size,
        complete=complete,
        samples=len(facts.columns["label"]),
        accuracy=facts.totals["accuracy"],
        pictures=len(shown),
        without_image=sum(p.state is not State.FOUND for p in shown),
        changed=changed,
        findings=sum(f["count"] for f in needs_a_look(facts.totals)) + changed,
    )
