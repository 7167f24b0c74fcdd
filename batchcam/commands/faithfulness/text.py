"""The result of faithfulness in lines for people."""

from __future__ import annotations

from typing import Final

from batchcam.commands.faithfulness.curves import CURVES, ORDERS
from batchcam.commands.faithfulness.faithfulness import FaithfulnessSummary, Score
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
    head = [
        ("run", f"{s.run} ({s.samples} samples)"),
        ("maps", f"{maps_text(s.method)} of {class_}, bilinear to {s.size[0]}x{s.size[1]}"),
        ("judged", counts_text({f"samples of {s.drawn} drawn": s.judged} | s.left_out)),
        ("deletion", f"in {s.steps} steps to {SUBSTRATE_TEXTS[s.deletion_to]}, largest values first"),
        ("insertion", f"in {s.steps} steps into {SUBSTRATE_TEXTS[s.insertion_from]}, largest values first"),
        ("ROAD", f"in {s.steps - 1} steps by noisy linear imputation, largest values first"),
        ("probability", f"{s.probability:.3f} of {class_} before any change, mean of {s.judged} samples"),
    ]
    lines = head_lines(head, s.notes, s.out, "faithfulness")
    return "\n".join([*lines, "", *_area_table(s.scores), "", *_ahead_table(s.scores)])


def _area_table(scores: dict[str, dict[str, Score]]) -> list[str]:
    rows = [f"{'area':<15}" + "".join(f"  {title:>14}" for title in ORDER_TEXTS.values())]
    for curve, title in CURVE_TEXTS.items():
        rows.append(f"{title:<15}" + "".join(f"  {scores[curve][order].area:>14.3f}" for order in ORDERS))
    return rows


def _ahead_table(scores: dict[str, dict[str, Score]]) -> list[str]:
    rows = [f"{'map ahead of':<15}" + "".join(f"  {ORDER_TEXTS[order]:>22}" for order in ORDERS[1:])]
    for curve in CURVES:
        cells = "".join(f"  {_shown(scores[curve][order]):>22}" for order in ORDERS[1:])
        rows.append(f"{CURVE_TEXTS[curve].split(',')[0]:<15}{cells}")
    return rows


def _shown(score: Score) -> str:
    error = "-" if score.ahead_error is None else f"{score.ahead_error:.3f}"
    return f"{score.ahead:+.3f} ± {error} ({score.ahead_percent:.0f} %)"
