"""The report's section on where in the maps the evidence sits."""

from __future__ import annotations

from typing import Final

import numpy as np

from batchcam.commands.report import charts
from batchcam.commands.report.facts import Facts
from batchcam.commands.report.writing import histogram
from batchcam.pictures.html import Markup, element, join, table

LARGEST_TABLE: Final = 30  # cells on a side of a grid above which the table of cells is left out


def evidence(facts: Facts, padded: bool) -> Markup:
    """Return where the positive evidence sits, with the definitions; `padded`: whether images are."""
    maps = facts.maps
    height, width = maps.cells.shape
    words = [
        "Evidence is the predicted class's raw map M on the target layer's grid; positive evidence is max(M, 0).",
        f"Border share: the positive evidence in the outermost ring of the {height}×{width} cells, as a share of all. "
        f"Evidence spread evenly would give {maps.evenly:.3f}."
        + ("" if maps.inside else " This grid is all ring: the border share is always 1 and says nothing."),
        "Spread: Shannon entropy of the cells' shares p of positive evidence, −Σ p log p, divided by its largest "
        "possible value, log of the number of cells. 0: one cell holds all; 1: all cells hold the same.",
    ]
    if padded:
        words.insert(2, "The images of this run are padded: cells of the ring may lie on the padding.")
    shown: list[object] = [element("p", text) for text in words]
    if np.isfinite(maps.cells).all():
        caption = "Mean share of positive evidence in each cell, per cent, over all samples that have any"
        shown.append(cell_table(maps.cells, caption, "Most evidence, on average, lies"))
    for measure, heading, what in (("border", "Border share", "border share"), ("spread", "Spread", "spread")):
        bars = [
            histogram(group.spread[measure], group.name, group.kind, what)
            for group in facts.groups
            if len(group.spread[measure])
        ]
        if bars:
            shown += [element("h3", heading), element("div", *bars, class_="charts")]
    return join(shown)


def cell_table(cells: np.ndarray, caption: str, most_lies: str) -> Markup:
    """Return shares of each cell of the grid in per cent, of a large grid that of the largest alone."""
    most = float(cells.max())
    rows = [
        [f"row {y + 1}", *(element("td", f"{100 * c:.1f}", class_=f"plain s{charts.shade(c / most)}") for c in line)]
        for y, line in enumerate(cells.tolist())
    ]
    head = [element("span", "cell"), *(str(x + 1) for x in range(cells.shape[1]))]
    if max(cells.shape) > LARGEST_TABLE:
        y, x = np.unravel_index(int(cells.argmax()), cells.shape)
        return element("p", f"{most_lies} in row {y + 1}, column {x + 1}: {100 * most:.2f} per cent.")
    return table(caption, head, rows, "grid")
