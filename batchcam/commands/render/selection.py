"""Which samples of a run to look at: chosen by id, class, error and rank, from columns alone."""

from __future__ import annotations

import math

import numpy as np

from batchcam.config.shared import Selection
from batchcam.errors import ConfigError
from batchcam.record.measures import CELL_BYTES, LOGIT_BYTES, ROW_BYTES, certainty_measures, evidence_measures
from batchcam.record.names import stored_columns
from batchcam.record.rows import class_index
from batchcam.rules import CERTAINTY, EVIDENCE
from batchcam.store.run import Run
from batchcam.store.schema import meta_array


def select(run: Run, selection: Selection) -> np.ndarray:
    """Return the rows of a run that a selection picks, int64 (m,): by rank, or as asked for, or in the run's order.

    Only columns of one value a sample are read, and logits or maps where the rank needs them, in blocks. Samples
    without a value to rank by (unreadable ones; unlabelled ones by loss) are in no `top` and no `bottom`.
    """
    rows: np.ndarray = _matching(run, selection)
    count = selection.top or selection.bottom
    if count is None:
        return rows
    values = _values(run, rows, selection.by)
    rows, values = rows[~np.isnan(values)], values[~np.isnan(values)]
    order = np.argsort(-values if selection.top else values, kind="stable")
    return np.asarray(rows[order[:count]])


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Return at most `count` of `rows`, evenly spread from the first to the last."""
    if len(rows) <= count:
        return rows
    return np.asarray(rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)])


def _matching(run: Run, selection: Selection) -> np.ndarray:
    wanted = np.ones(len(run), bool)
    ranked = (selection.top or selection.bottom) and selection.by == "loss"
    asked = "--wrong" if selection.wrong else "--confusion" if selection.confusion else "--by loss" if ranked else ""
    if asked and len(run) and not ((run.labels if run.plan.is_multi_label else run.label)[:] >= 0).any():
        raise ConfigError(f"{asked}: the run has no labels")
    if run.plan.is_multi_label:
        wanted &= _of_several(run, selection)
    elif selection.label is not None or selection.wrong or selection.confusion:
        label, prediction = run.label[:], run.prediction[:]
        if selection.label is not None:
            class_ = class_index(run, selection.label, "--class")
            wanted &= np.where(label >= 0, label, prediction) == class_
        if selection.wrong:
            wanted &= (label >= 0) & (prediction >= 0) & (label != prediction)
        if selection.confusion:
            true, predicted = (class_index(run, name, "--confusion") for name in selection.confusion)
            wanted &= (label == true) & (prediction == predicted)
    if selection.predicted is not None:
        wanted &= run.prediction[:] == class_index(run, selection.predicted, "--predicted")
    for column, _, value in (condition.partition("=") for condition in selection.where):
        (name,) = stored_columns([column], run.plan.meta, f"--where {column}={value}")
        wanted &= run[meta_array(name).name][:] == value
    rows = _named(run, selection.sample_ids) if selection.sample_ids else np.arange(len(run))
    return rows[wanted[rows]]


def shown_class(run: Run, selection: Selection) -> int | None:
    """Return the class of a multi-label run that is asked for, whose map is to be shown; None: the predicted one."""
    named = run.plan.is_multi_label and selection.label is not None
    return class_index(run, selection.label or "", "--class") if named else None


def is_wrong(run: Run, labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return where a class of a multi-label run is known and told otherwise, bool, for labels and logits (…, K)."""
    return np.asarray((labels >= 0) & np.isfinite(logits) & ((logits >= run.plan.threshold_logits) != (labels == 1)))


def most_wrong(run: Run, labels: np.ndarray, logits: np.ndarray) -> int | None:
    """Return the class of a multi-label sample that is wrong and the farthest from its threshold, None without one."""
    wrong = is_wrong(run, labels, logits)
    distance = np.abs(logits - np.asarray(run.plan.threshold_logits, np.float64))
    return int(np.where(wrong, distance, -1).argmax()) if wrong.any() else None


def _of_several(run: Run, selection: Selection) -> np.ndarray:
    """Return which samples of a multi-label run a selection means by class and error, bool (n)."""
    class_ = shown_class(run, selection)
    if class_ is None and not selection.wrong:
        return np.ones(len(run), bool)
    wanted: list[np.ndarray] = [np.zeros(0, bool)]
    limits = run.plan.threshold_logits
    some = slice(None) if class_ is None else slice(class_, class_ + 1)
    for _, block in run.blocks(("labels", "logits")):
        labels, logits = block["labels"], block["logits"]
        if selection.wrong:
            meant = is_wrong(run, labels, logits)
        else:
            meant = np.where(labels >= 0, labels == 1, logits >= limits)
        wanted.append(np.asarray(meant[:, some].any(1)))
    return np.concatenate(wanted)


def _named(run: Run, sample_ids: tuple[str, ...]) -> np.ndarray:
    rows: dict[int, None] = {}
    for sample_id in sample_ids:
        try:
            rows[run.row(sample_id)] = None
        except KeyError as error:
            raise ConfigError(f"--sample {sample_id}: no such sample among {len(run)}") from error
    return np.array(list(rows), np.int64)


def _values(run: Run, rows: np.ndarray, by: str) -> np.ndarray:
    """Return what rows are ranked by, float64 (m,)."""
    if by not in (*EVIDENCE, *CERTAINTY):
        return np.asarray(getattr(run, by)[:][rows], np.float64)
    values, ordered = np.full(len(run), np.nan), np.sort(rows)
    if by in EVIDENCE:
        held = ROW_BYTES + CELL_BYTES * math.prod(run.plan.grid_size)
        for part, block in run.blocks(("cams", "cam_class", "prediction"), ordered, held=held):
            values[part] = evidence_measures(block)[by]
    else:
        held = LOGIT_BYTES * len(run.class_names)
        for part, block in run.blocks(("logits", "label"), ordered, held=held):
            values[part] = certainty_measures(block["logits"], block["label"])[by]
    return np.asarray(values[rows])
