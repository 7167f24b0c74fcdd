"""A run's features beside ids, labels and predictions as one .npz file, for Spotlight, FiftyOne, Cleanlab or UMAP."""

from __future__ import annotations

import zipfile

import numpy as np

from batchcam.commands.export.form import Task
from batchcam.record.rows import Outcome
from batchcam.store.run import Run
from batchcam.store.schema import FEATURES, LABELS

NPZ_FILE = "samples.npz"


def write(task: Task) -> Outcome:
    """Write each array as a member of its name, block by block, and the names of the classes as `class_names`."""
    run, rows = task.run, np.flatnonzero(task.meant)
    names = (
        "sample_id",
        LABELS if run.plan.is_multi_label else "label",
        "prediction",
        "confidence",
        "logits",
        FEATURES,
    )
    with task.folder.stream(NPZ_FILE) as file, zipfile.ZipFile(file, "w") as archive:
        for name in [each for each in names if each != FEATURES or run.plan.features]:
            _write_member(archive, run, name, rows)
        with archive.open(zipfile.ZipInfo("class_names.npy"), "w") as member:
            np.save(member, np.array(run.class_names), allow_pickle=False)
    task.advance(len(rows))
    without = () if run.plan.features else ("no features: explain with --features float16",)
    return Outcome(len(rows), len(run) - len(rows), notes=without)


def _write_member(archive: zipfile.ZipFile, run: Run, name: str, rows: np.ndarray) -> None:
    array = run[name]
    # an id has at most as many characters as bytes
    dtype = np.dtype(f"<U{run.plan.sample_id_bytes}") if name == "sample_id" else array.dtype
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (len(rows), *array.shape[1:]),
    }
    # of a fixed date, so that the same run gives the same bytes
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for _, block in run.blocks((name,), rows):
            member.write(block[name].astype(dtype).tobytes())
