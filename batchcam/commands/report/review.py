"""The report's section on what people said of samples that they looked at."""

from __future__ import annotations

from typing import Final

from batchcam.commands.report.writing import NONE, bounded, stated, stated_cell
from batchcam.commands.review.text import agreement_text, case_text, drawn_text
from batchcam.pictures.html import Markup, definitions, element, foreign, join, table
from batchcam.record.metrics import rate_text
from batchcam.record.review import Review

MOST_CASES: Final = 200


def reviewed(review: Review) -> Markup:
    """Return how often each verdict is to be expected, who said so, how far they agree, and what is to settle."""
    intro = element("p", foreign(drawn_text(review), longest=400), ".")
    rows = [
        [foreign(s.verdict), f"{s.samples:,}", NONE if s.share is None else bounded(rate_text(s.share), s.interval)]
        for s in review.shares
    ]
    of_all = "" if review.size is None else f"; share of all {review.size:,}, with {100 * review.level:g}% interval"
    people = join((join((foreign(name), f" {count:,}")) for name, count in review.reviewers.items()), ", ")
    facts = [
        ("judged by", people or NONE),
        ("agreement", agreement_text(review.agreement) if review.agreement else NONE),
        *(("note", stated(note)) for note in review.notes),
    ]
    files = [
        [stated(f.file), *(element("td", element("code", each), class_="text") for each in (f.changed, f.sha256))]
        for f in review.files
    ]
    return join(
        (
            intro,
            table(f"Verdicts{of_all}", ("verdict", "samples", "share"), rows),
            definitions(facts, "facts"),
            table("Files read", ("file", "last written", "SHA-256"), files, "texts"),
            _cases(review),
        )
    )


def _cases(review: Review) -> Markup:
    if not review.cases:
        return element("p", "Nothing is open or disputed.")
    more = len(review.cases) - MOST_CASES
    caption = "Open or disputed samples" + (f"; {more:,} others left out" if more > 0 else "")
    shown = review.cases[:MOST_CASES]
    rows = [[element("code", foreign(c.sample_id)), stated_cell(case_text(c.state, c.verdicts))] for c in shown]
    return table(caption, ("sample", "verdicts"), rows, "texts")
