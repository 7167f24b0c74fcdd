"""The report's section on where the peaks of maps gather, and what of that needs a look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from batchcam.commands.report import charts
from batchcam.commands.report.content import Content, Gathered
from batchcam.commands.report.evidence import cell_table
from batchcam.commands.report.gallery import figures, key
from batchcam.commands.report.predictions import map_size
from batchcam.commands.report.writing import NONE, bounded, in_brackets, rate
from batchcam.pictures.html import Markup, details, element, foreign, image, join, table
from batchcam.record.evidence import border, corners
from batchcam.record.intervals import wilson
from batchcam.record.metrics import brackets, rate_text
from batchcam.record.screen import FALSE_SHARE, FEWEST, LEAST_EXCESS, SMALLEST_GRID, Gathering

MOST_CLASSES: Final = 100

MOST_NAMED: Final = 5

UNSEEN: Final = (
    "It does not see what lies in the middle of the view, what changes its place from image to image, and what has "
    "none: a colour cast, blur, or sharpness. That nothing is found does not clear a network."
)


def findings(gathered: Sequence[Gathered]) -> Iterator[Markup]:
    """Yield what a reader should look at, in one line."""
    if gathered:
        link = element("a", "Peaks gather in one place", href="#peaks")
        named = [_whose(each.gathering) for each in gathered[:MOST_NAMED]]
        more = f", and {len(gathered) - MOST_NAMED:,} more" if len(gathered) > MOST_NAMED else ""
        yield join((link, ": ", join(named, ", "), more))


def peaks(content: Content) -> Markup:
    """Return where peaks lie, class by class, and each place where they gather with pictures and how to check it."""
    counts = content.facts.peaks
    height, width = counts.shape[1:]
    if not counts.any():
        return element("p", "No map has a peak.")
    intro = (
        "A map's peak is its largest cell. Objects are where photographers put them, so that honest networks' peaks "
        "gather around the middle of the view, each class's a little elsewhere. What always stands in one place, such "
        "as a tag, a stamp, a frame or a watermark, draws them there."
    )
    rule = (
        f"Judged are all samples together and each class with at least {FEWEST} peaks. Of the corner cells and of the "
        "outermost ring chance expects their share of the grid, of another cell that or, if it is more, the share that "
        "the other classes have there; cells in the middle half of height and width are not judged. A place is named "
        f"if at least {100 * LEAST_EXCESS:g} % of the samples that chance does not put there have their peak there, by "
        "the interval's lower end (exact binomial test, Fisher's for classes with each other; of places that are named "
        f"chance makes at most {100 * FALSE_SHARE:g} %, by Benjamini and Hochberg)."
    )
    parts: list[object] = [element("p", intro)]
    if min(height, width) < SMALLEST_GRID:
        parts.append(element("p", f"This grid of {height}×{width} cells is too coarse to tell: nothing is judged."))
    else:
        parts += [details("How it is judged", element("p", rule)), element("p", UNSEEN)]
        none = "No place is named." if counts.sum() >= FEWEST else f"Fewer than {FEWEST} peaks: nothing is judged."
        parts.append(_how_to_check(content.gathered) if content.gathered else element("p", none))
    parts += [_gathering(each) for each in content.gathered]
    caption = "Where the peaks lie: share in each cell, per cent, over all predicted classes"
    parts += [cell_table(counts.sum(0) / counts.sum(), caption, "Most peaks lie"), _classes(content)]
    return join(parts)


def _whose(gathering: Gathering) -> Markup:
    whose = "all samples together" if gathering.class_name is None else foreign(gathering.class_name)
    return join((whose, f" in {gathering.place}"))


def _how_to_check(gathered: Sequence[Gathered]) -> Markup:
    command = element("code", "batchcam discover RUN --checkpoint CKPT --data DATA --out DIR")
    return element(
        "p",
        "How to check: do the pictures show anything there beside the object, or is the object itself always there? ",
        command,
        " lays such regions over images of other classes; a network that reads a tag then says the tag's class.",
        key([shown for each in gathered for shown in each.shown]),
    )


def _gathering(gathered: Gathered) -> Markup:
    it = gathered.gathering
    found = f"{it.there:,} of {it.peaks:,} peaks lie in {it.place}: {rate_text(it.there / it.peaks)} "
    expected = f"{brackets(it.interval)}, where {it.expected:.3f} are to be expected."
    words = f" The first {len(gathered.shown):,} of them:" if gathered.shown else ""
    return join((element("h3", _whose(it)), element("p", found, expected, words), figures(gathered.shown)))


def _classes(content: Content) -> Markup:
    """Return a table of the classes, those first of which a place is named, then the most often predicted."""
    facts = content.facts
    counts, grid = facts.peaks, facts.peaks.shape[1:]
    totals, everywhere = counts.sum((1, 2)), counts.sum(0)
    named = {each.gathering.class_name for each in content.gathered}
    names = content.about.plan.class_names
    ranked = sorted(np.flatnonzero(totals).tolist(), key=lambda k: (names[k] not in named, -totals[k], k))
    most = float((counts / np.maximum(1, totals)[:, None, None]).max())
    rows = []
    for k in ranked[:MOST_CLASSES]:
        own, whole = counts[k], int(totals[k])
        y, x = (int(i) for i in np.unravel_index(int(own.argmax()), grid))
        parts = [int(own[mask].sum()) for mask in (corners(grid), border(grid))] + [int(own[y, x])]
        others = int(everywhere.sum()) - whole
        alt = f"Peaks of {names[k]}: most in row {y + 1}, column {x + 1}"
        rows.append(
            [
                foreign(names[k]),
                f"{whole:,}",
                *(bounded(rate(part / whole), wilson(part, whole, facts.level)) for part in parts),
                f"{y + 1}, {x + 1}",
                rate((int(everywhere[y, x]) - parts[-1]) / others) if others else NONE,
                element("td", image(charts.signed_map(own / whole, most), "image/png", alt, map_size(grid), "cells")),
            ]
        )
    even = f"in the corners (even: {corners(grid).mean():.3f})", f"in the outermost ring ({border(grid).mean():.3f})"
    head = ("class", "peaks", *even, "in its most frequent cell", "row, column", "other classes there", "peaks by cell")
    more = len(ranked) - len(rows)
    caption = "Where the peaks of each predicted class lie" + (f"; {more:,} classes left out" if more else "")
    shading = f" The pictures share one scale: white no peak of the class, red {100 * most:.0f} % of them."
    return join(
        (element("p", "Shares of the class's peaks.", in_brackets(facts.level), shading), table(caption, head, rows))
    )
