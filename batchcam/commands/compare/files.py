"""The files of a comparison: compare.h5 with a row for each compared sample, movers.csv, compare.json."""

from __future__ import annotations

import dataclasses
import enum
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from batchcam.commands.compare.matching import Apart, Classes
from batchcam.commands.compare.movement import Flip, Mover, Pairing, Pairs
from batchcam.record.names import csv_table
from batchcam.record.study import LISTED, land_study, rows_left_out
from batchcam.store.layout import as_utf8, attach_scales, create, describe, new_file, set_text, write_text
from batchcam.store.reader import decode
from batchcam.store.schema import CLASS_NAME, META, NAN, Array, encode_text
from batchcam.version import version

COMPARE_VERSION: Final = 1
"""Changes with the names and meanings in the files."""

TABLE_FILE: Final = "compare.h5"
MOVERS_FILE: Final = "movers.csv"

RULES: Final = {
    "samples": "matched by sample id; compared where input_sha256 is the same and both rows have finite numbers",
    "classes": "matched by name",
    "label": "counts where both runs state the same one",
    "flip": "another predicted class: fixed wrong to right, broken right to wrong, changed anything else",
    "maps": "raw CAMs of one class on one input, where the crop boxes agree to a pixel on every edge",
    "grids": "different ones: bilinear, half-pixel centres, edges extended, to the larger height and width",
    "constant": "a map with max - min <= 1e-6 * max(abs(max), abs(min)) has no similarity and is in no mean",
    "spearman": "similarity: rank correlation over cells, equal values share the mean of their ranks",
    "cosine": "of the signed maps",
    "top_iou": "strongest fifth of the cells, rounded up, and all cells that equal the last of them",
    "peak_shift": "Euclidean distance in cells between the largest cells; of equal ones the first, row by row",
    "exchanges": "cycles of classes whose samples (clearly more than half), or last layer's rows (exactly), moved on",
}
"""What the numbers mean, for readers of compare.json."""

SAMPLE: Final = ("sample_id",)
"""Dimension of the compared samples, in the order of the old run."""

APART: Final = ("apart_id",)
"""Dimension of the sample ids of either run that are not compared."""

ARRAYS: Final = (
    Array("sample_id", SAMPLE, "text", "text", b"", "stable name of a sample that is compared"),
    Array("old_index", SAMPLE, "int64", "checked", -1, "position in the old run's dataset"),
    Array("new_index", SAMPLE, "int64", "checked", -1, "position in the new run's dataset"),
    Array("label", SAMPLE, "int64", "checked", -1, "class that both runs state; -1: not known, or not the same"),
    Array("old_prediction", SAMPLE, "int64", "checked", -1, "class that the old run predicts"),
    Array("new_prediction", SAMPLE, "int64", "checked", -1, "class that the new run predicts"),
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

APART_ARRAYS: Final = (
    Array("apart_id", APART, "text", "text", b"", "stable name of a sample that is not compared"),
    Array("apart_reason", APART, "uint8", "checked", 255, "why it is not compared"),
)

KINDS: Final[dict[str, type[enum.IntEnum]]] = {"flip": Flip, "pairing": Pairing, "apart_reason": Apart}
"""Arrays whose numbers have names."""

MOVER_COLUMNS: Final = tuple(field.name for field in dataclasses.fields(Mover))


def write_files(
    out: Path, pairs: Pairs, columns: dict[str, np.ndarray], classes: Classes, target: str, summary: dict[str, Any]
) -> None:
    """Land the files of a comparison in folder `out`, over those of an earlier one; compare.json comes last.

    Args:
        out: created if it is not there.
        pairs: the compared samples.
        columns: values of `ARRAYS` and `APART_ARRAYS` that `pairs` has not, and of the new run's arrays below META, by
            name, texts encoded.
        classes: of both runs.
        target: whose class's maps are compared.
        summary: what compare.json says beside rules, lists, versions and the digests of the other two files.
    """
    values = {a.name: getattr(pairs, a.name) for a in ARRAYS if a.name not in columns} | columns
    run_ids = {name: summary[name] for name in ("old_run_id", "new_run_id")}
    files = {
        TABLE_FILE: _table(values, classes.names, run_ids),
        MOVERS_FILE: csv_table(MOVER_COLUMNS, ([mover[name] for name in MOVER_COLUMNS] for mover in summary["movers"])),
    }
    apart = rows_left_out(Apart, columns["apart_reason"])
    content = {
        **summary,
        "apart_listed": {reason: decode(columns["apart_id"][rows[:LISTED]]) for reason, rows in apart.items()},
        "rules": {**RULES, "target": target},
        "only_old": list(classes.only_old),
        "only_new": list(classes.only_new),
    }
    land_study(out, "compare", COMPARE_VERSION, files, content)


def _table(columns: dict[str, np.ndarray], class_names: Sequence[str], run_ids: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with new_file(buffer) as file:
        title = "What moved between two runs, sample by sample"
        texts = {"title": title, "batchcam_version": version(), **run_ids}
        for name, text in texts.items():
            set_text(file.attrs, name, text)
        file.attrs["compare_version"] = np.int64(COMPARE_VERSION)
        names = write_text(file, CLASS_NAME.name, encode_text(list(class_names)))
        names.make_scale(CLASS_NAME.name)
        set_text(names.attrs, "long_name", "names of the classes that label, predictions and map_class number")
        meta = [name for name in columns if name.startswith(f"{META}/")]
        said = (Array(name, SAMPLE, "text", "text", b"", f"{name} of the new run") for name in meta)
        for array in (*ARRAYS, *APART_ARRAYS, *said):
            dataset = _create(file, array, columns[array.name])
            if array.name in KINDS:
                dataset.attrs["flag_values"] = np.array(list(KINDS[array.name]), np.uint8)
                set_text(dataset.attrs, "flag_meanings", " ".join(k.name.lower() for k in KINDS[array.name]))
    return buffer.getvalue()


def _create(file: h5py.File, array: Array, values: np.ndarray) -> h5py.Dataset:
    values = as_utf8(values) if array.dtype == "text" else values.astype(array.dtype, copy=False)
    if len(values):
        dataset = create(file, array, values.shape, values.dtype.itemsize)
        dataset[...] = values
        return dataset
    dataset = file.create_dataset(array.name, data=values, track_times=False)  # nothing has no chunks to filter
    attach_scales(file, dataset, array)
    describe(dataset, array)
    return dataset
