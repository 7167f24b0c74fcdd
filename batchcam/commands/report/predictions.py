"""The report's sections on predictions: confusions, confidence, classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from batchcam.commands.report import charts
from batchcam.commands.report.content import Content
from batchcam.commands.report.facts import Facts, Sigmoids
from batchcam.commands.report.writing import NONE, bounded, histogram, in_brackets, rate, share, stated_cell
from batchcam.pictures.html import Markup, details, element, foreign, image, join, table
from batchcam.record.calibration import BINS
from batchcam.record.intervals import wilson
from batchcam.record.metrics import ClassScore, brackets
from batchcam.record.sigmoid_scores import COLUMNS, MOST_PAIRED

MATRIX_CLASSES: Final = 30
"""Classes above which the largest confusions are listed instead of a matrix."""

MATRIX_NAME: Final = 40  # characters of a class's name beside the matrix

LARGEST_CONFUSIONS: Final = 60

MOST_CLASSES: Final = 1000

CELL_PIXELS: Final = 14

SMALLEST_MAP, LARGEST_MAP = 40, 84  # CSS pixels of a class's mean map, at its longer side


def confusions(content: Content) -> Markup:
    """Return which classes are taken for which: a matrix, or the largest confusions of many classes."""
    facts, names = content.facts, content.about.plan.class_names
    if not facts.judged:
        return element("p", "No sample has both a label and a prediction.")
    listed = len(names) > MATRIX_CLASSES
    words = f"Over the {facts.judged:,} samples that have a label and a prediction."
    intro = element("p", words, in_brackets(facts.level) if listed else None)
    return join((intro, _largest_confusions(facts, names) if listed else _matrix(facts, names)))


def _matrix(facts: Facts, names: Sequence[str]) -> Markup:
    counts = np.zeros((len(names), len(names)), np.int64)
    for label, prediction, count in facts.confusions:
        counts[label, prediction] = count
    head = [element("span", "label ↓ · predicted →"), *(foreign(name, MATRIX_NAME) for name in names)]
    rows = []
    for label, name in enumerate(names):
        total = max(1, int(counts[label].sum()))
        cells = (
            element("td", f"{count:,}", class_=_shading(count / total, label == prediction))
            for prediction, count in enumerate(counts[label].tolist())
        )
        rows.append([foreign(name, MATRIX_NAME), *cells])
    caption = "Confusion matrix: samples by label (rows) and predicted class (columns), shaded by share of the label"
    return table(caption, head, rows, "matrix")


def _shading(share: float, right: bool) -> str:
    return f"{'right' if right else 'wrong'} s{charts.shade(share)}" if share else "none"


def _largest_confusions(facts: Facts, names: Sequence[str]) -> Markup:
    wrong = [(label, prediction, count) for label, prediction, count in facts.confusions if label != prediction]
    if not wrong:
        return element("p", "Every prediction is right.")
    counts = {(label, prediction): count for label, prediction, count in wrong}
    rows = [
        (
            foreign(names[label]),
            element("td", foreign(names[prediction]), class_="text"),
            f"{count:,}",
            bounded(
                share(count / facts.scores[label].labelled), wilson(count, facts.scores[label].labelled, facts.level)
            ),
            f"{counts.get((prediction, label), 0):,}",
        )
        for label, prediction, count in wrong[:LARGEST_CONFUSIONS]
    ]
    caption = f"The largest {len(rows):,} of {len(wrong):,} confusions that occur"
    head = (
        "label",
        element("th", "predicted as", scope="col", class_="text"),
        "samples",
        "share of the label",
        "the other way round",
    )
    return table(caption, head, rows)


def together(sigmoids: Sigmoids) -> Markup:
    """Return which classes of a multi-label run come together most, by labels and by predictions."""
    rows = [
        (foreign(pair.first), stated_cell(pair.second), f"{pair.labelled:,}", f"{pair.predicted:,}")
        for pair in sigmoids.pairs
    ]
    if not rows:
        return element("p", f"No two classes were counted together; of more than {MOST_PAIRED:,} none are.")
    caption = "The pairs of classes that come together most, by samples that are labelled with both"
    and_ = element("th", "and", scope="col", class_="text")
    return table(caption, ("class", and_, "labelled with both", "both at or above their thresholds"), rows)


def confidence(facts: Facts) -> Markup:
    """Return how confidence is distributed and whether it can be believed."""
    if not facts.predicted:
        return element("p", "No sample has a prediction.")
    what = "softmax of the logits at the predicted class"
    if facts.sigmoids:
        what = "sigmoid of the predicted class, the one whose logit is highest above that of its threshold"
    bars = [histogram(group.spread["confidence"], group.name, group.kind, "confidence") for group in facts.groups]
    shown = [
        element("p", f"Confidence is the {what}. Each chart has its own scale."),
        element("div", *bars, class_="charts"),
    ]
    if facts.calibration_error is not None:
        shown += [element("h3", "Reliability"), _reliability(facts)]
    return join(shown)


def _reliability(facts: Facts) -> Markup:
    error, (said, true), counted = facts.calibration_error, ("confidence", "accuracy"), "samples"
    what, than = "labelled predictions", "more confident than right"
    if facts.sigmoids:
        (said, true), counted = ("sigmoid", "share of yes"), "labels"
        what, than = "known labels of all classes", "surer of a yes than it may be"
    told = f"{share(error)} {brackets(facts.calibration_interval)}"
    summary = f"Reliability diagram: {true} in {BINS} bins of {said}; expected calibration error {told}"
    words = (
        f"The {what} fall into {BINS} bins of equal width by {said}, upper edges included. Bars show the {true} in a "
        f"bin, dots stand at its mean {said}; below the dashed diagonal the classifier is {than}. Expected calibration "
        f"error: {told} – the mean of |{true} − mean {said}| over the bins, weighted by their {counted}."
    )
    rows = [
        (
            f"{b.low:.3f} to {b.high:.3f}",
            f"{b.count:,}",
            *map(bounded, (share(b.confidence), rate(b.true)), b.intervals(facts.level)),
        )
        for b in facts.bins
    ]
    numbers = table("Reliability by bin", (said, counted, f"mean {said}", true), rows)
    figure = element("figure", charts.reliability_diagram(facts.bins, (said, true), summary))
    return join(
        (
            element("p", words, in_brackets(facts.level)),
            element("div", figure, class_="charts"),
            details("Numbers of the diagram", numbers),
        )
    )


def classes(content: Content) -> Markup:
    """Return a table of classes, the least accurate first; without labels the most often predicted first."""
    facts = content.facts
    if facts.sigmoids:
        words = (
            "A sample's predicted class is the one whose logit is highest above that of its threshold. The map is the "
            "mean of the class's raw map over the samples predicted as it and labelled with it, one square a cell; all "
            "classes share one scale."
        )
        heading = element("h3", "Predicted classes")
        return join(
            (_sigmoids(facts.sigmoids, facts.level), heading, _predicted_classes(content, words, "Predicted classes"))
        )
    if not facts.judged:
        words = "Most often predicted first; no prediction has a label to judge it by."
        return _predicted_classes(content, words, "Classes")
    ranked = sorted(enumerate(facts.scores), key=lambda s: (s[1].accuracy is None, s[1].accuracy or 0, s[0]))
    limit = _largest(facts.maps.class_cams)
    rows = [_class_row(content, index, score, limit) for index, score in ranked[:MOST_CLASSES]]
    words = (
        "Least accurate first. The map is the mean of the predicted class's raw map over the samples of this class "
        "that were predicted right, one square a cell; all classes share one scale. Mean confidence, border share and "
        "spread are over all samples predicted as the class; the last two are defined under "
    )
    evidence = element("a", "where the evidence sits", href="#evidence")
    intro = element("p", words, evidence, ".", in_brackets(facts.level))
    more = len(ranked) - len(rows)
    caption = "Classes, least accurate first" + (f"; {more:,} more accurate ones left out" if more else "")
    head = (
        *("class", "accuracy", "labelled", "right", "predicted"),
        *("mean confidence", "mean border share", "mean spread", "mean map"),
    )
    return join((intro, _legend(limit, _unit(content)), table(caption, head, rows)))


def _sigmoids(sigmoids: Sigmoids, level: float) -> Markup:
    """Return how a multi-label run tells each of its classes."""
    ranked = sorted(sigmoids.scores, key=lambda score: score.rank)
    rows = [
        [foreign(score.name)]
        + [
            f"{cell:,}" if isinstance(cell, int) else bounded(rate(cell), score.intervals.get(COLUMNS[name]))
            for name, cell in score.cells.items()
        ]
        for score in ranked[:MOST_CLASSES]
    ]
    words = (
        "Each class is true or not by itself. Rates are over the samples whose label of the class is known and that "
        "have logits; left out are those without. Predicted are all readable samples at or above its threshold, known "
        "or not; F1, sensitivity and specificity are at it. Average precision is the sum of the precision over falling "
        f"logits, weighted by the gain in sensitivity; the calibration error is that of the sigmoid, over {BINS} bins."
    )
    more = len(ranked) - len(rows)
    caption = "Classes, least AUROC first" + (f"; {more:,} others left out" if more else "")
    head = ("class", *ranked[0].cells) if ranked else ()
    return join((element("p", words, in_brackets(level)), table(caption, head, rows, "scores")))


def _predicted_classes(content: Content, words: str, whose: str) -> Markup:
    """Return where the evidence for each predicted class sits, with mean maps where labels say of which samples."""
    facts, unit = content.facts, _unit(content)
    limit = _largest(facts.maps.class_cams)
    ranked = sorted(enumerate(facts.scores), key=lambda s: (-s[1].predicted, s[0]))
    rows = [
        [foreign(score.name), f"{score.predicted:,}", *_means(facts, index)]
        + ([element("td", _class_map(facts.maps.class_cams[index], limit, score.name, unit))] if limit else [])
        for index, score in ranked[:MOST_CLASSES]
    ]
    words += " Means are over all samples predicted as the class; border share and spread are defined under "
    evidence = element("a", "where the evidence sits", href="#evidence")
    intro = element("p", words, evidence, ".", in_brackets(facts.level))
    more = len(ranked) - len(rows)
    caption = f"{whose}, most often predicted first" + (f"; {more:,} others left out" if more else "")
    means = ("mean confidence", "mean border share", "mean spread", *["mean map"] * bool(limit))
    return join((intro, _legend(limit, unit), table(caption, ("class", "predicted as it", *means), rows)))


def _class_row(content: Content, index: int, score: ClassScore, limit: float) -> list[object]:
    cam = content.facts.maps.class_cams[index]
    return [
        foreign(score.name),
        bounded(rate(score.accuracy), score.intervals["accuracy"], _meter(score.accuracy)),
        f"{score.labelled:,}",
        f"{score.correct:,}",
        f"{score.predicted:,}",
        *_means(content.facts, index),
        element("td", _class_map(cam, limit, score.name, _unit(content))),
    ]


def _means(facts: Facts, index: int) -> list[Markup]:
    """Return the means over the samples that are predicted as a class."""
    return [bounded(share(means[index]), facts.mean_intervals[name][index]) for name, means in facts.means.items()]


def _meter(share: float | None) -> Markup | None:
    if share is None:
        return None
    bar = element("span", style=f"width:{100 * share:.1f}%")
    return element("span", bar, class_="meter", aria_hidden="true")


def _class_map(cam: np.ndarray, limit: float, name: str, unit: str) -> Markup | str:
    if not np.isfinite(cam).all() or not limit:
        return NONE
    y, x = np.unravel_index(int(cam.argmax()), cam.shape)
    alt = (
        f"Mean map of {name}: from {cam.min():.3g} to {cam.max():.3g}{unit}, "
        f"strongest in row {y + 1}, column {x + 1} of {cam.shape[0]}×{cam.shape[1]}"
    )
    return image(charts.signed_map(cam, limit), "image/png", alt, map_size(cam.shape), "cells")


def map_size(grid: tuple[int, ...]) -> tuple[int, int]:
    """Return the (height, width) in CSS pixels at which a small map is shown."""
    longest = max(grid)
    scale = min(LARGEST_MAP, max(SMALLEST_MAP, longest * CELL_PIXELS)) / longest
    return max(4, round(grid[0] * scale)), max(4, round(grid[1] * scale))


def _largest(cams: np.ndarray) -> float:
    finite = np.abs(cams[np.isfinite(cams)])
    return float(finite.max()) if len(finite) else 0.0


def _unit(content: Content) -> str:
    return " logit per cell" if content.about.plan.exact else ""


def _legend(limit: float, unit: str) -> Markup:
    if not limit:
        return Markup()
    ramp = image(charts.signed_ramp(), "image/png", "blue over white to red", (12, 160), "ramp")
    left, right = f"−{limit:.3g} against the class", f"+{limit:.3g}{unit} for it"
    return element("div", element("span", left), ramp, element("span", right), class_="legend")
