"""What `report` reads of a run, and of the older one that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from batchcam.commands.compare.compare import Comparison, measure_all, set_side_by_side, summarise
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.movement import ClassMovement, Mover, Pairing
from batchcam.commands.compare.noise import noise_lines
from batchcam.commands.compare.sigmoids import SigmoidMovement
from batchcam.commands.compare.text import exchange_text, ranked_gates
from batchcam.commands.info.info import provenance
from batchcam.commands.report.config import ReportConfig
from batchcam.commands.report.content import About, Content, Gathered, Moved, MovedSample, Shown, ShownOfClass, Split
from batchcam.commands.report.drawing import draw
from batchcam.commands.report.facts import Facts, First, gather
from batchcam.job.console import Progress
from batchcam.pictures.originals import Originals
from batchcam.record.evidence import border_share, cell_shares, entropy, peak_cell
from batchcam.record.map_clusters import SplitClass
from batchcam.record.overlap import find_overlap
from batchcam.record.review import read_review
from batchcam.record.rows import class_names, label_text
from batchcam.record.screen import Gathering
from batchcam.record.sigmoid_scores import sigmoid
from batchcam.store import landing
from batchcam.store.reader import COLUMN_BYTES
from batchcam.store.run import Run, Sample
from batchcam.store.schema import MANIFEST_FILE
from batchcam.store.stored_cams import picked_cams, predicted_cams

APART_LISTED: Final = 300
"""Ids of each reason that a report lists."""

UNREADABLE_LISTED: Final = 500

MOST_GATHERED: Final = 8
"""Samples of a place where peaks gather that a report shows."""

MOST_SPLIT, MOST_OF_CLUSTER = 3, 3
"""Classes whose maps come in clusters that a report shows, and samples of a cluster."""


def read_content(
    run: Run, old: Run | None, training: Run | None, originals: Originals, config: ReportConfig
) -> Content:
    """Return everything that the report of a run shows.

    Args:
        run: an open run, or a shard of one.
        old: the run that it is compared with, None for none.
        training: a run over the network's training data, None for none.
    """
    top, quiet = config.top, config.quiet
    moved = None if old is None else read_moved(old, run, originals, config)
    facts = gather(run, top, UNREADABLE_LISTED, quiet, config.group_by, config.confidence / 100, config.cluster)
    chosen = choose(run, facts, top)
    rows = np.unique(np.concatenate(list(chosen.values())))
    shown = dict(zip(rows.tolist(), show(run, rows, run.prediction[rows], originals, quiet), strict=True))
    kinds = {kind: [shown[row] for row in rows.tolist()] for kind, rows in chosen.items()}
    counts = {kind: first.count for kind, first in facts.firsts.items()}
    return Content(
        about=about_run(run),
        facts=facts,
        overlap=find_overlap(run, training),
        notes=config.notes,
        gathered=_gathered(run, facts.gatherings, originals, top, quiet),
        split=_split(run, facts.split[:MOST_SPLIT], originals, top, quiet),
        **{kind: kinds.pop(kind) for kind in ("mistakes", "hits", "unsure", "across")},
        odd=kinds,
        counts=counts | ({"unjudged": 0} if facts.judged else {}),
        unreadable=_unreadable(run, facts.firsts["unreadable"].rows),
        group_by=config.group_by,
        moved=moved,
        review=read_review(map(Path, config.review), run, level=config.confidence / 100) if config.review else None,
        missed=_of_classes(run, facts.sigmoids.missed, originals, top, quiet) if facts.sigmoids else (),
        flagged=_of_classes(run, facts.sigmoids.flagged, originals, top, quiet) if facts.sigmoids else (),
    )


def about_run(run: Run) -> About:
    """Return what an opened run is and who made it."""
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


def choose(run: Run, facts: Facts, top: int) -> dict[str, np.ndarray]:
    """Return rows of the samples to show, at most `top` of each kind, by what is remarkable about them."""
    firsts = {kind: first.rows for kind, first in facts.firsts.items() if kind != "unreadable"}
    unsure = firsts.pop("unjudged")
    if facts.judged:
        return {**firsts, "unsure": unsure[:0], "across": unsure[:0]}
    if facts.sigmoids:
        unsure = unsure[:0]
    return {**firsts, "unsure": unsure, "across": _across(run, facts.predicted, top)}


def _across(run: Run, count: int, top: int) -> np.ndarray:
    """Return the rows of `top` predictions at even distances among `count`, which are all that there are."""
    places = np.linspace(0, max(0, count - 1), min(top, count)).round().astype(np.int64)
    found, before = [places[:0]], 0
    for rows, block in run.blocks(("prediction",), budget=COLUMN_BYTES):
        predicted = rows[block["prediction"] >= 0]
        here = places[(places >= before) & (places < before + len(predicted))]
        found.append(predicted[here - before])
        before += len(predicted)
    return np.concatenate(found)


def _gathered(run: Run, gatherings: Sequence[Gathering], originals: Originals, top: int, quiet: bool) -> list[Gathered]:
    """Return where peaks gather, with the first samples there: `top` in all, as many of each."""
    each = min(MOST_GATHERED, top // max(1, len(gatherings)) or 1)
    rows = [np.zeros(0, np.int64) for _ in gatherings]
    wanted = range(min(top, len(gatherings)))
    for some, block in run.blocks(("cams", "cam_class", "prediction")) if wanted else ():
        cells = peak_cell(predicted_cams(block))
        for place in wanted:
            there = np.isin(cells, gatherings[place].cells)
            if (name := gatherings[place].class_name) is not None:
                there &= block["prediction"] == run.class_names.index(name)
            rows[place] = np.concatenate([rows[place], some[there]])[:each]
        if all(len(rows[place]) == each for place in wanted):
            break
    shown = (show(run, found, run.prediction[found], originals, quiet) if len(found) else [] for found in rows)
    return [Gathered(*pair) for pair in zip(gatherings, shown, strict=True)]


def _split(run: Run, classes: Sequence[SplitClass], originals: Originals, top: int, quiet: bool) -> list[Split]:
    """Return the clusters of some classes with the samples nearest to their centres: `top` in all, as many of each."""
    count = sum(len(each.rows) for each in classes)
    each = min(MOST_OF_CLUSTER, top // max(1, count) or 1)
    of_clusters = [np.sort(rows[:each]) for class_ in classes for rows in class_.rows][:top]
    drawn = iter([show(run, rows, run.prediction[rows], originals, quiet) for rows in of_clusters])
    return [Split(class_, [next(drawn, []) for _ in class_.rows]) for class_ in classes]


def _of_classes(
    run: Run, firsts: Mapping[int, First], originals: Originals, top: int, quiet: bool
) -> list[ShownOfClass]:
    """Return `top` samples of classes to show: the first of each class, then the second of each, by their values."""
    ranked = sorted(
        (rank, value, row, class_)
        for class_, first in firsts.items()
        for rank, (value, row) in enumerate(zip(first.values.tolist(), first.rows.tolist(), strict=True))
    )[:top]
    rows, classes = np.array([pair[2:] for pair in ranked], np.int64).reshape(-1, 2).T
    order = np.argsort(rows, kind="stable")
    drawn = zip(order.tolist(), show(run, rows[order], classes[order], originals, quiet), strict=True)
    found: dict[int, list[Shown]] = {class_: [] for class_ in sorted(firsts)}
    for place, shown in sorted(drawn, key=lambda pair: pair[0]):
        found[int(classes[place])].append(shown)
    return [ShownOfClass(run.class_names[k], firsts[k].count, shown) for k, shown in found.items()]


def show(run: Run, rows: np.ndarray, classes: np.ndarray, originals: Originals, quiet: bool) -> list[Shown]:
    """Return the samples at ascending rows as they are shown, each with the map of its class."""
    names, shown = ("cams", "cam_class", "label", "prediction"), list[Shown]()
    with Progress("draw", len(rows), "samples", quiet) as progress:
        for some, block in run.blocks(names, rows):
            of = classes[len(shown) : len(shown) + len(some)]
            label, prediction = block["label"], block["prediction"]
            shares = cell_shares(picked_cams(block["cams"], block["cam_class"], of))
            wrong = (label >= 0) & (prediction >= 0) & (label != prediction)
            measures = zip(wrong.tolist(), border_share(shares).tolist(), entropy(shares).tolist(), strict=True)
            for row, class_, name, measured in zip(
                some.tolist(), of.tolist(), class_names(run, of), measures, strict=True
            ):
                picture = draw((run,), (row,), (class_,), originals)
                shown.append(Shown(picture, name, *_said(run, picture.sample, class_), *measured))
                progress.advance(1)
    return shown


def _said(run: Run, sample: Sample, class_: int) -> tuple[float, float | None, str | None]:
    """Return the probability of a sample's class, its threshold, and the label, or labels, in words."""
    if sample.labels is None:
        return sample.confidence, None, sample.label
    labels = label_text(run, sample.labels)
    labels = "none" if labels == "" else labels
    if class_ < 0:
        return sample.confidence, None, labels
    return float(sigmoid(sample.logits[class_])), run.plan.thresholds[class_], labels


