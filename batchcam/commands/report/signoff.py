"""The report's last section: who answers for the run, what they sign, what it leaves out, and room for signatures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from batchcam.commands.report.content import About, Content
from batchcam.commands.report.provenance import facts
from batchcam.commands.report.writing import stated
from batchcam.pictures.html import Markup, definitions, element, foreign, join, table
from batchcam.record.metrics import rate_text
from batchcam.record.overlap import Overlap, Shared
from batchcam.record.totals import needs_a_look
from batchcam.store.plan import LEFT_OUT_KEY
from batchcam.version import version

LONGEST_NOTE: Final = 2000
MOST_NAMED: Final = 20

SIGNED: Final = ("Run id", "Manifest SHA-256", "Checkpoint SHA-256", "Dataset fingerprint")
SIGNERS: Final = ("responsible person", "reviewer")

TO_THE_BYTE: Final = (
    "Compared are files, to the byte: an image that was scaled, cropped or stored again is another one."
)


def signoff(content: Content) -> Markup:
    """Return what people tell, what they sign, what is not in it, and where they sign."""
    notes = [(_named(name), stated(None) if text is None else _noted(text)) for name, text in content.notes.items()]
    said = (
        "What --note told when this page was written. The record knows nothing of it, and the run id does not cover it."
    )
    lines = ((_named(name), _noted(content.notes[name] or ""), "", "") for name in SIGNERS)
    left_out = [element("li", text) for text in _left_out(content)]
    return join(
        (
            element("p", said),
            definitions(notes, "facts"),
            element("h3", "What is signed"),
            definitions(_signed(content.about), "facts"),
            element("h3", "What is left out"),
            element("ul", *left_out) if left_out else element("p", "Nothing."),
            element("h3", "Independence"),
            definitions(_independence(content), "facts"),
            element("p", TO_THE_BYTE),
            table("Signatures", ("as", "name", "date", "signature"), lines, "texts sign"),
        )
    )


def _named(name: str) -> Markup:
    return foreign(name[0].upper() + name[1:])


def _noted(text: str) -> Markup:
    return foreign(text, LONGEST_NOTE)


def overlaps(overlap: Overlap) -> Iterator[Markup]:
    """Yield what a reader should look at, a line each."""
    link = element("a", "Images that are not independent", href="#sign-off")
    if overlap.training and overlap.training.shared.count:
        yield join((link, f": {overlap.training.shared.count:,} of {overlap.compared:,} are in the training data too"))
    if overlap.twice.count:
        yield join((link, f": {overlap.twice.count:,} of {overlap.compared:,} stand in the run more than once"))


def _signed(about: About) -> Iterator[tuple[str, object]]:
    """Yield by what the run is known, and who made it, as its tasks and those of a series recorded it."""
    made = [(f"{t['user']} on {t['host']}" if {"user", "host"} <= t.keys() else None) for t in about.tasks]
    versions = [t["versions"].get("batchcam") for t in about.tasks if isinstance(t.get("versions"), dict)]
    yield from ((name, value) for name, value in facts(about) if name in SIGNED)
    yield "Run by", _each(made)
    yield "Revision", _each([each and f"batchcam {each}" for each in versions])
    yield "Report by", f"batchcam {version()}"


def _each(values: Sequence[str | None]) -> Markup:
    """Return different values, the first of many."""
    texts = list(dict.fromkeys(values)) or [None]
    more = [f"and {len(texts) - MOST_NAMED:,} more"] if len(texts) > MOST_NAMED else []
    return join((*map(stated, texts[:MOST_NAMED]), *more), ", ")


def _left_out(content: Content) -> Iterator[Markup]:
    about, counted = content.about, content.facts
    held = sum(run.origin.get(LEFT_OUT_KEY, 0) for run in about.runs or (about,))
    yield from _counted(about.planned - about.samples, "samples that were planned and are not read here")
    yield from _counted(held, "samples of the dataset that other runs held already (--new-since)")
    for found in needs_a_look(counted.totals):
        yield from _counted(found["count"], f"samples that are {found['kind']}, with a row and no prediction")
    yield from _counted(counted.predicted - counted.judged, "predictions without a label to judge them by")
    if counted.sigmoids:
        without = [score.name for score in counted.sigmoids.scores if not score.yes]
    else:
        without = [score.name for score in counted.scores if not score.labelled]
    if without:
        named, more = join(map(foreign, without[:MOST_NAMED]), ", "), ", …" if len(without) > MOST_NAMED else ""
        yield join((f"classes without a prediction to judge: {len(without):,}: ", named, more))
    if not about.plan.cams.is_all:
        yield join((f"CAMs of other classes than {about.plan.cams}",))


def _counted(count: int, what: str) -> Iterator[Markup]:
    if count:
        yield join((f"{count:,} {what}",))


def _independence(content: Content) -> Iterator[tuple[str, object]]:
    overlap, trained_on = content.overlap, content.facts.totals.get("trained_on")
    yield "Images with a digest", f"{overlap.compared:,} of {content.about.samples:,}"
    yield "In the run more than once", _told(overlap.twice, overlap.compared)
    if overlap.training is None:
        yield "In the training data too", "not compared: no --train-run"
    else:
        training = overlap.training
        whose = f"{training.compared:,} images with a digest of {training.samples:,} in "
        yield "In the training data too", _told(training.shared, overlap.compared)
        yield "Training data", join((whose, foreign(training.run, longest=300)))
    yield "Trained on, as the checkpoint says", stated(trained_on if trained_on is None else f"{trained_on:,}")


def _told(shared: Shared, of: int) -> Markup:
    share = f"{shared.count:,}" + (f" ({rate_text(shared.count / of)})" if of else "")
    more = ", …" if shared.count > len(shared.ids) else ""
    return join((share, *([": ", join(map(foreign, shared.ids), ", "), more] if shared.ids else [])))
