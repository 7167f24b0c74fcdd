"""All samples of a run as columns in memory: read once, then filtered, counted, searched and sorted."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from batchcam.commands.view.columns import Choice, Coder, Column, Members, Numbers, QueryError
from batchcam.errors import RunError
from batchcam.job.console import Progress
from batchcam.record.measures import MEASURED, measured_bytes, measured_names, sample_measures
from batchcam.record.rows import status_words
from batchcam.rules import EVIDENCE, composed
from batchcam.store.reader import COLUMN_BYTES
from batchcam.store.run import Run
from batchcam.store.schema import LABELS, TRAINED_ON, meta_array

PLACES: Final = ("label", "prediction", "status")
NUMBERS: Final = ("confidence", "identity_residual")
OUTCOMES: Final = ("right", "wrong")
SEARCH, ORDER = "q", "sort"
KEPT: Final = 4
"""Answers, and orders of all rows, that are remembered for the next question."""


class Ids:
    """The sample ids of a run, searched whatever the case of their letters."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._lengths: list[np.ndarray] = []

    def add(self, sample_ids: Iterable[str]) -> None:
        """Take the ids of the next samples."""
        ids = [f"{folded(sample_id)}\0".encode("utf-8", "replace") for sample_id in sample_ids]
        self._parts.append(b"".join(ids))
        self._lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))

    @functools.cached_property
    def _text(self) -> bytes:
        text, self._parts = b"".join(self._parts), []
        return text

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum(np.concatenate([np.zeros(1, np.int64), *self._lengths]))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def matching(self, part: str) -> np.ndarray:
        """Return which ids hold a text, bool (n,)."""
        wanted = np.zeros(len(self), bool)
        found = re.finditer(re.escape(folded(part).encode("utf-8", "replace")) + rb"[^\0]*\0", self._text)
        places = np.fromiter((match.start() for match in found), np.int64)
        wanted[np.searchsorted(self._starts, places, "right") - 1] = True
        return wanted

    def same(self, sample_id: str) -> np.ndarray:
        """Return the rows whose ids are this one but for the case of letters."""
        text = b"\0" + folded(sample_id).encode("utf-8", "replace") + b"\0"
        found = [0] if self._text.startswith(text[1:]) else []
        found += [match.start() + 1 for match in re.finditer(re.escape(text[:-1]) + rb"(?=\0)", self._text)]
        return np.searchsorted(self._starts, np.array(found, np.int64))

    @functools.cached_property
    def ranks(self) -> np.ndarray:
        """Each id's place in their order, int32 (n,)."""
        ids = self._text.split(b"\0")
        ranks = np.empty(len(self), np.int32)
        ranks[sorted(range(len(ranks)), key=ids.__getitem__)] = np.arange(len(ranks), dtype=np.int32)
        return ranks


def folded(text: str) -> str:
    """Return a text as it is searched."""
    return composed(text).replace("\0", " ").casefold()


@dataclasses.dataclass(frozen=True)
class Answer:
    """Rows that a filter leaves, in their order, (m,), and the counts of each column's values.

    The counts of a column are over the rows that all filters but its own leave: what another choice would show.
    """

    rows: np.ndarray
    counts: Mapping[str, list[int]]


class Table:
    """Columns by name; it never changes, so that several threads may ask it."""

    def __init__(self, columns: Mapping[str, Column], ids: Ids) -> None:
        self.columns, self.ids = columns, ids
        self.answer = functools.lru_cache(KEPT)(self._answer)
        self._rows_by = functools.lru_cache(KEPT)(self._order)

    def extended(self, columns: Mapping[str, Column]) -> Table:
        """Return the table with more columns, or others of these names."""
        return Table({**self.columns, **columns}, self.ids)

    def _answer(self, filters: tuple[tuple[str, str], ...], order: str) -> Answer:
        """Return the rows that all filters leave.

        Args:
            filters: names of columns, or SEARCH, each with what is asked of it.
            order: name of a column, or `id`; after a minus: descending; "": the run's.

        Raises:
            QueryError: there is no such column, or it can't be asked so.
        """
        masks: dict[str, np.ndarray] = {}
        for name, asked in filters:
            if name in masks:
                raise QueryError(f"{name}: is asked twice")
            masks[name] = self.ids.matching(asked) if name == SEARCH else self._column(name).matching(asked)
        chosen = self._chosen(masks)
        counts: dict[str, list[int]] = {}
        for name, column in self.columns.items():
            others = {key: mask for key, mask in masks.items() if key != name}
            found = column.counts(chosen if len(others) == len(masks) else self._chosen(others))
            counts |= {} if found is None else {name: found}
        if not order:
            return Answer(np.flatnonzero(chosen), counts)
        rows = self._rows_by(order)
        return Answer(rows[chosen[rows]], counts)

    def _chosen(self, masks: Mapping[str, np.ndarray]) -> np.ndarray:
        return functools.reduce(np.logical_and, masks.values(), np.ones(len(self.ids), bool))

    def _order(self, order: str) -> np.ndarray:
        """Return all rows in an order, int32 (n,)."""
        name, descending = order.removeprefix("-"), order.startswith("-")
        column = Numbers(self.ids.ranks) if name == "id" else self._column(name)
        return np.argsort(column.keys(descending), kind="stable").astype(np.int32)

    def _column(self, name: str) -> Column:
        try:
            return self.columns[name]
        except KeyError:
            raise QueryError(f"{name!r}: no such column, or it is still being read") from None

    def neighbours(self, row: int, count: int) -> list[int]:
        """Return the samples of the same predicted class whose evidence lies most alike, the nearest first.

        Alike: the Euclidean distance over EVIDENCE, each in units of its standard deviation in this run.
        """
        columns = [self.columns[name] for name in EVIDENCE if name in self.columns]
        predicted = self.columns["prediction"]
        if not columns or not isinstance(predicted, Choice):
            return []
        distance = np.zeros(len(self.ids), np.float32)
        for column in columns:
            assert isinstance(column, Numbers)
            if scale := float(np.nanstd(column.values)) if np.isfinite(column.values).any() else 0.0:
                distance += ((column.values - column.values[row]) / scale) ** 2
        distance[(predicted.values != predicted.values[row]) | np.isnan(distance)] = np.inf
        distance[row] = np.inf
        nearest = np.argpartition(distance, min(count, len(distance) - 1))[:count]
        nearest = nearest[np.argsort(distance[nearest], kind="stable")]
        return [int(other) for other in nearest if np.isfinite(distance[other])]


