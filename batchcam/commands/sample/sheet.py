"""sheet.html: the samples that were drawn, in the order of the table that is to be filled in."""

from __future__ import annotations

from collections.abc import Sequence

from batchcam.commands.report.content import Shown
from batchcam.commands.report.gallery import figures, key
from batchcam.pictures.html import element, foreign, join, page, section, table
from batchcam.pictures.stylesheet import STYLE
from batchcam.record.draw import RULE, Draw

FIRST_LINE = 2  # the spreadsheet's first is the header


def write_sheet(drawn: Draw, shown: Sequence[Shown], notes: Sequence[str]) -> str:
    """Return the pictures of a draw, and how to judge them, as the text of one HTML file."""
    words = join((element("code", foreign(word)) for word in drawn.verdicts), ", ")
    fill = element(
        "p", "Write into verdicts.csv, into a copy each: in the column verdict one of ", words, "; your name under "
        "reviewer; what else there is to say under comment. Change nothing else. Then: batchcam review FILES."
    )  # fmt: skip
    whole = f"{len(shown):,} of {drawn.size:,} samples, drawn at random with seed {drawn.seed}"
    chosen = element("p", "Drawn from those of ", element("code", foreign(drawn.pool))) if drawn.pool else None
    rows = [[foreign(s.reason), f"{s.size:,}", f"{s.drawn:,}", f"{s.weight:.4g}"] for s in drawn.strata]
    strata = table("Drawn", ("reason", "samples", "drawn", "weight of each"), rows)
    head = element(
        "header",
        element("h1", "Samples to judge"),
        element("p", "Run ", element("code", drawn.run_id[:16]), " · ", whole, class_="soft"),
        *(element("p", foreign(note, longest=400), class_="state alarm") for note in notes),
        fill,
        element("p", key(shown)),
    )
    lines = [f"line {place}" for place, _ in enumerate(shown, FIRST_LINE)]
    about = join((chosen or "", strata, element("p", f"The rule: {RULE}.")))
    parts = section("samples", "Samples", figures(shown, lines)), section("draw", "The draw", about)
    main = element("main", *parts, id="content", tabindex=-1)
    return page(f"batchcam sample {drawn.run_id[:12]}", STYLE, head, main)
