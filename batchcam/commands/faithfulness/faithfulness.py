"""faithfulness: does the network use what its maps point to? Deletion, insertion and ROAD curves; needs the network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from batchcam.commands.explain.drawn import LeftOut
from batchcam.commands.explain.reassembly import opened_network
from batchcam.commands.faithfulness.config import FaithfulnessConfig
from batchcam.commands.faithfulness.curves import CURVES, FALLING, ORDERS, Curves, Probe, measure
from batchcam.commands.faithfulness.files import CURVES_FILE, SAMPLES_FILE, write_files
from batchcam.errors import ConfigError, RunError
from batchcam.job.console import Progress
from batchcam.maps.imputation import SUBSTRATES
from batchcam.record.clusters import Design, design_of, read_clusters
from batchcam.record.intervals import Interval
from batchcam.record.study import count_left_out, counts_text, require_place, run_notes
from batchcam.rules import RECOMPUTE_TOLERANCE
from batchcam.store.bringing import shown
from batchcam.store.opening import open_run
from batchcam.store.run import Run
from batchcam.store.series import require_run

LEAST_REACH: Final = 0.05
"""Curves of a smaller range, as of a network with random weights, can't tell one order from another."""


@dataclasses.dataclass(frozen=True)
class Score:
    """The area under one kind of curve for one order of the pixels, mean over the judged samples.

    Attributes:
        area: 0 to 1, in units of the probability.
        ahead: by how much the map's area is better than this order's, mean over samples; None for the map itself.
        ahead_error: standard error of that mean, over clusters where there are; None for fewer than two samples.
        ahead_percent: of the samples, on how many the map's area is better.
        area_interval, ahead_interval, ahead_percent_interval: None where none is known.
    """

    area: float
    area_interval: Interval | None
    ahead: float | None = None
    ahead_error: float | None = None
    ahead_interval: Interval | None = None
    ahead_percent: float | None = None
    ahead_percent_interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class FaithfulnessSummary:
    """Whether the network uses what the maps point to.

    Attributes:
        method: how the run's maps were made.
        control: what was replaced by random weights before.
        size: (H, W) of the network's input.
        samples: rows of the run.
        drawn: of them.
        judged: of the drawn ones.
        left_out: the others, by reason.
        steps, seed, deletion_to, insertion_from: see FaithfulnessConfig.
        probability: of the predicted class before any pixel is changed, mean over the judged samples; of a multi-label
            run the sigmoid of the class that stands highest above its threshold.
        below_threshold: of a multi-label run: judged samples of which no class reaches its threshold; else None.
        probability_interval: of that.
        confidence: per cent, of all intervals.
        cluster: column of the manifest whose values the intervals are over, None: over samples.
        clusters: how many of them there are.
        scores: by curve and order of pixels.
        findings: drawn samples whose images are not those of the run any more.
        notes: what a reader should know, a line each.
        out: folder of the files, None where none were asked for.
    """

    run: str
    run_id: str
    method: str
    control: str
    size: tuple[int, int]
    samples: int
    drawn: int
    judged: int
    left_out: dict[str, int]
    steps: int
    seed: int
    deletion_to: str
    insertion_from: str
    probability: float
    probability_interval: Interval | None
    confidence: float
    cluster: str | None
    clusters: int | None
    below_threshold: int | None
    scores: dict[str, dict[str, Score]]
    findings: int
    notes: tuple[str, ...]
    out: str | None


def faithfulness(config: FaithfulnessConfig) -> FaithfulnessSummary:
    """Change the images of a sample of a run in the order of its maps, and follow the predicted class's probability.

    Raises:
        CheckpointError: the checkpoint is not the run's.
        DatasetError: the dataset is not the run's.
        RunError: not a run, or no sample can be judged.
    """
    require_place(config.out, "faithfulness", (SAMPLES_FILE, CURVES_FILE), config.overwrite)
    require_run(config.run, "faithfulness")
    with open_run(config.run) as run:
        plan = run.plan
        if config.steps > math.prod(plan.input_size):
            raise ConfigError(f"--steps {config.steps}: the network's input has {math.prod(plan.input_size)} pixels")
        assembly, network, device = opened_network(config, plan)
        probe = Probe(
            network=network,
            device=device,
            precision=plan.precision,
            batch_size=plan.batch_size,
            steps=config.steps,
            seed=config.seed,
            deleted=SUBSTRATES[config.deletion_to],
            blank=SUBSTRATES[config.insertion_from],
            by_sigmoid=plan.is_multi_label,
        )
        rows = draw(len(run), config.samples, config.seed)
        with Progress("faithfulness", len(rows), "samples", config.quiet) as progress:
            found = measure(run, assembly, rows, probe, progress.advance)
        if not found.judged.any():
            reasons = counts_text(count_left_out(LeftOut, found.reasons))
            raise RunError(f"{config.run}: no sample of {len(rows)} can be judged: {reasons}")
        summary = _summary(config, run, found)
        if config.out is not None:
            write_files(config.out, run, found, dataclasses.asdict(summary))
    return summary


