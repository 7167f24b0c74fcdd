"""localize: do the maps find the annotated objects, and better than the image's centre does? No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

import numpy as np

from batchcam.commands.localize.annotations import Annotations, read_annotations
from batchcam.commands.localize.config import LocalizeConfig
from batchcam.commands.localize.files import DOCUMENT_FILE, write_files
from batchcam.commands.localize.judging import WORDS, Judged, Method, Reason, measure, overlaps, start
from batchcam.commands.localize.protocol import IOU_LEVELS, STRICT, TOLERANCE, mean
from batchcam.commands.localize.scores import SCORES, ClassScores, Score, percent, score
from batchcam.errors import RunError, one_line
from batchcam.job.console import Progress
from batchcam.job.cpus import available_cpus
from batchcam.pictures.protocol import PROTOCOL_SIZE
from batchcam.rules import CONTROLS, EXACT
from batchcam.store.opening import open_run
from batchcam.store.plan import named_dataset
from batchcam.store.run import Run

MOST_THREADS: Final = 8
CLASSES_SHOWN: Final = 40


@dataclasses.dataclass(frozen=True)
class LocalizeSummary:
    """Whether the maps find the objects.

    Attributes:
        run: the run directory.
        run_id: of its plan.
        annotations: as given.
        method: how the run's maps were made.
        control: what was replaced by random weights before.
        target, frame: see LocalizeConfig.
        size: (H, W) of the maps.
        tolerance: of the pointing game, in pixels of the map.
        samples: rows of the run.
        judged: of them.
        left_out: the others, by reason.
        strangers: annotated images that are not in the run.
        without_map: judged samples whose CAM is constant or not finite: it finds nothing.
        cropped: judged samples of whose object a part lies outside of the network's view.
        cropped_percent: of an object's area that lies there, mean over all judged samples.
        right_elsewhere: samples that are predicted right although the peak lies outside of the object.
        scores: by name, see SCORES.
        classes: one a class that has samples.
        findings: samples whose masks can't be read.
        notes: what a reader should know, a line each.
        out: folder of the files, None where none were asked for.
    """

    run: str
    run_id: str
    annotations: str
    method: str
    control: str
    target: str
    frame: str
    size: tuple[int, int]
    tolerance: float
    samples: int
    judged: int
    left_out: dict[str, int]
    strangers: int
    without_map: int
    cropped: int
    cropped_percent: float | None
    right_elsewhere: int
    scores: dict[str, Score]
    classes: list[ClassScores]
    findings: int
    notes: tuple[str, ...]
    out: str | None


def localize(config: LocalizeConfig) -> LocalizeSummary:
    """Tell whether the maps of a run find the annotated objects, and write it down where that is asked for.

    Raises:
        ConfigError: the annotations are not there, or name images in several ways.
        DatasetError: they can't be understood, or name no sample of the run.
        RunError: not a run, or no sample can be judged.
    """
    with open_run(config.run) as run:
        size = run.plan.input_size if config.frame == "view" else PROTOCOL_SIZE
        tolerance = TOLERANCE * min(size) if config.tolerance is None else config.tolerance
        method = Method(config.target, config.frame, size, tolerance)
        annotations = read_annotations(
            config.annotations, run.sample_id[:].tolist(), config.mask_root, config.prefix, named_dataset(run.path)[0]
        )
        judged = start(run, annotations, method)
        workers = min(MOST_THREADS, available_cpus()) if config.workers is None else max(1, config.workers)
        rows = len(judged.rows)
        with Progress("localize", rows * (2 if config.out else 1), "maps", config.quiet) as progress:
            measure(run, annotations, judged, method, workers, progress.advance)
            if not len(judged.rows):
                raise RunError(
                    f"{config.run}: no sample of {len(run)} can be judged: {_told(_left_out(judged), method.target)}"
                )
            summary = _summary(config, run, annotations, judged, method)
            if config.out is not None:
                threshold = summary.scores[f"max_box_acc_v2_iou_{IOU_LEVELS[STRICT]}"].threshold
                ious = np.full(len(run), np.nan)
                if threshold is not None:
                    ious = overlaps(run, judged, method, threshold, workers, progress.advance)
                write_files(config.out, run, judged, annotations, dataclasses.asdict(summary), ious)
    return summary


def _summary(
    config: LocalizeConfig, run: Run, annotations: Annotations, judged: Judged, method: Method
) -> LocalizeSummary:
    rows, columns = judged.rows, judged.columns
    scores, classes = score(judged, method, run.class_names)
    seen = columns["seen"][rows]
    return LocalizeSummary(
        run=str(config.run),
        run_id=run.plan.run_id,
        annotations=str(config.annotations),
        method=run.plan.method,
        control=run.plan.control,
        target=method.target,
        frame=method.frame,
        size=method.size,
        tolerance=method.tolerance,
        samples=len(run),
        judged=len(rows),
        left_out=_left_out(judged),
        strangers=annotations.strangers,
        without_map=int(judged.without_map.sum()),
        cropped=int((seen < 1).sum()),
        cropped_percent=percent(1 - mean(seen)),
        right_elsewhere=int((judged.right[rows] & (columns["peak_inside"][rows] == 0)).sum()),
        scores=scores,
        classes=classes,
        findings=int((judged.reason == Reason.BROKEN_MASK).sum()),
        notes=tuple(_notes(run, annotations, judged)),
        out=None if config.out is None else str(config.out),
    )


def _left_out(judged: Judged) -> dict[str, int]:
    counts = np.bincount(judged.reason, minlength=len(Reason)).tolist()
    return {WORDS[reason]: counts[reason] for reason in WORDS if counts[reason]}


def _told(left_out: dict[str, int], target: str) -> str:
    """Return what is left out and why, and what helps where the labels' CAMs are not stored."""
    told = [f"{count} {reason}" for reason, count in left_out.items()]
    if target == "label" and WORDS[Reason.NOT_STORED] in left_out:
        told.append("explain with --cams predicted+label, or use --target predicted")
    return "; ".join(told)


