"""The report's sections that show samples: mistakes and hits, or without labels unsure and other ones; odd maps."""

from __future__ import annotations

from collections.abc import Sequence

from batchcam.commands.report.content import ODD, Content, Shown
from batchcam.commands.report.drawing import Picture
from batchcam.commands.report.html import Markup, element, foreign, image, join
from batchcam.commands.report.writing import share
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
    figures = [element("li", _figure(each)) for each in shown]
    listed = element("ul", *figures, class_="gallery") if figures else None
    words += how_many + _key([each.picture for each in shown])
    return join(p for p in (element("p", words), listed) if p is not None)


def _key(pictures: Sequence[Picture]) -> str:
    """Return how to read pictures; nothing where none has a heatmap."""
    if not any(any(p.mapped) for p in pictures):
        return ""
    beside = any(any(p.mapped) and p.state is State.FOUND for p in pictures)
    place = (
        "Left the original, right over it the evidence"
        if beside
        else "Over grey, for want of the original, the evidence"
    )
    return (
        f" {place} for the predicted class, coloured from its smallest value (dark) to its largest (yellow): "
        "colours of two pictures do not compare."
    )


def _figure(shown: Shown) -> Markup:
    picture, sample = shown.picture, shown.picture.sample
    said = sample.prediction if sample.prediction is not None else "no prediction"
    label = sample.label if sample.label is not None else "no label"
    drawn = None
    if picture.jpeg:
        alt = f"{_what(picture)} of sample {sample.id}: predicted {said}, label {label}"
        drawn = image(picture.jpeg, "image/jpeg", alt, picture.size)
    predicted = element("p", "predicted ", element("strong", foreign(said, 60)), f", {share(sample.confidence)}")
    labelled = element(
        "p", "label ", element("strong", foreign(label, 60)), class_="wrong-text" if shown.wrong else None
    )
    measures = element("p", f"border share {share(shown.border)}, spread {share(shown.spread)}", class_="soft")
    name = element("p", element("code", foreign(sample.id)))
    missing = None
    if picture.state is State.MISSING:
        missing = element("p", "map alone" if any(picture.mapped) else "no picture", class_="soft")
    elif picture.state is not State.FOUND:
        missing = element("p", f"original {picture.state.name.lower()}: ", foreign(picture.reason), class_="soft")
    return element("figure", drawn, element("figcaption", name, predicted, labelled, measures, missing))


def _what(picture: Picture) -> str:
    if picture.state is not State.FOUND:
        return "Map alone"
    return "Original and overlay" if any(picture.mapped) else "Original, without a map,"