def draw(count: int, samples: int, seed: int) -> np.ndarray:
    """Return up to `samples` of `count` rows, drawn without repetition, in order; int64."""
    return np.sort(np.random.default_rng(seed).choice(count, min(samples, count), replace=False))


def _summary(config: FaithfulnessConfig, run: Run, found: Curves) -> FaithfulnessSummary:
    left_out, below = count_left_out(LeftOut, found.reasons), None
    if (limits := run.plan.threshold_logits) is not None:
        logits = run.logits[found.rows[found.judged]]
        below = int((logits < limits).all(1).sum())
    clusters, numbers = read_clusters(run, config.cluster, found.rows[found.judged])
    level, probability, notes = config.confidence / 100, found.probability[found.judged], [*_notes(run, found, below)]
    if clusters:
        clusters.require_several()
        ahead = _ahead(found.areas[found.judged])
        designs = {
            f"ahead of the {ORDERS[1]}, {curve}": design_of(ahead[:, i, 1], numbers) for i, curve in enumerate(CURVES)
        }
        notes = [*clusters.notes(designs), *notes]
    return FaithfulnessSummary(
        run=shown(config.run),
        run_id=run.plan.run_id,
        method=run.plan.method,
        control=run.plan.control,
        size=run.plan.input_size,
        samples=len(run),
        drawn=len(found.rows),
        judged=int(found.judged.sum()),
        left_out=left_out,
        steps=config.steps,
        seed=config.seed,
        deletion_to=config.deletion_to,
        insertion_from=config.insertion_from,
        probability=float(probability.mean()),
        probability_interval=_of_mean(probability, design_of(probability, numbers), level),
        confidence=config.confidence,
        cluster=config.cluster,
        clusters=len(clusters) if clusters else None,
        below_threshold=below,
        scores=_scores(found.areas[found.judged], numbers, level),
        findings=sum(left_out.get(reason.text, 0) for reason in (LeftOut.CHANGED, LeftOut.GONE)),
        notes=tuple(notes),
        out=None if config.out is None else str(config.out),
    )


def _ahead(areas: np.ndarray) -> np.ndarray:
    """Return by how much the map's areas are better than those of each order, float64 (n, curves, orders)."""
    signs = np.array([[1 if curve in FALLING else -1] for curve in CURVES])
    return np.asarray((areas - areas[..., :1]) * signs)


def _scores(areas: np.ndarray, clusters: np.ndarray | None, level: float) -> dict[str, dict[str, Score]]:
    """Return the scores by curve and order from areas, float64 (n, curves, orders); the map is the first order."""
    all_ahead = _ahead(areas)

    def score(curve: int, order: int) -> Score:
        area, ahead = areas[:, curve, order], all_ahead[:, curve, order]
        of_area = float(area.mean()), _of_mean(area, design_of(area, clusters), level)
        if not order:
            return Score(*of_area)
        design, better = design_of(ahead, clusters), ahead > 0
        error = float(ahead.std(ddof=1) * math.sqrt(design.effect / len(ahead))) if len(ahead) > 1 else None
        ends = design_of(better, clusters).wilson(int(better.sum()), len(better), level)
        return Score(
            *of_area,
            ahead=float(ahead.mean()),
            ahead_error=error,
            ahead_interval=_of_mean(ahead, design, level),
            ahead_percent=float(better.mean() * 100),
            ahead_percent_interval=None if ends is None else (100 * ends[0], 100 * ends[1]),
        )

    return {curve: {order: score(c, o) for o, order in enumerate(ORDERS)} for c, curve in enumerate(CURVES)}


def _of_mean(values: np.ndarray, design: Design, level: float) -> Interval | None:
    return design.mean(float(values.mean()), float(values.std(ddof=1)), len(values), level) if len(values) > 1 else None


def _notes(run: Run, found: Curves, below: int | None) -> Iterator[str]:
    yield from run_notes(run, control="the curves are those of the network with random weights, as its maps are")
    off = np.abs(found.probability - run.confidence[found.rows])[found.judged]
    if found.reach < LEAST_REACH:
        yield f"no change moves the probability by more than {found.reach:.3f} on average: the areas tell nothing"
    if below:
        yield f"{below} judged samples reach no threshold: of these the class is judged that is nearest to its own"
    far = int((off > RECOMPUTE_TOLERANCE[run.plan.precision]).sum())
    if far:
        yield f"{far} samples have another probability than in the record, by up to {off.max():.3g}; see verify"
