"""What `compare` reads of two runs, pair by pair, in blocks of bounded size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from batchcam.commands.compare.matching import (
    Apart,
    Classes,
    Matching,
    match_bytes,
    match_ids,
    matched_in_order,
    why_apart,
)
from batchcam.commands.compare.movement import Pairing, Pairs, judge, same_view
from batchcam.errors import RunError
from batchcam.record.repeats import Repeats, hashes
from batchcam.record.similarity import FUNCTIONS, compare_maps, is_constant
from batchcam.record.study import LISTED, first_reasons, named_counts
from batchcam.rules import Status
from batchcam.store.run import Run
from batchcam.store.stored_cams import stored_ranks

IN_ORDER_BYTES = 8 * 2**20
"""Columns, and CAMs of the compared classes, held at once, of both runs together."""

PICKED_BYTES = 64 * 2**20
"""The same where the new run has its samples in another order: it is read once for each such block."""

ROW_BYTES = 256
"""Columns of a pair of rows, and what is told of it, or of each of its classes in multi-label runs."""

ID_ROWS = 2**15
"""Sample ids held at once."""

COLUMNS = ("label", "prediction", "confidence", "status", "crop_box", "input_sha256")

Advance = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Part:
    """Some pairs of rows of one sample.

    Attributes:
        old_rows, new_rows: of the runs, int64 (n,).
        old, new: COLUMNS of these rows by name; classes in the run's own numbering, -1 where NEW is not finite.
        reasons: why they are not compared (`Apart`), uint8 (n,).
    """

    old_rows: np.ndarray
    new_rows: np.ndarray
    old: dict[str, np.ndarray]
    new: dict[str, np.ndarray]
    reasons: np.ndarray

    @property
    def compared(self) -> Part:
        """The pairs that are compared."""
        return self.take(self.reasons == Apart.COMPARED)

    @property
    def same_input(self) -> np.ndarray:
        """Which pairs have the same bytes, bool (n,)."""
        return np.asarray((self.old["input_sha256"] == self.new["input_sha256"]).all(1))

    def take(self, chosen: np.ndarray) -> Part:
        """Return the pairs that are chosen, bool (n,), or at some places."""
        old, new = ({name: values[chosen] for name, values in side.items()} for side in (self.old, self.new))
        return Part(self.old_rows[chosen], self.new_rows[chosen], old, new, self.reasons[chosen])


class LeftApart:
    """Ids of either run that are not compared: how many by reason, and the rows of the first ones.

    Args:
        rows: which rows of the runs are one sample.
    """

    def __init__(self, rows: Matching) -> None:
        self._counts = np.zeros(len(Apart), np.int64)
        self._rows: dict[Apart, list[int]] = {reason: [] for reason in Apart if reason}
        self._count(Apart.REMOVED, rows.removed)
        self._count(Apart.ADDED, rows.added)

    def add(self, part: Part) -> None:
        """Count some more pairs."""
        for reason in np.unique(part.reasons[part.reasons > 0]).tolist():
            self._count(Apart(reason), part.old_rows[part.reasons == reason])

    def _count(self, reason: Apart, rows: np.ndarray) -> None:
        self._counts[reason] += len(rows)
        self._rows[reason] += rows[: LISTED - len(self._rows[reason])].tolist()

    @property
    def counts(self) -> dict[str, int]:
        """How many ids there are by the reason's text."""
        return named_counts(Apart, self._counts)

    def ids(self, sides: Sides, most: int = LISTED) -> dict[str, list[str]]:
        """Return the first ids by the reason's text, at most LISTED of each."""
        listed = {reason: np.array(rows[:most]) for reason, rows in self._rows.items() if rows}
        runs = {reason: sides.new if reason is Apart.ADDED else sides.old for reason in listed}
        return {reason.text: runs[reason].sample_id[rows].tolist() for reason, rows in listed.items()}


