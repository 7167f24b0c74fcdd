"""Where in the network's view its image lies: the rest is padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def image_window(view: Sequence[float], image_size: Sequence[int], size: tuple[int, int]) -> tuple[slice, slice]:
    """Return which rows and which columns of a map of the view have their centres in the image.

    Args:
        view: x0, y0, x1, y1 of what the map covers, in pixels of the image, from the outer edge of its first pixel.
        image_size: (height, width) of the image.
        size: (H, W) of the map.
    """
    x0, y0, x1, y1 = view
    return _inside(y0, y1, size[0], image_size[0]), _inside(x0, x1, size[1], image_size[1])


def _inside(low: float, high: float, count: int, length: int) -> slice:
    centres = low + (np.arange(count) + 0.5) * (high - low) / count
    inside = np.flatnonzero((centres >= 0) & (centres < length))
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)