def read_table(run: Run, quiet: bool) -> Table:
    """Return the samples of a run by the columns that are read without their maps.

    Raises:
        RunError: a column can't be read, or names classes that the run does not have.
    """
    kinds = {**dict.fromkeys(PLACES, np.int32), **dict.fromkeys(NUMBERS, np.float32)}
    if TRAINED_ON in run.scalar_columns:
        kinds[TRAINED_ON] = np.int32
    several = ("logits", LABELS) if run.plan.is_multi_label else ()
    parts: dict[str, list[np.ndarray]] = {name: [] for name in kinds}
    texts = {meta_array(name).name: Coder() for name in run.plan.meta}
    ids, classes = Ids(), _Classes(run)
    with Progress("read", len(run), "samples", quiet) as progress:
        for rows, block in run.blocks(("sample_id", *kinds, *texts, *several), budget=COLUMN_BYTES):
            ids.add(block["sample_id"])
            for name, kind in kinds.items():
                parts[name].append(block[name].astype(kind))
            for name, coder in texts.items():
                coder.add(block[name])
            if several:
                classes.add(rows, block[LABELS], block["logits"])
            progress.advance(len(rows))
    values = {name: np.concatenate(found) for name, found in parts.items()}
    for name in ("label", "prediction"):
        if not ((values[name] >= -1) & (values[name] < len(run.class_names))).all():
            raise RunError(f"{run.path}: {name}s beyond its {len(run.class_names)} classes; see batchcam verify")
    predicted = Choice(values["prediction"], run.class_names)
    columns = classes.columns if several else _outcomes(Choice(values["label"], run.class_names), predicted)
    columns["prediction"] = predicted
    flags, places = np.unique(values["status"], return_inverse=True)
    columns["status"] = Choice(places.astype(np.int32), [status_words(flag) or "ok" for flag in flags.tolist()])
    if TRAINED_ON in kinds:
        columns[TRAINED_ON] = Choice(values[TRAINED_ON], ("no", "yes"))
    columns |= {name: Numbers(values[name]) for name in NUMBERS}
    columns |= {name: coder.column for name, coder in texts.items()}
    return Table(columns, ids)


def _outcomes(label: Choice, prediction: Choice) -> dict[str, Column]:
    judged = (label.values >= 0) & (prediction.values >= 0)
    wrong = np.where(judged, label.values != prediction.values, -1).astype(np.int32)
    return {"outcome": Choice(wrong, OUTCOMES), "label": label}


class _Classes:
    """Which classes each sample of a multi-label run has, and is told to have, a block after the other."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._rows: list[np.ndarray] = []
        self._places: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"label": [], "called": []}
        self._wrong: list[np.ndarray] = []

    def add(self, rows: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> None:
        called = logits >= np.asarray(self._run.plan.threshold_logits)
        known = (labels >= 0) & np.isfinite(logits)
        wrong = (known & (called != (labels == 1))).any(1)
        self._wrong.append(np.where(known.any(1), wrong, -1).astype(np.int32))
        for name, has in (("label", labels == 1), ("called", called)):
            at, classes = np.nonzero(has)
            self._places[name].append((rows[at].astype(np.int32), classes.astype(np.int32)))

    @property
    def columns(self) -> dict[str, Column]:
        """The outcome: wrong where any known class is told otherwise; labels, and the classes above their threshold."""
        columns: dict[str, Column] = {"outcome": Choice(np.concatenate(self._wrong), OUTCOMES)}
        names = self._run.class_names
        for name, found in self._places.items():
            rows, classes = (np.concatenate(parts) for parts in zip(*found, strict=True))
            order = np.argsort(classes, kind="stable")
            ends = np.cumsum(np.bincount(classes, minlength=len(names)))[:-1]
            columns[name] = Members(np.split(rows[order], ends), names, len(self._run))
        return columns


def read_measures(run: Run, seen: Callable[[int], None]) -> dict[str, Column]:
    """Return what is measured of each sample of a run, which takes reading its maps.

    Args:
        seen: told how many more samples are read.
    """
    values = {name: np.full(len(run), np.nan, np.float32) for name in measured_names(run.plan)}
    for rows, block in run.blocks(MEASURED, held=measured_bytes(run.plan)):
        for name, measured in sample_measures(run.plan, block).items():
            values[name][rows] = measured
        seen(len(rows))
    return {name: Numbers(measured) for name, measured in values.items()}
