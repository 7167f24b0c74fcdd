"""localize: do the maps find the annotated objects, and better than the image's centre does? No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

import numpy as np

from batchcam.commands.localize.annotations import Annotations, read_annotations
from batchcam.commands.localize.config import LocalizeConfig
from batchcam.commands.localize.files import CURVES_FILE, SAMPLES_FILE, write_files
from batchcam.commands.localize.judging import Judged, LeftOut, Method, measure, overlaps, start
from batchcam.commands.localize.protocol import IOU_LEVELS, STRICT, TOLERANCE, mean
from batchcam.commands.localize.scores import COLUMNS, DESIGNS, SCORES, ClassScores, Score, macro, percent, score
from batchcam.errors import ConfigError, DatasetError, RunError
from batchcam.job.console import Progress
from batchcam.job.cpus import available_cpus
from batchcam.pictures.protocol import PROTOCOL_SIZE
from batchcam.record.clusters import design_of, read_clusters
from batchcam.record.study import count_left_out, counts_text, require_place, run_notes
from batchcam.store.bringing import shown
from batchcam.store.opening import open_run
from batchcam.store.plan import named_dataset
from batchcam.store.problem import require_traced
from batchcam.store.run import Run

MOST_THREADS: Final = 8


@dataclasses.dataclass(frozen=True)
class LocalizeSummary:
    """Whether the maps find the objects.

    Attributes:
        method: how the run's maps were made.
        control: what was replaced by random weights before.
        target, frame: see LocalizeConfig; `finding`: of a multi-label run, of which each annotated class of a sample is
            judged by its own map, and counts as a sample below.
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
        confidence: per cent, of all intervals.
        cluster: column of the manifest whose values the intervals are over; None: they are over samples, or over the
            images of findings.
        clusters: how many of them there are.
        scores: by name, see SCORES.
        classes: one a class that has samples.
        macro: of a multi-label run: mean of each score over classes.
        findings: samples whose masks can't be read, or were drawn on the image before its EXIF turn.
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
    confidence: float
    cluster: str | None
    clusters: int | None
    scores: dict[str, Score]
    classes: list[ClassScores]
    macro: dict[str, Score]
    findings: int
    notes: tuple[str, ...]
    out: str | None


def localize(config: LocalizeConfig) -> LocalizeSummary:
    """Tell whether the maps of a run find the annotated objects, and write it down where that is asked for.

    Raises:
        ConfigError: the annotations are not there, or name images in several ways; the run has no column of clusters,
            or all judged samples are of one.
        DatasetError: they can't be understood, or name no sample of the run.
        RunError: not a run, or no sample can be judged.
    """
    require_place(config.out, "localize", (SAMPLES_FILE, CURVES_FILE), config.overwrite)
    with open_run(config.run) as run:
        require_traced("localize", config.run, run.plan)
        size = run.plan.input_size if config.frame == "view" else PROTOCOL_SIZE
        tolerance = TOLERANCE * min(size) if config.tolerance is None else config.tolerance
        several = run.plan.is_multi_label
        if several and config.target == "predicted":
            raise ConfigError(f"--target predicted: {config.run} is multi-label: each annotated class has its own map")
        method = Method("finding" if several else config.target, config.frame, size, tolerance)
        ids, classes = run.sample_id[:].tolist(), run.class_names if several else None
        annotations = read_annotations(config.annotations, ids, config.mask_root, config.prefix, _dataset(run), classes)
        beyond = _beyond(run, annotations)
        if beyond.sum() * 2 > len(beyond):
            raise DatasetError(
                f"{config.annotations}: {beyond.sum()} of {len(beyond)} boxes reach beyond their images: they are no "
                "corners x0, y0, x1, y1 in pixels of these images"
            )
        _, clusters = read_clusters(run, config.cluster, annotations.samples)
        if several and clusters is None:
            clusters = annotations.samples
        judged = start(run, annotations, method, clusters)
        if several and (without := int((judged.reason == LeftOut.NOT_STORED).sum())):
            raise RunError(
                f"{config.run}: {without} of {len(judged.reason)} annotated findings have no CAM in a run with --cams "
                f"{run.plan.cams}, most often those that were missed: explain with --cams all or "
                f"topk:{len(run.class_names)}"
            )
        workers = min(MOST_THREADS, available_cpus()) if config.workers is None else max(1, config.workers)
        rows = len(judged.rows)
        with Progress("localize", rows * (2 if config.out else 1), "maps", config.quiet) as progress:
            measure(run, annotations, judged, method, workers, progress.advance)
            if not len(judged.rows):
                reasons = left_out_text(count_left_out(LeftOut, judged.reason), method.target)
                what = "annotated finding" if several else "sample"
                raise RunError(f"{config.run}: no {what} of {len(judged.reason)} can be judged: {reasons}")
            summary = _summary(config, run, annotations, judged, method)
            if config.out is not None:
                threshold = summary.scores[f"max_box_acc_v2_iou_{IOU_LEVELS[STRICT]}"].threshold
                ious = np.full(len(judged.reason), np.nan)
                if threshold is not None:
                    ious = overlaps(run, judged, method, threshold, workers, progress.advance)
                write_files(config.out, run, judged, annotations, dataclasses.asdict(summary), ious)
    return summary


