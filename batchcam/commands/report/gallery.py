"""The report's sections that show samples: mistakes and hits, or without labels unsure and other ones; odd maps.

Of a multi-label run what was missed and what was falsely flagged, by class.
"""

from __future__ import annotations

from collections.abc import Sequence

from batchcam.commands.report.content import ODD, Content, Shown, ShownOfClass
from batchcam.commands.report.drawing import Picture
from batchcam.commands.report.writing import share
from batchcam.pictures.html import LONGEST_TEXT, Markup, element, foreign, image, join
from batchcam.pictures.originals import State


def mistakes(content: Content) -> Markup:
    """Return the wrong predictions, the most confident first."""
    words = "Wrong predictions, the most confident first."
    return _gallery(content.mistakes, content.counts["mistakes"], words, "No labelled sample was predicted wrong.")


def hits(content: Content) -> Markup:
    """Return the right predictions, the least confident first."""
    words = "Right predictions, the least confident first."
    return _gallery(content.hits, content.counts["hits"], words, "No labelled sample was predicted right.")


def unsure(content: Content) -> Markup:
    """Return the least confident predictions of a run without labels."""
    words = "No prediction has a label to judge it by. The least confident ones first."
    return _gallery(content.unsure, content.counts["unjudged"], words, "")


def across(content: Content) -> Markup:
    """Return predictions from all over a run without labels."""
    words = "Predictions at even distances over the run, in the order of the dataset."
    return _gallery(content.across, content.counts["unjudged"], words, "")


def missed(content: Content) -> Markup:
    """Return samples that are labelled with a class and lie below its threshold, the farthest first."""
    return _of_classes(content, content.missed, "labelled with the class and below its threshold")


def flagged(content: Content) -> Markup:
    """Return samples that are labelled as not of a class and lie at or above its threshold, the farthest first."""
    return _of_classes(content, content.flagged, "labelled as not of the class, and at or above its threshold")


def _of_classes(content: Content, classes: Sequence[ShownOfClass], what: str) -> Markup:
    if not classes:
        return element("p", f"No sample is {what}.")
    words = f"Samples {what}, the farthest from it first, with the map of that class."
    if not content.about.plan.cams.is_all:
        words += f" The run stores cams {content.about.plan.cams}: where they have none of the class, there is no map."
    shown = [each for each in classes if each.shown]
    if rest := len(classes) - len(shown):
        words += f" Classes with such samples for which there is no room: {rest:,}; --top makes more."
    parts = [element("p", words + key([sample for each in shown for sample in each.shown]))]
    for each in shown:
        how_many = element("p", f"{len(each.shown):,} of {each.count:,} shown.")
        parts += [element("h3", foreign(each.name)), how_many, figures(each.shown)]
    return join(parts)


def odd(content: Content) -> Markup:
    """Return the samples whose maps are odd, by kind."""
    if not any(content.counts[kind] for kind in ODD):
        return element("p", "No map is constant, without positive evidence, at the border only, or not finite.")
    shown: list[object] = []
    for kind, (heading, words) in ODD.items():
        if content.counts[kind]:
            shown.append(element("h3", heading, id=f"odd-{kind}"))
            shown.append(_gallery(content.odd[kind], content.counts[kind], words, ""))
    return join(shown)


def _gallery(shown: Sequence[Shown], count: int, words: str, nothing: str) -> Markup:
    if not count:
        return element("p", nothing)
    how_many = f" {len(shown):,} of {count:,} shown." if len(shown) < count else f" All {count:,} shown."
    return join((element("p", words + how_many + key(shown)), figures(shown)))


def figures(shown: Sequence[Shown], named: Sequence[str] = ()) -> Markup:
    """Return samples side by side; `named` is what stands before each one's id."""
    figures = [element("li", figure(each, name)) for each, name in zip(shown, named or [""] * len(shown), strict=True)]
    return element("ul", *figures, class_="gallery") if figures else Markup()


def key(shown: Sequence[Shown]) -> str:
    """Return how to read pictures; nothing where none has a heatmap."""
    pictures = [each.picture for each in shown]
    if not any(any(p.mapped) for p in pictures):
        return ""
    beside = any(any(p.mapped) and p.state is State.FOUND for p in pictures)
    place = (
        "Left the original, right over it the evidence"
        if beside
        else "Over grey, for want of the original, the evidence"
    )
    whose = "predicted class" if all(each.threshold is None for each in shown) else "class named"
    return (
        f" {place} for the {whose}, coloured from its smallest value (dark) to its largest (yellow): "
        "colours of two pictures do not compare."
    )


def figure(shown: Shown, named: str = "", brief: bool = False) -> Markup:
    """Return a sample with its picture and what is said of it; `named` is what stands before its id."""
    picture, sample = shown.picture, shown.picture.sample
    said = shown.class_name if shown.class_name is not None else "no prediction"
    label = shown.label if shown.label is not None else "no label"
    how, above = ("predicted ", "") if shown.threshold is None else ("", f", threshold {shown.threshold:.3g}")
    drawn = None
    if picture.jpeg:
        alt = f"{_what(picture)} of sample {sample.id}: {how}{said}, label {label}"
        drawn = image(picture.jpeg, "image/jpeg", alt, picture.size)
    predicted = element("p", how, element("strong", foreign(said, 60)), f", {share(shown.confidence)}{above}")
    labels = element("strong", foreign(label, 60 if shown.threshold is None else LONGEST_TEXT))
    labelled = element("p", "label ", labels, class_="wrong-text" if shown.wrong else None)
    measures = element("p", f"border share {share(shown.border)}, spread {share(shown.spread)}", class_="soft")
    name = element("p", element("strong", named, " ") if named else None, element("code", foreign(sample.id)))
    missing = None
    if picture.state is State.MISSING:
        missing = element("p", "map alone" if any(picture.mapped) else "no picture", class_="soft")
    elif picture.state is not State.FOUND:
        missing = element("p", f"original {picture.state.name.lower()}: ", foreign(picture.reason), class_="soft")
    told = (predicted, labelled, name) if brief else (name, predicted, labelled, measures, missing)
    return element("figure", drawn, element("figcaption", *told))


def _what(picture: Picture) -> str:
    if picture.state is not State.FOUND:
        return "Map alone"
    return "Original and overlay" if any(picture.mapped) else "Original, without a map,"