class Sides:
    """Two open runs side by side.

    Attributes:
        old, new: the runs.
        rows: which of their rows are one sample.
        classes: of both.
        changed_inputs: whether pairs of one id with other bytes are compared too.

    Raises:
        RunError: an id stands twice in a run, or a file can't be read.
    """

    def __init__(self, old: Run, new: Run, classes: Classes, changed_inputs: bool = False) -> None:
        self.old, self.new, self.classes, self.changed_inputs = old, new, classes, changed_inputs
        self.rows = match(old, new)
        self._in_order = isinstance(self.rows.new, range) or bool((np.diff(self.rows.new) > 0).all())
        self._whole: dict[str, np.ndarray] = {}
        cells = math.prod(old.plan.grid_size) + math.prod(new.plan.grid_size)
        maps = len(classes.names) if self.are_multi_label else 1
        self._size = max(1, (IN_ORDER_BYTES if self._in_order else PICKED_BYTES) // (maps * (4 * cells + ROW_BYTES)))

    @property
    def are_multi_label(self) -> bool:
        """Whether each class of a sample is true or not by itself."""
        return self.old.plan.is_multi_label

    def of_new(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return a column of the new run at some rows of `rows.new`; where those do not ascend, it stays in memory."""
        if not self._in_order and name not in self._whole:
            self._whole[name] = self.new[name][:]
        return np.asarray((self.new[name] if self._in_order else self._whole[name])[rows])

    def other_ids(self, old_rows: np.ndarray, new_rows: np.ndarray) -> np.ndarray:
        """Return the encoded sample ids of the new run where they are others, else empty, of some pairs."""
        other = np.isin(old_rows, np.concatenate([self.rows.respelt, self.rows.moved]))
        found = encoded_ids(self.new, new_rows[other])
        ids = np.zeros(len(old_rows), found.dtype)
        ids[other] = found
        return ids

    def parts(self) -> Iterator[Part]:
        """Yield all pairs, in the order of the old run.

        Raises:
            RunError: a column can't be read, or names classes that its run does not have.
        """
        for start in range(0, len(self.rows.old), self._size):
            old_rows, new_rows = (
                np.asarray(rows[start : start + self._size]) for rows in (self.rows.old, self.rows.new)
            )
            old = {name: self.old[name][old_rows] for name in COLUMNS}
            new = {name: self.of_new(name, new_rows) for name in COLUMNS}
            lost = (new["status"] & Status.NON_FINITE > 0) | (new["prediction"] < 0)
            new |= {
                name: np.where(lost, none, new[name]) for name, none in (("prediction", -1), ("confidence", np.nan))
            }
            for run, columns in ((self.old, old), (self.new, new)):
                _require_classes(run, columns)
            part = Part(old_rows, new_rows, old, new, np.zeros(len(old_rows), np.uint8))
            usable = old["prediction"] >= 0, new["prediction"] >= 0
            any_input = self.changed_inputs & ~np.isin(old_rows, self.rows.moved)
            reasons = why_apart(old["status"], new["status"], *usable, part.same_input | any_input)
            yield dataclasses.replace(part, reasons=reasons)


def _require_classes(run: Run, columns: dict[str, np.ndarray]) -> None:
    for name in ("label", "prediction"):
        if ((columns[name] < -1) | (columns[name] >= len(run.class_names))).any():
            raise RunError(f"{run.path}: {name}s beyond its {len(run.class_names)} classes; see batchcam verify")


def match(old: Run, new: Run) -> Matching:
    """Return which rows are one sample, by its id, else by its bytes.

    Of two runs that list the same samples in the same order in little memory.

    Raises:
        RunError: an id stands twice in a run.
    """
    try:
        if _have_one_list(old, new):
            return matched_in_order(len(old))
        found = match_ids(*(np.concatenate(list(_encoded_ids(run))) for run in (old, new)))
    except ValueError as error:
        raise RunError(f"{old.path}, {new.path}: {error}; see batchcam verify") from error
    if len(found.removed) and len(found.added):
        return match_bytes(found, _beginnings(old, found.removed), _beginnings(new, found.added))
    return found


def _beginnings(run: Run, rows: np.ndarray) -> np.ndarray:
    """Return the first 8 bytes of the inputs' digests: samples with equal ones are the same, or are not compared."""
    found = np.empty(len(rows), np.uint64)
    for at in range(0, len(rows), ID_ROWS):
        some = run["input_sha256"][rows[at : at + ID_ROWS]]
        found[at : at + ID_ROWS] = np.ascontiguousarray(some[:, :8]).view(np.uint64)[:, 0]
    return found


def _have_one_list(old: Run, new: Run) -> bool:
    """Return whether two runs have the same sample ids in the same order.

    Raises:
        ValueError: they have, and an id stands twice.
    """
    if len(old) != len(new):
        return False
    ascending, last = True, b""
    for ids, others in zip(_encoded_ids(old), _encoded_ids(new), strict=True):
        if not np.array_equal(ids, others):
            return False
        ascending = ascending and last < ids[0] and bool((ids[1:] > ids[:-1]).all())
        last = ids[-1]
    if not ascending:  # which tells that none stands twice
        repeats = Repeats(len(old))
        for ids in _encoded_ids(old):
            repeats.add(hashes(ids))
        if repeats.any(_encoded_ids(old)):
            raise ValueError("a sample id stands twice in OLD")
    return True


def _encoded_ids(run: Run) -> Iterator[np.ndarray]:
    """Yield the sample ids, always as many at once, as bytes: as objects they take ten times the memory."""
    for start in range(0, len(run), ID_ROWS):
        yield encoded_ids(run, np.arange(start, min(start + ID_ROWS, len(run))))


def encoded_ids(run: Run, rows: np.ndarray) -> np.ndarray:
    """Return the sample ids at some rows as bytes, type S(width)."""
    return np.array([sample_id.encode() for sample_id in run.sample_id[rows]], "S")


def stated_labels(part: Part, classes: Classes) -> tuple[np.ndarray, np.ndarray]:
    """Return the class that both runs state for each pair, -1 where they do not, and which state two different ones."""
    first = classes.number(part.old["label"], classes.old)
    second = classes.number(part.new["label"], classes.new)
    known = (first >= 0) & (second >= 0)
    return np.where(known & (first == second), first, -1), known & (first != second)


def target_classes(part: Part, classes: Classes, label: np.ndarray, target: str) -> np.ndarray:
    """Return for each sample the class that the `old` or `new` run predicts, or its `label`, as `target` says."""
    if target == "label":
        return label
    return classes.number(getattr(part, target)["prediction"], getattr(classes, target))


def measure(
    sides: Sides, part: Part, classes: Classes, label: np.ndarray, map_class: np.ndarray, advance: Advance
) -> Pairs:
    """Return what moved for each of some compared samples, of which one may stand several times.

    Args:
        sides: the runs.
        part: the samples.
        classes: of both runs, in whatever numbering.
        label: class that both runs state for each pair, -1 where they do not.
        map_class: class whose maps are compared, -1: none.
        advance: told how many rows are read.
    """
    old_prediction = classes.number(part.old["prediction"], classes.old)
    new_prediction = classes.number(part.new["prediction"], classes.new)
    first = _pick(sides.old, part.old_rows, classes.index(map_class, classes.old), advance)
    second = _pick(sides.new, part.new_rows, classes.index(map_class, classes.new), advance)
    pairing = _pairing(first, second, map_class >= 0, same_view(part.old["crop_box"], part.new["crop_box"]))
    usable = np.flatnonzero(pairing == Pairing.MEASURED)
    alike = compare_maps(first.cams[usable], second.cams[usable])
    none = np.empty((len(label), 0), np.int8)
    values = {name: np.full(len(label), np.nan) for name in FUNCTIONS}
    for name in FUNCTIONS:
        values[name][usable] = getattr(alike, name)
    return Pairs(
        old_row=part.old_rows,
        new_row=part.new_rows,
        label=label,
        old_prediction=old_prediction,
        new_prediction=new_prediction,
        flip=judge(label, old_prediction, new_prediction),
        old_confidence=part.old["confidence"],
        new_confidence=part.new["confidence"],
        map_class=map_class,
        old_logit=first.logits,
        new_logit=second.logits,
        pairing=pairing,
        labels=none,
        flips=none,
        mistake=np.where(new_prediction < 0, np.inf, part.new["confidence"]),
        **values,
    )


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
    """Return one class's logits and raw CAMs for rows in any order, read once in the order in which they are stored.

    Args:
        run: an open run.
        rows: rows of the run; one may stand several times.
        classes: class index for each row, -1: none.
        advance: told how many more rows are read.
    """
    order, start = np.argsort(rows, kind="stable"), 0
    cams = np.full((len(rows), *run.plan.grid_size), np.nan, np.float32)
    logits, stored = np.full(len(rows), np.nan, np.float32), np.zeros(len(rows), bool)
    names = ("cams", "logits", *(() if run.plan.cams.is_all else ("cam_class",)))
    for some, block in run.blocks(names, np.unique(rows)):
        end = int(np.searchsorted(rows[order], some[-1], "right"))
        places, start = order[start:end], end
        wanted, place = classes[places], np.searchsorted(some, rows[places])
        cam_class = block["cam_class"][place] if "cam_class" in block else None
        ranks = stored_ranks(cam_class, wanted)
        logits[places] = np.where(wanted >= 0, block["logits"][place, wanted], np.nan)
        cams[places] = np.where((ranks >= 0)[:, None, None], block["cams"][place, ranks], np.nan)
        stored[places] = ranks >= 0
        advance(len(some))
    return _Picked(logits, cams, classes >= 0, stored)
