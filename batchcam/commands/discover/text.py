"""The result of discover in lines for people."""

from __future__ import annotations

from typing import Final

from batchcam.commands.discover.rule import BOTH, FIXED, PORTABLE, TOO_FEW, Effect, Verdict
from batchcam.commands.discover.summary import DiscoverSummary
from batchcam.record.study import class_lines, counts_text, head_lines, maps_text

GATE: Final = "--max-portable"
CARRIER_TEXTS: Final = {"peak": "the region around the map's peak", "border": "the picture's border"}


def discover_text(summary: DiscoverSummary) -> str:
    """Return the result of `discover`: what is claimed, of which classes, and the numbers of all of them."""
    s = summary
    cells = "x".join(map(str, s.grid))
    head = [
        ("run", f"{s.run} ({s.samples} samples)"),
        (
            "maps",
            f"{maps_text(s.method)} of the predicted class; regions of {s.region[0]}x{s.region[1]} of {cells} cells",
        ),
        ("judged", counts_text({f"samples of {s.drawn} drawn": s.judged} | s.left_out)),
        *(("found", claim_text(v)) for v in (s.overall, *s.classes) if v.is_claim),
        *([] if s.claims or s.overall.is_claim else [("found", nothing_text(s))]),
        *([("gate", gate_text(s))] if s.gate else []),
    ]
    lines = head_lines(head, [*s.notes, "not seen: " + "; ".join(s.not_seen)], s.out, "discover")
    title = f"{'judged':>6}  {'carried':>24}  {'control':>7}  {'needed':>24}  verdict"
    rows = [(v.name or "all samples", _columns(v)) for v in (s.overall, *s.classes)]
    return "\n".join([*lines, "", *class_lines(title, rows)])


def claim_text(verdict: Verdict) -> str:
    """Return what is claimed of a class in one sentence, with its numbers."""
    who, parts = verdict.name or "all samples", []
    if verdict.verdict in (PORTABLE, BOTH) and verdict.carried:
        c = verdict.carried
        parts.append(
            f"{CARRIER_TEXTS[verdict.carrier or '']} carries it into {c.share:.0%} of other classes' images, control "
            f"regions into {c.control:.0%}: {effect_text(c)}"
        )
    if verdict.verdict in (FIXED, BOTH) and verdict.place:
        p = verdict.place
        where = "in the corners" if p.name == "corners" else f"at the {p.name} edge"
        parts.append(
            f"{p.share:.0%} of its peaks lie {where} ({p.even:.0%} of the cells), and {p.needed.share:.0%} of these "
            f"predictions fall without that region, {p.needed.control:.0%} without a random one"
        )
    return f"{who}: {verdict.verdict}: {'; '.join(parts)}"


def nothing_text(summary: DiscoverSummary) -> str:
    """Return what stands where nothing is claimed."""
    if summary.overall.verdict == TOO_FEW:
        return "nothing is judged: too few samples"
    return "no region that carries a class, no place that it needs"


def gate_text(summary: DiscoverSummary) -> str:
    """Return how the gate ended."""
    gate = summary.gate
    if gate is None or gate.value is None:
        return f"{GATE}: NOT JUDGED: no class has samples enough"
    of = f"of {gate.worst}" if gate.worst else "of all samples"
    return f"{GATE} {gate.limit:g}: {'passed' if gate.passed else 'EXCEEDED'}: {gate.value:.1f} {of}"


def effect_text(effect: Effect) -> str:
    """Return an effect and its interval."""
    return f"{effect.effect:+.2f} ({effect.low:+.2f} to {effect.high:+.2f})"


def _columns(v: Verdict) -> str:
    if v.carried is None or v.needed is None:
        return f"{v.judged:>6}  {'-':>24}  {'-':>7}  {'-':>24}  {v.verdict}"
    numbers = f"{effect_text(v.carried):>24}  {v.carried.control:>7.2f}  {effect_text(v.needed):>24}"
    return f"{v.judged:>6}  {numbers}  {v.verdict}"
