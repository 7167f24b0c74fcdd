"""compare: what moved in predictions and reasons between two runs of the same samples; a gate for scripts. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.designs import Designs
from batchcam.commands.compare.exchanges import Exchange, find_exchanges
from batchcam.commands.compare.files import MOVERS_FILE, TABLE_FILE, open_table, write_files
from batchcam.commands.compare.gates import Gate, judge_gates
from batchcam.commands.compare.groups import GroupMovement, GroupMovements
from batchcam.commands.compare.matching import Apart, match_classes, own_classes
from batchcam.commands.compare.movement import ClassMovement, Flip, Movement, Mover, Pairs, Totals, Transition
from batchcam.commands.compare.noise import Means, Noise, Retrainings, means_of, sourced
from batchcam.commands.compare.reading import LeftApart, Part, Sides, measure, stated_labels, target_classes
from batchcam.commands.compare.sigmoids import (
    WORST,
    SigmoidGroupMovement,
    SigmoidMovement,
    SigmoidPairs,
    SigmoidTotals,
    sigmoid_totals,
)
from batchcam.commands.compare.values import Moved, intervals, with_intervals
from batchcam.config.gates import MIN_COMPARED
from batchcam.config.keywords import keywords
from batchcam.errors import RunError
from batchcam.job.console import Progress, counted
from batchcam.record.clusters import Design
from batchcam.record.intervals import Interval
from batchcam.record.study import require_place, run_notes
from batchcam.rules import SINGLE_LABEL, TORCH
from batchcam.store.bringing import shown
from batchcam.store.opening import open_run
from batchcam.store.problem import require_one_problem
from batchcam.store.run import Run

TRANSITIONS: Final = 20
THRESHOLDS_SHOWN: Final = 20

SETUP: Final = ("preprocessing", "precision", "engine")

DIFFERING: Final = (
    "architecture",
    "target_layer",
    "method",
    "control",
    "preprocessing",
    "precision",
    "engine",
    "identity",
    "grid_size",
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        sides: the runs, and which of their rows are one sample.
        movement: what moved over the compared pairs of them.
        apart: ids of either run that are not compared.
        groups: what moved in each group, where groups were asked for.
        labelled: how many of the old run's rows have a label; all of multi-label runs.
        relabelled: how many of the compared pairs the runs label as different classes.
        respelt: how many of them have ids in two Unicode forms.
        changed_inputs: how many of them have other bytes in the new run.
        sigmoids: what moved for the classes of multi-label runs, else None.
        designs: of what is told of samples that have clusters, None where they have none.
    """

    sides: Sides
    movement: Movement
    apart: LeftApart
    groups: GroupMovements
    labelled: int
    relabelled: int
    respelt: int
    changed_inputs: int
    sigmoids: SigmoidPairs | None
    designs: Designs | None

    def moved(self) -> tuple[Totals | SigmoidTotals, list[ClassMovement] | list[SigmoidMovement]]:
        """Return what moved in totals, and by class."""
        if self.sigmoids is None:
            return self.movement.totals(), self.movement.classes()
        classes = self.sigmoids.classes()
        return sigmoid_totals(self.movement, classes, self.sigmoids.mean_auroc_error()), classes


