"""The report's provenance: what a run is and who made it, alone or beside an older run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from batchcam.commands.report.content import About
from batchcam.commands.report.writing import stated, stated_cell
from batchcam.pictures.html import Markup, definitions, element, escape, foreign, join, table
from batchcam.rules import CONTROL_WORDS, TORCH, identity_words
from batchcam.store.bringing import shown
from batchcam.store.plan import Plan
from batchcam.version import version

MOST_TASKS: Final = 100
OF_SERIES: Final = ("Run", "Run id", "Samples and classes", "Shards")
"""Facts that a series has of its own."""

MOST_RUNS: Final = 1000
MOST_TEXTS: Final = 8
"""Of the runs of a series, where they differ."""

LONGEST: Final = 600  # characters of preprocessing or versions


def provenance(about: About) -> Markup:
    """Return what the run is, by which weights, data and machines it was made, and what to trust."""
    trust = (
        "This report trusts the run's files as they are. To check them, run batchcam verify on the run and compare the "
        "manifest's digest with one noted down when the run was made."
    )
    notes = (("Note", foreign(text, longest=400)) for text in about.notes)
    pairs = (*facts(about), *notes, ("Report by", f"batchcam {version()}"))
    return join((definitions(pairs, "facts"), element("p", trust), _runs(about), _tasks(about)))


def side_by_side(old: About, new: About) -> Markup:
    """Return a table of what two runs are, with a word where they differ."""
    rows = []
    for (name, before), (_, after) in zip(facts(old), facts(new), strict=True):
        cells = (element("td", value, class_="text") for value in (before, after))
        rows.append((name, element("td", _difference(before, after), class_="text differs"), *cells))
    text = {"scope": "col", "class_": "text"}
    head = ("what", *(element("th", name, **text) for name in ("same?", "OLD", "NEW")))
    return table("What both runs are, and where they differ", head, rows, "texts pair")


def _difference(before: object, after: object) -> str:
    first, second = escape(before), escape(after)
    if first == second:
        return ""
    return "not known" if stated(None) in (first, second) else "differs"


def network(about: About) -> Markup:
    """Return the network and its layer that is explained."""
    plans = [run.plan for run in about.runs or (about,)]
    return _each_once(join((foreign(p.architecture), foreign(p.target_layer)), ", ") for p in plans)


def _each_once(values: Iterable[object]) -> Markup:
    """Return values of several runs, equal ones once."""
    texts = list(dict.fromkeys(map(escape, values)))
    more = [f"and {len(texts) - MOST_TEXTS:,} more"] if len(texts) > MOST_TEXTS else []
    return join((*map(Markup, texts[:MOST_TEXTS]), *more), "<br>")


def facts(about: About) -> list[tuple[str, object]]:
    """Return what a run is, or the runs of a series, newest first, name by name; the same names for every run."""
    own = _facts_of_run(about)
    runs = [dict(_facts_of_run(run)) for run in reversed(about.runs)]
    if not runs:
        return own
    return [(name, value if name in OF_SERIES else _each_once(run[name] for run in runs)) for name, value in own]


def _facts_of_run(about: About) -> list[tuple[str, object]]:
    plan = about.plan
    grid, size = plan.grid_size, plan.input_size
    preprocessing = ", ".join(f"{key} {value}" for key, value in plan.preprocessing.items())
    planned = "{created} by {user} on {host}".format_map(about.origin) if about.origin else None
    return [
        ("Run", foreign(shown(about.run))),
        ("Run id", element("code", plan.run_id)),
        ("Manifest SHA-256", _manifest(about)),
        ("Checkpoint", stated(about.option("classifier", "checkpoint"))),
        ("Checkpoint SHA-256", element("code", plan.checkpoint_sha256)),
        ("Network", network(about)),
        ("Grid and input", f"{grid[0]}×{grid[1]} cells, {size[0]}×{size[1]} pixels (height×width)"),
        ("Method", plan.method + (f"; control: {CONTROL_WORDS[plan.control]} random" if plan.is_control else "")),
        ("Precision", f"{plan.precision}, by {plan.engine or TORCH}"),
        ("Identity", identity_words(plan.method, plan.identity)),
        ("Dataset", stated(about.option("data"))),
        ("Dataset fingerprint", element("code", plan.dataset_fingerprint)),
        ("Samples and classes", f"{plan.sample_count:,} samples, {len(plan.class_names):,} classes"),
        *_thresholds(plan),
        ("Preprocessing", foreign(preprocessing, LONGEST)),
        ("Stored", f"cams {plan.cams}, maps {plan.maps}; schema {plan.schema_version}"),
        ("Shards", f"{about.shards[0]:,} of {about.shards[1]:,}"),
        ("Planned", stated(planned)),
        ("Versions", _versions(about)),
    ]


def _thresholds(plan: Plan) -> Iterable[tuple[str, object]]:
    """Yield from which probability each class of a multi-label run counts."""
    if plan.is_multi_label:
        own = (f"{name} {value:.3g}" for name, value in zip(plan.class_names, plan.thresholds, strict=True))
        alike = len(set(plan.thresholds)) == 1
        yield "Problem type", plan.problem_type
        yield "Thresholds", foreign(f"{plan.thresholds[0]:.3g} for every class" if alike else ", ".join(own), LONGEST)


def _versions(about: About) -> Markup:
    """Return the library versions that tasks recorded, each set once."""
    recorded = [t["versions"] for t in about.tasks if isinstance(t.get("versions"), dict)]
    texts = dict.fromkeys(", ".join(f"{k} {v}" for k, v in versions.items()) for versions in recorded)
    return join((foreign(text, LONGEST) for text in texts), "<br>") if texts else stated(None)


def _runs(about: About) -> Markup:
    """Return the runs of a series, by which an auditor finds each; nothing for a single run."""
    rows = [
        (foreign(run.run.name), stated_cell(f"{run.samples:,}"), element("code", run.plan.run_id[:16]), _manifest(run))
        for run in about.runs[-MOST_RUNS:]
    ]
    head = ("run", "samples", "run id", "manifest SHA-256")
    caption = f"{len(rows):,} of {len(about.runs):,} runs of the series"
    return table(caption, head, rows, "texts") if rows else Markup()


def _manifest(about: About) -> Markup:
    return element("code", about.manifest_sha256) if about.manifest_sha256 else Markup("none: not a complete run")


def _tasks(about: About) -> Markup:
    head = ("task", "user", "host", "started", "written", "device", "threads", "samples", "outcome")
    rows = [[stated(t.get("task")), *(stated_cell(t.get(key)) for key in head[1:])] for t in about.tasks[:MOST_TASKS]]
    if not rows:
        return element("p", "No task left a record.")
    more = len(about.tasks) - len(rows)
    caption = "Tasks that worked on the run" + (f"; {more:,} more are in its manifest" if more else "")
    return table(caption, head, rows, "texts")
