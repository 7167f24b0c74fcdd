"""The result of faithfulness in lines for people."""

from __future__ import annotations

from typing import Final

from batchcam.commands.faithfulness.curves import CURVES, ORDERS
from batchcam.commands.faithfulness.faithfulness import FaithfulnessSummary, Score
from batchcam.record.intervals import Interval
from batchcam.record.study import counts_text, head_lines, maps_text

SUBSTRATE_TEXTS: Final = {
    "mean": "the image's mean colour",
    "zero": "zero of the normalised input",
    "blur": "the blurred image",
}
CURVE_TEXTS: Final = {"deletion": "deletion, low", "insertion": "insertion, high", "road": "ROAD, low"}
ORDER_TEXTS: Final = {order: order.replace("_", " ") for order in ORDERS}


def faithfulness_text(summary: FaithfulnessSummary) -> str:
    """Return the result of `faithfulness`: what was judged, each area beside the baselines', and by how much ahead."""
    s = summary
    class_ = "the predicted class" if s.below_threshold is None else "the class highest above its threshold"
    before = f"{s.probability:.3f}{_between(s.probability_interval)}"
    head = [
        ("run", f"{s.run} ({s.samples} samples)"),
        ("maps", f"{maps_text(s.method)} of {class_}, bilinear to {s.size[0]}x{s.size[1]}"),
        ("judged", counts_text({f"samples of {s.drawn} drawn": s.judged} | s.left_out)),
        ("deletion", f"in {s.steps} steps to {SUBSTRATE_TEXTS[s.deletion_to]}, largest values first"),
        ("insertion", f"in {s.steps} steps into {SUBSTRATE_TEXTS[s.insertion_from]}, largest values first"),
        ("ROAD", f"in {s.steps - 1} steps by noisy linear imputation, largest values first"),
        ("probability", f"{before} of {class_} before any change, mean of {s.judged} samples"),
    ]
    lines = head_lines(head, s.notes, s.out, "faithfulness")
    return "\n".join([*lines, "", *_area_table(s.scores), "", *_ahead_table(s.scores), _legend(s)])


def _area_table(scores: dict[str, dict[str, Score]]) -> list[str]:
    rows = [f"{'area':<15}" + "".join(f"  {title:>22}" for title in ORDER_TEXTS.values())]
    for curve, title in CURVE_TEXTS.items():
        areas = (f"{s.area:.3f}{_between(s.area_interval)}" for s in (scores[curve][order] for order in ORDERS))
        rows.append(f"{title:<15}" + "".join(f"  {area:>22}" for area in areas))
    return rows


def _ahead_table(scores: dict[str, dict[str, Score]]) -> list[str]:
    rows = [f"{'map ahead of':<15}" + "".join(f"  {ORDER_TEXTS[order]:>42}" for order in ORDERS[1:])]
    for curve in CURVES:
        cells = "".join(f"  {_shown(scores[curve][order]):>42}" for order in ORDERS[1:])
        rows.append(f"{CURVE_TEXTS[curve].split(',')[0]:<15}{cells}")
    return rows


def _shown(score: Score) -> str:
    share = "-" if score.ahead_percent_interval is None else "{:.0f}–{:.0f}".format(*score.ahead_percent_interval)
    return f"{score.ahead:+.3f}{_between(score.ahead_interval, '+')}, {score.ahead_percent:.0f} % ({share})"


def _between(interval: Interval | None, sign: str = "") -> str:
    return "" if interval is None else f" ({interval[0]:{sign}.3f} to {interval[1]:{sign}.3f})"


def _legend(s: FaithfulnessSummary) -> str:
    return f"in brackets {s.confidence:g} % intervals; %: share of the samples on which the map is ahead"
