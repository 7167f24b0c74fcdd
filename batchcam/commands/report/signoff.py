"""The report's last section: who answers for the run, what they sign, what it leaves out, and room for signatures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from batchcam.commands.report.content import About, Content
from batchcam.commands.report.provenance import facts
from batchcam.commands.report.writing import NOT_RECORDED, stated
from batchcam.pictures.html import Markup, definitions, element, foreign, join, table
from batchcam.record.metrics import rate_text
from batchcam.record.overlap import Shared
from batchcam.record.totals import needs_a_look
from batchcam.store.plan import LEFT_OUT_KEY
from batchcam.version import version

LONGEST_NOTE: Final = 2000
MOST_NAMED: Final = 20

SIGNED: Final = ("Run id", "Manifest SHA-256", "Checkpoint SHA-256", "Dataset fingerprint")
SIGNERS: Final = ("responsible person", "reviewer")

TOLD: Final = "What --note told when this page was written; the record does not know it, nor does the run id cover it."
BYTES: Final = "Files are compared, to the byte: an image that was scaled, cropped or stored again is another one."


def signoff(content: Content) -> Markup:
    """Return what people tell, what they sign, what is not in it, and where they sign."""
    told = {name: foreign(text or NOT_RECORDED, LONGEST_NOTE) for name, text in content.notes.items()}
    lines = ((_capital(name), told[name] if content.notes[name] else "", "", "") for name in SIGNERS)
    left_out = [element("li", text) for text in _left_out(content)]
    return join(
        (
            element("p", TOLD),
            definitions(((_capital(name), text) for name, text in told.items()), "facts"),
            element("h3", "What is signed"),
            definitions(_signed(content.about), "facts"),
            element("h3", "What is left out"),
            element("ul", *left_out) if left_out else element("p", "Nothing."),
            element("h3", "Independence"),
            definitions(_independence(content), "facts"),
            element("p", BYTES),
            table("Signatures", ("as", "name", "date", "signature"), lines, "texts sign"),
        )
    )


def _capital(name: str) -> Markup:
    return foreign(name[0].upper() + name[1:])


def _signed(about: About) -> Iterator[tuple[str, object]]:
    """Yield by what the run is known, and who made it by which revision, as its tasks recorded it."""
    yield from ((name, value) for name, value in facts(about) if name in SIGNED)
    users = (f"{t['user']} on {t['host']}" if {"user", "host"} <= t.keys() else None for t in about.tasks)
    yield "Run by", _each(users)
    yield "Revision of batchcam", _each((t.get("versions") or {}).get("batchcam") for t in about.tasks)
    yield "Report by", f"batchcam {version()}"


def _each(values: Iterable[object]) -> Markup:
    return _named(list(dict.fromkeys(values)) or [None])


def _named(values: Sequence[object], count: int = 0) -> Markup:
    """Return the first of some values, of `count` or of all of them."""
    shown = values[:MOST_NAMED]
    return join((*map(stated, shown), *(["…"] if max(count, len(values)) > len(shown) else [])), ", ")


def _left_out(content: Content) -> Iterator[object]:
    about, counted = content.about, content.facts
    held = sum(run.origin.get(LEFT_OUT_KEY, 0) for run in about.runs or (about,))
    counts = (
        (about.planned - about.samples, "samples that were planned and are not read here"),
        (held, "samples of the dataset that other runs held already (--new-since)"),
        *(
            (f["count"], f"samples that are {f['kind']}: a row without prediction")
            for f in needs_a_look(counted.totals)
        ),
        (counted.predicted - counted.judged, "predictions without a label to judge them by"),
    )
    yield from (f"{count:,} {what}" for count, what in counts if count)
    if counted.sigmoids:
        without = [score.name for score in counted.sigmoids.scores if not score.yes]
    else:
        without = [score.name for score in counted.scores if not score.labelled]
    if without:
        yield join((f"{len(without):,} classes without a prediction to judge: ", _named(without)))
    if not about.plan.cams.is_all:
        yield f"CAMs of other classes than {about.plan.cams}"


def _independence(content: Content) -> Iterator[tuple[str, object]]:
    overlap, training, trained_on = content.overlap, content.overlap.training, content.facts.totals.get("trained_on")
    yield "Images with a digest", f"{overlap.compared:,} of {content.about.samples:,}"
    yield "In the run more than once", _told(overlap.twice, overlap.compared)
    if training is None:
        yield "In the training data too", "not compared: no --train-run"
    else:
        yield "In the training data too", _told(training.shared, overlap.compared)
        known = f"{training.compared:,} images with a digest of {training.samples:,} in "
        yield "Training data", join((known, stated(training.run)))
    yield "Trained on, as the checkpoint says", stated(trained_on)


def _told(shared: Shared, of: int) -> Markup:
    share = f" ({rate_text(shared.count / of)})" if of else ""
    return join((f"{shared.count:,}{share}", *([_named(shared.ids, shared.count)] if shared.ids else [])), ": ")
