"""The files of a discovery: discover.h5 with a row for each drawn sample, discover.html, discover.json."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Final

import numpy as np

from batchcam.commands.discover.page import write_page
from batchcam.commands.discover.regions import pixels
from batchcam.commands.discover.summary import DiscoverSummary
from batchcam.commands.discover.trials import BORDER, FILLS, TRIALS, Outcomes
from batchcam.commands.explain.drawn import LeftOut
from batchcam.record.study import land_study
from batchcam.store.layout import new_file, set_text, write_text
from batchcam.store.run import Run

DISCOVER_VERSION: Final = 1
"""Changes with the names and meanings in the files."""

PAGE: Final = "discover.html"
TABLE: Final = "discover.h5"

RULES: Final = {
    "maps": "raw maps of the predicted class as stored, of a multi-label run of the one highest above its threshold",
    "region": "a quarter of the map's cells each way: those around the map's largest value with the most evidence",
    "holds": "whether the network says the sample's class of the changed image",
    "peak": "the region pasted at the same place into an image of which the network says another class",
    "moved": "the same at a random other place, which shares no cell with the region's own",
    "random": "the same of a random region, which shares no cell with that around the peak",
    "centre": "the same of the centre's region; a control where it shares no cell with that around the peak",
    "border": f"the same of the outermost {BORDER:g} of the picture each way",
    "removed": "the region becomes, by turns of the samples, what `fill` says",
    "fill": "mean: the image's mean colour; blur: a Gaussian of a quarter of its side; road: imputed (Rong 2022)",
    "random_removed": "the same, and as the same, of the random region",
    "kept": "all but the region becomes the image's mean colour",
    "control": "the random region or, where it is one, the centre's turns the image",
    "effect": "share less control; intervals of pairs by Tango 1998",
}
"""What the numbers mean, for readers of discover.json and discover.h5."""


def write_files(out: Path, run: Run, found: Outcomes, summary: DiscoverSummary) -> None:
    """Land the files of a discovery in folder `out`, over those of an earlier one; discover.json comes last."""
    files = {TABLE: _table(run, found), PAGE: write_page(run, found, summary).encode()}
    land_study(out, "discover", DISCOVER_VERSION, files, {**dataclasses.asdict(summary), "rules": RULES})


def _table(run: Run, found: Outcomes) -> bytes:
    """Return the HDF5 file of drawn samples, in the run's order."""
    order = np.argsort(found.rows)
    texts = {
        "sample_id": run.sample_id[found.rows[order]].tolist(),
        "left_out": [LeftOut(reason).text for reason in found.reasons[order].tolist()],
        "error": [found.errors[i] for i in order.tolist()],
        "fill": [FILLS[i] for i in found.fills[order].tolist()],
    }
    plan, judged = run.plan, found.judged[order]
    partner = found.partners[order]
    partners = np.full(len(order), -1)
    partners[judged] = np.asarray(run.sample_index[:])[partner[judged]]
    regions = [_boxes(run, windows) for windows in found.windows[order]]
    columns = {
        "sample_index": run.sample_index[found.rows[order]],
        "prediction": found.classes[order],
        "peak": found.peaks[order].astype(np.int32),
        "region": np.array(regions, np.int32).reshape(-1, 3, 4),
        "partner": partners,
        "holds": found.holds[order].astype(np.uint8),
    }
    meanings = {
        "peak": "row and column of the map's largest cell",
        "region": "around the peak, where it was moved to, random: first and end row and column of the view's pixels",
        "partner": "sample_index of the image that regions were pasted into",
        "holds": ", ".join(TRIALS) + ": 1 where the network says the class of the changed image",
    }
    buffer = io.BytesIO()
    with new_file(buffer) as file:
        set_text(file.attrs, "run_id", plan.run_id)
        for name, values in texts.items():
            write_text(file, name, np.array([text.encode() for text in values], dtype="S"))
        for name, numbers in columns.items():
            dataset = file.create_dataset(name, data=numbers, fletcher32=True, chunks=numbers.shape)
            if name in meanings:
                set_text(dataset.attrs, "meaning", meanings[name])
    return buffer.getvalue()


def _boxes(run: Run, windows: np.ndarray) -> list[list[int]]:
    """Return the pixels of a sample's three regions, -1 where it was not judged."""
    if (windows < 0).any():
        return [[-1] * 4] * len(windows)
    plan = run.plan
    boxes = [pixels(window, plan.grid_size, plan.input_size) for window in windows]
    return [[rows.start, rows.stop, columns.start, columns.stop] for rows, columns in boxes]
