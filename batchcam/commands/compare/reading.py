"""What `compare` reads of two runs: columns as a whole, logits and CAMs in blocks of bounded size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from batchcam.commands.compare.matching import Apart, Classes, Matching, match_ids, why_apart
from batchcam.commands.compare.movement import Pairing, Pairs, judge, same_view
from batchcam.errors import RunError
from batchcam.job.console import Progress
from batchcam.record.rows import cam_blocks
from batchcam.record.similarity import FUNCTIONS, compare_maps, is_constant
from batchcam.record.study import first_reasons
from batchcam.store.run import Run
from batchcam.store.stored_cams import stored_ranks

PICKED_BYTES = 64 * 2**20
"""CAMs of the compared classes held at once, of both runs together; where the runs have their samples in another
order, the new run is read once for each such block."""

DIGEST_ROWS = 65536

Advance = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Side:
    """The columns of one run, one row a sample; classes in the run's own numbering.

    Attributes:
        run: the open run.
        ids: encoded sample ids, type S(width).
        index: position in the dataset.
        label, prediction, confidence, status, crop_box: as the schema has them.
    """

    run: Run
    ids: np.ndarray
    index: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray
    status: np.ndarray
    crop_box: np.ndarray


def read_side(run: Run) -> Side:
    """Read the columns of `run`.

    Raises:
        RunError: a column can't be read, or names classes that the run does not have.
    """
    columns = {name: getattr(run, name)[:] for name in ("label", "prediction", "confidence", "status", "crop_box")}
    for name in ("label", "prediction"):
        if ((columns[name] < -1) | (columns[name] >= len(run.class_names))).any():
            raise RunError(f"{run.path}: {name}s beyond its {len(run.class_names)} classes; see batchcam verify")
    return Side(run, _encoded_ids(run), run.sample_index[:], **columns)


def _encoded_ids(run: Run) -> np.ndarray:
    """Return the sample ids as bytes, type S(width): as objects they take ten times the memory."""
    blocks = (block["sample_id"] for _, block in run.blocks(("sample_id",)))
    return np.concatenate([np.array([sample_id.encode() for sample_id in ids]) for ids in blocks])


def match(old: Side, new: Side) -> tuple[Matching, np.ndarray]:
    """Return which rows have one sample id, and why pairs of them are not compared (`Apart`, uint8).

    Raises:
        RunError: an id stands twice in a run.
    """
    try:
        rows = match_ids(old.ids, new.ids)
    except ValueError as error:
        raise RunError(f"{old.run.path}, {new.run.path}: {error}; see batchcam verify") from error
    reasons = why_apart(
        old.status[rows.old],
        new.status[rows.new],
        old.prediction[rows.old] >= 0,
        new.prediction[rows.new] >= 0,
        _same_input(old.run, new.run, rows),
    )
    return rows, reasons


def _same_input(old: Run, new: Run, rows: Matching) -> np.ndarray:
    first, second = old.input_sha256[:], new.input_sha256[:]
    same = np.empty(len(rows.old), bool)
    for start in range(0, len(same), DIGEST_ROWS):
        part = slice(start, start + DIGEST_ROWS)
        same[part] = (first[rows.old[part]] == second[rows.new[part]]).all(1)
    return same


def stated_labels(old: Side, new: Side, rows: Matching, classes: Classes) -> tuple[np.ndarray, np.ndarray]:
    """Return the class that both runs state for each pair, -1 where they do not, and which state two different ones."""
    first = classes.number(old.label[rows.old], classes.old)
    second = classes.number(new.label[rows.new], classes.new)
    known = (first >= 0) & (second >= 0)
    return np.where(known & (first == second), first, -1), known & (first != second)


def measure(
    old: Side, new: Side, rows: Matching, classes: Classes, label: np.ndarray, target: str, quiet: bool
) -> Pairs:
    """Return what moved for each compared sample.

    Args:
        old, new: the runs.
        rows: the compared pairs.
        classes: of both runs.
        label: class that both runs state for each pair, -1 where they do not.
        target: whose class's maps are compared: the one that the `old` or `new` run predicts, or the `label`.
        quiet: no progress.
    """
    old_prediction = classes.number(old.prediction[rows.old], classes.old)
    new_prediction = classes.number(new.prediction[rows.new], classes.new)
    map_class = {"old": old_prediction, "new": new_prediction, "label": label}[target]
    view = same_view(old.crop_box[rows.old], new.crop_box[rows.new])
    values = _measure_maps(old.run, new.run, rows, classes, map_class, view, quiet)
    return Pairs(
        label=label,
        old_prediction=old_prediction,
        new_prediction=new_prediction,
        flip=judge(label, old_prediction, new_prediction),
        old_confidence=old.confidence[rows.old],
        new_confidence=new.confidence[rows.new],
        map_class=map_class,
        **values,
    )


def _measure_maps(
    old: Run, new: Run, rows: Matching, classes: Classes, map_class: np.ndarray, view: np.ndarray, quiet: bool
) -> dict[str, np.ndarray]:
    count = len(rows.old)
    values = {name: np.full(count, np.nan) for name in FUNCTIONS}
    values |= {name: np.full(count, np.nan, np.float32) for name in ("old_logit", "new_logit")}
    values["pairing"] = np.zeros(count, np.uint8)
    cells = math.prod(old.plan.grid_size) + math.prod(new.plan.grid_size)
    size = max(1, PICKED_BYTES // (4 * cells))
    with Progress("compare", 2 * count, "maps", quiet) as progress:
        for start in range(0, count, size):
            part = slice(start, start + size)
            first = _pick(old, rows.old[part], classes.index(map_class[part], classes.old), progress.advance)
            second = _pick(new, rows.new[part], classes.index(map_class[part], classes.new), progress.advance)
            values["old_logit"][part], values["new_logit"][part] = first.logits, second.logits
            pairing = _pairing(first, second, map_class[part] >= 0, view[part])
            usable = np.flatnonzero(pairing == Pairing.MEASURED)
            alike = compare_maps(first.cams[usable], second.cams[usable])
            for name in FUNCTIONS:
                values[name][start + usable] = getattr(alike, name)
            values["pairing"][part] = pairing
    return values


@dataclasses.dataclass(frozen=True)
class _Picked:
    """One class's logits (n,) and raw CAMs (n, h, w) for n samples; `has` it, and `stored` its maps, bool (n,)."""

    logits: np.ndarray
    cams: np.ndarray
    has: np.ndarray
    stored: np.ndarray


