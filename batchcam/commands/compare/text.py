"""The result of compare in lines for people."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from batchcam.commands.compare.compare import CompareSummary
from batchcam.commands.compare.exchanges import Exchange
from batchcam.commands.compare.gates import UNDECIDED, Gate
from batchcam.commands.compare.groups import GroupMovement
from batchcam.commands.compare.movement import ClassMovement, Mover, SampleTotals, Totals
from batchcam.commands.compare.noise import noise_lines
from batchcam.commands.compare.sigmoids import SigmoidChange, SigmoidMovement, SigmoidTotals
from batchcam.errors import one_line
from batchcam.job.console import counted
from batchcam.record.groups import group_name
from batchcam.record.intervals import Interval
from batchcam.record.metrics import brackets, rate_text
from batchcam.record.sigmoid_scores import SCORES
from batchcam.record.study import class_lines, counts_text, head_lines

MOVERS_SHOWN: Final = 10
TRANSITIONS_SHOWN: Final = 5
CYCLE_SHOWN: Final = 6

MAPS: Final = "similarity: rank correlation of the CAMs' cells; IoU: overlap of their strongest fifth of cells"
LEGEND: Final = (
    "points: of accuracy, NEW minus OLD",
    "changed: a flip from one wrong class to another, or without a label that both state",
    "left: predicted as the class in OLD and as another in NEW",
    MAPS,
)
SIGMOID_LEGEND: Final = (
    "points: 0.01 of AUROC, NEW minus OLD; the scores after it are changes too",
    "changed: a flip of the class without a label that both state",
    "above: samples at or above the class's threshold",
    MAPS,
)

Columns = dict[str, Callable[[Any], object]]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of texts under the names of their columns, the first of which says what a row is of."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    legend: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The table for a terminal, numbers to the right."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        (what, head), *rows = (
            (name, "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)))
            for name, *cells in (self.head, *self.rows)
        )
        return ["", *class_lines(head, rows, what), *self.legend]


def compare_text(summary: CompareSummary) -> str:
    """Return the result of `compare`: verdict and gates, what moved, the classes and samples that moved most."""
    gates = [("gate", gate.reason) for gate in ranked_gates(summary.gates)]
    head = [*([("verdict", verdict(summary.gates))] if gates else []), *gates, *facts(summary)]
    lines = head_lines(head, summary.notes, summary.out, "compare")
    for table in tables(summary):
        lines += table.lines
    return "\n".join([*lines, *_mover_lines(summary)])


def facts(summary: CompareSummary) -> list[tuple[str, str]]:
    """Return what moved over all samples, under short names."""
    t = summary.totals
    told = [
        ("old", f"{summary.old} ({summary.old_samples} samples)"),
        ("new", f"{summary.new} ({summary.new_samples} samples)"),
        ("compared", counts_text({"samples": t.compared} | summary.apart)),
        ("flips", _flips(summary)),
        *([("scores", _scores(t, summary))] if isinstance(t, SigmoidTotals) else _of_one_label(t, summary)),
        ("maps", _maps(summary)),
        *(("noise", line) for line in noise_lines(summary.noise)),
    ]
    if summary.transitions:
        most = summary.transitions[:TRANSITIONS_SHOWN]
        told.append(("moved", ", ".join(f"{m.count} {m.old} → {m.new}" for m in most)))
    return [*told, *(("exchanged", exchange_text(exchange)) for exchange in summary.exchanges)]


def verdict(gates: Sequence[Gate]) -> str:
    """Return whether NEW may go on."""
    stopping = dict.fromkeys(gate.option for gate in gates if not gate.passed)
    undecided = sum(gate.verdict == UNDECIDED for gate in gates)
    told = f"STOPPED by {', '.join(stopping)}" if stopping else "passed"
    return told + (f"; {undecided} of {counted(len(gates), 'gate')} undecided" if undecided else "")


def ranked_gates(gates: Sequence[Gate]) -> list[Gate]:
    """Return the gates, those first that stop NEW."""
    return sorted(gates, key=lambda gate: gate.passed)


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


def tables(summary: CompareSummary) -> list[Table]:
    """Return what moved by class and by group, the worst first."""
    classes: Sequence[Any] = summary.classes
    are_sigmoids = isinstance(summary.totals, SigmoidTotals)
    ranked = [(c.name, c) for c in sorted(classes, key=lambda c: c.rank)]
    of_classes, legend = (SIGMOID_CLASSES, SIGMOID_LEGEND) if are_sigmoids else (CLASSES, LEGEND)
    how = f"in brackets: {summary.confidence:g}% intervals of points by {'DeLong' if are_sigmoids else 'Tango'}, of "
    how += "similarities by Student's t"
    found = [_table("class", ranked, of_classes, (*legend, how))]
    if summary.groups:
        what = ", ".join((*summary.group_by, "class") if are_sigmoids else summary.group_by)
        rows = [(group_name(m.named), m) for m in summary.groups]
        found.append(_table(what, rows, SIGMOID_GROUPS if are_sigmoids else GROUPS, ("share: of flips",)))
    return found


def _table(what: str, rows: Iterable[tuple[str, Any]], columns: Columns, legend: tuple[str, ...]) -> Table:
    cells = [(name, *(str(of(row)) for of in columns.values())) for name, row in rows]
    return Table((what, *columns), cells, legend)


def gained_text(lost: Interval | None) -> str:
    """Return the interval of what was lost as that of a change, "" without one: "(-0.3 to +2.7)"."""
    return "" if lost is None else f"({0 - lost[1]:+.1f} to {0 - lost[0]:+.1f})"


def _points(name: str) -> Callable[[Any], str]:
    def text(c: Any) -> str:
        drop = getattr(c, name)
        return "-" if drop is None else f"{0 - drop:+.1f} {gained_text(c.intervals.get(name))}".rstrip()

    return text


def similarity_text(c: ClassMovement | SigmoidMovement | GroupMovement) -> str:
    """Return the mean similarity of maps with its interval, where that is known."""
    return f"{_shown(c.spearman)} {brackets(c.intervals.get('spearman'))}".rstrip()


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _change(score: str) -> Callable[[SigmoidChange], str]:
    return lambda c: _signed(c.change[score])


SIMILARITY: Final[Columns] = {"similarity": similarity_text}
FEW: Final[Columns] = {"": lambda m: "" if m.is_judged else "too few to judge"}
CLASSES: Final[Columns] = {
    "labelled": lambda c: c.labelled,
    "points": _points("accuracy_drop"),
    "fixed": lambda c: c.fixed,
    "broken": lambda c: c.broken,
    "predicted": lambda c: f"{c.old_predicted}→{c.new_predicted}",
    "left": lambda c: c.left,
    **SIMILARITY,
    "peak shift": lambda c: _shown(c.peak_shift),
}
GROUPS: Final[Columns] = {
    "compared": lambda m: m.compared,
    "flips": lambda m: m.flips,
    "share": lambda m: f"{m.flips / m.compared:.3f} {brackets(m.flips_interval)}".rstrip(),
    "labelled": lambda m: m.labelled,
    "points": _points("accuracy_drop"),
    **SIMILARITY,
    **FEW,
}
SIGMOIDS: Final[Columns] = {
    "labels": lambda c: c.old.known,
    "yes": lambda c: c.old.yes,
    "AUROC": lambda c: f"{_shown(c.old.auroc)}→{_shown(c.new.auroc)}",
    "points": _points("auroc_drop"),
    **{title: _change(name) for name, title in SCORES.items() if name != "auroc"},
    "above": lambda c: f"{c.old.predicted}→{c.new.predicted}",
    **{kind: operator.attrgetter(kind) for kind in ("flips", "fixed", "broken", "changed")},
}
SIGMOID_CLASSES: Final[Columns] = SIGMOIDS | SIMILARITY
SIGMOID_GROUPS: Final[Columns] = SIGMOIDS | FEW


def mover_text(m: Mover, is_multi_label: bool) -> str:
    """Return what became of a sample that moved far."""
    if not is_multi_label:
        return f"{m.old_prediction} → {m.new_prediction or 'not finite'}, label {m.label or '-'}"
    labels = "labels not known" if m.label is None else f"labels {m.label or 'none'}"
    return f"{'no flip' if m.flip == 'same' else m.flip}; {labels}"


def _mover_lines(summary: CompareSummary) -> list[str]:
    moved, is_multi_label = summary.movers, isinstance(summary.totals, SigmoidTotals)
    rows = [
        f"{m.reason:<10}  {_shown(m.spearman):>6}  {_shown(m.confidence_change):>6}  "
        + one_line(f"{mover_ids(m)}: {mover_text(m, is_multi_label)}")
        for m in moved[:MOVERS_SHOWN]
    ]
    if not rows:
        return []
    more = [f"… and {len(moved) - MOVERS_SHOWN} more movers"] if len(moved) > MOVERS_SHOWN else []
    return ["", "moved most  similarity, confidence change, sample", *rows, *more]


def mover_ids(m: Mover) -> str:
    """Return a sample's id, and that of the new run where it is another."""
    return m.sample_id if m.new_sample_id is None else f"{m.sample_id} (NEW: {m.new_sample_id})"
