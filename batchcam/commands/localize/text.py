"""The result of localize in lines for people."""

from __future__ import annotations

from typing import Final

from batchcam.commands.localize.localize import LocalizeSummary, left_out_text
from batchcam.commands.localize.scores import SCORES, ClassScores, Score
from batchcam.record.study import class_lines, head_lines, maps_text

CLASS_COLUMNS: Final = {"max_box_acc_v2": "V2", "pxap": "PxAP", "peak_inside": "peak inside", "energy_inside": "energy"}
WIDTHS: Final = {"max_box_acc_v2": 13, "pxap": 13, "peak_inside": 22, "energy_inside": 22}
"""Of these columns; intervals of a class are known of means alone."""


def localize_text(summary: LocalizeSummary) -> str:
    """Return the result of `localize`: what was judged, each score beside that of the centre, and the classes."""
    s = summary
    size = f"{s.size[0]}x{s.size[1]}"
    frame = {
        "view": f"over the network's view, bilinear to {size}",
        "image": f"over the whole image, bicubic to {size}",
    }[s.frame]
    class_ = {"label": "label", "predicted": "predicted class", "finding": "annotated class"}[s.target]
    what = "findings" if s.target == "finding" else "samples"
    head = [
        ("run", f"{s.run} ({s.samples} samples)"),
        ("annotations", s.annotations + (f"; {s.strangers} images are not in the run" if s.strangers else "")),
        ("maps", f"{maps_text(s.method)} of the {class_}, {frame}"),
        ("pointing", f"game won within {s.tolerance:.3g} pixels of the object"),
        ("judged", "; ".join([f"{s.judged} {what}", *filter(None, [left_out_text(s.left_out, s.target)])])),
    ]
    if s.cropped:
        outside = f"{s.cropped} objects lie partly outside of the network's view"
        head.append(("cropped", f"{outside}; of a judged object {_shown(s.cropped_percent)} % on average"))
    if s.without_map:
        head.append(("no map", f"{s.without_map} maps are constant or not finite: they find nothing"))
    right = "findings reach their thresholds" if s.target == "finding" else "samples are predicted right"
    elsewhere = f"{s.right_elsewhere} of {s.judged} {right} with the peak outside of the object"
    head.append(("elsewhere", elsewhere))
    lines = head_lines(head, s.notes, s.out, "localize")
    return "\n".join(
        [
            *lines,
            "",
            *_score_table(s),
            "",
            f"percent: CAM, its {s.confidence:g} % interval in brackets / centre",
            *_class_table(s.classes, s.macro),
        ]
    )


def _score_table(summary: LocalizeSummary) -> list[str]:
    interval = f"{summary.confidence:g} % interval"
    rows = [f"{'percent':<15} {'CAM':>6}  {interval:<14}  {'centre':>6}  {'samples':>7}  threshold"]
    for name, title in SCORES.items():
        score = summary.scores.get(name)
        if score is None or not score.samples:
            continue
        at = f"{score.threshold:.3f}" if score.threshold is not None else ""
        interval = "-" if score.interval is None else f"{score.interval[0]:.1f}–{score.interval[1]:.1f}"
        centre = f"{_shown(score.centre_percent):>6}  {score.samples:>7}  {at}"
        rows.append(f"{title:<15} {_shown(score.percent):>6}  {interval:<14}  {centre}".rstrip())
    return rows


def _class_table(classes: list[ClassScores], macro: dict[str, Score]) -> list[str]:
    """Return a table of classes, each score with the centre's after a slash, the smallest peak inside first."""
    ranked = sorted(classes, key=lambda c: (c.scores["peak_inside"].percent or 0, c.name))
    header = "samples" + "".join(f"  {title:>{WIDTHS[name]}}" for name, title in CLASS_COLUMNS.items())
    means = "; ".join(f"{title} {_pair(macro[name])}" for name, title in CLASS_COLUMNS.items() if macro)
    lines = class_lines(header, [(c.name, _class_line(c)) for c in ranked])
    return [*lines, *([f"mean over classes: {means}"] if means else [])]


def _class_line(c: ClassScores) -> str:
    return f"{c.samples:>7}" + "".join(f"  {_pair(c.scores[name]):>{WIDTHS[name]}}" for name in CLASS_COLUMNS)


def _pair(score: Score) -> str:
    between = "" if score.interval is None else " ({:.0f}–{:.0f})".format(*score.interval)
    return f"{_shown(score.percent)}{between} / {_shown(score.centre_percent)}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
