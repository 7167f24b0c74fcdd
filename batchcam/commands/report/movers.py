"""The samples that moved most against an older run, each with both runs' maps on one image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from batchcam.commands.compare.movement import Pairing
from batchcam.commands.report.content import Moved, MovedSample
from batchcam.commands.report.drawing import Picture
from batchcam.commands.report.writing import share, signed
from batchcam.pictures.html import Markup, element, foreign, image, join
from batchcam.pictures.originals import State

REASONS: Final = {
    "broken": ("Predictions that broke", "Right in OLD and wrong in NEW, the most confident mistake first."),
    "similarity": ("Maps that are least alike", "By similarity, the smallest first, without those above."),
    "confidence": ("Confidence that was lost", "The largest loss first, without those above."),
}
"""Heading and explanation for each reason."""

SIGMOID_REASONS: Final = REASONS | {
    "broken": (
        "Samples with a class that broke",
        "At or above its threshold, or below it, as labelled in OLD and not in NEW; in NEW the farthest from it first.",
    )
}
"""The same of multi-label runs."""

KEY: Final = (
    "Both maps show the evidence for one class, the class that OLD predicts. Each is coloured from its own smallest "
    "value (dark) to its own largest (yellow): the pictures tell where the evidence is, not how much of it there is."
)


def movers(moved: Moved) -> Iterator[Markup]:
    """Yield the samples that moved most, by reason."""
    if moved.movers:
        yield element("h3", "Samples that moved most")
        yield element("p", KEY)
    for reason, (heading, explanation) in (SIGMOID_REASONS if moved.sigmoids else REASONS).items():
        chosen = [sample for sample in moved.movers if sample.mover.reason == reason]
        if chosen:
            yield element("h4", heading)
            yield element("p", explanation + _how_many(moved, reason, chosen))
            yield element(
                "ul",
                *(element("li", figure(sample, bool(moved.sigmoids))) for sample in chosen),
                class_="gallery wide",
            )


def _how_many(moved: Moved, reason: str, chosen: Sequence[object]) -> str:
    if reason != "broken":
        return f" The first {len(chosen):,}."
    total = moved.totals.broken
    return f" {len(chosen):,} of {total:,} shown." if len(chosen) < total else f" All {total:,} shown."


def figure(sample: MovedSample, is_multi_label: bool) -> Markup:
    """Return a sample with both runs' maps and what moved."""
    mover, picture = sample.mover, sample.picture
    tiles = ["original"] if picture.state is State.FOUND else []
    tiles += [name if there else f"{name}: no map" for name, there in zip(("OLD", "NEW"), picture.mapped, strict=True)]
    alt = f"Sample {mover.sample_id}: {', '.join(tiles)}; evidence for {mover.map_class}"
    drawn = image(picture.jpeg, "image/jpeg", alt, picture.size)
    names = element("p", *(element("span", tile) for tile in tiles), class_="tiles")
    predicted = element(
        "p", *_predicted("OLD", mover.old_prediction, mover.old_confidence), " → ",
        *_predicted("NEW", mover.new_prediction, mover.new_confidence),
    )  # fmt: skip
    label = "no label" if mover.label is None else mover.label or "none"
    flip = foreign(mover.flip, 200) if is_multi_label else mover.flip
    labelled = element(
        "p", "labels " if is_multi_label else "label ", element("strong", foreign(label, 60)),
        *([] if mover.flip == "same" else [", ", flip]),
        class_="wrong-text" if mover.flip.startswith("broken") else None,
    )  # fmt: skip
    ids = [element("code", foreign(each)) for each in (mover.sample_id, mover.new_sample_id) if each]
    said = element("p", join(ids, ", in NEW "))
    caption = element("figcaption", names, said, predicted, labelled, _measures(sample), _missing(picture))
    return element("figure", drawn, caption)


def _predicted(side: str, prediction: str | None, confidence: float | None) -> tuple[object, ...]:
    return (
        f"{side} ",
        element("strong", foreign("not finite" if prediction is None else prediction, 60)),
        f", {share(confidence)}",
    )


def _measures(sample: MovedSample) -> Markup:
    """Return how alike the maps are, or why that can't be told."""
    mover = sample.mover
    of = "no class" if mover.map_class is None else foreign(mover.map_class, 60)
    if sample.pairing == Pairing.MEASURED:
        alike = (
            f"similarity {share(mover.spearman)}, cosine {share(mover.cosine)}, overlap {share(mover.top_iou)}, "
            f"peak shift {share(mover.peak_shift)}"
        )
    else:
        alike = f"not compared, {sample.pairing.text}"
    return element("p", "maps of ", of, f": {alike}; logit {signed(mover.logit_change)}", class_="soft")


def _missing(picture: Picture) -> Markup | None:
    """Return why there is no original."""
    if picture.state is State.FOUND:
        return None
    if picture.state is State.MISSING:
        return element("p", "maps alone over grey: the image is not at hand", class_="soft")
    return element("p", "maps alone over grey: ", foreign(picture.reason), class_="soft")