def _pairing(old: _Picked, new: _Picked, known: np.ndarray, view: np.ndarray) -> np.ndarray:
    finite = np.isfinite(old.cams).all((1, 2)) & np.isfinite(new.cams).all((1, 2))
    old_constant, new_constant = is_constant(old.cams), is_constant(new.cams)
    return first_reasons(
        {
            Pairing.NO_CLASS: ~(known & old.has & new.has),
            Pairing.NOT_STORED: ~(old.stored & new.stored),
            Pairing.OTHER_VIEW: ~view,
            Pairing.NOT_FINITE: ~finite,
            Pairing.CONSTANT_IN_BOTH: old_constant & new_constant,
            Pairing.CONSTANT_IN_OLD: old_constant,
            Pairing.CONSTANT_IN_NEW: new_constant,
        }
    )


def _pick(run: Run, rows: np.ndarray, classes: np.ndarray, advance: Advance) -> _Picked:
    """Return one class's logits and raw CAMs for rows in any order, read in the order in which they are stored.

    Args:
        run: an open run.
        rows: rows of the run, each at most once.
        classes: class index for each row, -1: none.
        advance: told how many more rows are read.
    """
    order = np.argsort(rows, kind="stable")
    cams = np.full((len(rows), *run.plan.grid_size), np.nan, np.float32)
    logits, stored = np.full(len(rows), np.nan, np.float32), np.zeros(len(rows), bool)
    for part, picked, block in cam_blocks(run, rows[order], classes[order], ("logits",)):
        places = order[part]
        wanted = classes[places]
        logits[places] = np.where(wanted >= 0, block["logits"][np.arange(len(places)), wanted], np.nan)
        cams[places] = picked
        stored[places] = stored_ranks(block.get("cam_class"), wanted) >= 0
        advance(len(places))
    return _Picked(logits, cams, classes >= 0, stored)


def keep(rows: Matching, reasons: np.ndarray) -> Matching:
    """Return the pairs that are compared."""
    compared = reasons == Apart.COMPARED
    return dataclasses.replace(rows, old=rows.old[compared], new=rows.new[compared])
