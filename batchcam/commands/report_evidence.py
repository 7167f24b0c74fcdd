"""The report's sections on maps: where the evidence sits, and the samples that are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from batchcam import charts
from batchcam.commands.report_content import ODD, Content, groups, histogram, share
from batchcam.commands.report_facts import Facts
from batchcam.commands.report_pictures import Picture
from batchcam.html import Markup, element, foreign, image, join, table
from batchcam.pictures import State

LARGEST_TABLE: Final = 30  # cells on a side of a grid above which the table of cells is left out


def evidence(facts: Facts) -> Markup:
    """Return where the positive evidence sits, with the definitions."""
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
    shown: list[object] = [element("p", text) for text in words]
    if np.isfinite(maps.cells).all():
        shown.append(_cells(maps.cells))
    for values, heading, what in ((maps.border, "Border share", "border share"), (maps.spread, "Spread", "spread")):
        bars = [
            histogram(values[rows], name, kind, what)
            for name, kind, rows in groups(facts)
            if np.isfinite(values[rows]).any()
        ]
        if bars:
            shown += [element("h3", heading), element("div", *bars, class_="charts")]
    return join(shown)


def _cells(cells: np.ndarray) -> Markup:
    """Return how the positive evidence is spread over the grid, in per cent."""
    most = float(cells.max())
    rows = [
        [
            f"row {y + 1}",
            *(element("td", f"{100 * c:.1f}", class_=f"plain s{charts.shade(c / most)}") for c in line),
        ]
        for y, line in enumerate(cells.tolist())
    ]
    caption = "Mean share of positive evidence in each cell, per cent, over all samples that have any"
    head = [element("span", "cell"), *(str(x + 1) for x in range(cells.shape[1]))]
    if max(cells.shape) > LARGEST_TABLE:
        y, x = np.unravel_index(int(cells.argmax()), cells.shape)
        return element(
            "p", f"Most evidence, on average, lies in row {y + 1}, column {x + 1}: {100 * most:.2f} per cent."
        )
    return table(caption, head, rows, "grid")


def mistakes(content: Content) -> Markup:
    """Return the wrong predictions, the most confident first."""
    words = "Wrong predictions, the most confident first."
    return _gallery(
        content, content.mistakes, content.counts["mistakes"], words, "No labelled sample was predicted wrong."
    )


def hits(content: Content) -> Markup:
    """Return the right predictions, the least confident first."""
    words = "Right predictions, the least confident first."
    return _gallery(content, content.hits, content.counts["hits"], words, "No labelled sample was predicted right.")


def odd(content: Content) -> Markup:
    """Return the samples whose maps are odd, by kind."""
    if not any(content.counts[kind] for kind in ODD):
        return element("p", "No map is constant, without positive evidence, at the border only, or not finite.")
    shown: list[object] = []
    for kind, (heading, words) in ODD.items():
        if content.counts[kind]:
            shown.append(element("h3", heading, id=f"odd-{kind}"))
            shown.append(_gallery(content, content.odd[kind], content.counts[kind], words, ""))
    return join(shown)


def _gallery(content: Content, pictures: Sequence[Picture], count: int, words: str, nothing: str) -> Markup:
    if not count:
        return element("p", nothing)
    how_many = f" {len(pictures):,} of {count:,} shown." if len(pictures) < count else f" All {count:,} shown."
    shown = [element("li", _figure(content.facts, picture)) for picture in pictures]
    listed = element("ul", *shown, class_="gallery") if shown else None
    return join(p for p in (element("p", words + how_many + _key(pictures)), listed) if p is not None)


def _key(pictures: Sequence[Picture]) -> str:
    """Return how to read pictures; nothing where none has a heatmap."""
    if not any(p.mapped for p in pictures):
        return ""
    beside = any(p.mapped and p.state is State.FOUND for p in pictures)
    place = (
        "Left the original, right over it the evidence"
        if beside
        else "Over grey, for want of the original, the evidence"
    )
    return (
        f" {place} for the predicted class, coloured from its smallest value (dark) to its largest (yellow): "
        "colours of two pictures do not compare."
    )


def _figure(facts: Facts, picture: Picture) -> Markup:
    sample, row = picture.sample, picture.sample.row
    wrong = bool(facts.wrong[row])
    said = sample.prediction if sample.prediction is not None else "no prediction"
    label = sample.label if sample.label is not None else "no label"
    drawn = None
    if picture.jpeg:
        alt = f"{_what(picture)} of sample {sample.id}: predicted {said}, label {label}"
        drawn = image(picture.jpeg, "image/jpeg", alt, picture.size)
    predicted = element("p", "predicted ", element("strong", foreign(said, 60)), f", {share(sample.confidence)}")
    labelled = element("p", "label ", element("strong", foreign(label, 60)), class_="wrong-text" if wrong else None)
    border, spread = (share(float(v[row])) for v in (facts.maps.border, facts.maps.spread))
    measures = element("p", f"border share {border}, spread {spread}", class_="soft")
    name = element("p", element("code", foreign(sample.id)))
    missing = None
    if picture.state is State.MISSING:
        missing = element("p", "map alone" if picture.mapped else "no picture", class_="soft")
    elif picture.state is not State.FOUND:
        missing = element("p", f"original {picture.state.value}: ", foreign(picture.reason), class_="soft")
    return element("figure", drawn, element("figcaption", name, predicted, labelled, measures, missing))


def _what(picture: Picture) -> str:
    if picture.state is not State.FOUND:
        return "Map alone"
    return "Original and overlay" if picture.mapped else "Original, without a map,"
