"""The files of a comparison: compare.h5 with a row for each compared sample, movers.csv, compare.json."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from batchcam.commands.compare.matching import Apart
from batchcam.commands.compare.movement import Flip, Mover, Pairing, Pairs
from batchcam.commands.compare.reading import ID_ROWS, LeftApart, Part, Sides, encoded_ids
from batchcam.errors import RunError
from batchcam.record.names import csv_table
from batchcam.record.study import land_study
from batchcam.store import landing
from batchcam.store.layout import as_utf8, attach_scales, create, describe, new_file, set_text, write_text
from batchcam.store.ours import claim
from batchcam.store.reader import CACHE_BYTES
from batchcam.store.run import Run
from batchcam.store.schema import CLASS_NAME, NAN, Array, encode_text, meta_array
from batchcam.version import version

COMPARE_VERSION: Final = 2
"""Changes with the names and meanings in the files."""

TABLE_FILE: Final = "compare.h5"
MOVERS_FILE: Final = "movers.csv"

RULES: Final = {
    "samples": "matched by sample id, those in one run alone by input_sha256 where each of them has another; compared "
    "where input_sha256 is the same, of one id with --changed-inputs compare anyway, and OLD has finite numbers",
    "not finite": "in NEW alone: a broken flip, and a wrong answer",
    "classes": "matched by name, or as --rename says",
    "label": "counts where both runs state the same one",
    "flip": "another predicted class: fixed wrong to right, broken right to wrong, changed anything else",
    "maps": "raw CAMs of one class on one input, where the crop boxes agree to a pixel on every edge",
    "grids": "different ones: bilinear, half-pixel centres, edges extended, to the larger height and width",
    "constant": "a map with max - min <= 1e-6 * max(abs(max), abs(min)) has no similarity and is in no mean",
    "spearman": "similarity: rank correlation over cells, equal values share the mean of their ranks",
    "cosine": "of the signed maps",
    "top_iou": "strongest fifth of the cells, rounded up, and all cells that equal the last of them",
    "peak_shift": "Euclidean distance in cells between the largest cells; of equal ones the first, row by row",
    "intervals": "over samples, or over the values of `cluster`: rates by Wilson and Tango of the effective number of "
    "samples, means by Student's t, AUROC as Obuchowski 1997; McNemar's test exchanges OLD and NEW in whole clusters",
    "exchanges": "cycles of classes whose samples (clearly more than half), or last layer's rows (exactly), moved on",
}
"""What the numbers mean, for readers of compare.json."""

SIGMOID_RULES: Final = {
    **RULES,
    "label": "of each class: counts where both runs state the same one",
    "not finite": "in NEW alone: each class is a broken flip, each yes is ranked last and each no first",
    "flip": "a class at or above the run's own threshold in one run alone: fixed where NEW is as labelled, broken "
    "where OLD is, changed without a label; a sample is broken if any class is, else fixed, else changed",
    "change": "NEW minus OLD of a score, each at the run's own thresholds, over the same labels",
    "exchanges": "cycles of classes whose samples (clearly more than half of those where they stand highest above "
    "their thresholds), or last layer's rows (exactly), moved on",
}
"""The same of multi-label runs."""

SAMPLE: Final = ("sample_id",)
"""Dimension of the compared samples, in the order of the old run."""

APART: Final = ("apart_id",)
"""Dimension of the sample ids of either run that are not compared."""

BY_CLASS: Final = (*SAMPLE, CLASS_NAME.name)

SIGMOID_MEANINGS: Final = {
    "old_prediction": "class that stands highest above its threshold in the old run",
    "new_prediction": "class that stands highest above its threshold in the new run; -1: not finite",
    "flip": "what became of the classes: broken if any is, else fixed, else changed",
    "old_confidence": "sigmoid at old_prediction",
    "new_confidence": "sigmoid at new_prediction",
}
"""What these arrays of multi-label runs are instead."""

ARRAYS: Final = (
    Array("sample_id", SAMPLE, "text", "text", b"", "stable name of a sample that is compared, in the old run"),
    Array("new_sample_id", SAMPLE, "text", "text", b"", "its name in the new run, empty where that is the same"),
    Array("old_index", SAMPLE, "int64", "checked", -1, "position in the old run's dataset"),
    Array("new_index", SAMPLE, "int64", "checked", -1, "position in the new run's dataset"),
    Array("label", SAMPLE, "int64", "checked", -1, "class that both runs state; -1: not known, or not the same"),
    Array("old_prediction", SAMPLE, "int64", "checked", -1, "class that the old run predicts"),
    Array("new_prediction", SAMPLE, "int64", "checked", -1, "class that the new run predicts; -1: not finite"),
    Array("flip", SAMPLE, "uint8", "checked", 255, "what became of the prediction"),
    Array("old_confidence", SAMPLE, "float32", "checked", NAN, "softmax at the class that the old run predicts", "1"),
    Array("new_confidence", SAMPLE, "float32", "checked", NAN, "softmax at the class that the new run predicts", "1"),
    Array("confidence_change", SAMPLE, "float64", "checked", NAN, "new confidence - old confidence", "1"),
    Array("map_class", SAMPLE, "int64", "checked", -1, "class whose logits and CAMs are compared; -1: none"),
    Array("old_logit", SAMPLE, "float32", "checked", NAN, "logit of map_class in the old run", "logit"),
    Array("new_logit", SAMPLE, "float32", "checked", NAN, "logit of map_class in the new run", "logit"),
    Array("logit_change", SAMPLE, "float64", "checked", NAN, "new logit - old logit of map_class", "logit"),
    Array("pairing", SAMPLE, "uint8", "checked", 255, "whether the two CAMs of map_class are compared, or why not"),
    Array("spearman", SAMPLE, "float64", "checked", NAN, "Spearman's rank correlation of the two CAMs' cells", "1"),
    Array("cosine", SAMPLE, "float64", "checked", NAN, "cosine of the angle between the two CAMs", "1"),
    Array("top_iou", SAMPLE, "float64", "checked", NAN, "intersection over union of the strongest fifth of cells", "1"),
    Array("peak_shift", SAMPLE, "float64", "checked", NAN, "distance between the largest cells of the CAMs", "cell"),
)

SIGMOID_ARRAYS: Final = (
    *(
        dataclasses.replace(array, meaning=SIGMOID_MEANINGS.get(array.name, array.meaning))
        for array in ARRAYS
        if array.name != "label"
    ),
    Array("labels", BY_CLASS, "int8", "checked", -1, "1 yes, 0 no, where both runs state it; -1: not known"),
    Array("flips", BY_CLASS, "uint8", "checked", 255, "what became of each class; 255: not in both runs"),
)
"""Those of multi-label runs."""

APART_ARRAYS: Final = (
    Array("apart_id", APART, "text", "text", b"", "stable name of a sample that is not compared"),
    Array("apart_reason", APART, "uint8", "checked", 255, "why it is not compared"),
)

KINDS: Final[dict[str, type[enum.IntEnum]]] = {"flip": Flip, "flips": Flip, "pairing": Pairing, "apart_reason": Apart}
"""Arrays whose numbers have names."""

MOVER_COLUMNS: Final = tuple(field.name for field in dataclasses.fields(Mover))


class Table:
    """compare.h5, to be filled part by part.

    Attributes:
        sha256: of the file, hex, once it has landed.
    """

    def __init__(self, file: h5py.File, sides: Sides) -> None:
        self.sha256 = ""
        self._sides, self._rows, self._apart_rows = sides, 0, 0
        self._datasets: dict[str, h5py.Dataset] = {}
        texts = {
            "title": "What moved between two runs, sample by sample",
            "batchcam_version": version(),
            "old_run_id": sides.old.plan.run_id,
            "new_run_id": sides.new.plan.run_id,
        }
        for name, text in texts.items():
            set_text(file.attrs, name, text)
        file.attrs["compare_version"] = np.int64(COMPARE_VERSION)
        names = write_text(file, CLASS_NAME.name, encode_text(list(sides.classes.names)))
        names.make_scale(CLASS_NAME.name)
        set_text(names.attrs, "long_name", "names of the classes that label, predictions and map_class number")
        compared = sum(int((part.reasons == Apart.COMPARED).sum()) for part in sides.parts())
        matched, alone = len(sides.rows.old), len(sides.rows.removed) + len(sides.rows.added)
        widths = {"sample_id": _id_bytes(sides.old), "new_sample_id": _id_bytes(sides.new)}
        widths["apart_id"] = max(widths.values())
        self._meta = [meta_array(name) for name in sides.new.plan.meta]
        widths |= {meta_array(name).name: width for name, width in sides.new.plan.meta.items()}
        said = (Array(a.name, SAMPLE, "text", "text", b"", f"{a.name} of the new run") for a in self._meta)
        self._arrays = SIGMOID_ARRAYS if sides.are_multi_label else ARRAYS
        classes = len(sides.classes.names)
        for array in (*self._arrays, *APART_ARRAYS, *said):
            count = matched - compared + alone if array.dims == APART else compared
            _create(file, array, (count, *([classes] if array.dims == BY_CLASS else [])), widths)
            self._datasets[array.name] = _opened(file, array.name)

    def add(self, part: Part, pairs: Pairs) -> None:
        """Write the rows of some pairs, of which `pairs` are compared."""
        sides, apart = self._sides, part.reasons != Apart.COMPARED
        values = {
            "sample_id": encoded_ids(sides.old, pairs.old_row),
            "new_sample_id": sides.other_ids(pairs.old_row, pairs.new_row),
            "old_index": sides.old.sample_index[pairs.old_row],
            "new_index": sides.of_new("sample_index", pairs.new_row),
            **{a.name: encode_text(sides.of_new(a.name, pairs.new_row).tolist()) for a in self._meta},
        }
        values |= {a.name: getattr(pairs, a.name) for a in self._arrays if a.name not in values}
        self._rows = self._write(values, self._rows)
        self._add_apart(sides.old, part.old_rows[apart], part.reasons[apart])

    def finish(self) -> None:
        """Write the ids that one run alone has."""
        rows = self._sides.rows
        self._add_apart(self._sides.old, rows.removed, np.full(len(rows.removed), Apart.REMOVED))
        self._add_apart(self._sides.new, rows.added, np.full(len(rows.added), Apart.ADDED))

    def _add_apart(self, run: Run, rows: np.ndarray, reasons: np.ndarray) -> None:
        for start in range(0, len(rows), ID_ROWS):
            some = slice(start, start + ID_ROWS)
            values = {"apart_id": encoded_ids(run, rows[some]), "apart_reason": reasons[some]}
            self._apart_rows = self._write(values, self._apart_rows)

    def _write(self, columns: dict[str, np.ndarray], start: int) -> int:
        """Write rows from `start` on, and return where they end."""
        stop = start + len(next(iter(columns.values())))
        for name, values in columns.items() if stop > start else ():
            if values.dtype.kind == "S" and values.dtype.itemsize > self._datasets[name].dtype.itemsize:
                raise RunError(f"{name}: texts longer than the runs' plans say; see batchcam verify")
            self._datasets[name][start:stop] = as_utf8(values) if values.dtype.kind == "S" else values
        return stop


@contextlib.contextmanager
def open_table(out: Path, sides: Sides) -> Iterator[Table]:
    """Give out compare.h5 in folder `out`, which is made, to be told of all parts of `sides`; it lands afterwards."""
    landing.make_folder(out)
    claim(out / "compare.json")
    with landing.stream(out / TABLE_FILE, stated=False) as sink, new_file(sink) as file:
        table = Table(file, sides)
        yield table
        table.finish()
    table.sha256 = sink.sha256


def _id_bytes(run: Run) -> int:
    return run.plan.sample_id_bytes


def write_files(out: Path, table: str, sides: Sides, apart: LeftApart, target: str, summary: dict[str, Any]) -> None:
    """Land the other files of a comparison in folder `out`, over those of an earlier one; compare.json comes last.

    Args:
        out: where compare.h5 lies.
        table: its digest.
        sides: the runs.
        apart: ids that are not compared.
        target: whose class's maps are compared.
        summary: what compare.json says beside rules, lists, versions and the digests of the other two files.
    """
    rows = ([mover[name] for name in MOVER_COLUMNS] for mover in summary["movers"])
    content = {
        **summary,
        "apart_listed": apart.ids(sides),
        "rules": {**(SIGMOID_RULES if sides.are_multi_label else RULES), "target": target},
        "only_old": list(sides.classes.only_old),
        "only_new": list(sides.classes.only_new),
    }
    files = {MOVERS_FILE: csv_table(MOVER_COLUMNS, rows)}
    land_study(out, "compare", COMPARE_VERSION, files, content, {TABLE_FILE: table})


def _create(file: h5py.File, array: Array, shape: tuple[int, ...], widths: Mapping[str, int]) -> None:
    width = widths.get(array.name, 1)
    if shape[0]:
        dataset = create(file, array, shape, width)
    else:  # nothing has no chunks to filter
        dtype = h5py.string_dtype("utf-8", width) if array.dtype == "text" else array.dtype
        dataset = file.create_dataset(array.name, shape, dtype, track_times=False)
        attach_scales(file, dataset, array)
        describe(dataset, array)
    if array.name in KINDS:
        dataset.attrs["flag_values"] = np.array(list(KINDS[array.name]), np.uint8)
        set_text(dataset.attrs, "flag_meanings", " ".join(k.name.lower() for k in KINDS[array.name]))


def _opened(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset, open nowhere else, with a cache of its chunks that is smaller than the 8 MiB of HDF5 2.0."""
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(521, CACHE_BYTES, 1.0)
    return h5py.Dataset(h5py.h5d.open(file.id, name.encode(), access))
