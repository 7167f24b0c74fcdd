"""One picture of a sample for all commands: its original image under the map that explains it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from batchcam.pictures import heatmap, sheet
from batchcam.store.run import Run, Sample

GREY: Final = 128
"""Stands for an original that is not there."""


@dataclasses.dataclass(frozen=True)
class View:
    """What a network saw of an image.

    Attributes:
        image_size: (height, width) of the upright original; not positive where the run does not say.
        crop_box: x0, y0, x1, y1 of the network's view in pixels of the upright original.
        input_size: (H, W) of the network's input.
    """

    image_size: tuple[int, int]
    crop_box: Sequence[float]
    input_size: tuple[int, int]

    @classmethod
    def of(cls, run: Run, sample: Sample) -> View:
        """Return what the network of a run saw of one of its samples."""
        return cls(sample.image_size, sample.crop_box, run.plan.input_size)

    def fitted(self, largest: tuple[int, int], smallest: tuple[int, int] = (1, 1)) -> tuple[int, int]:
        """Return the (height, width) of a picture of the image, scaled to fit whole within a box if it is larger.

        Args:
            largest: that box.
            smallest: another, which it is scaled to fill if it is smaller.
        """
        height, width = (max(1, side) for side in self.image_size)
        grown, shrunk = (sheet.fitted_size((height, width), box) for box in (smallest, largest))
        return max(min((height, width), shrunk, key=max), grown, key=max)


@dataclasses.dataclass(frozen=True)
class Overlay:
    """A sample's picture.

    Attributes:
        picture: RGB uint8 (H, W, 3).
        reason: why it shows no map, in a few words; "" where it shows one.
        limit: of a signed one: the value that has the strongest red, and as a negative one the strongest blue.
    """

    picture: np.ndarray
    reason: str = ""
    limit: float = 0


def backdrop(original: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    """Return the original at `size` (height, width), RGB uint8; grey where there is none."""
    return np.full((*size, 3), GREY, np.uint8) if original is None else sheet.resized(original, size)


def overlay(
    original: np.ndarray | None,
    cam: np.ndarray | None,
    view: View,
    size: tuple[int, int],
    palette: str = "viridis",
    cells: bool = False,
    signed: bool = False,
) -> Overlay:
    """Return a sample's picture: half original, half map over what the network saw, and the rest dimmed and grey.

    The map is the raw CAM, bilinear to the network's input size, then min-max to 0…255, as a run's `maps` are. A map
    that says nothing about where is not drawn: one that is not there, not finite or constant, or whose place is not
    known or outside of the image. The picture is then the original alone, as it is.

    Args:
        original: RGB uint8, upright; None: grey stands for it.
        cam: raw map, float32 (h, w); None where the run has none.
        view: where it belongs.
        size: (height, width) of the picture.
        palette: one of `rules.PALETTES`.
        cells: show the map's cells as they are, with lines between them, instead of interpolating.
        signed: show raw values instead of their range, red above zero and blue below, over the original in grey; a
            constant map then says something.
    """
    back = backdrop(original, size)
    if cam is None:
        return Overlay(back, "no map")
    if reason := _why_not(cam, view, signed):
        return Overlay(back, reason)
    scale = np.array(size) / view.image_size
    box = np.array(view.crop_box) * [*scale[::-1], *scale[::-1]]
    values = cam[None] if cells else heatmap.upsample(cam[None], view.input_size)
    limit = float(np.abs(cam).max())
    try:
        if signed:
            return Overlay(heatmap.signed_overlay(back, values[0], box, limit, cells=cells), limit=limit)
        return Overlay(heatmap.overlay(back, heatmap.normalise(values)[0][0], box, palette, cells=cells))
    except ValueError:
        return Overlay(back, "what the network saw lies outside of the image")


def _why_not(cam: np.ndarray, view: View, signed: bool) -> str:
    """Return why a map can't be drawn, "" if it can."""
    normalised, ranges = heatmap.normalise(cam[None])
    if np.isnan(ranges).any():
        return "not finite: no map"
    if not signed and not normalised.any():
        return "constant map"
    known = min(view.image_size) > 0 and np.isfinite(view.crop_box).all()
    return "" if known else "the run does not say what the network saw"
