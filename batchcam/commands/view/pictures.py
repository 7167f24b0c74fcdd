"""Pictures of one sample: its original, or a class's map over it."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from batchcam.pictures import heatmap, sheet
from batchcam.pictures.originals import Originals, State
from batchcam.pictures.overlay import View, overlay
from batchcam.rules import PALETTES, Status
from batchcam.store.run import Run, Sample
from batchcam.store.stored_cams import stored_cam

SIDES: Final = {"small": 176, "large": 720}
"""Pixels of the square that a picture fits into."""

KINDS: Final = ("map", "signed", "original")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a picture is to show.

    Attributes:
        kind: one of KINDS.
        class_: whose map, -1: none.
        minus: whose map is taken away from it, None: none.
        cells: the map's own cells.
        palette: of an unsigned map.
        size: one of SIDES.
    """

    kind: str
    class_: int
    minus: int | None = None
    cells: bool = False
    palette: str = PALETTES[0]
    size: str = "small"


def draw(run: Run, sample: Sample, originals: Originals, asked: Asked) -> bytes:
    """Return a picture of a sample as JPEG, with a banner where it lacks what was asked for."""
    box = (SIDES[asked.size],) * 2
    if sample.status & Status.UNREADABLE:
        return heatmap.write_jpeg(sheet.message(f"unreadable: {sample.error}", box))
    original = originals.read(sample)
    size = View.of(run, sample).fitted(box, box)
    if asked.kind == "original":
        if original.image is None:
            return heatmap.write_jpeg(sheet.message(f"{original.remark}: {original.reason}", size))
        return heatmap.write_jpeg(sheet.resized(original.image, size))
    signed = asked.kind == "signed" or asked.minus is not None
    cam = _evidence(sample, asked)
    drawn = overlay(original.image, cam, View.of(run, sample), size, asked.palette, asked.cells, signed)
    picture = drawn.picture
    if signed and not drawn.reason:
        picture = np.concatenate([picture, sheet.colour_bar(drawn.limit, picture.shape[1])])
    remarks = [text for text in (original.remark, "map not stored" if cam is None else drawn.reason) if text]
    background = sheet.CHANGED_COLOUR if original.state is State.CHANGED else sheet.REMARK_COLOUR
    return heatmap.write_jpeg(sheet.with_banner(picture, ", ".join(remarks), background) if remarks else picture)


def _evidence(sample: Sample, asked: Asked) -> np.ndarray | None:
    cam = stored_cam(sample.cams, sample.cam_class, asked.class_)
    if cam is None or asked.minus is None:
        return cam
    other = stored_cam(sample.cams, sample.cam_class, asked.minus)
    with np.errstate(over="ignore", invalid="ignore"):
        return None if other is None else np.asarray(cam - other)
