"""The report's section on where the peaks of maps gather, and what of that needs a look."""

from __future__ import annotations

import shlex
from typing import Final

import numpy as np

from batchcam.commands.report import charts
from batchcam.commands.report.content import About, Content, Gathered
from batchcam.commands.report.evidence import cell_table
from batchcam.commands.report.gallery import figures, key
from batchcam.commands.report.predictions import map_size
from batchcam.commands.report.writing import NONE, bounded, in_brackets, rate
from batchcam.pictures.html import Markup, details, element, foreign, image, join, table
from batchcam.record.evidence import border, corners
from batchcam.record.intervals import wilson
from batchcam.record.metrics import brackets, rate_text
from batchcam.record.screen import FALSE_SHARE, FEWEST, LEAST_EXCESS, SMALLEST_GRID, Gathering
from batchcam.store.bringing import shown

MOST_CLASSES: Final = 100

UNSEEN: Final = (
    "It does not see what lies in the middle of the view, what changes its place from image to image, and what has "
    "none: a colour cast, blur, or sharpness. That nothing is found does not clear a network."
)


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
        parts.append(_how_to_check(content) if content.gathered else element("p", none))
    parts += [_gathering(each) for each in content.gathered]
    caption = "Where the peaks lie: share in each cell, per cent, over all predicted classes"
    parts += [cell_table(counts.sum(0) / counts.sum(), caption, "Most peaks lie"), _classes(content)]
    return join(parts)


def place(gathering: Gathering) -> Markup:
    """Return whose peaks gather, and where."""
    whose = "all samples together" if gathering.class_name is None else foreign(gathering.class_name)
    return join((whose, f" in {gathering.place}"))


def peak_tile(content: Content, gathering: Gathering) -> Markup:
    """Return where the peaks lie of which many gather in one place, as a figure."""
    counts, name = content.facts.peaks, gathering.class_name
    own = counts.sum(0) if name is None else counts[content.about.plan.class_names.index(name)]
    drawn = image(charts.signed_map(own, float(own.max())), "image/png", "Peaks by cell", (120, 120), "cells")
    return element("figure", drawn, element("figcaption", element("p", "peaks of ", place(gathering))))


def discover_line(about: About) -> Markup:
    """Return the command that tries whether regions carry a class, in the words of the run."""
    checkpoint, data = about.option("classifier", "checkpoint") or "CKPT", about.option("data") or "DATA"
    run, checkpoint, data = (shlex.quote(str(word)) for word in (shown(about.run), checkpoint, data))
    line = f"batchcam discover {run} --checkpoint {checkpoint} --data {data} --out discovered"
    return element("code", foreign(line, longest=2000))


def _how_to_check(content: Content) -> Markup:
    return element(
        "p",
        "How to check: do the pictures show anything there beside the object, or is the object itself always there? ",
        discover_line(content.about),
        " lays such regions over images of other classes; a network that reads a tag then says the tag's class.",
        key([shown for each in content.gathered for shown in each.shown]),
    )


def _gathering(gathered: Gathered) -> Markup:
    it = gathered.gathering
    words = f" The first {len(gathered.shown):,} of them:" if gathered.shown else ""
    return join((element("h3", place(it)), element("p", counted(it), words), figures(gathered.shown)))


def counted(it: Gathering) -> str:
    """Return how many peaks gather in a place, and how many are to be expected there."""
    share = f"{rate_text(it.there / it.peaks)} {brackets(it.interval)}"
    return f"{it.there:,} of {it.peaks:,} peaks: {share}, where {it.expected:.3f} are to be expected."


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