def _summary(
    config: LocalizeConfig, run: Run, annotations: Annotations, judged: Judged, method: Method
) -> LocalizeSummary:
    rows, columns = judged.rows, judged.columns
    clusters, numbers = read_clusters(run, config.cluster, judged.samples[rows])
    notes = [*_notes(run, annotations, judged)]
    if clusters:
        clusters.require_several()
        designs = {SCORES[name]: design_of(columns[COLUMNS[name][0]][rows], numbers) for name in DESIGNS}
        notes = [*clusters.notes(designs, "findings" if method.target == "finding" else "samples"), *notes]
    scores, classes = score(judged, method, run.class_names, config.confidence / 100)
    seen = columns["seen"][rows]
    return LocalizeSummary(
        run=shown(config.run),
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
        left_out=count_left_out(LeftOut, judged.reason),
        strangers=annotations.strangers,
        without_map=int(judged.without_map.sum()),
        cropped=int((seen < 1).sum()),
        cropped_percent=percent(1 - mean(seen)),
        right_elsewhere=int((judged.right[rows] & (columns["peak_inside"][rows] == 0)).sum()),
        confidence=config.confidence,
        cluster=config.cluster,
        clusters=len(clusters) if clusters else None,
        scores=scores,
        classes=classes,
        macro=macro(classes) if run.plan.is_multi_label else {},
        findings=int(np.isin(judged.reason, (LeftOut.BROKEN_MASK, LeftOut.TURNED_MASK)).sum()),
        notes=tuple(notes),
        out=None if config.out is None else str(config.out),
    )


def left_out_text(left_out: dict[str, int], target: str) -> str:
    """Return what is left out and why, and what helps where CAMs are not stored."""
    text = counts_text(left_out)
    if target == "label" and LeftOut.NOT_STORED.text in left_out:
        text += "; explain with --cams predicted+label, or use --target predicted"
    return text


def _dataset(run: Run) -> str | None:
    """Return the dataset as it was named, None where that is not known or several were."""
    named = {named_dataset(each.path)[0] for each in run.runs}
    return named.pop() if len(named) == 1 else None


def _beyond(run: Run, annotations: Annotations) -> np.ndarray:
    """Return which boxes reach beyond their images, bool (R)."""
    own = run.image_size[:][annotations.samples]
    sizes = np.where(annotations.sizes.min(1, keepdims=True) > 0, annotations.sizes, own)
    ends = np.repeat(sizes, np.diff(annotations.box_starts), axis=0)[:, ::-1]
    return np.asarray((annotations.boxes[:, 2:] > ends + 1).any(1) & (ends > 0).all(1))


def _notes(run: Run, annotations: Annotations, judged: Judged) -> Iterator[str]:
    yield from run_notes(run, control="weights are random, so the maps should find nothing")
    if annotations.other_form:
        yield f"{annotations.other_form} samples are annotated under names in another Unicode form than their ids"
    if judged.error:
        first = min(judged.error)
        yield f"masks of {len(judged.error)} samples can't be read, first: {judged.error[first]}"
    if judged.stretched.any():
        yield f"masks of {judged.stretched.sum()} samples have another shape than their images: they are stretched"
    padded = judged.on_padding[np.isfinite(judged.on_padding)]
    if len(padded):
        share = f"{100 * padded.mean():.1f} % of the positive evidence of {len(padded)} maps"
        yield f"padding: {share} lies there, on average, and is left out"
    sizes = run.image_size[:][annotations.samples]
    other = (annotations.sizes.min(1) > 1) & (sizes > 0).all(1) & (sizes != annotations.sizes).any(1)
    if other.any():
        yield f"{other.sum()} samples have another image size in the annotations: their boxes are scaled"
    if beyond := int(_beyond(run, annotations).sum()):
        yield f"{beyond} boxes reach beyond their images: do the annotations belong to them?"
    labels, samples = annotations.labels, annotations.samples
    if run.plan.is_multi_label:
        if without := len(run) - len({*samples.tolist()}):
            yield f"{without} samples have no annotated class of the run"
        if denied := int((run.labels[:][samples, labels] == 0).sum()):
            yield f"{denied} annotated findings are labelled no in the run"
        if others := annotations.other_classes:
            yield f"{sum(others.values())} objects are of classes that the run does not have: {', '.join(others)}"
    elif differing := int(((labels >= 0) & (labels != run.label[:])).sum()):
        yield f"{differing} samples have another class index in the annotations than in the run"
