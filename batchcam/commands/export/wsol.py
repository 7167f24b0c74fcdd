"""Score maps as the protocol for weakly supervised localisation reads them (Choe et al. 2020, arXiv 2001.07437)."""

from __future__ import annotations

import io
from typing import Final

import numpy as np

from batchcam.commands.export.folder import ExportFolder
from batchcam.commands.export.form import Task
from batchcam.pictures.protocol import PROTOCOL_SIZE, relative_boxes, score_map
from batchcam.record.rows import Choice, Outcome, cam_blocks, file_names
from batchcam.record.similarity import says_nothing
from batchcam.store.problem import require_traced
from batchcam.store.run import Run

MAP_FOLDER: Final = "scoremaps"
METADATA_FOLDER: Final = "metadata"
NAMES_FILE: Final = "names.csv"
ENDING: Final = ".npy"


def write(task: Task) -> Outcome:
    """Write a score map for each sample, float64 in [0, 1], and the metadata files that list them.

    The frame of a score map is the whole original image resized to the task's size, as the protocol's boxes and masks
    are; pixels outside the network's view score 0. A map that is constant or not finite is all zeros, and counted. The
    class that the protocol explains is the label (GT-known).
    """
    run, folder, size = task.run, task.folder, task.size or PROTOCOL_SIZE
    require_traced("export --to wsol", run.path, run.plan)
    choice = task.choose(finite=False)
    names = file_names(run, choice.rows, ENDING, folder.folds_case)
    zeros = outside = 0
    for part, cams, block in cam_blocks(run, choice.rows, choice.classes, ("crop_box", "image_size")):
        boxes = relative_boxes(block["crop_box"], block["image_size"])
        nothing = says_nothing(cams)
        zeros += int(nothing.sum())
        outside += int(((boxes[:, :2] > 0) | (boxes[:, 2:] < 1)).any(1).sum())
        for name, cam, box, empty in zip(names[part], cams, boxes, nothing, strict=True):
            file = f"{MAP_FOLDER}/{name}{ENDING}"
            if not folder.has(file):
                folder.write(file, _npy(np.zeros(size) if empty else score_map(cam, box, size)))
        task.advance(len(cams))
    _write_metadata(run, folder, choice, names)
    notes = [f"{zeros} score maps are zero: CAM constant or not finite"] if zeros else []
    if outside:
        notes.append(f"{outside} images lie partly outside the network's view: they score 0 there")
    return choice.outcome(*notes)


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _write_metadata(run: Run, folder: ExportFolder, choice: Choice, names: list[str]) -> None:
    """Write the protocol's files, image_ids.txt last: it says that the export is whole."""
    labels, sizes = run.label[choice.rows].tolist(), run.image_size[choice.rows].tolist()
    ids, index = run.sample_id[choice.rows], run.sample_index[choice.rows].tolist()
    folder.write_table(NAMES_FILE, ("sample_index", "sample_id", "image_id"), zip(index, ids, names, strict=True))
    lines = {
        "class_labels": [f"{name},{label}" for name, label in zip(names, labels, strict=True)],
        "image_sizes": [f"{name},{width},{height}" for name, (height, width) in zip(names, sizes, strict=True)],
        "image_ids": names,
    }
    for name, content in lines.items():
        folder.write(f"{METADATA_FOLDER}/{name}.txt", "".join(f"{line}\n" for line in content).encode())
