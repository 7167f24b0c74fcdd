"""A picture of each sample: the heatmap over its original image, and the map alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np

from batchcam.commands.export.folder import ExportFolder
from batchcam.commands.export.originals import search_notes
from batchcam.pictures import heatmap
from batchcam.pictures.originals import Originals, State
from batchcam.record.rows import (
    Advance,
    Choice,
    Outcome,
    Target,
    batches,
    choose,
    class_names,
    file_names,
    status_words,
    target_cams,
)
from batchcam.record.similarity import says_nothing
from batchcam.store.run import Run

OVERLAY_FOLDER: Final = "overlays"
GREY_FOLDER: Final = "grey"
MAP_FOLDER: Final = "maps"
INDEX_FILE: Final = "index.csv"
ENDING: Final = ".png"
LARGEST_SIDE: Final = 1024
"""Longest side of an overlay, in pixels: a photo of 12 megapixels would make a PNG of 20 MB."""

GREY: Final = 128
BATCH: Final = 64

HEADER: Final = (
    *("sample_index", "sample_id", "label_name", "prediction_name", "confidence"),
    *("explained_class", "status_name", "image", "overlay", "map"),
)


def write(
    run: Run, folder: ExportFolder, originals: Originals, target: Target, palette: str, advance: Advance
) -> Outcome:
    """Write an overlay and a grey-level map for each sample, and an index of all samples, last.

    The map is the class's CAM, bilinear to the network's input size, min-max to 0…255: for the predicted class the
    one that the run stores. Where the original image is not found, or is another one by now, the heatmap lies on
    grey, in a folder of its own; a rerun looks for these images again.

    Args:
        run: an open run.
        folder: where to.
        originals: where the images are.
        target: class explained.
        palette: one of `rules.PALETTES`.
        advance: told of each batch.
    """
    choice = choose(run, target, finite=True)
    names = file_names(run, choice.rows, ENDING, folder.folds_case)
    states = np.zeros(len(names), np.int64)
    constant = 0
    row_bytes = run.plan.input_size[0] * run.plan.input_size[1] * 8
    for part in batches(run, len(names), row_bytes, BATCH):
        rows = choice.rows[part]
        maps, empty = _maps(run, rows, choice.classes[part], target)
        constant += empty
        samples = zip(rows.tolist(), names[part], maps, _origins(run, rows), strict=True)
        states[part] = [_draw(folder, originals, name, map_, origin, palette) for _, name, map_, origin in samples]
        advance(len(rows))
    folder.write_table(INDEX_FILE, HEADER, _index(run, choice, names, states))
    counts = np.bincount(states, minlength=len(State))
    notes = search_notes(originals.where, counts, f"heatmap on grey, in {GREY_FOLDER}/")
    if constant:
        notes.append(f"{constant} maps are zero: the CAM is constant")
    return choice.outcome(*notes, changed=int(counts[State.CHANGED]))


Origin = tuple[str, bytes, list[int], list[float]]
"""Sample id, digest, (height, width) and crop box of an original image."""


def _origins(run: Run, rows: np.ndarray) -> Iterator[Origin]:
    digests = (digest.tobytes() for digest in run.input_sha256[rows])
    sizes, boxes = run.image_size[rows].tolist(), run.crop_box[rows].tolist()
    return zip(run.sample_id[rows].tolist(), digests, sizes, boxes, strict=True)


def _maps(run: Run, rows: np.ndarray, classes: np.ndarray, target: Target) -> tuple[np.ndarray, int]:
    """Return normalised maps, uint8 (n, H, W), and how many of them say nothing."""
    cams = target_cams(run, rows, classes)
    empty = int(says_nothing(cams).sum())
    if target == "predicted" and run.plan.maps == "uint8":
        return run.maps[rows], empty
    return heatmap.normalise(heatmap.upsample(cams, run.plan.input_size))[0], empty


def _draw(
    folder: ExportFolder, originals: Originals, name: str, map_: np.ndarray, origin: Origin, palette: str
) -> State:
    """Write the pictures of one sample that are not there; return what became of its image."""
    map_file, overlay_file = f"{MAP_FOLDER}/{name}{ENDING}", f"{OVERLAY_FOLDER}/{name}{ENDING}"
    if not folder.has(map_file):
        folder.write(map_file, heatmap.write_png(map_))
    if folder.has(overlay_file):
        return State.FOUND
    sample_id, digest, size, box = origin
    original = originals.find(sample_id, digest.hex(), (size[0], size[1]))
    found = original.state
    if original.image is not None:
        picture = _overlay(original.image, map_, box, palette)
        if picture is not None:
            folder.write(overlay_file, heatmap.write_png(picture))
            return found
        found = State.UNREADABLE
    grey_file = f"{GREY_FOLDER}/{name}{ENDING}"
    if not folder.has(grey_file):
        height, width = map_.shape
        grey = np.full((height, width, 3), GREY, np.uint8)
        folder.write(grey_file, heatmap.write_png(heatmap.overlay(grey, map_, (0, 0, width, height), palette)))
    return found


def _overlay(image: np.ndarray, map_: np.ndarray, box: list[float], palette: str) -> np.ndarray | None:
    """Return the overlay, at most LARGEST_SIDE pixels wide and high; None where the box misses the image."""
    shrink = min(1.0, LARGEST_SIDE / max(image.shape[:2]))
    if shrink < 1:
        height, width = (max(1, round(side * shrink)) for side in image.shape[:2])
        scale_x, scale_y = width / image.shape[1], height / image.shape[0]
        box = [box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y]
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    try:
        return heatmap.overlay(image, map_, box, palette)
    except ValueError:
        return None


def _index(run: Run, choice: Choice, names: list[str], states: np.ndarray) -> Iterator[tuple[object, ...]]:
    """Yield a line for each sample of the run, with empty cells for pictures that it has not."""
    place = np.full(len(run), -1)
    place[choice.rows] = np.arange(len(choice.rows))
    labels, predictions = class_names(run, run.label[:]), class_names(run, run.prediction[:])
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
