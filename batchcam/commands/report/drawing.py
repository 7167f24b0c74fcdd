"""Small pictures of single samples for a report, as JPEG: the original beside overlays of one run or two."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from batchcam.pictures import heatmap
from batchcam.pictures.originals import Originals, State
from batchcam.pictures.overlay import View, backdrop, overlay
from batchcam.store.run import Run, Sample
from batchcam.store.stored_cams import stored_cam

TILE = (150, 200)
"""(height, width) in pixels that each of a sample's pictures fits into."""

GAP = 4


@dataclasses.dataclass(frozen=True)
class Picture:
    """A sample as it is shown: its original, if it is found, and its map of one class in one run or two.

    Attributes:
        sample: what the run says of it, the newer one of two.
        state: whether its original is shown.
        reason: why it is not, one line; "" if it is.
        mapped: whether a map of each run is shown; one that says nothing is not.
        jpeg: the file's bytes, empty where there is nothing to show.
        size: (height, width) in pixels.
    """

    sample: Sample
    state: State
    reason: str
    mapped: tuple[bool, ...]
    jpeg: bytes
    size: tuple[int, int]


def draw(runs: Sequence[Run], rows: Sequence[int], classes: Sequence[int], originals: Originals) -> Picture:
    """Return a sample as a picture: the original, if it is found, and its overlay by each run.

    Where only one run is asked for and there is no map, the original stands alone.

    Args:
        runs: one, or the older and the newer one, open for reading.
        rows: of the sample in each of them.
        classes: index of the class whose map is shown in each of them, -1: it has no such class.
    """
    samples = [run[row] for run, row in zip(runs, rows, strict=True)]
    original = originals.read(samples[-1])
    size = View.of(runs[-1], samples[-1]).fitted(TILE, TILE)
    drawn = [
        overlay(original.image, stored_cam(sample.cams, sample.cam_class, class_), View.of(run, sample), size)
        for run, sample, class_ in zip(runs, samples, classes, strict=True)
    ]
    tiles = [] if original.image is None else [backdrop(original.image, size)]
    tiles += [each.picture for each in drawn if len(drawn) > 1 or not each.reason]
    joined = _joined(tiles) if tiles else np.zeros((0, 0, 3), np.uint8)
    jpeg, mapped = heatmap.write_jpeg(joined) if tiles else b"", tuple(not each.reason for each in drawn)
    return Picture(samples[-1], original.state, original.reason, mapped, jpeg, joined.shape[:2])


def _joined(tiles: list[np.ndarray]) -> np.ndarray:
    gap = np.full((tiles[0].shape[0], GAP, 3), heatmap.WHITE, np.uint8)
    return np.hstack([part for tile in tiles for part in (gap, tile)][1:])
