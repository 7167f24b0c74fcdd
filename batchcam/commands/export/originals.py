"""What an export makes of original images: the part that the network saw, and a word on those that are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np

from batchcam.commands.export.folder import ExportFolder
from batchcam.pictures.heatmap import write_png
from batchcam.pictures.originals import Originals, State

GREY_FOLDER: Final = "grey"
LARGEST_SIDE: Final = 1024
"""Longest side of a picture of an original, in pixels: a photo of 12 megapixels would make a PNG of 20 MB."""

PIXELS: Final = 2**26
"""An image is not scaled up to more than this many pixels, whatever a crop box says."""


def network_view(
    image: np.ndarray, crop_box: Sequence[float], size: tuple[int, int], padding: tuple[int, int, int] | None = None
) -> np.ndarray | None:
    """Return what the network saw of an image: resized as a whole, then cropped or padded, as the worker does.

    The geometry is the worker's; the resizing is OpenCV's, so that pixels differ a little.

    Args:
        image: RGB uint8 (H0, W0, 3).
        crop_box: x0, y0, x1, y1 of the view in pixels of the image.
        size: (H, W) of the network's input.
        padding: RGB around an image that lies whole in the view; None: the view is cut from it.

    Returns:
        RGB uint8 (H, W, 3); None where the box can't be a view of this image.
    """
    x0, y0, x1, y1 = (float(edge) for edge in crop_box)
    if not (x1 - x0 > 0 and y1 - y0 > 0):
        return None
    (height, width), (rows, columns) = size, image.shape[:2]
    scale_y, scale_x = height / (y1 - y0), width / (x1 - x0)
    tall, wide = rows * scale_y, columns * scale_x
    if not 1 <= tall * wide <= PIXELS:
        return None
    shrinks = scale_y * scale_x < 1
    least = (height, width) if padding is None else (1, 1)
    target = (max(least[1], round(wide)), max(least[0], round(tall)))  # cv2 takes (width, height)
    resized = cv2.resize(image, target, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    top, left = round(y0 * scale_y), round(x0 * scale_x)
    if padding is not None:
        return _padded(resized, (-top, -left), size, padding)
    if not (0 <= top <= resized.shape[0] - height and 0 <= left <= resized.shape[1] - width):
        return None
    return resized[top : top + height, left : left + width]


def _padded(
    image: np.ndarray, place: tuple[int, int], size: tuple[int, int], padding: tuple[int, int, int]
) -> np.ndarray | None:
    """Return a picture of `size` with the image at `place`, y and x; None where it would not lie in it whole."""
    bottom, right = place[0] + image.shape[0], place[1] + image.shape[1]
    if min(place) < 0 or bottom > size[0] or right > size[1]:
        return None
    view = np.empty((*size, 3), np.uint8)
    view[:] = padding
    view[place[0] : bottom, place[1] : right] = image
    return view


def write_picture(
    folder: ExportFolder,
    originals: Originals,
    row: Mapping[str, Any],
    file: str,
    draw: Callable[[np.ndarray | None], np.ndarray],
) -> tuple[State, str]:
    """Write the picture of a row, unless it is there; return what became of its original, and where the picture lies.

    Where there is no original the picture lies in GREY_FOLDER instead: a rerun looks for the original again.

    Args:
        file: the picture's place, in a folder.
        draw: makes the picture from the original, RGB uint8, or without.
    """
    if folder.has(file):
        return State.FOUND, file
    original = originals.of(row)
    if original.state is not State.FOUND:
        file = grey_file(file)
    if original.state is State.FOUND or not folder.has(file):
        folder.write(file, write_png(draw(original.image)))
    return original.state, file


def grey_file(file: str) -> str:
    """Return where the picture lies that stands for `file` as long as its original is not found."""
    return f"{GREY_FOLDER}/{file.partition('/')[2]}"


def search_notes(where: str | None, counts: np.ndarray, instead: str) -> list[str]:
    """Return a line for each kind of image that was not found.

    Args:
        where: the folder or file that was searched.
        counts: how many samples by `State`, int (4,).
        instead: what is shown in place of these images.
    """
    searched = "no data known: give --data" if where is None else f"not in {where}"
    told = {
        State.MISSING: f"not found ({searched})",
        State.CHANGED: "no longer those explained",
        State.UNREADABLE: "not decoded as the worker decoded them",
    }
    return [f"{counts[kind]} images {words}: {instead}" for kind, words in told.items() if counts[kind]]
