"""The report as HTML: the whole page, its summary, and what could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from batchcam.commands.report.clusters import clusters
from batchcam.commands.report.content import About, Content
from batchcam.commands.report.evidence import evidence
from batchcam.commands.report.facts import Facts, Sigmoids
from batchcam.commands.report.gallery import across, flagged, hits, missed, mistakes, odd, unsure
from batchcam.commands.report.groups import groups
from batchcam.commands.report.look import look
from batchcam.commands.report.movement import movement
from batchcam.commands.report.peaks import peaks
from batchcam.commands.report.predictions import classes, confidence, confusions, together
from batchcam.commands.report.provenance import network, provenance
from batchcam.commands.report.review import reviewed
from batchcam.commands.report.signoff import signoff
from batchcam.commands.report.writing import NONE, rate, share, small, stated_cell
from batchcam.pictures.html import Markup, definitions, details, element, foreign, join, page, section, table
from batchcam.pictures.stylesheet import STYLE
from batchcam.record.intervals import METHODS, Interval
from batchcam.record.metrics import brackets
from batchcam.record.totals import accuracy_needs, intervals_of
from batchcam.rules import CONTROL_WORDS
from batchcam.store.plan import Plan

MOST_LOST: Final = 10


def write_page(content: Content) -> str:
    """Return the report as the text of one HTML file."""
    about = content.about
    moved = content.moved
    parts = [
        ("look", "What to look at", look(content)),
        ("summary", "Summary", _summary(content)),
        *([("moved", "What moved against OLD", movement(about, moved))] if moved else []),
        *([("review", "What people say", reviewed(content.review))] if content.review else []),
        *_galleries(content),
        ("odd", "Odd maps", odd(content)),
        ("unreadable", "Unreadable samples", _unreadable(content.unreadable, content.counts["unreadable"])),
        ("peaks", "Where peaks gather", peaks(content)),
        ("clusters", "Clusters of maps", clusters(content)),
        ("evidence", "Where the evidence sits", evidence(content.facts, about.plan.padding is not None)),
        *_mixed(content),
        ("classes", "Classes", classes(content)),
        *([("groups", "Groups", groups(content))] if content.group_by else []),
        ("confidence", "Confidence", confidence(content.facts)),
        ("provenance", "Provenance", provenance(about)),
        ("sign-off", "Sign-off", signoff(content)),
    ]
    links = (element("li", element("a", name, href=f"#{anchor}")) for anchor, name, _ in parts)
    whole = f" · {_extent(about)}" if about.complete else None
    head = element(
        "header",
        element("h1", "Class activation maps: report of a run"),
        element("p", "Run ", element("code", about.plan.run_id[:16]), " · ", network(about), whole, class_="soft"),
        *_states(content),
        element("nav", element("ul", *links), aria_label="Sections"),
    )
    skip = element("a", "Skip to the content", href="#content", class_="skip")
    main = element("main", *(section(*part) for part in parts), id="content", tabindex=-1)
    return page(f"batchcam report {about.plan.run_id[:12]}", STYLE, skip, head, main)


def _mixed(content: Content) -> Iterable[tuple[str, str, Markup]]:
    """Yield the section on classes taken for each other, of a multi-label run on those that come together."""
    if content.facts.sigmoids:
        yield "together", "Classes that come together", together(content.facts.sigmoids)
    elif content.facts.judged:
        yield "confusions", "Confusions", confusions(content)


def _galleries(content: Content) -> Iterable[tuple[str, str, Markup]]:
    """Yield the sections that show predictions: right and wrong ones, or where nothing is labelled others."""
    if content.facts.sigmoids and content.facts.judged:
        yield "missed", "Missed", missed(content)
        yield "flagged", "Falsely flagged", flagged(content)
    elif content.facts.judged:
        yield "mistakes", "Most confident mistakes", mistakes(content)
        yield "hits", "Least confident hits", hits(content)
    elif content.counts["unjudged"]:
        if not content.facts.sigmoids:
            yield "unsure", "Least confident predictions", unsure(content)
        yield "across", "Across the run", across(content)


def _states(content: Content) -> Iterable[Markup]:
    """Yield what has to be known before anything else is read."""
    about = content.about
    if not about.complete:
        yield element("p", _extent(about), class_="state alarm", role="alert")
    for text in _caveats(about.plan):
        yield element("p", text, class_="state alarm", role="alert")


def _extent(about: About) -> str:
    """Return which part of the run this page is about."""
    if about.complete:
        whole = f"{len(about.runs)} runs" if about.runs else "the dataset"
        return f"Complete: all {about.samples:,} samples of {whole}."
    counts = f"{about.samples:,} of {about.planned:,} samples"
    if about.is_shard:
        return f"A single shard: {counts}, from position {about.first:,} on. Everything below is about these alone."
    there, planned = about.shards
    alone = f"{there:,} of {planned:,} shards, {counts}. Everything below is about these alone"
    if not about.lost:
        return f"Incomplete: {alone}; run batchcam explain again to finish the run."
    named = "; ".join(about.lost[:MOST_LOST]) + ("; …" if len(about.lost) > MOST_LOST else "")
    return f"Damaged: {alone}. Left out: {named}"


def _caveats(plan: Plan) -> Iterable[str]:
    """Yield why the run's maps are not what a run's maps usually are."""
    if not plan.exact:
        yield f"These maps are made by {plan.method}, not exact: they do not add up to the logits."
    elif plan.waived:
        yield "The identity was waived when this run was made: its maps do not add up to the logits."
    if plan.is_control:
        yield f"A control: {CONTROL_WORDS[plan.control]} had random weights; nothing here is about the checkpoint."


def _summary(content: Content) -> Markup:
    facts, totals = content.facts, content.facts.totals
    numbers = [
        ("samples", f"{totals['samples']:,}"),
        *(_judged_classes(facts.sigmoids) if facts.sigmoids else _judged(content)),
        ("samples that the network was trained on", _trained_on(totals.get("trained_on"))),
        ("expected calibration error", _bounded(share(facts.calibration_error), facts.calibration_interval)),
        ("unreadable samples", f"{content.counts['unreadable']:,}"),
        ("odd maps", f"{facts.odd:,}"),
        ("largest identity residual", small(totals["largest_identity_residual"])),
        *([("in the cells of maps", str(facts.spatial))] if facts.spatial else []),
    ]
    return join((definitions(numbers, "numbers"), _methods(facts)))


def _bounded(text: str, interval: Interval | None) -> Markup:
    return join((text, element("small", f" {brackets(interval)}") if interval else ""))


def _methods(facts: Facts) -> Markup:
    """Return how intervals are made."""
    level, over = facts.level, [element("p", element("strong", foreign(note))) for note in facts.notes]
    alone = "" if over else " It knows of chance alone, not of samples that hang together."
    words = (
        f"In brackets below a number stands its interval: so made, {100 * level:g} in a hundred hold what the number "
        f"would be of all samples like these.{alone}"
    )
    error = (
        "Of a calibration error it holds the sizes under which one as large as this would be found. Chance alone "
        "makes some where there is none, so that of few samples the number may lie above its interval."
    )
    made = element(
        "div", element("p", words), *over, definitions(METHODS.items(), "facts"), element("p", error), id="intervals"
    )
    return details(f"Numbers in brackets: {100 * level:g}% intervals, and how each is made", made)


def _judged(content: Content) -> Iterable[tuple[str, str | Markup]]:
    totals, level, design = content.facts.totals, content.facts.level, content.facts.design
    without = sum(score.left_out for score in content.facts.scores)
    yield "with a label", f"{totals['labelled'] + without:,}"
    yield "of those left out: unreadable or not finite", f"{without:,}"
    what, needs = f"accuracy of {totals['labelled']:,} with label and prediction", accuracy_needs(totals, level, design)
    what += f"; ± 0.01 needs {needs:,}" if needs else ""
    yield what, _bounded(rate(totals["accuracy"]), intervals_of(totals, level, design)["accuracy"])
    yield "wrong predictions", f"{content.counts['mistakes']:,}" if totals["labelled"] else NONE


def _judged_classes(sigmoids: Sigmoids) -> Iterable[tuple[str, str]]:
    known = sum(score.known for score in sigmoids.scores)
    without = sum(score.left_out for score in sigmoids.scores)
    yield "classes, each true or not by itself", f"{len(sigmoids.scores):,}"
    yield "known labels of all classes", f"{known + without:,}"
    yield "of those left out: unreadable or not finite", f"{without:,}"
    yield "of the others yes", f"{sum(score.yes for score in sigmoids.scores):,}"
    for what, firsts in (("missed", sigmoids.missed), ("falsely flagged", sigmoids.flagged)):
        yield what, f"{sum(first.count for first in firsts.values()):,}" if known else NONE


def _trained_on(count: int | None) -> str:
    return "not known" if count is None else f"{count:,}"


def _unreadable(unreadable: Sequence[tuple[str, str, str]], count: int) -> Markup:
    if not unreadable:
        return element("p", "Every sample could be read.")
    rows = [(foreign(name), stated_cell(label or NONE), stated_cell(error)) for name, label, error in unreadable]
    caption = f"{len(rows):,} of {count:,} unreadable samples" if len(rows) < count else "Unreadable samples"
    words = "These samples keep their row in the run, with status 1, numbers NaN and the reason; no rate counts them."
    return join((element("p", words), table(caption, ("sample", "label", "error"), rows, "texts")))
