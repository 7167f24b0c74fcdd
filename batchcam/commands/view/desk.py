"""What the page asks of a run: its columns, its rows, single samples and their pictures; and verdicts that it tells."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from batchcam.commands.view.book import Book
from batchcam.commands.view.columns import Column, QueryError, plain
from batchcam.commands.view.movement import Movement
from batchcam.commands.view.pictures import KINDS, SIDES, Asked, draw
from batchcam.commands.view.table import ORDER, Table, read_measures
from batchcam.errors import BatchcamError, StoppedEarlyError, called, stopped_by
from batchcam.pictures.originals import Originals
from batchcam.record.rows import label_text, status_words
from batchcam.record.sigmoid_scores import sigmoid
from batchcam.rules import PALETTES
from batchcam.store.bringing import shown
from batchcam.store.run import Run, Sample

PAGE_ROWS: Final = 100
MOST_ROWS: Final = 500
NEIGHBOURS: Final = 12
MOST_CLASSES: Final = 200
"""Of a sample that a page lists, the largest logits first."""

LONGEST_COMMENT: Final = 2000

Query = Mapping[str, str]


class Desk:
    """A run as a page sees it; several threads may ask at once.

    Args:
        run: open for reading.
        table: its columns.
        originals: its images.
        movement: since an older run, None without one.
        book: where verdicts go, None: nowhere.

    Attributes:
        table: the columns read so far.
        failed: why the rest could not be read, "" if it could.
    """

    def __init__(
        self, run: Run, table: Table, originals: Originals, movement: Movement | None, book: Book | None
    ) -> None:
        self.table, self.failed, self.book = table, "", book
        self._run, self._originals, self._movement = run, originals, movement
        self._reading = threading.Lock()  # a run's files, and archives of images, are for one thread at a time
        self._read, self._to_read = 0, len(run) + (movement.rows_to_read if movement else 0)
        self._closing = threading.Event()
        self.measuring = threading.Thread(target=self._measure, daemon=True)
        self._adding = threading.Lock()
        if book:
            self._add({"verdict": book.column})

    def __enter__(self) -> Desk:
        self.measuring.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self.measuring.join()

    def _measure(self) -> None:
        """Add the columns for which maps are read, with files of this thread's own."""
        try:
            with copy.deepcopy(self._run) as run:
                self._add(read_measures(run, self._seen))
            if self._movement:
                self._add(self._movement.columns(self._seen))
            self._read = self._to_read
        except StoppedEarlyError:
            pass
        except BatchcamError as error:
            self.failed = str(error)

    def _add(self, columns: Mapping[str, Column]) -> None:
        with self._adding:
            self.table = self.table.extended(columns)

    def _seen(self, rows: int) -> None:
        self._read += rows
        if self._closing.is_set():
            raise stopped_by("the end of the page")

    def about(self, query: Query) -> dict[str, Any]:
        """Return what the run is, and its columns."""
        _only(query)
        run, plan = self._run, self._run.plan
        remarks = [*run.remarks, *(f"left out: {called(reason)}" for reason in run.lost)]
        if self.failed:
            remarks.append(f"not all columns could be read: {self.failed}")
        return {
            "run": "/".join(shown(run.path.absolute()).split("/")[-2:]),
            "run_id": plan.run_id,
            "state": run.state,
            "samples": len(run),
            "cams": str(plan.cams),
            "old": shown(self._movement.old.path).rpartition("/")[2] if self._movement else None,
            "originals": self._originals.where is not None,
            "remarks": remarks,
            "measured": 1.0 if self.failed else self._read / max(1, self._to_read),
            "columns": [{"name": name, **column.about} for name, column in self.table.columns.items()],
            "palettes": PALETTES,
            "verdicts": self.book.words if self.book else None,
        }

    def rows(self, query: Query) -> dict[str, Any]:
        """Return one page of the samples that a filter leaves, and the counts of all of them."""
        asked = dict(query)
        first = _whole(asked.pop("first", "0"), 0, len(self._run))
        count = _whole(asked.pop("count", str(PAGE_ROWS)), 1, MOST_ROWS)
        order = asked.pop(ORDER, "")
        table = self.table
        answer = table.answer(tuple(sorted(asked.items())), order)
        rows = answer.rows[first : first + count]
        with self._reading:
            ids = self._run.sample_id[rows].tolist()
        return {
            "total": len(answer.rows),
            "first": first,
            "rows": rows.tolist(),
            "ids": ids,
            "columns": {name: column.told(rows) for name, column in table.columns.items()},
            "counts": answer.counts,
        }

    def sample(self, query: Query) -> dict[str, Any]:
        """Return everything that is told of one sample."""
        _only(query, "id", "row")
        row = self._row(query)
        with self._reading:
            told = _told(self._run, self._run[row])
        near = self.table.neighbours(row, NEIGHBOURS)
        with self._reading:
            ids = self._run.sample_id[np.array(near, np.int64)].tolist()
        told["columns"] = {name: column.told(np.array([row]))[0] for name, column in self.table.columns.items()}
        told["neighbours"] = [{"row": other, "id": i} for other, i in zip(near, ids, strict=True)]
        told["old"] = self._old(row)
        told["said"] = self.book.said(row) if self.book else None
        return told

    def _old(self, row: int) -> dict[str, Any] | None:
        if self._movement is None or (old_row := int(self._movement.old_rows[row])) < 0:
            return None
        with self._reading:
            return _told(self._movement.old, self._movement.old[old_row])

    def picture(self, query: Query) -> bytes:
        """Return a picture of a sample, JPEG."""
        _only(query, "row", "kind", "class", "minus", "cells", "palette", "size", "of")
        row, run = self._row(query), self._run
        if _one_of(query, "of", ("new", "old")) == "old":
            if self._movement is None or self._movement.old_rows[row] < 0:
                raise QueryError("no older run has this sample")
            row, run = int(self._movement.old_rows[row]), self._movement.old
        with self._reading:
            asked = Asked(
                kind=_one_of(query, "kind", KINDS),
                class_=_class(run, query["class"]) if "class" in query else int(run.prediction[row]),
                minus=_class(run, query["minus"]) if "minus" in query else None,
                cells="cells" in query,
                palette=_one_of(query, "palette", PALETTES),
                size=_one_of(query, "size", tuple(SIDES)),
            )
            return draw(run, run[row], self._originals, asked)

    def judge(self, told: Any) -> dict[str, Any]:
        """Write a verdict down, and return how the sample stands."""
        if self.book is None:
            raise QueryError("verdicts are not kept: start batchcam view with --verdicts FILE.csv")
        if not isinstance(told, dict) or told.keys() != {"row", "verdict", "comment"}:
            raise QueryError("a verdict is row, verdict and comment")
        row = _whole(str(told["row"]), 0, len(self._run) - 1)
        comment = str(told["comment"])
        if told["verdict"] not in self.book.words:
            raise QueryError(f"a verdict is one of {', '.join(self.book.words)}")
        if len(comment) > LONGEST_COMMENT:
            raise QueryError(f"a comment has at most {LONGEST_COMMENT} characters")
        with self._reading:
            self.book.write(self._run[row], told["verdict"], comment)
        self._add({"verdict": self.book.column})
        return self.book.said(row)

    def _row(self, query: Query) -> int:
        if "id" not in query:
            return _whole(query.get("row", ""), 0, len(self._run) - 1)
        wanted = query["id"]
        with self._reading:
            for row in self.table.ids.same(wanted).tolist():
                if self._run.sample_id[row] == wanted:
                    return int(row)
        raise QueryError(f"no sample {wanted!r}")


