"""A picture of each sample: the heatmap over its original image, and the map alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from batchcam.commands.export.folder import ExportFolder
from batchcam.commands.export.form import Task
from batchcam.commands.export.originals import GREY_FOLDER, LARGEST_SIDE, search_notes, write_picture
from batchcam.pictures import heatmap
from batchcam.pictures.originals import ORIGIN, Originals, State, open_originals
from batchcam.pictures.overlay import View, overlay
from batchcam.record.rows import (
    Choice,
    Outcome,
    cam_blocks,
    class_names,
    file_names,
    label_texts,
    status_words,
)
from batchcam.record.similarity import says_nothing
from batchcam.store.run import Run

OVERLAY_FOLDER: Final = "overlays"
MAP_FOLDER: Final = "maps"
INDEX_FILE: Final = "index.csv"
ENDING: Final = ".png"
MAP_BYTES: Final = 5
"""Held for each pixel of a map that is upsampled and normalised."""

HEADER: Final = (
    *("sample_index", "sample_id", "label_name", "prediction_name", "confidence"),
    *("explained_class", "status_name", "image", "overlay", "map"),
)


def write(task: Task) -> Outcome:
    """Write an overlay and a grey-level map for each sample, and an index of all samples, last.

    The map is the class's CAM, bilinear to the network's input size, min-max to 0…255: for the predicted class the
    one that the run stores. Where the original image is not found, or is another one by now, grey stands for it, in a
    folder of its own; a rerun looks for these images again.
    """
    run, folder, choice = task.run, task.folder, task.choose()
    originals = open_originals(run, task.data)
    names = file_names(run, choice.rows, ENDING, folder.folds_case)
    states = np.zeros(len(names), np.int64)
    constant, writer = 0, _Writer(folder, originals, run.plan.input_size, task.palette)
    stored = ("maps",) if task.target == "predicted" and run.plan.maps == "uint8" else ()
    columns, held = (*stored, "crop_box", *ORIGIN), MAP_BYTES * run.plan.input_size[0] * run.plan.input_size[1]
    for part, cams, block in cam_blocks(run, choice.rows, choice.classes, columns, held):
        constant += int(says_nothing(cams).sum())
        maps = block["maps"] if stored else heatmap.normalise(heatmap.upsample(cams, run.plan.input_size))[0]
        for at, name in enumerate(names[part]):
            states[part.start + at] = writer.write(
                name, maps[at], cams[at], {key: values[at] for key, values in block.items()}
            )
            task.advance(1)
    folder.write_table(INDEX_FILE, HEADER, _index(run, choice, names, states))
    counts = np.bincount(states, minlength=len(State))
    notes = search_notes(originals.where, counts, f"heatmap on grey, in {GREY_FOLDER}/")
    if constant:
        notes.append(f"{constant} maps are zero, and their images shown alone: the CAM is constant")
    return choice.outcome(*notes, changed=int(counts[State.CHANGED]))


@dataclasses.dataclass(frozen=True)
class _Writer:
    """Writes what is not there of a sample's two pictures."""

    folder: ExportFolder
    originals: Originals
    input_size: tuple[int, int]
    palette: str

    def write(self, name: str, map_: np.ndarray, cam: np.ndarray, row: Mapping[str, Any]) -> State:
        """Write the pictures of a row; return what became of its image."""
        map_file = f"{MAP_FOLDER}/{name}{ENDING}"
        if not self.folder.has(map_file):
            self.folder.write(map_file, heatmap.write_png(map_))

        def draw(original: np.ndarray | None) -> np.ndarray:
            view = View(row["image_size"].tolist(), row["crop_box"].tolist(), self.input_size)
            return overlay(original, cam, view, view.fitted((LARGEST_SIDE, LARGEST_SIDE)), self.palette).picture

        return write_picture(self.folder, self.originals, row, f"{OVERLAY_FOLDER}/{name}{ENDING}", draw)[0]


def _index(run: Run, choice: Choice, names: list[str], states: np.ndarray) -> Iterator[tuple[object, ...]]:
    """Yield a line for each sample of the run, with empty cells for pictures that it has not."""
    place = np.full(len(run), -1)
    place[choice.rows] = np.arange(len(choice.rows))
    labels, predictions = label_texts(run, np.arange(len(run))), class_names(run, run.prediction[:])
    explained = class_names(run, choice.classes)
    columns = run.sample_index[:].tolist(), run.sample_id[:], labels, predictions, run.confidence[:]
    for at, status, *texts, confidence in zip(place.tolist(), run.status[:].tolist(), *columns, strict=True):
        told = [*texts, str(confidence) if np.isfinite(confidence) else None]
        if at < 0:
            yield (*told, None, status_words(status), None, None, None)
            continue
        found = State(int(states[at]))
        place_of = OVERLAY_FOLDER if found is State.FOUND else GREY_FOLDER
        files = f"{place_of}/{names[at]}{ENDING}", f"{MAP_FOLDER}/{names[at]}{ENDING}"
        yield (*told, explained[at], status_words(status), found.name.lower(), *files)