@dataclasses.dataclass(frozen=True)
class CompareSummary:
    """What moved between two runs.

    Attributes:
        old, new: the run directories.
        old_run_id, new_run_id: of their plans.
        old_samples, new_samples: rows read.
        apart: ids of either run that are not compared, by reason.
        paired_by_content: samples whose id is in one run alone, paired by `input_sha256`.
        ambiguous: ids of `apart` that could be paired so with several.
        changed_inputs: compared samples with other bytes in the new run.
        renamed: the new run's names of classes that are called otherwise in the old one, as was said, by the old ones.
        relabelled: compared samples that the runs label as different classes.
        totals: over all compared samples.
        classes: one a class, the old run's classes first; of multi-label runs those that both have.
        transitions: the most frequent flips from one predicted class to another; none of multi-label runs.
        exchanges: classes that each look like a different one of the old run, such as two whose names were swapped.
        movers: samples that moved most, broken ones first.
        confidence: per cent, of all intervals.
        intervals: of what moved over all samples, by name; accuracies, drops and flips in per cent.
        cluster: column of the manifest whose values the intervals are over, None: over samples.
        clusters: how many of them there are.
        design_effects: variances over those of as many independent samples, by name.
        group_by: columns of the manifest by which `groups` are told.
        groups: what moved in each, the largest drop of accuracy first; of multi-label runs in each class of each, the
            largest drop of AUROC first.
        gates: the limits that were asked for.
        noise: what retraining alone moves, None where no retrainings were named.
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
    paired_by_content: int
    ambiguous: int
    changed_inputs: int
    renamed: dict[str, str]
    relabelled: int
    totals: Totals | SigmoidTotals
    classes: list[ClassMovement] | list[SigmoidMovement]
    transitions: list[Transition]
    exchanges: list[Exchange]
    movers: list[Mover]
    confidence: float
    intervals: dict[str, Interval]
    cluster: str | None
    clusters: int | None
    design_effects: dict[str, float]
    group_by: tuple[str, ...]
    groups: list[GroupMovement] | list[SigmoidGroupMovement]
    gates: tuple[Gate, ...]
    noise: Noise | None
    findings: int
    notes: tuple[str, ...]
    out: str | None
    problem_type: str

    @property
    def passed(self) -> bool:
        """Whether every gate that was asked for passed; True where none was."""
        return all(gate.passed for gate in self.gates)


def compare(config: CompareConfig) -> CompareSummary:
    """Tell what moved between two runs, and write it down where that is asked for.

    Raises:
        ConfigError: the runs' classes or problem types differ, neither has a column to group by or of clusters, or a
            gate or target means nothing for them.
        RunError: not a run, runs of other samples, or an incomplete run where a gate was asked for.
    """
    require_place(config.out, "compare", (TABLE_FILE, MOVERS_FILE), config.overwrite)
    with open_run(config.old) as old_run, open_run(config.new) as new_run:
        sides = set_side_by_side(config, old_run, new_run)
        if config.out is None:
            return summarise(config, measure_all(config, sides))
        with open_table(config.out, sides) as table:
            found = measure_all(config, sides, table.add)
        summary = summarise(config, found)
        write_files(config.out, table.sha256, sides, found.apart, config.target, dataclasses.asdict(summary))
    return summary


by_keywords = keywords(CompareConfig, compare)


def set_side_by_side(config: CompareConfig, old_run: Run, new_run: Run) -> Sides:
    """Return two open runs with their classes and samples matched.

    Raises:
        ConfigError: the runs' classes or problem types differ, or a gate or target means nothing for them.
        RunError: the runs have no sample in common, one of them is damaged, or incomplete where a gate was asked for.
    """
    for run in (old_run, new_run) if config.is_gate else ():
        _require_complete(run, "a gate judges")
    require_one_problem(old_run, new_run)
    config.require_meant(old_run.plan.is_multi_label)
    classes = match_classes(old_run.class_names, new_run.class_names, config.shared_classes, config.rename)
    sides = Sides(old_run, new_run, classes, config.changed_inputs == "compare")
    if not len(sides.rows.old):
        several = f", and {sides.rows.ambiguous} have the bytes of several" if sides.rows.ambiguous else ""
        what = f"no sample id is in both, and no image by its bytes{several}"
        raise RunError(f"{config.old}, {config.new}: {what}; they explain other datasets")
    return sides


def _require_complete(run: Run, who: str) -> None:
    if not run.complete:
        raise RunError(f"{run.path}: {run.state}: {who} complete runs; run explain again")


def measure_all(
    config: CompareConfig, sides: Sides, seen: Callable[[Part, Pairs], None] = lambda part, pairs: None
) -> Comparison:
    """Return what moved between two runs, sample by sample; `seen` is told of each part, and of its compared samples.

    Raises:
        RunError: one of the runs is damaged.
    """
    movement, apart = Movement(sides.classes.names, config.top), LeftApart(sides.rows)
    sigmoids = SigmoidPairs(sides) if sides.are_multi_label else None
    groups = GroupMovements(sides, config.group_by)
    designs = None if config.cluster is None else Designs(sides, config.cluster)
    relabelled = respelt = changed = 0
    with Progress("compare", 2 * len(sides.rows.old), "maps", config.quiet) as progress:
        for part in sides.parts():
            compared = part.compared
            clusters = None if designs is None else designs.of(compared)
            label, otherwise = stated_labels(compared, sides.classes)
            target = target_classes(compared, sides.classes, label, config.target)
            if sigmoids:
                pairs = sigmoids.measure(compared, target, config.target, progress.advance, clusters)
            else:
                pairs = measure(sides, compared, sides.classes, label, target, progress.advance)
            movement.add(pairs)
            groups.add(compared, pairs, clusters)
            if designs is not None and clusters is not None:
                designs.add(pairs, clusters)
            apart.add(part)
            relabelled += int(otherwise.sum())
            respelt += int(np.isin(compared.old_rows, sides.rows.respelt).sum())
            changed += int((~compared.same_input).sum())
            seen(part, pairs)
            progress.advance(2 * (len(part.reasons) - len(label)))
    if sigmoids:
        movement.moved, relabelled = movement.moved or sigmoids.moved, sigmoids.relabelled
    labelled = len(sides.old) if sigmoids else int((sides.old["label"][:] >= 0).sum())
    return Comparison(sides, movement, apart, groups, labelled, relabelled, respelt, changed, sigmoids, designs)


def summarise(config: CompareConfig, found: Comparison) -> CompareSummary:
    """Return what moved in totals, by class, and the samples that moved most."""
    old, new, movement = found.sides.old, found.sides.new, found.movement
    apart = found.apart.counts
    totals, moved = found.moved()
    noise = _noise(config, found, means_of(totals, moved)) if config.noise else None
    groups = found.groups.found(found.sigmoids, config.confidence / 100)
    designs = _designs(found, len(moved))
    if found.designs and isinstance(totals, Totals) and totals.labelled:
        totals = dataclasses.replace(totals, p=found.designs.change_p())
    setup = [*_setup(found, SETUP), *_class_order(found)]
    judged = Moved(totals, moved, groups, len(old), found.labelled, apart, setup, designs)
    limits: dict[str, Any] = noise.limits if noise else {}
    gates = judge_gates(judged, dataclasses.replace(config, **limits))
    if noise:
        gates = tuple(sourced(gate, noise) for gate in gates)
    notes = [*(found.designs.notes(designs) if found.designs else ()), *_notes(found), *found.groups.notes]
    if not config.evidence and totals.compared < MIN_COMPARED / 100 * len(old):
        notes.append(f"only {judged.compared_text}")
    return CompareSummary(
        old=shown(config.old),
        new=shown(config.new),
        old_run_id=old.plan.run_id,
        new_run_id=new.plan.run_id,
        old_samples=len(old),
        new_samples=len(new),
        apart=apart,
        paired_by_content=len(found.sides.rows.moved),
        ambiguous=found.sides.rows.ambiguous,
        changed_inputs=found.changed_inputs,
        renamed=dict(found.sides.classes.renamed),
        relabelled=found.relabelled,
        totals=totals,
        classes=with_intervals(judged, moved, config.confidence / 100),
        transitions=[] if found.sigmoids else movement.transitions(TRANSITIONS),
        exchanges=find_exchanges(found.sides, movement.predicted),
        movers=_movers(found),
        confidence=config.confidence,
        intervals=intervals(judged, config.confidence),
        cluster=config.cluster,
        clusters=len(found.designs.clusters) if found.designs else None,
        design_effects={name: design.effect for (name, place), design in designs.items() if place < 0},
        group_by=config.group_by,
        groups=with_intervals(judged, groups, config.confidence / 100),
        gates=gates,
        noise=noise,
        findings=sum(not gate.passed for gate in gates) + bool(_renamed(found)),
        notes=tuple(notes),
        out=None if config.out is None else str(config.out),
        problem_type=old.plan.problem_type or SINGLE_LABEL,
    )


def _designs(found: Comparison, classes: int) -> dict[tuple[str, int], Design]:
    if found.designs is None:
        return {}
    if found.sigmoids:
        return found.designs.found((found.sigmoids.similarity, found.sigmoids.shifts), found.sigmoids.shared)
    return found.designs.found((found.designs.similarity, found.designs.shifts), range(classes))


def _noise(config: CompareConfig, found: Comparison, new: Means) -> Noise:
    """Return what retraining alone moves: each of the named runs is read once beside OLD."""
    old = found.sides.old
    retrainings = Retrainings(found.sides, found.apart.counts, found.relabelled)
    for path in config.noise:
        with open_run(Path(path)) as run:
            _require_complete(run, "--noise takes")
            retrainings.require_other_weights(run)
            alone = CompareConfig(config.old, path, target=config.target, top=0, quiet=config.quiet)
            other = measure_all(alone, set_side_by_side(alone, old, run))
            differing, apart = [*_setup(other, DIFFERING)], other.apart.counts
            means = means_of(*other.moved())
            retrainings.add(run, differing, apart, other.relabelled, other.movement.moved, means)
    return retrainings.told(new, config)


def _movers(found: Comparison) -> list[Mover]:
    chosen = list(found.movement.movers())
    old, new = (
        np.array([getattr(pairs, rows)[row] for pairs, row, _ in chosen], np.int64) for rows in ("old_row", "new_row")
    )
    ids = found.sides.old.sample_id[old], found.sides.other_ids(old, new)
    names = found.sides.classes.names
    return [_mover(*each, names, *of) for each, *of in zip(chosen, *ids, strict=True)]


def _mover(pairs: Pairs, row: int, reason: str, names: tuple[str, ...], sample_id: str, other_id: bytes) -> Mover:
    classes = ("label", "old_prediction", "new_prediction", "map_class")
    numbers = ("old_confidence", "new_confidence", "confidence_change", "logit_change")
    measures = ("spearman", "cosine", "top_iou", "peak_shift")
    known: dict[str, Any] = {name: (*names, None)[getattr(pairs, name)[row]] for name in classes}
    values: dict[str, Any] = {name: _number(getattr(pairs, name)[row]) for name in numbers + measures}
    flip = Flip(pairs.flip[row]).name.lower()
    if len(flips := pairs.flips[row]):
        told = {kind.name.lower(): _named(names, flips == kind) for kind in WORST}
        flip = "; ".join(f"{kind} {which}" for kind, which in told.items() if which) or flip
        known["label"] = _named(names, pairs.labels[row] == 1) if (pairs.labels[row] >= 0).any() else None
    other = other_id.decode() or None
    return Mover(reason=reason, sample_id=sample_id, flip=flip, **known, **values, new_sample_id=other)


def _named(names: tuple[str, ...], chosen: np.ndarray) -> str:
    return "|".join(names[k] for k in np.flatnonzero(chosen).tolist())


def _number(value: np.floating[Any]) -> float | None:
    return float(f"{value:.7g}") if np.isfinite(value) else None


def _renamed(found: Comparison) -> str:
    """Return how two runs of one checkpoint name its classes otherwise, empty where they do not."""
    old, new = found.sides.old.plan, found.sides.new.plan
    if old.checkpoint_sha256 != new.checkpoint_sha256:
        return ""
    order = next(_other_order(found), "")
    return f", but its {order}: one of them has the wrong names" if order else ""


def _setup(found: Comparison, names: Sequence[str]) -> Iterator[str]:
    """Yield in which of some fields the runs' plans differ, and what each says."""
    for name in names:
        old, new = (getattr(run.plan, name) for run in (found.sides.old, found.sides.new))
        if isinstance(old, Mapping):
            for key in sorted(old.keys() | new.keys()):
                if old.get(key) != new.get(key):
                    yield f"{name} {key} {_said(old.get(key))} → {_said(new.get(key))}"
        elif old != new:
            yield f"{name.replace('_', ' ')} {_said(old)} → {_said(new)}"


