"""What a report shows: a run, its numbers, samples of it, and what moved against an older run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from batchcam.commands.compare.gates import Gate
from batchcam.commands.compare.movement import ClassMovement, Movement, Mover, Pairing, Totals, Transition
from batchcam.commands.compare.sigmoids import SigmoidMovement, SigmoidTotals
from batchcam.commands.report.drawing import Picture
from batchcam.commands.report.facts import Facts
from batchcam.pictures.originals import State
from batchcam.record.intervals import Interval
from batchcam.record.map_clusters import SplitClass
from batchcam.record.overlap import Overlap
from batchcam.record.review import Review
from batchcam.record.screen import Gathering
from batchcam.store.plan import Plan

ODD: Final = {
    "non-finite": (
        "Non-finite numbers",
        "A NaN or an infinity came out of the network, in the logits or in the map of any class.",
    ),
    "constant": (
        "Constant maps",
        "Every cell says the same, so the map says nothing about where. The original is shown alone.",
    ),
    "no-positive": (
        "No positive evidence",
        "No cell speaks for the predicted class: it won by its bias, or by the least evidence against it. "
        "The brightest place of such an overlay is only the least negative.",
    ),
    "border-only": (
        "Evidence at the border only",
        "All positive evidence lies in the outermost ring of cells: often background, a frame, a watermark or padding.",
    ),
}
"""Heading and explanation for each kind of odd map."""

WITHOUT_ORIGINAL: Final = {
    State.CHANGED: "the image is no longer the one that was explained",
    State.UNREADABLE: "the image can't be shown as the network saw it",
    State.MISSING: "the image is not at hand",
}
"""Why a sample is shown without its original."""


@dataclasses.dataclass(frozen=True)
class About:
    """What a run, or a series of runs, is and who made it.

    Attributes:
        run: the run directory, one of its shards, or the folder of the runs.
        plan: what the run is, or what the runs have in common.
        complete: whether the manifest is there, and nothing was left out.
        first: position in the dataset of the first sample that the report reads.
        samples: how many it reads.
        shards: how many it reads, and how many were planned.
        origin: paths, command line and time of the run's first call.
        tasks: what each task recorded of itself.
        notes: what a reader should know, such as tasks on different machines.
        manifest_sha256: digest of manifest.json, None while there is none.
        lost: what is wrong with each file that was left out, because it is gone or damaged.
        runs: those of a series.
    """

    run: Path
    plan: Plan
    complete: bool
    first: int
    samples: int
    shards: tuple[int, int]
    origin: dict[str, Any]
    tasks: list[dict[str, Any]]
    notes: list[str]
    manifest_sha256: str | None
    lost: tuple[str, ...] = ()
    runs: tuple[About, ...] = ()

    @property
    def is_shard(self) -> bool:
        """Whether this is a single shard, read without the rest of its run."""
        return self.run.is_file()

    @property
    def planned(self) -> int:
        """How many samples were planned."""
        return sum(run.planned for run in self.runs) if self.runs else self.plan.sample_count

    def option(self, *keys: str) -> object:
        """Return an option of the run's first call, None where it is not known."""
        value: object = self.origin.get("options")
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


@dataclasses.dataclass(frozen=True)
class Shown:
    """A sample that is shown.

    Attributes:
        class_name: the class whose map is shown, the predicted one but for what is missed or flagged; None where there
            is none.
        confidence: its probability.
        threshold: from which it counts, in a multi-label run; else None.
        label: what the dataset says, None where not known.
        wrong: whether its prediction is.
        border, spread: share of its positive evidence in the outermost ring, and relative entropy of it; or NaN.
    """

    picture: Picture
    class_name: str | None
    confidence: float
    threshold: float | None
    label: str | None
    wrong: bool
    border: float
    spread: float


@dataclasses.dataclass(frozen=True)
class ShownOfClass:
    """Samples of which a multi-label run says the opposite of their label of one class, and how many there are."""

    name: str
    count: int
    shown: Sequence[Shown]


@dataclasses.dataclass(frozen=True)
class Gathered:
    """A place where peaks gather, and some of the samples whose peak is there."""

    gathering: Gathering
    shown: Sequence[Shown]


