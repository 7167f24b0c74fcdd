"""The report's section on groups of samples, such as those of one hospital."""

from __future__ import annotations

from typing import Final

from batchcam.commands.report.content import Content
from batchcam.commands.report.html import Markup, element, foreign, join, table
from batchcam.commands.report.writing import NONE, rate, share
from batchcam.record.groups import GroupScore, group_name
from batchcam.record.intervals import LEVEL
from batchcam.rules import FEWEST_IN_GROUP

MOST_GROUPS: Final = 200

HEAD: Final = (
    *("accuracy", f"{LEVEL:.0%} interval", "labelled", "samples", "unreadable"),
    *("mean confidence", "mean border share", "mean spread", "remark"),
)


def groups(content: Content) -> Markup:
    """Return a table of groups, the least accurate first."""
    words = (
        "Least accurate first; intervals by Wilson. A group falls behind if so few right ones would be in one by "
        f"chance in less than {1 - LEVEL:.0%} of such tables: Fisher's exact test against all labelled samples, "
        f"one-sided, corrected by Holm. Below {FEWEST_IN_GROUP} labelled samples a group is not judged. Border share "
        "and spread are defined under "
    )
    intro = element("p", words, element("a", "where the evidence sits", href="#evidence"), ".")
    scores, columns = content.facts.scores_by_group, ", ".join(content.group_by)
    more = len(scores) - MOST_GROUPS
    caption = f"Groups by {columns}, least accurate first" + (f"; {more:,} others left out" if more > 0 else "")
    rows = [_row(score) for score in scores[:MOST_GROUPS]]
    return join((intro, table(caption, (columns, *HEAD), rows)))


def _row(score: GroupScore) -> list[object]:
    remark = "" if score.p is not None else "too few to judge"
    if score.falls_behind:
        remark = element("strong", f"falls behind, p {score.p:.2g}")
    return [
        foreign(group_name(score.group)),
        rate(score.accuracy),
        "{:.3f}–{:.3f}".format(*score.interval) if score.interval else NONE,
        *(f"{count:,}" for count in (score.labelled, score.samples, score.unreadable)),
        *(share(mean) for mean in (score.confidence, score.border, score.spread)),
        remark,
    ]
