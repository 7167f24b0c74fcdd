"""The report's first section: what a person would look at, each thing with pictures of samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from typing import Final

from batchcam.commands.compare.text import verdict
from batchcam.commands.report import movers
from batchcam.commands.report.content import ODD, WITHOUT_ORIGINAL, Content, Moved, Shown
from batchcam.commands.report.gallery import figure, key
from batchcam.commands.report.peaks import counted, discover_line, peak_tile, place
from batchcam.commands.report.writing import percent, rate, share
from batchcam.pictures.html import Markup, details, element, foreign, join
from batchcam.pictures.originals import State
from batchcam.record.intervals import wilson
from batchcam.record.metrics import brackets
from batchcam.record.spatial import SMALL_SHARE
from batchcam.record.study import counts_text

MOST_SHOWN, MOST_MOVED = 5, 3  # pictures in one row of a window of 1280 pixels
MOST_NAMED: Final = 3

RULE: Final = (
    "Told here, from the first one on: what moved against an older run, and gates that stop; images that are in the "
    "run twice or in the training data too; places where peaks gather; {} samples that can't be read; odd maps; maps "
    "that hold less than "
    f"{100 * SMALL_SHARE:g} % of the logit in the median; images that are no longer those explained. An identity that "
    "does not hold is refused when a run is made, and found by batchcam verify."
)


def look(content: Content) -> Markup:
    """Return what needs a look; where no prediction does, those that come nearest to it."""
    found = [*_moved(content.moved), *_shared(content), *_gathered(content)]
    more, states = [*_unreadable(content), *_odd(content)], Counter(content.states.values())
    wrong, of = _judged(content)
    if content.about.complete and of and not (found or more or wrong or State.CHANGED in states):
        found = [element("p", "Nothing found that needs a look.", class_="state good")]
    shown = [*content.mistakes, *content.hits, *content.unsure, *content.across, *_of_each_class(content)]
    answers = "labels that are missed or falsely flagged;" if content.facts.sigmoids else "wrong predictions;"
    rule = details("What is told here", element("p", RULE.format(answers)))
    without = [
        f"{states[state]:,} of the {states.total():,} samples shown: {words}; the map stands alone over grey."
        for state, words in WITHOUT_ORIGINAL.items()
        if state in states
    ]
    last = (element("p", text, class_="soft") for text in (*without, key(shown).strip()) if text)
    return join((*found, *_answers(content), *more, *last, rule))


def _block(anchor: str, heading: object, text: object, tiles: Sequence[Markup] = (), wide: str = "") -> Markup:
    """Return one thing: a heading that leads to its section, a strip of pictures, and words."""
    strip = element("ul", *(element("li", tile) for tile in tiles), class_=f"strip{wide}") if tiles else None
    return element("article", element("h3", element("a", heading, href=f"#{anchor}")), strip, element("p", text))


def _tiles(shown: Sequence[Shown]) -> list[Markup]:
    return [figure(each, brief=True) for each in shown[:MOST_SHOWN]]


def _moved(moved: Moved | None) -> Iterator[Markup]:
    if not moved:
        return
    t, what = moved.totals, "samples with a flip" if moved.sigmoids else "predictions"
    interval = brackets(moved.intervals.get("flips_percent"))
    told = f"{t.flips:,} of {t.compared:,} {what}: {percent(t.flips_percent)} {interval}".strip()
    if moved.nothing:
        told = f"nothing, over {t.compared:,} compared samples"
    told += f"; not compared: {counts_text(moved.apart)}" if moved.apart else ""
    text = f"Mean similarity of maps {share(t.spearman)}"
    text += f". Gates: {verdict(moved.gates)}" if moved.gates else ""
    pictures = [movers.figure(each, bool(moved.sigmoids)) for each in moved.movers[:MOST_MOVED]]
    yield _block("moved", f"What moved against OLD: {told}", text, pictures, " wide")


def _shared(content: Content) -> Iterator[Markup]:
    overlap = content.overlap
    trained = overlap.training.shared.count if overlap.training else 0
    counts = (trained, "are in the training data too"), (overlap.twice.count, "are in the run more than once")
    if told := [f"{count:,} of {overlap.compared:,} {where}" for count, where in counts if count]:
        yield _block("sign-off", "Images that are not independent", "; ".join(told))


def _gathered(content: Content) -> Iterator[Markup]:
    if not content.gathered:
        return
    found = [each.gathering for each in content.gathered]
    told = [join((place(it), ": ", counted(it), element("br"))) for it in found[:MOST_NAMED]]
    more = f"{len(found) - MOST_NAMED:,} more places. " if len(found) > MOST_NAMED else ""
    check = "Is it the object, or a tag, a frame or a watermark beside it? How to check:", element("br")
    in_turn = chain.from_iterable(zip_longest(*(each.shown for each in content.gathered)))
    tiles = [peak_tile(content, found[0]), *_tiles([each for each in in_turn if each])][:MOST_SHOWN]
    yield _block("peaks", "Peaks gather in one place", join((*told, more, *check, discover_line(content.about))), tiles)


def _answers(content: Content) -> Iterator[Markup]:
    """Yield how many predictions are wrong, of a multi-label run labels; the most confident, or those nearest to it."""
    facts, (wrong, of) = content.facts, _judged(content)
    what, amiss, anchor, shown = "labelled predictions", "wrong", "mistakes", content.mistakes
    text = "The most confident of them."
    if facts.sigmoids and of:
        missed = sum(each.count for each in content.missed)
        what, amiss = "known labels", f"missed ({missed:,}) or falsely flagged"
        anchor, shown = "missed" if missed else "flagged", _of_each_class(content)
        text = "Of each class the farthest from its threshold."
    elif not wrong:
        anchor, shown, text = "hits", content.hits, "The least confident of them."
    heading = f"{wrong:,} of {of:,} {what} are {amiss}: {rate(wrong / of)}" if wrong else f"All {of:,} {what} are right"
    if not of:
        heading = "No prediction has a label, so that what is right is not known"
        anchor, shown = ("across", content.across) if facts.sigmoids else ("unsure", content.unsure)
        text = "From all over the run." if facts.sigmoids else text
    if of or content.counts["unjudged"]:
        interval = brackets(facts.design.wilson(wrong or of, of, facts.level))
        yield _block(anchor, f"{heading} {interval}".strip(), text if shown else "", _tiles(shown))


def _judged(content: Content) -> tuple[int, int]:
    """Return how many predictions are wrong, and how many have a label; of a multi-label run labels, and known ones."""
    if not (sigmoids := content.facts.sigmoids):
        return content.counts["mistakes"], content.facts.judged
    wrong = sum(each.count for each in (*content.missed, *content.flagged))
    return wrong, sum(score.known for score in sigmoids.scores)


def _of_each_class(content: Content) -> list[Shown]:
    return [each.shown[0] for each in (*content.missed, *content.flagged) if each.shown]


def _unreadable(content: Content) -> Iterator[Markup]:
    if count := content.counts["unreadable"]:
        first = content.unreadable[:MOST_NAMED]
        named = (join((element("code", foreign(i)), ": ", foreign(error), element("br"))) for i, _, error in first)
        yield _block("unreadable", f"Unreadable samples: {count:,} of {content.about.samples:,}", join(named))


def _odd(content: Content) -> Iterator[Markup]:
    samples, level = content.about.samples, content.facts.level
    for kind, (heading, explanation) in ODD.items():
        if count := content.counts[kind]:
            interval = brackets(wilson(count, samples, level))
            named = f"{heading}: {count:,} of {samples:,}, {rate(count / samples)} {interval}"
            yield _block(f"odd-{kind}", named, explanation, _tiles(content.odd[kind]))
    if content.facts.spatial and (small := content.facts.spatial.finding):
        yield _block("evidence", small[0].upper() + small[1:], "")
