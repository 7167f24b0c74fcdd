"""What `report` reads of a run, and of the older one that it is compared with."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from batchcam.commands.compare.compare import Comparison, set_side_by_side, summarise
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.matching import Apart
from batchcam.commands.compare.movement import Mover, Pairing, movers, ranked_classes
from batchcam.commands.compare.text import exchange_text
from batchcam.commands.info.info import provenance
from batchcam.commands.report.content import About, Content, Moved, MovedSample
from batchcam.commands.report.drawing import Picture, draw
from batchcam.commands.report.facts import Facts, gather
from batchcam.job.console import Progress
from batchcam.pictures.originals import Originals
from batchcam.record.study import rows_left_out
from batchcam.record.totals import count_totals
from batchcam.rules import Status
from batchcam.store import landing
from batchcam.store.reader import decode
from batchcam.store.run import Run
from batchcam.store.schema import MANIFEST_FILE

APART_LISTED: Final = 300
"""Ids of each reason that a report lists."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """Rows of the samples to show, by what is remarkable about them; at most `top` of each kind, out of `counts`."""

    mistakes: np.ndarray
    hits: np.ndarray
    unsure: np.ndarray
    across: np.ndarray
    odd: dict[str, np.ndarray]
    counts: dict[str, int]

    @property
    def rows(self) -> list[int]:
        """All of them, each once, in order."""
        kinds = (self.mistakes, self.hits, self.unsure, self.across, *self.odd.values())
        return sorted({int(row) for rows in kinds for row in rows})


def read_content(run: Run, old: Run | None, originals: Originals, top: int, quiet: bool) -> Content:
    """Return everything that the report of a run shows.

    Args:
        run: an open run, or a shard of one.
        old: the run that it is compared with, None for none.
        originals: where the images of `run` are.
        top: most samples of each kind to show.
        quiet: no progress.

    Raises:
        RunError: a file of a run is damaged, or the runs have no sample in common.
        ConfigError: the runs have no class in common.
    """
    moved = None if old is None else read_moved(old, run, originals, top, quiet)
    facts = gather(run, quiet)
    choice = choose(facts, top)
    pictures = _pictures(run, choice.rows, facts.columns["prediction"], originals, quiet)
    return Content(
        about=about_run(run),
        facts=facts,
        totals=count_totals(facts.columns),
        mistakes=[pictures[row] for row in choice.mistakes.tolist()],
        hits=[pictures[row] for row in choice.hits.tolist()],
        unsure=[pictures[row] for row in choice.unsure.tolist()],
        across=[pictures[row] for row in choice.across.tolist()],
        odd={kind: [pictures[row] for row in rows.tolist()] for kind, rows in choice.odd.items()},
        counts=choice.counts,
        unreadable=_unreadable(run, facts),
        moved=moved,
    )


def about_run(run: Run) -> About:
    """Return what an opened run is and who made it.

    Raises:
        RunError: a file of it is damaged.
    """
    what = run.path, run.plan, run.complete, run.shards[0].first, len(run), run.shard_counts
    if run.runs != (run,):
        runs = tuple(map(about_run, run.runs))
        tasks = [task for each in runs for task in each.tasks]
        told = dict.fromkeys((*run.remarks, *(note for each in runs for note in each.notes)))
        return About(*what, {}, tasks, list(told), None, run.lost, runs)
    if run.path.is_file():
        return About(*what, {}, [], [], None)
    origin, tasks, notes = provenance(run.path, run.plan)
    manifest = landing.file_digest(run.path / MANIFEST_FILE) if (run.path / MANIFEST_FILE).exists() else None
    return About(*what, origin, tasks, notes, manifest, run.lost)


def choose(facts: Facts, top: int) -> Choice:
    """Return which samples to show.

    Args:
        facts: about the run.
        top: most samples of each kind.
    """
    confidence = facts.columns["confidence"]
    rows = np.arange(len(confidence))
    mistakes, hits = rows[facts.wrong], rows[facts.right]
    unjudged = rows[facts.predicted & ~facts.judged.any()]
    odd = {
        "non-finite": rows[facts.having(Status.NON_FINITE)],
        "constant": rows[facts.having(Status.CONSTANT_MAP)],
        "no-positive": rows[facts.having(Status.NO_POSITIVE_EVIDENCE)],
        "border-only": rows[facts.on_border_only],
    }
    counts = {"mistakes": len(mistakes), "hits": len(hits), "unjudged": len(unjudged)}
    return Choice(
        mistakes=mistakes[np.argsort(-confidence[mistakes], kind="stable")][:top],
        hits=hits[np.argsort(confidence[hits], kind="stable")][:top],
        unsure=unjudged[np.argsort(confidence[unjudged], kind="stable")][:top],
        across=unjudged[np.linspace(0, max(0, len(unjudged) - 1), min(top, len(unjudged))).round().astype(int)],
        odd={kind: found[:top] for kind, found in odd.items()},
        counts=counts | {kind: len(found) for kind, found in odd.items()},
    )


def _pictures(
    run: Run, rows: list[int], prediction: np.ndarray, originals: Originals, quiet: bool
) -> dict[int, Picture]:
    pictures = {}
    with Progress("draw", len(rows), "samples", quiet) as progress:
        for row in rows:
            pictures[row] = draw((run,), (row,), (int(prediction[row]),), originals)
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


def read_moved(old: Run, new: Run, originals: Originals, top: int, quiet: bool) -> Moved:
    """Return what moved from one run to another, as `compare` tells it, with pictures of the samples that moved most.

    Args:
        old, new: open runs.
        originals: where the images of the new one are.
        top: most samples of each kind to show.
        quiet: no progress.

    Raises:
        RunError: a file of a run is damaged, or the runs have no sample in common.
        ConfigError: the runs have no class in common.
    """
    config = CompareConfig(old.path, new.path, shared_classes=True, top=top, quiet=quiet)
    found = set_side_by_side(config, old, new)
    summary = summarise(config, found)
    return Moved(
        old=about_run(old),
        totals=summary.totals,
        pairs=found.pairs,
        apart=summary.apart,
        apart_ids={
            reason: decode(found.apart_ids[rows[:APART_LISTED]])
            for reason, rows in rows_left_out(Apart, found.apart_reasons).items()
        },
        classes=ranked_classes(summary.classes),
        only_old=found.classes.only_old,
        only_new=found.classes.only_new,
        transitions=summary.transitions,
        movers=_moved_samples(found, summary.movers, originals, top, quiet),
        notes=(*map(exchange_text, summary.exchanges), *summary.notes),
    )


def _moved_samples(
    found: Comparison, moved: list[Mover], originals: Originals, top: int, quiet: bool
) -> list[MovedSample]:
    """Return the samples that moved most with their maps; `moved` says of them what `movers` chose, in its order."""
    runs, rows, pairs, classes = (found.old.run, found.new.run), found.rows, found.pairs, found.classes
    samples = []
    with Progress("draw", len(moved), "samples that moved", quiet) as progress:
        for mover, (row, _) in zip(moved, movers(pairs, top), strict=True):
            class_ = pairs.map_class[row]
            indices = int(classes.index(class_, classes.old)), int(classes.index(class_, classes.new))
            picture = draw(runs, (int(rows.old[row]), int(rows.new[row])), indices, originals)
            samples.append(MovedSample(mover, Pairing(pairs.pairing[row]), picture))
            progress.advance(1)
    return samples