def _notes(run: Run, annotations: Annotations, judged: Judged) -> Iterator[str]:
    if not run.complete:
        yield f"the run is not complete: {len(run.shards)} of {len(run.plan.shards)} shards"
    if run.plan.control != CONTROLS[0]:
        yield f"control {run.plan.control}: weights are random, so the maps should find nothing"
    if not run.plan.identity and run.plan.method == EXACT:
        yield "the run waived the identity: its maps do not explain its logits"
    if judged.error:
        first = min(judged.error)
        yield f"masks of {len(judged.error)} samples can't be read, first: {judged.error[first]}"
    stated = annotations.sizes.min(1) > 0
    sizes = run.image_size[:]
    other = stated & (sizes > 0).all(1) & (sizes != annotations.sizes).any(1)
    if other.any():
        yield f"{other.sum()} samples have another image size in the annotations: their boxes are scaled"
    owners = np.repeat(np.arange(len(run)), np.diff(annotations.box_starts))
    ends = np.where(stated[:, None], annotations.sizes, sizes)[owners, ::-1]
    beyond = (annotations.boxes[:, 2:] > ends + 1).any(1) & (ends > 0).all(1)
    if beyond.any():
        yield f"{beyond.sum()} boxes reach beyond their images: do the annotations belong to them?"
    labels = annotations.labels
    differing = int(((labels >= 0) & (labels != run.label[:])).sum())
    if differing:
        yield f"{differing} samples have another class index in the annotations than in the run"


def localize_text(summary: LocalizeSummary) -> str:
    """Return the result of `localize`: what was judged, each score beside that of the centre, and the classes."""
    s = summary
    size = f"{s.size[0]}x{s.size[1]}"
    frame = {
        "view": f"over the network's view, bilinear to {size}",
        "image": f"over the whole image, bicubic to {size}",
    }[s.frame]
    maps = "raw CAM" if s.method == EXACT else f"raw map by {s.method}"
    head = [
        ("run", f"{s.run} ({s.samples} samples)"),
        ("annotations", s.annotations + (f"; {s.strangers} images are not in the run" if s.strangers else "")),
        ("maps", f"{maps} of the {'label' if s.target == 'label' else 'predicted class'}, {frame}"),
        ("pointing", f"game won within {s.tolerance:.3g} pixels of the object"),
        ("judged", "; ".join([f"{s.judged} samples", *filter(None, [_told(s.left_out, s.target)])])),
    ]
    if s.cropped:
        outside = f"{s.cropped} objects lie partly outside of the network's view"
        head.append(("cropped", f"{outside}; of a judged object {_shown(s.cropped_percent)} % on average"))
    if s.without_map:
        head.append(("no map", f"{s.without_map} maps are constant or not finite: they find nothing"))
    head.append(("elsewhere", f"{s.right_elsewhere} samples are predicted right with the peak outside of the object"))
    head += [("note", note) for note in s.notes]
    if s.out is not None:
        head.append(("written", f"{s.out}/{DOCUMENT_FILE} and the files it names"))
    lines = [f"{name:<11} {one_line(value)}" for name, value in head]
    classes = ["percent: CAM / centre", *_class_table(s.classes)]
    return "\n".join([*lines, "", *_score_table(s), "", *classes])


def _score_table(summary: LocalizeSummary) -> list[str]:
    rows = [f"{'percent':<15} {'CAM':>6}  {'centre':>6}  {'samples':>7}  threshold"]
    for name, words in SCORES.items():
        each = summary.scores.get(name)
        if each is None or not each.samples:
            continue
        at = f"{each.threshold:.3f}" if each.threshold is not None else ""
        line = f"{words:<15} {_shown(each.percent):>6}  {_shown(each.centre_percent):>6}  {each.samples:>7}  {at}"
        rows.append(line.rstrip())
    return rows


CLASS_COLUMNS: Final = {"max_box_acc_v2": "V2", "pxap": "PxAP", "peak_inside": "peak inside", "energy_inside": "energy"}


def _class_table(classes: list[ClassScores]) -> list[str]:
    """Return a table of classes, each score with the centre's after a slash, the smallest peak inside first."""
    ranked = sorted(classes, key=lambda c: (c.scores["peak_inside"].percent or 0, c.name))
    shown = ranked[:CLASSES_SHOWN]
    width = max([5, *(len(one_line(c.name)) for c in shown)])
    rows = [f"{'class':<{width}}  samples" + "".join(f"  {words:>13}" for words in CLASS_COLUMNS.values())]
    for each in shown:
        pairs = [each.scores[name] for name in CLASS_COLUMNS]
        cells = "".join(f"  {f'{_shown(p.percent)} / {_shown(p.centre_percent)}':>13}" for p in pairs)
        rows.append(f"{one_line(each.name):<{width}}  {each.samples:>7}{cells}")
    return rows + ([f"… and {len(ranked) - len(shown)} more"] if len(ranked) > len(shown) else [])


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
