"""Small pictures of single samples for a report: the original beside its overlay, as JPEG."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from batchcam import heatmap
from batchcam.pictures import Originals, State
from batchcam.rules import Status
from batchcam.store.run import Run, Sample

TILE = (150, 200)
"""(height, width) in pixels that each of a sample's two pictures fits into."""

GAP = 4
GREY = 128
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
    box = np.array(sample.crop_box)
    mapped = not sample.status & (Status.UNREADABLE | Status.NON_FINITE | Status.CONSTANT_MAP)
    if mapped and np.isfinite(box).all():
        back = tiles[0] if tiles else np.full((*_tile_size(sample.image_size), 3), GREY, np.uint8)
        box *= np.tile(np.array(back.shape[1::-1]) / np.maximum(1, sample.image_size[::-1]), 2)
        cam = heatmap.upsample(run.cam(row)[None], run.plan.input_size)
        tiles.append(_overlay(back, heatmap.normalise(cam)[0][0], box))
    if not tiles:
        return Picture(sample, original.state, original.reason, False, b"", (0, 0))
    gap = np.full((tiles[0].shape[0], GAP, 3), heatmap.WHITE, np.uint8)
    joined = np.hstack([tiles[0], gap, tiles[1]] if len(tiles) == 2 else tiles)
    return Picture(sample, original.state, original.reason, mapped, _jpeg(joined), joined.shape[:2])


def fitted(image: np.ndarray) -> np.ndarray:
    """Return an RGB picture scaled to fit TILE whole, uint8 (h, w, 3)."""
    height, width = _tile_size(image.shape[:2])
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    # cv2 takes (width, height); every size of ours is (height, width)
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def _tile_size(size: tuple[int, ...]) -> tuple[int, int]:
    """Return the (height, width) within TILE that has the shape of `size`."""
    height, width = (max(1, side) for side in size)
    scale = min(TILE[0] / height, TILE[1] / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _overlay(image: np.ndarray, normalised_map: np.ndarray, box: np.ndarray) -> np.ndarray:
    try:
        return heatmap.overlay(image, normalised_map, box)
    except ValueError:  # a view narrower than a pixel of the small picture
        return image


def _jpeg(image: np.ndarray) -> bytes:
    done, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError(f"a picture of shape {image.shape} can't be written as JPEG")
    return bytes(encoded)