def _unreadable(run: Run, rows: np.ndarray) -> list[tuple[str, str, str]]:
    """Return id, label and error of unreadable samples."""
    if run.plan.is_multi_label:
        labels = [label_text(run, known) or "" for known in run.labels[rows]]
    else:
        labels = [name or "" for name in class_names(run, run.label[rows])]
    return list(zip(run.sample_id[rows].tolist(), labels, run.error[rows].tolist(), strict=True))


def read_moved(old: Run, new: Run, originals: Originals, config: ReportConfig) -> Moved:
    """Return what moved from one run to another, as `compare` tells it, with pictures of the samples that moved most.

    Classes that one run alone has are left out and told; where a gate is asked for only if `compare` would do so.
    """
    shared = {} if config.is_gate else {"shared_classes": True}
    asked = CompareConfig(old.path, new.path, top=config.top, quiet=config.quiet, **config.given | shared)
    sides = set_side_by_side(asked, old, new)
    found = measure_all(asked, sides)
    summary = summarise(asked, found)
    return Moved(
        old=about_run(old),
        totals=summary.totals,
        movement=found.movement,
        apart=summary.apart,
        apart_ids=found.apart.ids(sides, APART_LISTED),
        classes=sorted((c for c in summary.classes if isinstance(c, ClassMovement)), key=lambda c: c.rank),
        sigmoids=sorted((c for c in summary.classes if isinstance(c, SigmoidMovement)), key=lambda c: c.rank),
        only_old=sides.classes.only_old,
        only_new=sides.classes.only_new,
        transitions=summary.transitions,
        movers=_moved_samples(found, summary.movers, originals, config.quiet),
        intervals=summary.intervals,
        level=summary.confidence / 100,
        gates=ranked_gates(summary.gates),
        notes=(*noise_lines(summary.noise), *map(exchange_text, summary.exchanges), *summary.notes),
    )


def _moved_samples(found: Comparison, moved: list[Mover], originals: Originals, quiet: bool) -> list[MovedSample]:
    """Return the samples that moved most with their maps; `moved` says of them what `found` has, in its order."""
    runs, classes = (found.sides.old, found.sides.new), found.sides.classes
    samples = []
    with Progress("draw", len(moved), "samples that moved", quiet) as progress:
        for mover, (pairs, row, _) in zip(moved, found.movement.movers(), strict=True):
            class_ = pairs.map_class[row]
            indices = int(classes.index(class_, classes.old)), int(classes.index(class_, classes.new))
            picture = draw(runs, (int(pairs.old_row[row]), int(pairs.new_row[row])), indices, originals)
            samples.append(MovedSample(mover, Pairing(pairs.pairing[row]), picture))
            progress.advance(1)
    return samples
