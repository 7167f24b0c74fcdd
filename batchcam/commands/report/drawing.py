"""Small pictures of single samples for a report, as JPEG: the original beside overlays of one run or two."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from batchcam.pictures import heatmap, sheet
from batchcam.pictures.originals import Originals, State
from batchcam.record.similarity import says_nothing
from batchcam.rules import Status
from batchcam.store.run import Run, Sample
from batchcam.store.stored_cams import stored_cam

TILE = (150, 200)
"""(height, width) in pixels that each of a sample's two pictures fits into."""

GAP = 4
GREY = 128
NOTHING = 225  # the grey of a tile that has no map to show
JPEG_QUALITY = 80


@dataclasses.dataclass(frozen=True)
class Picture:
    """A sample as it is shown.

    Attributes:
        sample: what the run says of it.
        state: whether its original is shown.
        reason: why it is not, one line; "" if it is.
        mapped: whether there is a heatmap; a constant or non-finite map has none.
        jpeg: the file's bytes, empty where there is nothing to show.
        size: (height, width) in pixels.
    """

    sample: Sample
    state: State
    reason: str
    mapped: bool
    jpeg: bytes
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class PairPicture:
    """One class's maps of a sample in two runs, as they are shown.

    Attributes:
        sample: what the newer run says of it.
        state: whether its original is shown.
        reason: why it is not, one line; "" if it is.
        mapped: whether the older and the newer run have a map of the class that can be shown.
        jpeg: the file's bytes: the original, if it is shown, the older run's map and the newer run's.
        size: (height, width) in pixels.
    """

    sample: Sample
    state: State
    reason: str
    mapped: tuple[bool, bool]
    jpeg: bytes
    size: tuple[int, int]


def draw(run: Run, row: int, originals: Originals) -> Picture:
    """Return sample `row` of `run` as a picture: original and overlay, or the map alone over grey.

    Args:
        run: open for reading.
        row: of the sample.
        originals: where its image may be.
    """
    sample = run[row]
    original = originals.read(sample)
    tiles = [] if original.image is None else [fitted(original.image)]
    hidden = sample.status & (Status.UNREADABLE | Status.NON_FINITE | Status.CONSTANT_MAP)
    mapped = not hidden and bool(np.isfinite(sample.crop_box).all())
    if mapped:
        tiles.append(_overlay(tiles[0] if tiles else _grey(sample), run, sample, run.cam(row)))
    if not tiles:
        return Picture(sample, original.state, original.reason, False, b"", (0, 0))
    joined = _joined(tiles)
    return Picture(sample, original.state, original.reason, mapped, _jpeg(joined), joined.shape[:2])


def draw_pair(
    runs: tuple[Run, Run], rows: tuple[int, int], classes: tuple[int, int], originals: Originals
) -> PairPicture:
    """Return a sample as a picture: original and overlays of one class in two runs, or these maps alone over grey.

    Args:
        runs: the older and the newer one, open for reading.
        rows: of the sample in each of them.
        classes: index of the class in each of them, -1: it does not have the class.
        originals: where the sample's image may be.
    """
    samples = runs[0][rows[0]], runs[1][rows[1]]
    sample = samples[1]
    original = originals.read(sample)
    tiles = [] if original.image is None else [fitted(original.image)]
    back = tiles[0] if tiles else _grey(sample)
    cams = [_cam(each, class_) for each, class_ in zip(samples, classes, strict=True)]
    for run, each, cam in zip(runs, samples, cams, strict=True):
        tiles.append(np.full_like(back, NOTHING) if cam is None else _overlay(back, run, each, cam))
    joined, mapped = _joined(tiles), (cams[0] is not None, cams[1] is not None)
    return PairPicture(sample, original.state, original.reason, mapped, _jpeg(joined), joined.shape[:2])


def _cam(sample: Sample, class_: int) -> np.ndarray | None:
    """Return the raw CAM of a class, None where there is none that says where."""
    cam = stored_cam(sample.cams, sample.cam_class, class_)
    if cam is None or not np.isfinite(sample.crop_box).all():
        return None
    return None if says_nothing(cam[None])[0] else cam


def fitted(image: np.ndarray) -> np.ndarray:
    """Return an RGB picture scaled to fit TILE whole, uint8 (h, w, 3)."""
    return sheet.resized(image, sheet.fitted_size((image.shape[0], image.shape[1]), TILE))


def _grey(sample: Sample) -> np.ndarray:
    """Return what stands for an original that is not there, RGB uint8 (h, w, 3)."""
    height, width = (max(1, side) for side in sample.image_size)  # -1 where the run does not say
    return np.full((*sheet.fitted_size((height, width), TILE), 3), GREY, np.uint8)


def _overlay(back: np.ndarray, run: Run, sample: Sample, cam: np.ndarray) -> np.ndarray:
    """Return a small picture with a raw CAM over what the network saw of it."""
    box = np.array(sample.crop_box) * np.tile(np.array(back.shape[1::-1]) / np.maximum(1, sample.image_size[::-1]), 2)
    upsampled = heatmap.upsample(cam[None], run.plan.input_size)
    try:
        return heatmap.overlay(back, heatmap.normalise(upsampled)[0][0], box)
    except ValueError:  # a view narrower than a pixel of the small picture
        return back


def _joined(tiles: list[np.ndarray]) -> np.ndarray:
    gap = np.full((tiles[0].shape[0], GAP, 3), heatmap.WHITE, np.uint8)
    return np.hstack([part for tile in tiles for part in (gap, tile)][1:])


def _jpeg(image: np.ndarray) -> bytes:
    done, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError(f"a picture of shape {image.shape} can't be written as JPEG")
    return bytes(encoded)
