"""discover: does a region by itself carry a class into other images, as a shortcut does? Needs the network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from batchcam.commands.discover.config import DiscoverConfig
from batchcam.commands.discover.files import PAGE, TABLE, write_files
from batchcam.commands.discover.regions import centre_window, has_room, overlap, window_size
from batchcam.commands.discover.rule import NOT_SEEN, TOO_FEW, Verdict, verdicts
from batchcam.commands.discover.summary import DiscoverSummary, PortableGate
from batchcam.commands.discover.trials import Asked, Outcomes, draw, measure
from batchcam.commands.explain.drawn import LeftOut
from batchcam.commands.explain.reassembly import opened_network
from batchcam.errors import RunError
from batchcam.job.console import Progress
from batchcam.record.study import count_left_out, counts_text, require_place, run_notes
from batchcam.store.bringing import shown
from batchcam.store.opening import open_run
from batchcam.store.run import Run
from batchcam.store.series import require_run


def discover(config: DiscoverConfig) -> DiscoverSummary:
    """Paste regions of a sample of a run into other images, take them away, keep them alone; ask the network.

    Raises:
        CheckpointError: the checkpoint is not the run's.
        DatasetError: the dataset is not the run's.
        RunError: not a run, its maps have too few cells, or no sample can be judged.
    """
    require_place(config.out, "discover", (PAGE, TABLE), config.overwrite)
    require_run(config.run, "discover")
    with open_run(config.run) as run:
        plan = run.plan
        if not has_room(plan.grid_size, window_size(plan.grid_size)):
            cells = "x".join(map(str, plan.grid_size))
            raise RunError(f"{config.run}: maps of {cells} cells tell no place: explain an earlier --target-layer")
        assembly, network, device = opened_network(config, plan)
        limits = plan.threshold_logits
        asked = Asked(network, device, plan.precision, plan.batch_size, config.seed, limits)
        rows = draw(run.prediction[:], config.samples, config.seed)
        with Progress("discover", len(rows), "samples", config.quiet) as progress:
            found = measure(run, assembly, rows, asked, progress.advance)
        if not found.judged.any():
            reasons = counts_text(count_left_out(LeftOut, found.reasons)) or "none has a prediction"
            raise RunError(f"{config.run}: no sample of {len(rows)} can be judged: {reasons}{_advice(run, rows)}")
        summary = _summary(config, run, found)
        if config.out is not None:
            write_files(config.out, run, found, summary)
    return summary


def _summary(config: DiscoverConfig, run: Run, found: Outcomes) -> DiscoverSummary:
    plan, left_out = run.plan, count_left_out(LeftOut, found.reasons)
    size = window_size(plan.grid_size)
    apart = ~overlap(found.windows[:, 0], np.array(centre_window(plan.grid_size, size)), size)
    overall, *classes = verdicts(found, plan.class_names, plan.grid_size, apart)
    return DiscoverSummary(
        run=shown(config.run),
        run_id=plan.run_id,
        method=plan.method,
        control=plan.control,
        region=size,
        grid=plan.grid_size,
        samples=len(run),
        drawn=len(found.rows),
        judged=int(found.judged.sum()),
        left_out=left_out,
        seed=config.seed,
        overall=overall,
        classes=classes,
        claims={str(v.name): v.verdict for v in classes if v.is_claim},
        not_seen=NOT_SEEN,
        gate=None if config.max_portable is None else _gate(config.max_portable, overall, classes),
        findings=sum(left_out.get(reason.text, 0) for reason in (LeftOut.CHANGED, LeftOut.GONE)),
        notes=tuple(_notes(run, _advice(run, found.rows), overall, classes)),
        out=None if config.out is None else str(config.out),
    )


def _gate(limit: float, overall: Verdict, classes: list[Verdict]) -> PortableGate:
    effects = [(v.carried.effect * 100, v.name) for v in (*classes, overall) if v.carried is not None]
    if all(v.carried is None for v in classes):
        return PortableGate(limit, None, None, passed=False)
    value, worst = max(effects, key=lambda effect: effect[0])
    return PortableGate(limit, value, worst, passed=value <= limit)


def _advice(run: Run, drawn: np.ndarray) -> str:
    """Return what to do about too few samples, "" where all are drawn."""
    return ": draw more by --samples" if len(drawn) < (run.prediction[:] >= 0).sum() else ""


def _notes(run: Run, advice: str, overall: Verdict, classes: list[Verdict]) -> Iterator[str]:
    yield from run_notes(run, control="regions carry what a network with random weights makes of them")
    few = [v for v in classes if v.verdict == TOO_FEW]
    if few:
        yield f"{len(few)} of {len(classes)} classes have too few samples to be judged{advice}"
    if overall.verdict == TOO_FEW:
        yield "too few samples to be judged at all"
    if run.plan.padding is not None:
        yield "padding counts as part of the picture: a border that is padding carries how images were padded"
    if run.plan.is_multi_label:
        yield "a class is told where its sigmoid reaches its threshold; samples are judged by the one highest above it"