@dataclasses.dataclass(frozen=True)
class Split:
    """A class whose maps come in several clusters, and some of the samples of each."""

    split: SplitClass
    shown: Sequence[Sequence[Shown]]


@dataclasses.dataclass(frozen=True)
class MovedSample:
    """A sample that moved far: what is said of it, whether its maps are compared, and how it is shown."""

    mover: Mover
    pairing: Pairing
    picture: Picture


@dataclasses.dataclass(frozen=True)
class Moved:
    """What moved against an older run, over the samples that both explain.

    Attributes:
        old: what the older run is and who made it.
        totals: over all compared samples.
        movement: how it is spread over the compared samples.
        apart: how many sample ids of either run are not compared, by reason.
        apart_ids: the first of these ids, by reason.
        classes: what moved for each class, the largest loss of accuracy first; empty of multi-label runs.
        sigmoids: the same of multi-label runs, the largest loss of AUROC first; empty of others.
        only_old, only_new: names of classes that one run alone has.
        transitions: the most frequent flips.
        movers: samples that moved most, broken ones first.
        intervals: of what moved over all samples, by name; accuracies, drops and flips in per cent.
        level: of confidence of the intervals.
        gates: the limits that were asked for, those first that stop the run.
        notes: what a reader should know, a line each.
    """

    old: About
    totals: Totals | SigmoidTotals
    movement: Movement
    apart: dict[str, int]
    apart_ids: Mapping[str, Sequence[str]]
    classes: Sequence[ClassMovement]
    sigmoids: Sequence[SigmoidMovement]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    transitions: Sequence[Transition]
    movers: Sequence[MovedSample]
    intervals: Mapping[str, Interval]
    level: float
    gates: Sequence[Gate]
    notes: Sequence[str]

    @property
    def nothing(self) -> bool:
        """Whether there are compared samples and none of them has another prediction, confidence, logit or map."""
        return self.totals.compared > 0 and not self.movement.moved


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything that a report shows.

    Attributes:
        about: what the run is and who made it.
        overlap: how far its samples are independent of each other, and of training data.
        notes: what was told for the sign-off, by name; None of what was not.
        gathered: where peaks gather, all samples together first, then the most remarkable.
        split: classes whose maps come in several clusters, those of the most maps first.
        mistakes: wrong predictions, the most confident first.
        hits: right predictions, the least confident first.
        unsure: where no prediction has a label to judge it by: the least confident ones.
        across: there too: predictions at even distances over the run.
        odd: samples by kind of odd map, keys of ODD.
        counts: how many samples there are of each kind, under the names of `odd`, "mistakes", "hits", "unjudged"
            and "unreadable".
        unreadable: id, label and error of the first unreadable samples.
        group_by: columns of the manifest by which samples are grouped.
        moved: what moved against an older run, None where there is none to compare with.
        review: what people said of samples of the run, None where nobody was asked.
        missed, flagged: of a multi-label run, samples below the threshold of a class that they are labelled with, and
            the opposite, by class.
    """

    about: About
    facts: Facts
    overlap: Overlap
    notes: Mapping[str, str | None]
    gathered: Sequence[Gathered]
    split: Sequence[Split]
    mistakes: Sequence[Shown]
    hits: Sequence[Shown]
    unsure: Sequence[Shown]
    across: Sequence[Shown]
    odd: Mapping[str, Sequence[Shown]]
    counts: dict[str, int]
    unreadable: Sequence[tuple[str, str, str]]
    group_by: tuple[str, ...] = ()
    moved: Moved | None = None
    review: Review | None = None
    missed: Sequence[ShownOfClass] = ()
    flagged: Sequence[ShownOfClass] = ()

    @property
    def states(self) -> dict[int, State]:
        """Whether the original of each sample that the report shows is shown, by row."""
        chosen = [self.mistakes, self.hits, self.unsure, self.across, *self.odd.values()]
        chosen += [of_class.shown for of_class in (*self.missed, *self.flagged)]
        chosen += [place.shown for place in self.gathered]
        chosen += [shown for class_ in self.split for shown in class_.shown]
        pictures = [each.picture for shown in chosen for each in shown]
        pictures += [each.picture for each in self.moved.movers] if self.moved else []
        return {picture.sample.row: picture.state for picture in pictures}
