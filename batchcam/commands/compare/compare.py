"""compare: what moved in predictions and reasons between two runs of the same samples; a gate for scripts. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.exchanges import Exchange, find_exchanges
from batchcam.commands.compare.files import MOVERS_FILE, TABLE_FILE, write_files
from batchcam.commands.compare.gates import Gate, compared_text, judge_evidence, judge_gates
from batchcam.commands.compare.matching import Apart, Classes, Matching, match_classes
from batchcam.commands.compare.movement import (
    ClassMovement,
    Flip,
    Mover,
    Pairs,
    Totals,
    Transition,
    by_class,
    movers,
    total,
    transitions,
)
from batchcam.commands.compare.reading import Side, keep, match, measure, read_side, stated_labels
from batchcam.config import MIN_COMPARED, keywords
from batchcam.errors import RunError
from batchcam.record.study import count_left_out, require_place, run_notes
from batchcam.rules import composed
from batchcam.store.opening import open_run
from batchcam.store.reader import decode
from batchcam.store.run import Run
from batchcam.store.schema import encode_text, meta_array

TRANSITIONS: Final = 20

DIFFERING: Final = (
    "architecture",
    "target_layer",
    "method",
    "control",
    "preprocessing",
    "precision",
    "identity",
    "grid_size",
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two runs side by side, sample by sample.

    Attributes:
        old, new: their columns.
        classes: of both runs.
        rows: the compared pairs of rows.
        pairs: what moved, one row for each of these pairs.
        relabelled: how many of these pairs the runs label as different classes.
        apart_ids: encoded ids of either run that are not compared.
        apart_reasons: why (`Apart`).
    """

    old: Side
    new: Side
    classes: Classes
    rows: Matching
    pairs: Pairs
    relabelled: int
    apart_ids: np.ndarray
    apart_reasons: np.ndarray


@dataclasses.dataclass(frozen=True)
class CompareSummary:
    """What moved between two runs.

    Attributes:
        old, new: the run directories.
        old_run_id, new_run_id: of their plans.
        old_samples, new_samples: rows read.
        apart: ids of either run that are not compared, by reason.
        relabelled: compared samples that the runs label as different classes.
        totals: over all compared samples.
        classes: one a class, the old run's classes first.
        transitions: the most frequent flips.
        exchanges: classes that each look like a different one of the old run, such as two whose names were swapped.
        movers: samples that moved most, broken ones first.
        gates: the limits that were asked for.
        findings: of them, how many are exceeded; and whether one checkpoint's classes have two orders.
        notes: what a reader should know, a line each.
        out: folder of the files, None where none were asked for.
    """

    old: str
    new: str
    old_run_id: str
    new_run_id: str
    old_samples: int
    new_samples: int
    apart: dict[str, int]
    relabelled: int
    totals: Totals
    classes: list[ClassMovement]
    transitions: list[Transition]
    exchanges: list[Exchange]
    movers: list[Mover]
    gates: tuple[Gate, ...]
    findings: int
    notes: tuple[str, ...]
    out: str | None

    @property
    def passed(self) -> bool:
        """Whether every gate that was asked for passed; True where none was."""
        return all(gate.passed for gate in self.gates)


def compare(config: CompareConfig) -> CompareSummary:
    """Tell what moved between two runs, and write it down where that is asked for.

    Raises:
        ConfigError: the runs' classes differ.
        RunError: not a run, runs of other samples, or an incomplete run where a gate was asked for.
    """
    require_place(config.out, "compare", (TABLE_FILE, MOVERS_FILE), config.overwrite)
    with open_run(config.old) as old_run, open_run(config.new) as new_run:
        if config.is_gate:
            for run in (old_run, new_run):
                _require_complete(run)
        found = set_side_by_side(config, old_run, new_run)
        summary = summarise(config, found)
        if config.out is not None:
            columns = {
                "sample_id": found.old.ids[found.rows.old],
                "old_index": found.old.index[found.rows.old],
                "new_index": found.new.index[found.rows.new],
                "apart_id": found.apart_ids,
                "apart_reason": found.apart_reasons,
            }
            for array in map(meta_array, new_run.plan.meta):
                columns[array.name] = encode_text(new_run[array.name][found.rows.new].tolist())
            write_files(config.out, found.pairs, columns, found.classes, config.target, dataclasses.asdict(summary))
    return summary


by_keywords = keywords(CompareConfig, compare)


def set_side_by_side(config: CompareConfig, old_run: Run, new_run: Run) -> Comparison:
    """Return what moved between two open runs, sample by sample.

    Raises:
        ConfigError: the runs' classes differ.
        RunError: the runs have no sample in common, or one of them is damaged.
    """
    classes = match_classes(old_run.class_names, new_run.class_names, config.shared_classes)
    old, new = read_side(old_run), read_side(new_run)
    found, reasons = match(old, new)
    if not len(found.old):
        raise RunError(f"{config.old}, {config.new}: no sample id is in both; they explain other datasets")
    rows = keep(found, reasons)
    label, relabelled = stated_labels(old, new, rows, classes)
    pairs = measure(old, new, rows, classes, label, config.target, config.quiet)
    apart_ids, apart_reasons = _apart(old, new, found, reasons)
    return Comparison(old, new, classes, rows, pairs, int(relabelled.sum()), apart_ids, apart_reasons)


