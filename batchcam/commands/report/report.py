"""report: one HTML file that tells an auditor what a run found, and what moved since an older one. No torch."""

from __future__ import annotations

import contextlib
import dataclasses

from batchcam.commands.compare.gates import Gate
from batchcam.commands.report.config import ReportConfig
from batchcam.commands.report.content import Content
from batchcam.commands.report.page import write_page
from batchcam.commands.report.reading import read_content
from batchcam.config.keywords import keywords
from batchcam.job.console import note
from batchcam.pictures.originals import State, open_originals
from batchcam.record.asked import open_asked
from batchcam.record.intervals import Interval
from batchcam.record.overlap import Overlap
from batchcam.record.screen import Gathering
from batchcam.record.sigmoid_scores import Pair, SigmoidScore
from batchcam.record.totals import accuracy_needs, intervals_of, needs_a_look
from batchcam.store import landing
from batchcam.store.opening import open_run
from batchcam.store.ours import require_ours


@dataclasses.dataclass(frozen=True)
class _Written:
    out: str
    bytes: int
    complete: bool
    samples: int
    trained_on: int | None
    pictures: int
    without_image: int
    changed: int
    lost_files: int
    findings: int
    flips: int | None
    level: float
    cluster: str | None
    clusters: int | None
    notes: list[str]
    gates: tuple[Gate, ...]
    gatherings: tuple[Gathering, ...]
    overlap: Overlap


@dataclasses.dataclass(frozen=True)
class ReportSummary(_Written):
    """A report that was written.

    Attributes:
        bytes: its size.
        complete: whether the run is.
        samples: rows of the run that it covers.
        labelled: of those, with a label and a prediction.
        left_out: of those, with a label and no prediction: unreadable, or not finite.
        accuracy: share of the labelled ones predicted right, None without any.
        intervals: of the accuracy.
        needed: how many labelled ones would make that ± 1 point, None without any.
        trained_on: samples that the network was trained on, None where the checkpoint did not say.
        pictures: samples shown.
        without_image: of those, how many show the map alone.
        changed: of those, how many because the image is no longer the one that was explained.
        lost_files: shards, or run.h5, left out because they are gone or damaged.
        findings: unreadable and non-finite samples, changed images, lost files, samples whose image is in --train-run
            too, and gates that stop the run.
        flips: samples whose predicted class is not the older run's, in a multi-label run that have a class that is told
            otherwise; None without one.
        level: of confidence of the intervals.
        cluster: column of the manifest whose values the intervals are over, None: over samples.
        clusters: how many of them there are.
        notes: what readers of the intervals should know.
        gates: the limits that were asked for.
        gatherings: where peaks gather more than chance explains, no findings: they tell where to look.
        overlap: images that the run holds twice, no findings, or shares with --train-run.
    """

    labelled: int
    left_out: int
    accuracy: float | None
    intervals: dict[str, Interval | None]
    needed: int | None


@dataclasses.dataclass(frozen=True)
class SigmoidReport(_Written):
    """A report of a multi-label run that was written: as `ReportSummary`, but for right and wrong.

    Attributes:
        classes: score of each class.
        pairs: the classes that come together most.
    """

    classes: list[SigmoidScore]
    pairs: list[Pair]


def report(config: ReportConfig) -> ReportSummary | SigmoidReport:
    """Write the report of a run, complete or still being written, as one HTML file.

    Raises:
        RunError: not a run directory, nothing has landed yet, a file of it is damaged, or no sample is in both runs.
        ConfigError: the data can't be searched for images, no class is in both runs, one run is multi-label, or a
            gate means nothing for them.
        BatchcamError: the file can't be written.
    """
    require_ours(config.out, config.overwrite)
    with contextlib.ExitStack() as opened:
        run = opened.enter_context(open_asked(config.run, config.partial, config.quiet))
        old, training = (
            None if path is None else opened.enter_context(open_run(path))
            for path in (config.against, config.train_run)
        )
        originals = open_originals(run, config.data)
        if originals.where is None:
            note("the original images are not at hand: showing maps alone", config.quiet)
        content = read_content(run, old, training, originals, config)
    image = write_page(content).encode("utf-8")
    landing.make_folder(config.out.parent)
    landing.land(config.out, image)
    landing.remove_stale_partials(config.out.parent, [config.out.name])
    return _summary(config, content, len(image))


by_keywords = keywords(ReportConfig, report)


def _summary(config: ReportConfig, content: Content, size: int) -> ReportSummary | SigmoidReport:
    states = list(content.states.values())
    lost = len(content.about.lost)
    changed = states.count(State.CHANGED)
    facts, totals = content.facts, content.facts.totals
    gates = tuple(content.moved.gates) if content.moved else ()
    shared = content.overlap.training.shared.count if content.overlap.training else 0
    stopping = sum(not gate.passed for gate in gates)
    written = _Written(
        out=str(config.out),
        bytes=size,
        complete=content.about.complete,
        samples=content.about.samples,
        trained_on=totals.get("trained_on"),
        pictures=len(states),
        without_image=len(states) - states.count(State.FOUND),
        changed=changed,
        lost_files=lost,
        findings=sum(f["count"] for f in needs_a_look(totals)) + changed + lost + shared + stopping,
        flips=content.moved.totals.flips if content.moved else None,
        level=facts.level,
        cluster=config.cluster,
        clusters=facts.clusters,
        notes=facts.notes,
        gates=gates,
        gatherings=tuple(facts.gatherings),
        overlap=content.overlap,
    )
    if facts.sigmoids:
        return SigmoidReport(**vars(written), classes=facts.sigmoids.scores, pairs=facts.sigmoids.pairs)
    left_out = sum(score.left_out for score in facts.scores)
    return ReportSummary(
        **vars(written),
        labelled=totals["labelled"],
        left_out=left_out,
        accuracy=totals["accuracy"],
        intervals=intervals_of(totals, facts.level, facts.design),
        needed=accuracy_needs(totals, facts.level, facts.design),
    )