def _said(value: object) -> str:
    """Return a value of a plan for people; the engine "" is torch's."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_said, value))}]"
    return TORCH if value == "" else "none" if value is None else str(value)


def _class_order(found: Comparison) -> Iterator[str]:
    """Yield in what the runs' lists of classes differ."""
    yield from own_classes(found.sides.classes.only_old, found.sides.classes.only_new)
    yield from _other_order(found)


def _other_order(found: Comparison) -> Iterator[str]:
    """Yield the first class that has another number in the other run."""
    sides, classes = found.sides, found.sides.classes
    places = zip(classes.old.tolist(), classes.new.tolist(), strict=False)
    for number, (old, new) in enumerate(places):
        if old != new:
            yield f"class {number} is {sides.old.class_names[number]} in OLD and {sides.new.class_names[number]} in NEW"
            return


def _notes(found: Comparison) -> Iterator[str]:
    old, new, classes = found.sides.old, found.sides.new, found.sides.classes
    for side, run in (("OLD", old), ("NEW", new)):
        yield from run_notes(run, side)
    if old.plan.method != new.plan.method:
        yield f"maps by {new.plan.method} in NEW, by {old.plan.method} in OLD: their similarity says little"
    changed = found.apart.counts.get(Apart.CHANGED_INPUT.text, 0) + found.changed_inputs
    if old.plan.run_id == new.plan.run_id and changed:
        yield f"both have one run id, but {changed} of their images differ: one name of the dataset, two contents"
    elif old.plan.run_id == new.plan.run_id:
        yield "both are the same run: the same checkpoint, dataset and preprocessing"
    elif old.plan.checkpoint_sha256 == new.plan.checkpoint_sha256:
        yield "both runs explain the same checkpoint" + _renamed(found)
    # another method has a line of its own, and no identity to keep
    covered = {"method", "identity"} if old.plan.method != new.plan.method else set()
    differing = [*_setup(found, [name for name in DIFFERING if name not in covered])]
    if differing:
        yield f"the runs differ in {', '.join(differing)}"
    if old.plan.is_multi_label:
        yield from _other_thresholds(found.sides)
    yield from own_classes(classes.only_old, classes.only_new)
    yield from _pairing(found)
    for count, what in ((classes.respelt, "class names"), (found.respelt, "sample ids")):
        if count:
            yield f"{count} {what} are written in another Unicode form in NEW than in OLD, and count as the same"
    if found.relabelled:
        otherwise = "otherwise of some class" if found.sigmoids else "as different classes"
        yield f"{found.relabelled} samples are labelled {otherwise}; their flips can't be judged as fixed or broken"


