"""The files of a localisation: localize.csv with a row for each sample, or finding, curves.csv, localize.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from batchcam.commands.localize.annotations import Annotations
from batchcam.commands.localize.judging import Judged, LeftOut
from batchcam.commands.localize.protocol import ANY, ANY_RIGHT, EDGES, IOU_LEVELS, LARGEST, STRICT, Tally
from batchcam.record.names import csv_number, csv_table
from batchcam.record.rows import class_names
from batchcam.record.study import LISTED, land_study, rows_left_out
from batchcam.store.run import Run

LOCALIZE_VERSION: Final = 1
"""Changes with the names and meanings in the files."""

SAMPLES_FILE: Final = "localize.csv"
CURVES_FILE: Final = "curves.csv"

RULES: Final = {
    "maps": "raw CAMs, upsampled in floating point; the maps stored as uint8 are not used",
    "scores": "each map scaled by its smallest and largest value to 0..1; zeros where constant or not finite",
    "boxes": "contours of floor(255 score) > floor(threshold * largest), outer ones and holes; none: 0, 0, 0, 0",
    "iou": "a box from x0 to x1 is x1 - x0 + 1 wide; the best pair of a contour's and an annotated box counts",
    "max_box_acc": "largest contour, IoU 0.5, at the one threshold that is best for the whole set (Choe et al. 2020)",
    "max_box_acc_v2": "all contours, mean over IoU 0.3, 0.5 and 0.7, each at its own best threshold",
    "top_1_loc": "as max_box_acc_v2 at IoU 0.5, of samples that are predicted right; of all samples",
    "pxap": "area under precision over recall of the pixels of all samples together, at the same thresholds",
    "pointing_game": "the largest value lies nearer to the object than the tolerance; mean over classes",
    "peak_inside": "the largest value lies on the object",
    "energy_inside": "sum of the positive values on the object, over their sum; samples without any are left out",
    "object_share": "the object's part of the map: the energy inside of a map that is the same everywhere",
    "centre": "a Gaussian around the middle, whose standard deviation is a quarter of each side",
    "classes": "boxes at the thresholds of the whole set",
    "interval": "over samples, images of findings, or the values of `cluster`: by Wilson of the effective number of "
    "samples for rates, by Student's t for means, else Wilson of the error by jackknife over at most 64 groups",
    "findings": "multi-label: each annotated class of a sample, by its own map; right: it reaches its threshold",
}
"""What the numbers mean, for readers of localize.json."""

ANSWERS: Final = np.array(["no", "yes", None])
"""Of a class of a multi-label run, at 0, 1 and -1."""

HEADER: Final = (
    *("sample_index", "sample_id", "label", "prediction", "explained", "left_out", "error", "without_map", "boxes"),
    *("seen", "object_share", "iou", "peak_inside", "points", "energy", "centre_inside", "centre_points"),
)


def write_files(
    out: Path, run: Run, judged: Judged, annotations: Annotations, summary: dict[str, Any], ious: np.ndarray
) -> None:
    """Land the files of a localisation in folder `out`, over those of an earlier one; localize.json comes last.

    Args:
        out: created if it is not there.
        summary: what localize.json says beside rules, lists, versions and the digests of the other two files.
        ious: best overlap of each case, float64 (n); NaN where there is none.
    """
    left_out = rows_left_out(LeftOut, judged.reason)
    content = {
        **summary,
        "prefix": annotations.prefix,
        "rules": RULES,
        "left_out_listed": {
            reason: run.sample_id[judged.samples[rows[:LISTED]]].tolist() for reason, rows in left_out.items()
        },
        "strangers_listed": list(annotations.strangers_listed[:LISTED]),
    }
    files = {SAMPLES_FILE: csv_table(HEADER, _sample_rows(run, judged, ious)), CURVES_FILE: _curves(*judged.total())}
    land_study(out, "localize", LOCALIZE_VERSION, files, content)


def _sample_rows(run: Run, judged: Judged, ious: np.ndarray) -> Iterator[Sequence[object]]:
    numbers = ("seen", "object_share", "iou", "peak_inside", "points", "energy", "centre_inside", "centre_points")
    columns = {**judged.columns, "iou": ious}
    label, first = "labels" if run.plan.is_multi_label else "label", 0
    for rows, block in run.blocks(("sample_index", "sample_id", label, "prediction"), judged.samples):
        part = slice(first, first := first + len(rows))
        told = class_names(run, block["prediction"])
        if run.plan.is_multi_label:
            labels = ANSWERS[block[label][np.arange(len(rows)), judged.classes[part]]].tolist()
            told = ANSWERS[np.where(block["prediction"] < 0, -1, judged.right[part])].tolist()
        else:
            labels = class_names(run, block[label])
        yield from zip(
            block["sample_index"].tolist(),
            block["sample_id"],
            labels,
            told,
            class_names(run, judged.classes[part]),
            (LeftOut(reason).text for reason in judged.reason[part].tolist()),
            (judged.error.get(case, "") for case in range(part.start, part.stop)),
            judged.without_map[part].astype(int).tolist(),
            judged.box_counts[part].tolist(),
            *(map(csv_number, columns[name][part].tolist()) for name in numbers),
            strict=True,
        )


def _curves(shown: Tally, centre: Tally) -> bytes:
    """Return the counts that the scores follow from; those of several runs' parts add up, line by line."""
    rules = [(LARGEST, STRICT), *((ANY, i) for i in range(len(IOU_LEVELS))), (ANY_RIGHT, STRICT)]
    named = {LARGEST: "largest", ANY: "any", ANY_RIGHT: "right"}
    names = [f"{named[rule]}_{IOU_LEVELS[level]}" for rule, level in rules] + ["object_pixels", "background_pixels"]
    columns = [
        column
        for tally in (shown, centre)
        for column in (*(tally.correct[rule, level] for rule, level in rules), *tally.pixels)
    ]
    rows = ([f"{edge:.3f}", *(int(c[i]) if i < len(c) else None for c in columns)] for i, edge in enumerate(EDGES[:-2]))
    return csv_table(["threshold", *names, *(f"centre_{name}" for name in names)], rows)