def _told(run: Run, sample: Sample) -> dict[str, Any]:
    several = sample.labels is not None
    largest = np.argsort(-np.nan_to_num(sample.logits, nan=-np.inf), kind="stable")[:MOST_CLASSES]
    with np.errstate(invalid="ignore"):  # NaN and infinities are data here
        powers = np.exp(sample.logits.astype(np.float64) - sample.logits.max())
        probabilities = sigmoid(sample.logits) if several else powers / powers.sum()
    stored = np.isin(np.arange(len(run.class_names)), sample.cam_class)
    return {
        "row": sample.row,
        "id": sample.id,
        "label": sample.label if sample.labels is None else label_text(run, sample.labels),
        "prediction": sample.prediction,
        "confidence": plain(sample.confidence),
        "status": status_words(sample.status) or "ok",
        "error": sample.error,
        "sha256": sample.input_sha256,
        "image_size": list(sample.image_size),
        "classes": [
            {
                "name": run.class_names[k],
                "logit": plain(sample.logits[k]),
                "probability": plain(probabilities[k]),
                "stored": bool(stored[k]),
                "true": None if sample.labels is None else int(sample.labels[k]),
            }
            for k in largest.tolist()
        ],
    }


def _only(query: Query, *known: str) -> None:
    if unknown := query.keys() - set(known):
        raise QueryError(f"{min(unknown)!r} is not asked here")


def _whole(text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or not low <= int(text) <= high:
        raise QueryError(f"{text!r}: want a number from {low} to {high}")
    return int(text)


def _one_of(query: Query, name: str, choices: tuple[str, ...]) -> str:
    """Return which of the choices is asked for, the first where none is."""
    if (chosen := query.get(name, choices[0])) not in choices:
        raise QueryError(f"{name} {chosen!r}: choose one of {', '.join(choices)}")
    return chosen


def _class(run: Run, name: str) -> int:
    if name not in run.class_names:
        raise QueryError(f"no class {name!r}")
    return run.class_names.index(name)
