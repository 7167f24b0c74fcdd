"""The report's section on the shapes in which the maps of a class come, with samples of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from batchcam.commands.report import charts
from batchcam.commands.report.content import Content, Split
from batchcam.commands.report.gallery import figure, key
from batchcam.commands.report.peaks import discover_line
from batchcam.commands.report.predictions import map_size
from batchcam.commands.report.writing import share
from batchcam.job.console import counted
from batchcam.pictures.html import Markup, details, element, foreign, image, join, table
from batchcam.record.map_clusters import FEWEST, LEAST_SHARE, RULE

MEANING = (
    "The maps of one class come in several shapes where its objects stand in several places, are of several kinds, or "
    "where some of them have a tag. Clusters are no findings: honest networks have them, and a shortcut may make none; "
    "few maps of another shape are lost among many. What do the samples of one cluster share beside the object that "
    "others lack? "
)


def clusters(content: Content) -> Markup:
    """Return the clusters of each class that has several, with samples of each."""
    several = f"two clusters of at least {FEWEST} maps and {100 * LEAST_SHARE:g} % of the class's"
    rule = element("p", f"Shown are predicted classes with {several}: {RULE}.")
    parts: list[object] = [
        element("p", MEANING, discover_line(content.about), " tries whether a region carries a class."),
        details("How clusters are found", rule),
    ]
    if not content.split:
        return join((*parts, element("p", f"No class has {several}.")))
    if more := len(content.facts.split) - len(content.split):
        parts.append(element("p", f"Not shown: {counted(more, 'class')} with such clusters, of fewer maps."))
    shown = [each for of_class in content.split for of_cluster in of_class.shown for each in of_cluster]
    most = max((len(of_cluster) for of_class in content.split for of_cluster in of_class.shown), default=0)
    head = ("class", "maps", "mean map", *(f"sample {n}" for n in range(1, most + 1)))
    names = content.about.plan.class_names
    rows = [row for each in content.split for row in _rows(each, names[each.split.class_], most)]
    said = element("p", "Each mean map has its own scale: white none, red for the class, blue against it.", key(shown))
    return join((*parts, said, table("Clusters of maps and the samples nearest to them", head, rows)))


def _rows(split: Split, name: str, most: int) -> Iterator[list[Markup | str]]:
    sizes = [len(rows) for rows in split.split.rows]
    for mean, size, shown in zip(split.split.means, sizes, split.shown, strict=True):
        alt = f"Mean map of {size:,} maps of {name}"
        drawn = charts.signed_map(mean, float(np.abs(mean).max()))
        picture = element("td", image(drawn, "image/png", alt, map_size(mean.shape), "cells"))
        many = f"{size:,} of {sum(sizes):,} ({share(size / sum(sizes))})"
        samples = [element("td", figure(each)) for each in shown]
        yield [foreign(name), many, picture, *samples, *[""] * (most - len(shown))]
