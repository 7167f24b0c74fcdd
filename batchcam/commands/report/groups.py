"""The report's section on groups of samples, such as those of one hospital."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from batchcam.commands.report.content import Content
from batchcam.commands.report.writing import bounded, in_brackets, rate, share, stated_cell
from batchcam.pictures.html import Markup, element, foreign, join, table
from batchcam.record.groups import MEASURES, GroupScore, group_name
from batchcam.record.intervals import LEVEL
from batchcam.record.sigmoid_groups import SigmoidGroup
from batchcam.rules import FEWEST_IN_GROUP

MOST_GROUPS: Final = 200

EVIDENCE: Final = ("samples", "unreadable", "mean confidence", "mean border share", "mean spread")
RATES: Final = ("auroc", "sensitivity", "specificity", "prevalence")
BY_SIGMOID: Final = ("class", "AUROC", *RATES[1:], "known", "yes", "left out", "remark")


def groups(content: Content) -> Markup:
    """Return a table of groups, the worst first; of a multi-label run of each class in each, and of their evidence."""
    facts, right, of = content.facts, "right ones", "labelled samples"
    if facts.sigmoids:
        right, of = "yes at or above the threshold, or so few no below it,", "known labels of the class"
    words = (
        f"A group falls behind if so few {right} would be in one by chance in less than "
        f"{1 - LEVEL:.0%} of such tables: Fisher's exact test against all {of}, one-sided, adjusted by Holm. "
        f"Below {FEWEST_IN_GROUP} {of} a group is not judged. Border share and spread are defined under "
    )
    evidence_link = element("a", "where the evidence sits", href="#evidence")
    intro = element("p", words, evidence_link, ".", in_brackets(facts.level))
    by, evidence = content.group_by, facts.scores_by_group
    if not facts.sigmoids:
        head = ("accuracy", "labelled", *EVIDENCE, "remark")
        return join((intro, _table("Groups", "least accurate first", by, head, [_row(s) for s in evidence])))
    told = [_sigmoid_row(each) for each in facts.sigmoids.groups]
    classes = _table("Classes", "least AUROC first", by, BY_SIGMOID, told)
    return join((intro, classes, _table("Evidence", "by name", by, EVIDENCE, [_evidence_row(s) for s in evidence])))


def _table(
    what: str, order: str, by: Sequence[str], head: Sequence[object], rows: Sequence[Sequence[object]]
) -> Markup:
    more = len(rows) - MOST_GROUPS
    caption = f"{what} by {', '.join(by)}, {order}" + (f"; {more:,} others left out" if more > 0 else "")
    return table(caption, (", ".join(by), *head), rows[:MOST_GROUPS])


def _row(score: GroupScore) -> list[object]:
    name, *evidence = _evidence_row(score)
    return [name, bounded(rate(score.accuracy), score.interval), f"{score.labelled:,}", *evidence, _remark(score)]


def _evidence_row(score: GroupScore) -> list[object]:
    return [
        foreign(group_name(score.group)),
        *(f"{count:,}" for count in (score.samples, score.unreadable)),
        *(bounded(share(getattr(score, name)), score.intervals[name]) for name in MEASURES),
    ]


def _sigmoid_row(group: SigmoidGroup) -> list[object]:
    score = group.score
    return [
        foreign(group_name(group.group)),
        stated_cell(score.name),
        *(bounded(rate(getattr(score, name)), score.intervals[name]) for name in RATES),
        *(f"{count:,}" for count in (score.known, score.yes, score.left_out)),
        _remark(group),
    ]


def _remark(group: GroupScore | SigmoidGroup) -> str | Markup:
    if group.falls_behind:
        return element("strong", f"falls behind, p {group.p:.2g}")
    return "" if group.is_judged else "too few to judge"
