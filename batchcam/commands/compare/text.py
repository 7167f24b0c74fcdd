"""The result of compare in lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from batchcam.commands.compare.compare import CompareSummary
from batchcam.commands.compare.exchanges import Exchange
from batchcam.commands.compare.gates import UNDECIDED
from batchcam.commands.compare.groups import GroupMovement
from batchcam.commands.compare.movement import ClassMovement, Mover, SampleTotals, Totals, ranked_classes
from batchcam.commands.compare.sigmoids import SigmoidChange, SigmoidGroupMovement, SigmoidMovement, SigmoidTotals
from batchcam.errors import one_line
from batchcam.job.console import counted
from batchcam.record.groups import group_name
from batchcam.record.metrics import rate_text
from batchcam.record.sigmoid_scores import SCORES
from batchcam.record.study import class_lines, counts_text, head_lines

MOVERS_SHOWN: Final = 10
TRANSITIONS_SHOWN: Final = 5
CYCLE_SHOWN: Final = 6

SIGMOID_HEADER: Final = (
    "labels     yes  AUROC        points  average precision      F1  sensitivity  specificity  above          "
    "flips  fixed  broken  changed"
)


def compare_text(summary: CompareSummary) -> str:
    """Return the result of `compare`: verdict and gates, what moved, the classes and samples that moved most."""
    t = summary.totals
    head = [
        *_verdict(summary),
        ("old", f"{summary.old} ({summary.old_samples} samples)"),
        ("new", f"{summary.new} ({summary.new_samples} samples)"),
        ("compared", counts_text({"samples": t.compared} | summary.apart)),
        ("flips", _flips(summary)),
        *([("scores", _scores(t, summary))] if isinstance(t, SigmoidTotals) else _of_one_label(t, summary)),
        ("maps", _maps(summary)),
    ]
    if summary.transitions:
        most = summary.transitions[:TRANSITIONS_SHOWN]
        head.append(("moved", ", ".join(f"{m.count} {m.old} → {m.new}" for m in most)))
    head += [("exchanged", exchange_text(exchange)) for exchange in summary.exchanges]
    lines = head_lines(head, summary.notes, summary.out, "compare")
    return "\n".join([*lines, "", *_class_table(summary.classes), *_group_table(summary), *_mover_table(summary)])


def _verdict(summary: CompareSummary) -> Iterator[tuple[str, str]]:
    """Yield whether NEW may go on, then each gate, those first that stop it."""
    if not summary.gates:
        return
    stopping = [gate.option for gate in summary.gates if not gate.passed]
    undecided = sum(gate.verdict == UNDECIDED for gate in summary.gates)
    verdict = f"STOPPED by {', '.join(dict.fromkeys(stopping))}" if stopping else "passed"
    yield (
        "verdict",
        verdict + (f"; {undecided} of {counted(len(summary.gates), 'gate')} undecided" if undecided else ""),
    )
    for gate in sorted(summary.gates, key=lambda gate: gate.passed):
        yield "gate", gate.reason


def _between(summary: CompareSummary, name: str, form: str, scale: float = 1) -> str:
    """Return the ends of an interval, times `scale`, in a form, "" where there is none."""
    ends = summary.intervals.get(name)
    return form.format(*sorted(scale * end for end in ends)) if ends else ""


def _flips(summary: CompareSummary) -> str:
    t = summary.totals
    kinds = f"{t.fixed} fixed, {t.broken} broken, {t.changed} changed"
    if isinstance(t, SigmoidTotals):
        kinds = f"samples with {counted(t.class_flips, 'flip')} of a class: {kinds}, by the worst"
    lost = f"; of the broken {t.not_finite} are not finite in NEW" if t.not_finite else ""
    interval = f"{_shown(t.flips_percent)} %" + _between(summary, "flips_percent", ", {:.2f} to {:.2f}")
    return f"{t.flips} of {t.compared} ({interval}): {kinds}{lost}"


def _scores(t: SigmoidTotals, summary: CompareSummary) -> str:
    if not t.macro:
        return "- no label is stated in both"
    told = (f"{SCORES[n]} {_shown(m.old)} → {_shown(m.new)} ({_signed(m.change)})" for n, m in t.macro.items())
    interval = _between(summary, "auroc_drop", "; AUROC by {:+.2f} to {:+.2f} points", -1)
    return f"mean over classes of {', '.join(told)} on {counted(t.labels, 'label')} stated in both{interval}"


def _of_one_label(t: Totals, summary: CompareSummary) -> list[tuple[str, str]]:
    confidence = f"mean of {t.compared} {_shown(t.old_confidence)} → {_shown(t.new_confidence)}"
    return [("accuracy", _accuracy(t, summary)), ("confidence", confidence)]


def _accuracy(t: Totals, summary: CompareSummary) -> str:
    if t.accuracy_drop is None:
        return "- no sample is labelled in both"
    shares = " → ".join(
        f"{rate_text(getattr(t, name))} ({_between(summary, name, '{:.2f}–{:.2f}, ', 0.01)}n {t.labelled})"
        for name in ("old_accuracy", "new_accuracy")
    )
    change = f"{0 - t.accuracy_drop:+.2f} points" + _between(summary, "accuracy_drop", " ({:+.2f} to {:+.2f})", -1)
    return f"{shares}, {change}, exact McNemar p {t.p:.2g}, on {t.labelled} labelled in both"


def _maps(summary: CompareSummary) -> str:
    t: SampleTotals = summary.totals
    without = "".join(f"; {count} without: {reason}" for reason, count in t.without_maps.items())
    if t.spearman is None:
        return f"{t.maps} pairs{without}"
    spread = f"median {_shown(t.spearman_median)}, a tenth below {_shown(t.spearman_p10)}"
    others = f"cosine {_shown(t.cosine)}, IoU {_shown(t.top_iou)}, peak shift {_shown(t.peak_shift)} cells"
    mean = _shown(t.spearman) + _between(summary, "spearman", ", {:.3f} to {:.3f}")
    return f"{t.maps} pairs: mean similarity {mean} ({spread}), {others}{without}"


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


def _class_table(classes: Sequence[ClassMovement | SigmoidMovement]) -> list[str]:
    sigmoids = [c for c in classes if isinstance(c, SigmoidMovement)]
    if sigmoids:
        rows = [
            (c.name, f"{_sigmoid_line(c)}  {_shown(c.spearman):>10}") for c in sorted(sigmoids, key=lambda c: c.rank)
        ]
        return class_lines(f"{SIGMOID_HEADER}  similarity", rows)
    header = "labelled  points  fixed  broken  predicted        left  similarity  peak shift"
    ranked = ranked_classes([c for c in classes if isinstance(c, ClassMovement)])
    legend = "left: predicted as the class in OLD and as another in NEW; IoU: overlap of the strongest fifth of cells"
    return [*class_lines(header, [(c.name, _class_line(c)) for c in ranked]), legend]


def _group_table(summary: CompareSummary) -> list[str]:
    if not summary.groups:
        return []
    sigmoids = [m for m in summary.groups if isinstance(m, SigmoidGroupMovement)]
    if sigmoids:
        few = {True: "", False: "  too few to judge"}
        rows = [(group_name(m.named), f"{_sigmoid_line(m)}{few[m.is_judged]}") for m in sigmoids]
        return ["", *class_lines(SIGMOID_HEADER, rows, ", ".join((*summary.group_by, "class")))]
    header = "compared  flips  share               labelled  points  similarity"
    rows = [(group_name(m.group), _group_line(m)) for m in summary.groups if isinstance(m, GroupMovement)]
    return [
        "",
        *class_lines(header, rows, ", ".join(summary.group_by)),
        f"of flips the share's {summary.confidence:g} % interval, by Wilson",
    ]


def _group_line(m: GroupMovement) -> str:
    interval = "-" if m.flips_interval is None else "{:.3f}–{:.3f}".format(*m.flips_interval)
    share = f"{m.flips / m.compared:.3f} ({interval})"
    few = "" if m.is_judged else "  too few to judge"
    points = "-" if m.accuracy_drop is None else f"{0 - m.accuracy_drop:+.1f}"
    return f"{m.compared:>8}  {m.flips:>5}  {share:<19}  {m.labelled:>8}  {points:>6}  {_shown(m.spearman):>10}{few}"


def _sigmoid_line(c: SigmoidChange) -> str:
    drop = "-" if c.auroc_drop is None else f"{0 - c.auroc_drop:+.1f}"
    auroc = f"{_shown(c.old.auroc)}→{_shown(c.new.auroc)}"
    others = "  ".join(f"{_signed(c.change[name]):>{max(6, len(SCORES[name]))}}" for name in SCORES if name != "auroc")
    predicted = f"{c.old.predicted}→{c.new.predicted}"
    kinds = f"{c.flips:>5}  {c.fixed:>5}  {c.broken:>6}  {c.changed:>7}"
    return f"{c.old.known:>6}  {c.old.yes:>6}  {auroc:<11}  {drop:>6}  {others}  {predicted:<13}  {kinds}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _class_line(c: ClassMovement) -> str:
    return (
        f"{c.labelled:>8}  {_points(c):>6}  {c.fixed:>5}  {c.broken:>6}  {f'{c.old_predicted}→{c.new_predicted}':<13}"
        f"  {c.left:>6}  {_shown(c.spearman):>10}  {_shown(c.peak_shift):>10}"
    )


def _points(movement: ClassMovement) -> str:
    return "-" if movement.accuracy_drop is None else f"{0 - movement.accuracy_drop:+.1f}"


def _mover_table(summary: CompareSummary) -> list[str]:
    moved, is_multi_label = summary.movers, isinstance(summary.totals, SigmoidTotals)
    rows = [
        f"{m.reason:<10}  {_shown(m.spearman):>6}  {_shown(m.confidence_change):>6}  {one_line(m.sample_id)}"
        + (f" (NEW: {one_line(m.new_sample_id)}): " if m.new_sample_id else ": ")
        + one_line(_of_classes(m) if is_multi_label else _of_one(m))
        for m in moved[:MOVERS_SHOWN]
    ]
    if not rows:
        return []
    more = [f"… and {len(moved) - MOVERS_SHOWN} more movers"] if len(moved) > MOVERS_SHOWN else []
    return ["", "moved most  similarity, confidence change, sample", *rows, *more]


def _of_one(m: Mover) -> str:
    return f"{m.old_prediction} → {m.new_prediction or 'not finite'}, label {m.label or '-'}"


def _of_classes(m: Mover) -> str:
    labels = "labels not known" if m.label is None else f"labels {m.label or 'none'}"
    return f"{'no flip' if m.flip == 'same' else m.flip}; {labels}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
