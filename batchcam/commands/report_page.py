"""The report as HTML: the whole page, its summary, its provenance and what could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from batchcam import __version__
from batchcam.commands.info import RunInfo
from batchcam.commands.report_content import NONE, ODD, WITHOUT_ORIGINAL, Content, share, small, stated, stated_cell
from batchcam.commands.report_evidence import evidence, hits, mistakes, odd
from batchcam.commands.report_facts import Facts
from batchcam.commands.report_predictions import classes, confidence, confusions
from batchcam.html import Markup, definitions, element, foreign, join, page, section, table
from batchcam.rules import Status
from batchcam.stylesheet import STYLE

MOST_UNREADABLE: Final = 500

MOST_TASKS: Final = 100


def write_page(content: Content) -> str:
    """Return the report as the text of one HTML file."""
    about = content.about
    parts = [
        ("summary", "Summary", _summary(content)),
        ("provenance", "Provenance", _provenance(content)),
        ("confusions", "Confusions", confusions(content)),
        ("confidence", "Confidence", confidence(content.facts)),
        ("classes", "Classes", classes(content)),
        ("evidence", "Where the evidence sits", evidence(content.facts)),
        ("mistakes", "Most confident mistakes", mistakes(content)),
        ("hits", "Least confident hits", hits(content)),
        ("odd", "Odd maps", odd(content)),
        ("unreadable", "Unreadable samples", _unreadable(content.unreadable)),
    ]
    links = (element("li", element("a", name, href=f"#{anchor}")) for anchor, name, _ in parts)
    head = element(
        "header",
        element("h1", "Class activation maps: report of a run"),
        element("p", "Run ", element("code", about.run_id[:16]), " · ", _network(about), class_="soft"),
        *_states(content),
        element("nav", element("ul", *links), aria_label="Sections"),
    )
    skip = element("a", "Skip to the content", href="#content", class_="skip")
    main = element("main", *(section(*part) for part in parts), id="content", tabindex=-1)
    return page(f"batchcam report {about.run_id[:12]}", STYLE, skip, head, main)


def _states(content: Content) -> Iterable[Markup]:
    """Yield what has to be known before anything else is read."""
    about, samples = content.about, len(content.facts.columns["label"])
    if about.complete:
        yield element("p", f"Complete: all {samples:,} samples of the dataset.", class_="state good")
    else:
        text = (
            f"Incomplete: {about.shards_landed:,} of {about.shards:,} shards, {samples:,} of "
            f"{about.plan['sample_count']:,} samples. Everything below is about these alone; "
            "run batchcam explain again to finish the run."
        )
        yield element("p", text, class_="state alarm", role="alert")
    if not about.plan["identity"]:
        text = "The identity was waived when this run was made: its maps do not add up to the logits."
        yield element("p", text, class_="state alarm", role="alert")


def _network(about: RunInfo) -> Markup:
    return join((foreign(about.plan["architecture"]), foreign(about.plan["target_layer"])), ", ")


def _summary(content: Content) -> Markup:
    facts, totals = content.facts, content.facts.totals
    numbers = [
        ("samples", f"{totals['samples']:,}"),
        ("with a label", f"{totals['labelled']:,}"),
        ("accuracy", share(totals["accuracy"])),
        ("expected calibration error", share(facts.calibration_error)),
        ("wrong predictions", f"{content.counts['mistakes']:,}"),
        ("unreadable samples", f"{len(content.unreadable):,}"),
        ("odd maps", f"{_odd_count(content.facts):,}"),
        ("largest identity residual", small(totals["largest_identity_residual"])),
    ]
    found = list(_findings(content))
    listed = (
        element("ul", *(element("li", f) for f in found)) if found else element("p", "Nothing found that needs a look.")
    )
    return join((definitions(numbers, "numbers"), element("h3", "Findings"), listed))


def _odd_count(facts: Facts) -> int:
    flags = Status.NON_FINITE | Status.CONSTANT_MAP | Status.NO_POSITIVE_EVIDENCE
    return int((facts.having(flags) | facts.on_border_only).sum())


def _findings(content: Content) -> Iterable[Markup]:
    """Yield, one line each, what a reader should look at."""
    if content.unreadable:
        yield _finding("Unreadable samples", len(content.unreadable), "unreadable")
    for kind, (heading, _) in ODD.items():
        if content.counts[kind]:
            yield _finding(heading, content.counts[kind], f"odd-{kind}")
    shown = {p.sample.row: p for p in (*content.mistakes, *content.hits, *(p for o in content.odd.values() for p in o))}
    for state, words in WITHOUT_ORIGINAL.items():
        count = sum(p.state is state for p in shown.values())
        if count:
            yield element(
                "span", f"{count:,} of the {len(shown):,} samples shown: {words}; the map stands alone over grey."
            )
    for text in content.about.notes:
        yield foreign(text, longest=400)


def _finding(heading: str, count: int, anchor: str) -> Markup:
    return join((element("a", heading, href=f"#{anchor}"), f": {count:,}"))


def _provenance(content: Content) -> Markup:
    about, plan = content.about, content.about.plan
    grid, size = plan["grid_size"], plan["input_size"]
    pairs: list[tuple[str, object]] = [
        ("Run", foreign(about.run)),
        ("Run id", element("code", about.run_id)),
        (
            "Manifest SHA-256",
            element("code", content.manifest_sha256) if content.manifest_sha256 else "none yet: incomplete",
        ),
        ("Checkpoint", foreign(_stated(about, "classifier", "checkpoint"))),
        ("Checkpoint SHA-256", element("code", plan["checkpoint_sha256"])),
        ("Network", _network(about)),
        ("Grid and input", f"{grid[0]}×{grid[1]} cells, {size[0]}×{size[1]} pixels (height×width)"),
        ("Precision", plan["precision"]),
        ("Identity", "holds" if plan["identity"] else "waived"),
        ("Dataset", foreign(_stated(about, "data"))),
        ("Dataset fingerprint", element("code", plan["dataset_fingerprint"])),
        ("Samples and classes", f"{plan['sample_count']:,} samples, {len(plan['class_names']):,} classes"),
        ("Preprocessing", foreign(", ".join(f"{k} {v}" for k, v in plan["preprocessing"].items()), longest=600)),
        ("Stored", f"cams {plan['cams']}, maps {plan['maps']}; schema {plan['schema_version']}"),
        ("Shards", f"{about.shards_landed:,} of {about.shards:,}"),
        ("Planned", foreign(f"{about.origin.get('created', NONE)} on {about.origin.get('host', NONE)}")),
        ("Versions", _versions(about)),
        ("Report by", f"batchcam {__version__}"),
    ]
    trust = (
        "This report trusts the run's files as they are. To check them, run batchcam verify on the run and compare the "
        "manifest's digest with one noted down when the run was made."
    )
    return join((definitions(pairs, "facts"), element("p", trust), _tasks(about)))


def _stated(about: RunInfo, *keys: str) -> str:
    """Return an option of the run's first call as text."""
    value: object = about.origin.get("options")
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return NONE if value is None else str(value)


