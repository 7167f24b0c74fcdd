"""The files of a faithfulness: faithfulness.csv with a row for each drawn sample, curves.csv, faithfulness.json."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from batchcam.commands.explain.drawn import LeftOut
from batchcam.commands.faithfulness.curves import CURVES, ORDERS, Curves
from batchcam.record.names import csv_number, csv_table
from batchcam.record.rows import class_names, label_texts
from batchcam.record.study import land_study
from batchcam.store.run import Run

FAITHFULNESS_VERSION: Final = 1
"""Changes with the names and meanings in the files."""

SAMPLES_FILE: Final = "faithfulness.csv"
CURVES_FILE: Final = "curves.csv"

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
    "interval": "of means by Student's t, of shares of samples by Wilson; over the values of `cluster`, if any, by the "
    "variance between these, or the effective number of samples",
    "ahead": "map's area minus the other's, the sign turned where small is good: above zero the map is better",
}
"""What the numbers mean, for readers of faithfulness.json."""

SIGMOID_RULES: Final = {
    **RULES,
    "maps": RULES["maps"].replace("the predicted class", "the class highest above its threshold, or nearest to it"),
    "probability": "sigmoid of that class, of the network as the run prepared it",
}
"""The same of a multi-label run."""

PAIRS: Final = tuple(f"{curve}_{order}" for curve in CURVES for order in ORDERS)


def write_files(out: Path, run: Run, found: Curves, summary: dict[str, Any]) -> None:
    """Land the files in folder `out`, over those of an earlier measurement; faithfulness.json comes last.

    Args:
        out: created if it is not there.
        summary: what faithfulness.json says beside rules, versions and the digests of the other two files.
    """
    mean = found.values[found.judged].mean(0).reshape(len(PAIRS), -1).T
    curves = (
        [f"{share:.6g}", *map(csv_number, row)] for share, row in zip(found.fractions.tolist(), mean, strict=True)
    )
    samples = _columns(run, found)
    files = {
        SAMPLES_FILE: csv_table(list(samples), zip(*samples.values(), strict=True)),
        CURVES_FILE: csv_table(("fraction", *PAIRS), curves),
    }
    rules = SIGMOID_RULES if run.plan.is_multi_label else RULES
    land_study(out, "faithfulness", FAITHFULNESS_VERSION, files, {**summary, "rules": rules})


def _columns(run: Run, found: Curves) -> dict[str, Iterable[object]]:
    rows = found.rows
    areas = found.areas.reshape(len(rows), -1).T
    return {
        "sample_index": run.sample_index[rows].tolist(),
        "sample_id": run.sample_id[rows],
        "label": label_texts(run, rows),
        "prediction": class_names(run, run.prediction[rows]),
        "left_out": (LeftOut(reason).text for reason in found.reasons.tolist()),
        "error": found.errors,
        "probability": map(csv_number, found.probability),
        **{pair: map(csv_number, area) for pair, area in zip(PAIRS, areas, strict=True)},
    }
