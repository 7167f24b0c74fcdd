"""The result of compare in lines for people."""

from __future__ import annotations

from typing import Final

from batchcam.commands.compare.compare import CompareSummary
from batchcam.commands.compare.exchanges import Exchange
from batchcam.commands.compare.groups import GroupMovement
from batchcam.commands.compare.movement import ClassMovement, Mover, Totals, ranked_classes
from batchcam.errors import one_line
from batchcam.record.groups import group_name
from batchcam.record.metrics import rate_text
from batchcam.record.study import class_lines, counts_text, head_lines

MOVERS_SHOWN: Final = 10
TRANSITIONS_SHOWN: Final = 5
CYCLE_SHOWN: Final = 6


def compare_text(summary: CompareSummary) -> str:
    """Return the result of `compare`: what moved, the classes and samples that moved most, and the gates."""
    t = summary.totals
    head = [
        ("old", f"{summary.old} ({summary.old_samples} samples)"),
        ("new", f"{summary.new} ({summary.new_samples} samples)"),
        ("compared", counts_text({"samples": t.compared} | summary.apart)),
        ("flips", _flips(t)),
        ("accuracy", _accuracy(t)),
        ("confidence", f"mean of {t.compared} {_shown(t.old_confidence)} → {_shown(t.new_confidence)}"),
        ("maps", _maps(t)),
    ]
    if summary.transitions:
        most = summary.transitions[:TRANSITIONS_SHOWN]
        head.append(("moved", ", ".join(f"{m.count} {m.old} → {m.new}" for m in most)))
    head += [("exchanged", exchange_text(exchange)) for exchange in summary.exchanges]
    lines = head_lines(head, summary.notes, summary.out, "compare", (gate.reason for gate in summary.gates))
    return "\n".join(
        [*lines, "", *_class_table(summary.classes), *_group_table(summary), *_mover_table(summary.movers)]
    )


def _flips(t: Totals) -> str:
    kinds = f"{t.fixed} fixed, {t.broken} broken, {t.changed} changed"
    return f"{t.flips} of {t.compared} ({_shown(t.flips_percent)} %): {kinds}"


def _accuracy(t: Totals) -> str:
    if t.accuracy_drop is None:
        return "- no sample is labelled in both"
    shares = " → ".join("-" if rate is None else rate_text(rate) for rate in (t.old_accuracy, t.new_accuracy))
    return f"{shares} ({0 - t.accuracy_drop:+.2f} points) on {t.labelled} labelled in both"


def _maps(t: Totals) -> str:
    without = "".join(f"; {count} without: {reason}" for reason, count in t.without_maps.items())
    if t.spearman is None:
        return f"{t.maps} pairs{without}"
    spread = f"median {_shown(t.spearman_median)}, a tenth below {_shown(t.spearman_p10)}"
    others = f"cosine {_shown(t.cosine)}, IoU {_shown(t.top_iou)}, peak shift {_shown(t.peak_shift)} cells"
    return f"{t.maps} pairs: mean similarity {_shown(t.spearman)} ({spread}), {others}{without}"


def exchange_text(e: Exchange) -> str:
    """Return which classes look exchanged, and what speaks for it, in one line."""
    shown = e.classes[:CYCLE_SHOWN]
    if len(e.classes) == 2:
        named = f"{shown[0]} and {shown[1]} look swapped"
    else:
        more = ("…",) if len(shown) < len(e.classes) else ()
        named = f"{len(e.classes)} classes look permuted, {' → '.join((*shown, *more, shown[0]))}"
    weights = "; the last layer's rows are the old ones in the other order" if e.same_weights else ""
    return (
        f"{named}: {e.followed} of {e.samples} samples followed; mean similarity {_shown(e.spearman)} "
        f"between maps of the exchanged names, {_shown(e.spearman_as_named)} of the same names{weights}"
    )


def _class_table(classes: list[ClassMovement]) -> list[str]:
    header = "labelled  points  fixed  broken  predicted        left  similarity  peak shift"
    return class_lines(header, [(c.name, _class_line(c)) for c in ranked_classes(classes)])


def _group_table(summary: CompareSummary) -> list[str]:
    if not summary.groups:
        return []
    header = "compared  flips  share               labelled  points  similarity"
    rows = [(group_name(m.group), _group_line(m)) for m in summary.groups]
    return [
        "",
        *class_lines(header, rows, ", ".join(summary.group_by)),
        "of flips the share's 95 % interval, by Wilson",
    ]


def _group_line(m: GroupMovement) -> str:
    low, high = m.flips_interval or (0, 0)
    share = f"{m.flips / m.compared:.3f} ({low:.3f}–{high:.3f})"
    few = "" if m.is_judged else "  too few to judge"
    points = "-" if m.accuracy_drop is None else f"{0 - m.accuracy_drop:+.1f}"
    return f"{m.compared:>8}  {m.flips:>5}  {share}  {m.labelled:>8}  {points:>6}  {_shown(m.spearman):>10}{few}"


def _class_line(c: ClassMovement) -> str:
    return (
        f"{c.labelled:>8}  {_points(c):>6}  {c.fixed:>5}  {c.broken:>6}  {f'{c.old_predicted}→{c.new_predicted}':<13}"
        f"  {c.left:>6}  {_shown(c.spearman):>10}  {_shown(c.peak_shift):>10}"
    )


def _points(movement: ClassMovement) -> str:
    return "-" if movement.accuracy_drop is None else f"{0 - movement.accuracy_drop:+.1f}"


def _mover_table(moved: list[Mover]) -> list[str]:
    rows = [
        f"{m.reason:<10}  {_shown(m.spearman):>6}  {_shown(m.confidence_change):>6}  {one_line(m.sample_id)}: "
        f"{one_line(m.old_prediction)} → {one_line(m.new_prediction)}, label {one_line(m.label or '-')}"
        for m in moved[:MOVERS_SHOWN]
    ]
    if not rows:
        return []
    more = [f"… and {len(moved) - MOVERS_SHOWN} more movers"] if len(moved) > MOVERS_SHOWN else []
    return ["", "moved most  similarity, confidence change, sample", *rows, *more]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