def _tasks(about: RunInfo) -> Markup:
    head = ("task", "host", "started", "written", "device", "threads", "samples", "outcome")
    rows = [[stated(t.get("task")), *(stated_cell(t.get(key)) for key in head[1:])] for t in about.tasks[:MOST_TASKS]]
    if not rows:
        return element("p", "No task left a record.")
    more = len(about.tasks) - len(rows)
    caption = "Tasks that worked on the run" + (f"; {more:,} more are in its manifest" if more else "")
    return table(caption, head, rows, "texts")


def _versions(about: RunInfo) -> Markup:
    """Return the library versions that tasks recorded, each set once."""
    stated = [t["versions"] for t in about.tasks if isinstance(t.get("versions"), dict)]
    texts = dict.fromkeys(", ".join(f"{k} {v}" for k, v in versions.items()) for versions in stated)
    return join((foreign(text, longest=600) for text in texts), "<br>") if texts else Markup(NONE)


def _unreadable(unreadable: Sequence[tuple[str, str, str]]) -> Markup:
    if not unreadable:
        return element("p", "Every sample could be read.")
    rows = [
        (foreign(name), stated_cell(label or NONE), stated_cell(error))
        for name, label, error in unreadable[:MOST_UNREADABLE]
    ]
    caption = (
        f"{len(rows):,} of {len(unreadable):,} unreadable samples"
        if len(rows) < len(unreadable)
        else "Unreadable samples"
    )
    words = (
        "These samples keep their row in the run, with status 1, numbers NaN and the reason; they count in no accuracy."
    )
    return join((element("p", words), table(caption, ("sample", "label", "error"), rows, "texts")))