def _require_complete(run: Run) -> None:
    if not run.complete:
        raise RunError(f"{run.path}: {run.state}: a gate judges complete runs; run explain again")


def _apart(old: Side, new: Side, found: Matching, reasons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids that are not compared, each with its reason: pairs, then removed, then added ones."""
    pairs = reasons != Apart.COMPARED
    ids = (old.ids[found.old[pairs]], old.ids[found.removed], new.ids[found.added])
    kinds = (
        reasons[pairs],
        np.full(len(found.removed), Apart.REMOVED, np.uint8),
        np.full(len(found.added), Apart.ADDED, np.uint8),
    )
    return np.concatenate(ids), np.concatenate(kinds)


def summarise(config: CompareConfig, found: Comparison) -> CompareSummary:
    """Return what moved in totals, by class, and the samples that moved most."""
    old, new, pairs, names = found.old, found.new, found.pairs, found.classes.names
    totals = total(pairs)
    moved = by_class(pairs, names)
    apart = count_left_out(Apart, found.apart_reasons)
    gates = judge_gates(totals, moved, **config.limits)
    notes = list(_notes(found))
    if config.evidence:
        gates += judge_evidence(config.evidence, totals, len(old.run), apart, config.judges_maps)
    elif totals.compared < MIN_COMPARED / 100 * len(old.run):
        notes.append(f"only {compared_text(totals, len(old.run), apart)}")
    return CompareSummary(
        old=str(config.old),
        new=str(config.new),
        old_run_id=old.run.plan.run_id,
        new_run_id=new.run.plan.run_id,
        old_samples=len(old.run),
        new_samples=len(new.run),
        apart=apart,
        relabelled=found.relabelled,
        totals=totals,
        classes=moved,
        transitions=transitions(pairs, names, TRANSITIONS),
        exchanges=find_exchanges(old, new, found.rows, found.classes, pairs),
        movers=[
            _mover(row, reason, pairs, names, old.ids[found.rows.old[row]]) for row, reason in movers(pairs, config.top)
        ],
        gates=gates,
        findings=sum(not gate.passed for gate in gates) + bool(_renamed(found)),
        notes=tuple(notes),
        out=None if config.out is None else str(config.out),
    )


def _mover(row: int, reason: str, pairs: Pairs, names: tuple[str, ...], sample_id: np.bytes_) -> Mover:
    classes = ("label", "old_prediction", "new_prediction", "map_class")
    numbers = ("old_confidence", "new_confidence", "confidence_change", "logit_change")
    measures = ("spearman", "cosine", "top_iou", "peak_shift")
    known: dict[str, Any] = {name: (*names, None)[getattr(pairs, name)[row]] for name in classes}
    values: dict[str, Any] = {name: _number(getattr(pairs, name)[row]) for name in numbers + measures}
    (decoded,) = decode(np.array([sample_id]))
    return Mover(reason=reason, sample_id=decoded, flip=Flip(pairs.flip[row]).name.lower(), **known, **values)


def _number(value: np.floating[Any]) -> float | None:
    return float(f"{value:.7g}") if np.isfinite(value) else None


def _renamed(found: Comparison) -> str:
    """Return how two runs of one checkpoint name its classes otherwise, empty where they do not."""
    old, new = found.old.run.plan, found.new.run.plan
    if old.checkpoint_sha256 != new.checkpoint_sha256:
        return ""
    for number, (before, after) in enumerate(zip(old.class_names, new.class_names, strict=False)):
        if composed(before) != composed(after):
            return f", but its class {number} is {before} in OLD and {after} in NEW: one of them has the wrong names"
    return ""


def _notes(found: Comparison) -> Iterator[str]:
    old, new, classes = found.old.run, found.new.run, found.classes
    for side, run in (("OLD", old), ("NEW", new)):
        yield from run_notes(run, side)
    if old.plan.method != new.plan.method:
        yield f"maps by {new.plan.method} in NEW, by {old.plan.method} in OLD: their similarity says little"
    changed = int((found.apart_reasons == Apart.CHANGED_INPUT).sum())
    if old.plan.run_id == new.plan.run_id and changed:
        yield f"both have one run id, but {changed} of their images differ: one name of the dataset, two contents"
    elif old.plan.run_id == new.plan.run_id:
        yield "both are the same run: the same checkpoint, dataset and preprocessing"
    elif old.plan.checkpoint_sha256 == new.plan.checkpoint_sha256:
        yield "both runs explain the same checkpoint" + _renamed(found)
    # another method has a line of its own, and no identity to keep
    covered = {"method", "identity"} if old.plan.method != new.plan.method else set()
    differing = [
        n.replace("_", " ") for n in DIFFERING if n not in covered and getattr(old.plan, n) != getattr(new.plan, n)
    ]
    if differing:
        yield f"the runs differ in {', '.join(differing)}"
    for side, names in (("OLD", classes.only_old), ("NEW", classes.only_new)):
        if names:
            yield f"{len(names)} classes are only in {side}"
    respelt = int((found.old.ids[found.rows.old] != found.new.ids[found.rows.new]).sum())
    for count, what in ((classes.respelt, "class names"), (respelt, "sample ids")):
        if count:
            yield f"{count} {what} are written in another Unicode form in NEW than in OLD, and count as the same"
    if found.relabelled:
        yield (
            f"{found.relabelled} samples are labelled as different classes; their flips can't be judged as fixed or "
            "broken"
        )
