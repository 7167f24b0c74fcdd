"""The files of a faithfulness: faithfulness.csv with a row for each drawn sample, curves.csv, faithfulness.json."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

import batchcam
from batchcam.commands.faithfulness.curves import CURVES, ORDERS, Curves
from batchcam.record.names import cell
from batchcam.record.rows import class_names
from batchcam.store import landing
from batchcam.store.document import seal
from batchcam.store.run import Run

FAITHFULNESS_VERSION: Final = 1
"""Changes with the names and meanings in the files."""

SAMPLES_FILE: Final = "faithfulness.csv"
CURVES_FILE: Final = "curves.csv"
DOCUMENT_FILE: Final = "faithfulness.json"

RULES: Final = {
    "maps": "raw maps of the predicted class as stored, bilinear to the network's input; pixels by falling value",
    "ties": "equal values in random order",
    "probability": "softmax at the class that the record says is predicted, of the network as the run prepared it",
    "deletion": "the first pixels become deletion_to; a faithful map's area is small (Petsiuk et al. 2018)",
    "insertion": "the first pixels of the image go into insertion_from; its area is large (Petsiuk et al. 2018)",
    "road": "the first pixels are imputed from the others, and noise is added (Rong et al. 2022, MoRF); small",
    "mean": "each image's own mean, channel by channel",
    "zero": "zero of the normalised input, as the authors' code deletes",
    "blur": "Gaussian of 10/224 of the shorter side, cut at three deviations, edges extended",
    "imputation": "mean of the neighbours, 1/6 straight and 1/12 diagonal, solved for all removed pixels at once",
    "noise": "normal, deviation 0.01 of the normalised input, the same for all curves of a sample",
    "area": "trapezoidal rule over the share of pixels, divided by the range; ROAD ends one step before the last pixel",
    "centre": "by nearness to the middle, in shares of each side",
    "random_map": "independent normal cells on the map's grid, bilinear to the network's input",
    "random_pixels": "every pixel by itself, in random order",
    "ahead": "map's area minus the other's, the sign turned where small is good: above zero the map is better",
}
"""What the numbers mean, for readers of faithfulness.json."""

PAIRS: Final = tuple(f"{curve}_{order}" for curve in CURVES for order in ORDERS)
HEADER: Final = ("sample_index", "sample_id", "label", "prediction", "left_out", "error", "probability", *PAIRS)


def write_files(out: Path, run: Run, found: Curves, summary: dict[str, Any]) -> None:
    """Land the files in folder `out`, over those of an earlier measurement; faithfulness.json comes last.

    Args:
        out: created if it is not there.
        run: the open run.
        found: what was measured.
        summary: what faithfulness.json says beside rules, versions and the digests of the other two files.
    """
    landing.make_folder(out)
    mean = found.values[found.judged].mean(0).reshape(len(PAIRS), -1).T
    curves = ([f"{share:.6g}", *map(_number, row)] for share, row in zip(found.fractions.tolist(), mean, strict=True))
    files = {SAMPLES_FILE: _table(HEADER, _rows(run, found)), CURVES_FILE: _table(("fraction", *PAIRS), curves)}
    for name, data in files.items():
        landing.land(out / name, data)
    content = {name: value for name, value in summary.items() if name != "out"}
    content |= {
        "faithfulness_version": FAITHFULNESS_VERSION,
        "batchcam_version": batchcam.__version__,
        "rules": RULES,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    landing.land(out / DOCUMENT_FILE, seal(content))
    landing.remove_stale_partials(out, (*files, DOCUMENT_FILE))


def _rows(run: Run, found: Curves) -> Iterable[Sequence[object]]:
    rows = found.rows
    areas = found.areas.reshape(len(rows), -1)
    return zip(
        run.sample_index[rows].tolist(),
        run.sample_id[rows],
        class_names(run, run.label[rows]),
        class_names(run, run.prediction[rows]),
        (reason.value for reason in found.reasons),
        found.errors,
        map(_number, found.probability),
        *(map(_number, column) for column in areas.T),
        strict=True,
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([cell(v) if isinstance(v, str) else v for v in row] for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _number(value: float) -> str | None:
    return f"{value:.6g}" if np.isfinite(value) else None
