"""The report's chapter on what moved against an older run, in numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from batchcam.commands.compare.gates import PASSED, Gate
from batchcam.commands.compare.movement import ClassMovement, Transition
from batchcam.commands.compare.sigmoids import SigmoidMovement, SigmoidTotals
from batchcam.commands.compare.text import gained_text, verdict
from batchcam.commands.report.content import About, Moved
from batchcam.commands.report.movers import movers
from batchcam.commands.report.provenance import side_by_side
from batchcam.commands.report.writing import (
    NONE,
    bounded,
    histogram,
    in_brackets,
    percent,
    rate,
    share,
    signed,
    stated_cell,
)
from batchcam.pictures.html import Markup, definitions, details, element, foreign, join, table
from batchcam.record.intervals import Interval
from batchcam.record.metrics import brackets
from batchcam.record.sigmoid_scores import SCORES

Each = TypeVar("Each")

MOST_CLASSES: Final = 1000
MOST_NAMES: Final = 50
MOST_TRANSITIONS: Final = 10

FLIPS: Final = (
    "A flip is another predicted class: fixed from wrong to right, broken from right to wrong, changed anything else, "
    "such as from one wrong class to another."
)
SIGMOID_FLIPS: Final = (
    "A flip is a class that is at or above its threshold in one run alone, each run by its own thresholds: fixed where "
    "NEW is as labelled, broken where OLD is, changed where the runs state no label. A sample is broken if any of its "
    "classes is, else fixed if any is, else changed."
)
SIMILARITY: Final = (
    "Similarity is Spearman's rank correlation over the cells of both runs' raw maps of one class, the class that OLD "
    "predicts: 1 where the cells rank the same, 0 where their ranks have nothing to do with each other. Grids of two "
    "sizes are compared on the finer one. A constant map has no similarity."
)


def movement(new: About, moved: Moved) -> Markup:
    """Return what moved: provenance of both runs, samples, predictions, confidence, maps, classes, samples."""
    names = join(("OLD is ", foreign(moved.old.run), "; NEW is the run of this report, ", foreign(new.run), "."))
    shown: list[object] = [element("p", names), *_states(moved), *_gates(moved.gates)]
    shown += [_numbers(moved), element("p", in_brackets(moved.level) if moved.intervals else None), _change(moved)]
    if moved.totals.flips:
        shown.append(element("p", SIGMOID_FLIPS if moved.sigmoids else FLIPS))
        shown += [] if moved.sigmoids else [_transitions(moved.transitions)]
    shown += [element("h3", "Provenance of both runs"), side_by_side(moved.old, new)]
    shown += [element("h3", "Samples that are not compared"), _apart(moved)]
    if moved.totals.compared and not moved.nothing:
        shown += [*_confidence(moved), *_similarity(moved), *_moved_classes(moved), *movers(moved)]
    return join(shown)


def _states(moved: Moved) -> Iterator[Markup]:
    """Yield what has to be known before the numbers are read."""
    if not moved.totals.compared:
        text = "No sample can be compared; see below, under samples that are not compared, for what reasons."
        yield element("p", text, class_="state alarm")
    if moved.nothing:
        text = (
            f"Nothing moved: over the {moved.totals.compared:,} compared samples, all predictions, confidences and "
            "logits are equal, and every pair of maps has similarity 1."
        )
        yield element("p", text, class_="state good")
    for side, names in (("OLD", moved.only_old), ("NEW", moved.only_new)):
        if names:
            listed = join((foreign(name) for name in names[:MOST_NAMES]), ", ")
            more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
            yield element(
                "p", f"Classes are matched by name. Only {side} has ", listed, more, ".", class_="state alarm"
            )
    if moved.notes:
        yield element("ul", *(element("li", foreign(note, longest=400)) for note in moved.notes))


def _gates(gates: Sequence[Gate]) -> Iterator[Markup]:
    """Yield whether the run may go on, and what each gate says."""
    if gates:
        kind = "good" if all(gate.passed for gate in gates) else "alarm"
        yield element("p", f"Gates: {verdict(gates)}.", class_=f"state {kind}")
        rows = []
        for asked, told, found in (gate.parts for gate in gates):
            kind = "text" if told == PASSED else "text wrong-text"
            rows.append((asked, element("td", told, class_=kind), element("td", foreign(found, 600), class_="text")))
        head = (element("th", name, scope="col", class_="text") for name in ("verdict", "found"))
        yield table("What each gate says", ("gate", *head), rows)


def _numbers(moved: Moved) -> Markup:
    t = moved.totals
    flips = [("flips of all classes", f"{t.class_flips:,}")] if isinstance(t, SigmoidTotals) else []
    what = "samples with a flip of any class" if flips else "flips: predictions of another class"
    return definitions(
        [
            ("samples compared", f"{t.compared:,}"),
            *([("of these not finite in NEW: flips, broken", f"{t.not_finite:,}")] if t.not_finite else []),
            *flips,
            (
                f"{what}, {percent(t.flips_percent)} {brackets(moved.intervals.get('flips_percent'))}".strip(),
                f"{t.flips:,}",
            ),
            ("fixed", f"{t.fixed:,}"),
            ("broken", f"{t.broken:,}"),
            ("changed otherwise", f"{t.changed:,}"),
            ("mean similarity of maps", f"{share(t.spearman)}{_ends(moved, 'spearman', share)}"),
        ],
        "numbers",
    )


def _ends(moved: Moved, name: str, form: Callable[[float], str], scale: float = 1) -> str:
    """Return an interval, times `scale`, in brackets, "" where there is none."""
    ends = sorted(scale * end for end in moved.intervals.get(name, ()))
    return f" ({' to '.join(map(form, ends))})" if ends else ""


def _hundredths(change: float) -> str:
    return signed(change, 2)


def _change(moved: Moved) -> Markup:
    """Return scores before and after."""
    rows = [
        *_scores(moved),
        ("mean logit of the class that OLD predicts", NONE, NONE, signed(moved.totals.logit_change)),
    ]
    return table("Over all compared samples", ("measure", "OLD", "NEW", "change"), rows)


def _scores(moved: Moved) -> Iterator[tuple[object, ...]]:
    """Yield each score before and after: accuracy and confidence, of multi-label runs the means over the classes."""
    t = moved.totals
    if isinstance(t, SigmoidTotals):
        for name, mean in t.macro.items():
            yield (
                f"mean {SCORES[name]} of {mean.classes:,} classes",
                rate(mean.old),
                rate(mean.new),
                signed(mean.change) + (_ends(moved, "auroc_drop", signed, -0.01) if name == "auroc" else ""),
            )
        return
    points = NONE
    if t.accuracy_drop is not None:
        points = f"{signed(-t.accuracy_drop, 2)} points{_ends(moved, 'accuracy_drop', _hundredths, -1)}"
    what = f"accuracy on {t.labelled:,} samples labelled in both"
    ends = (moved.intervals.get(name) for name in ("old_accuracy", "new_accuracy"))
    shares = (each and (each[0] / 100, each[1] / 100) for each in ends)
    yield what, *map(bounded, (rate(t.old_accuracy), rate(t.new_accuracy)), shares), points
    more = None if t.old_confidence is None or t.new_confidence is None else t.new_confidence - t.old_confidence
    yield "mean confidence", share(t.old_confidence), share(t.new_confidence), signed(more)


def _transitions(transitions: Sequence[Transition]) -> Markup:
    rows = [(foreign(t.old), stated_cell(t.new), f"{t.count:,}") for t in transitions[:MOST_TRANSITIONS]]
    head = ("OLD predicts", element("th", "NEW predicts", scope="col", class_="text"), "samples")
    return table("The most frequent flips", head, rows)


def _apart(moved: Moved) -> Markup:
    """Return which samples are not compared, by reason, with their ids."""
    if not moved.apart:
        return element("p", "None: every sample of either run is compared.")
    table_ = table("By reason", ("reason", "samples"), [(reason, f"{n:,}") for reason, n in moved.apart.items()])
    lists = [_ids(reason, count, moved.apart_ids[reason]) for reason, count in moved.apart.items()]
    words = (
        "A sample is compared where both runs have its id and the same image, by SHA-256, or each has it under an "
        "id of its own, and OLD has finite numbers for it; not finite in NEW is a broken flip. Added ones are in NEW "
        "alone, removed ones in OLD alone; a changed input is another image under one id."
    )
    return join((element("p", words), table_, *lists))


def _ids(reason: str, count: int, ids: Sequence[str]) -> Markup:
    first = f", the first {len(ids):,}; batchcam compare --out writes all" if len(ids) < count else ""
    listed = element("ul", *(element("li", element("code", foreign(each))) for each in ids), class_="ids")
    return details(f"{count:,} {reason}{first}", listed)


def _groups(moved: Moved) -> list[tuple[str, str, int]]:
    """Return name, CSS class and place of those that kept their predicted class, and those that did not."""
    t = moved.totals
    groups = (("kept", "plain", 0, t.compared - t.flips), ("flipped", "wrong", 1, t.flips))
    return [(name, kind, place) for name, kind, place, size in groups if size]


def _confidence(moved: Moved) -> Iterator[Markup]:
    change = moved.movement.confidence_change
    words = "NEW's confidence in what it predicts minus OLD's in what it predicts. Each chart has its own scale."
    bars = [
        histogram(change[place], name, kind, "change of confidence")
        for name, kind, place in _groups(moved)
        if len(change[place])
    ]
    yield element("h3", "Change of confidence")
    yield element("p", words)
    yield element("div", *bars, class_="charts")


def _similarity(moved: Moved) -> Iterator[Markup]:
    t, values = moved.totals, moved.movement.similarity
    smallest = values[0].joined(values[1]).quantile(0)
    yield element("h3", "Similarity of maps")
    yield element("p", SIMILARITY)
    if t.without_maps:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in t.without_maps.items())
        yield element("p", f"{t.maps:,} of {t.compared:,} samples have a pair of maps. Without: {reasons}.")
    if smallest is None:
        return
    low = max(-1.0, math.floor(smallest * 10 - 1e-9) / 10)
    bars = [
        histogram(values[place], name, kind, "similarity", low)
        for name, kind, place in _groups(moved)
        if len(values[place])
    ]
    numbers = [
        ("mean", share(t.spearman)),
        ("median", share(t.spearman_median)),
        ("a tenth of the samples lies below", share(t.spearman_p10)),
        ("mean cosine of the signed maps", share(t.cosine)),
        ("mean overlap (IoU) of the strongest fifth of cells", share(t.top_iou)),
        ("mean shift of the largest cell, in cells", share(t.peak_shift)),
    ]
    yield element("div", *bars, class_="charts")
    yield definitions(numbers, "numbers")


def _moved_classes(moved: Moved) -> Iterator[Markup]:
    yield element("h3", "Classes that moved")
    yield from _sigmoids(moved.sigmoids) if moved.sigmoids else _classes(moved.classes)


def _sigmoids(classes: Sequence[SigmoidMovement]) -> Iterator[Markup]:
    head = (
        *("class", "labels", "yes", "AUROC OLD", "AUROC NEW", "points"),
        *(SCORES[name] for name in SCORES if name != "auroc"),
        *("threshold OLD", "threshold NEW", "above OLD", "above NEW", "flips", "fixed", "broken", "changed"),
        *("mean logit change", "mean similarity", "mean peak shift"),
    )
    words = (
        "Largest loss of AUROC first, then the most flips. Scores are over the labels that both runs state; after the "
        "AUROC stand changes, NEW minus OLD, at each run's own threshold. Above are all compared samples at or above "
        "it. Logits and maps are the class's own, over the samples where it stands at or above its threshold, or "
        "highest of all, in OLD; peak shift is in cells."
    )
    return _by_class(words, head, classes, _sigmoid_row)


def _sigmoid_row(c: SigmoidMovement) -> tuple[object, ...]:
    return (
        foreign(c.name),
        *(f"{c.old.known:,}", f"{c.old.yes:,}", rate(c.old.auroc), rate(c.new.auroc)),
        _points(c.auroc_drop, c.intervals.get("auroc_drop")),
        *(signed(c.change[name]) for name in SCORES if name != "auroc"),
        *(share(c.old.threshold), share(c.new.threshold), f"{c.old.predicted:,}", f"{c.new.predicted:,}"),
        *(f"{c.flips:,}", f"{c.fixed:,}", f"{c.broken:,}", f"{c.changed:,}"),
        *_maps(c),
    )


def _points(drop: float | None, interval: Interval | None) -> Markup:
    told = gained_text(interval).replace("-", "−")
    return element("td", signed(None if drop is None else -drop, 1), element("small", f" {told}") if told else None)


def _maps(c: ClassMovement | SigmoidMovement) -> tuple[object, ...]:
    return signed(c.logit_change), bounded(share(c.spearman), c.intervals.get("spearman")), share(c.peak_shift)


def _classes(classes: Sequence[ClassMovement]) -> Iterator[Markup]:
    head = (
        *("class", "labelled", "accuracy OLD", "accuracy NEW", "points", "fixed", "broken"),
        *("predicted OLD", "predicted NEW", "left", "mean logit change", "mean similarity", "mean peak shift"),
    )
    words = (
        "Largest loss of accuracy first, then the least alike maps. Left: samples that OLD predicts as the class and "
        "NEW does not. Logits and maps are the class's own, over the samples that OLD predicts as it; peak shift is in "
        "cells."
    )
    return _by_class(words, head, classes, _class_row)


def _by_class(
    words: str, head: Sequence[str], classes: Sequence[Each], row: Callable[[Each], tuple[object, ...]]
) -> Iterator[Markup]:
    rows = [row(each) for each in classes[:MOST_CLASSES]]
    more = len(classes) - len(rows)
    yield element("p", words)
    yield table("What moved by class" + (f"; {more:,} more left out" if more else ""), head, rows)


def _class_row(c: ClassMovement) -> tuple[object, ...]:
    before, after = (right / c.labelled if c.labelled else None for right in (c.old_correct, c.new_correct))
    points = _points(c.accuracy_drop, c.intervals.get("accuracy_drop"))
    return (
        foreign(c.name),
        *(f"{c.labelled:,}", rate(before), rate(after), points, f"{c.fixed:,}", f"{c.broken:,}"),
        *(f"{c.old_predicted:,}", f"{c.new_predicted:,}", f"{c.left:,}"),
        *_maps(c),
    )