def _pairing(found: Comparison) -> Iterator[str]:
    """Yield which samples and classes count as one although the runs name them, or have them, otherwise."""
    rows, renamed = found.sides.rows, found.sides.classes.renamed
    if renamed:
        yield f"one class by --rename: {', '.join(f'{old} → {new}' for old, new in renamed.items())}"
    if len(rows.moved):
        yield f"{counted(len(rows.moved), 'sample')} moved or renamed: paired by the SHA-256 of the image"
    if rows.ambiguous:
        what = counted(rows.ambiguous, "removed or added sample")
        yield f"{what} not paired: the other run has their bytes, and one of the runs has them several times"
    if found.changed_inputs:
        yield f"{counted(found.changed_inputs, 'sample')} compared although the image's bytes are others in NEW"


def _other_thresholds(sides: Sides) -> Iterator[str]:
    """Yield which classes of multi-label runs count from another probability in NEW than in OLD."""
    old, new = (
        dict(zip(of.tolist(), run.plan.thresholds, strict=True))
        for run, of in ((sides.old, sides.classes.old), (sides.new, sides.classes.new))
    )
    told = [f"{sides.classes.names[k]} {old[k]:.3g} → {new[k]:.3g}" for k in old if old[k] != new.get(k, old[k])]
    if told:
        more = f" and {len(told) - THRESHOLDS_SHOWN} more" if len(told) > THRESHOLDS_SHOWN else ""
        yield f"each run counts by its own thresholds, and they differ: {', '.join(told[:THRESHOLDS_SHOWN])}{more}"
