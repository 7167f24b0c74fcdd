"""Pure geometry: boxes and masks of an image in the pixels of a map that covers the image, or a part of it."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np


@dataclasses.dataclass(frozen=True)
class Frame:
    """The pixels of a map, and the part of an image that they cover.

    Attributes:
        size: (H, W) of the map.
        image_size: (height, width) of the image.
        view: x0, y0, x1, y1 of the part in pixels of the image, from the outer edge of its first pixel; None: all.
    """

    size: tuple[int, int]
    image_size: tuple[int, int]
    view: tuple[float, float, float, float] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the map covers the image, exactly."""
        return self.view in (None, (0.0, 0.0, float(self.image_size[1]), float(self.image_size[0])))

    def _edges(self, size: tuple[int, int]) -> np.ndarray:
        """Return the view in pixels of a picture of `size` (height, width) that shows the whole image."""
        whole = np.array([0, 0, size[1], size[0]], np.float64)
        if self.view is None or self.is_whole:
            return whole
        scale = whole[[2, 3, 2, 3]] / np.array(self.image_size, np.float64)[[1, 0, 1, 0]]
        return np.asarray(np.array(self.view, np.float64) * scale)

    def boxes(self, boxes: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return boxes in the map's pixels: scaled, clipped to the view, and cut to whole numbers.

        A map of the whole image clips nothing, as the protocol of Choe et al. 2020 does not.

        Args:
            boxes: x0, y0, x1, y1, float64 (G, 4).
            size: (height, width) of the picture they were drawn in; None: the image's.

        Returns:
            int64 (n, 4); a box that lies outside of the view is left out.
        """
        scaled = self._scaled(boxes, size)
        if not self.is_whole:
            limits = np.array(self.size[::-1], np.float64)
            scaled = scaled[(scaled[:, 2:] > 0).all(1) & (scaled[:, :2] < limits).all(1)]
            scaled = np.clip(scaled, 0, np.tile(limits, 2))
        return scaled.astype(np.int64)

    def box_mask(self, boxes: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return which of the map's pixels have their centre in a box, bool (H, W); arguments as for `boxes`."""
        mask = np.zeros(self.size, bool)
        for edges in self._scaled(boxes, size):
            # from the first centre at or behind an edge to the last one before the next
            x0, y0, x1, y1 = np.maximum(np.ceil(edges - 0.5), 0).astype(np.int64).tolist()
            mask[y0:y1, x0:x1] = True
        return mask

    def _scaled(self, boxes: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
        edges = self._edges(size or self.image_size)
        origin, extent = edges[:2], edges[2:] - edges[:2]
        # the product comes first, as in the protocol: then whole numbers stay whole
        return np.asarray((boxes - np.tile(origin, 2)) * np.tile(self.size[::-1], 2) / np.tile(extent, 2))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Return the pixels of a mask of the whole image, of any size, at the centres of the map's pixels.

        Args:
            mask: bool (height, width).

        Returns:
            bool (H, W); False outside of the image.
        """
        x0, y0, x1, y1 = self._edges((mask.shape[0], mask.shape[1]))
        rows, row_inside = _nearest(y0, y1, self.size[0], mask.shape[0])
        columns, column_inside = _nearest(x0, x1, self.size[1], mask.shape[1])
        return np.asarray(mask[np.ix_(rows, columns)] & row_inside[:, None] & column_inside)

    def resized(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask of the whole image resized to the map as the protocol does: OpenCV's nearest neighbour."""
        resized = cv2.resize(mask.astype(np.uint8), self.size[::-1], interpolation=cv2.INTER_NEAREST)
        return np.asarray(resized > 0)

    def seen_of_mask(self, mask: np.ndarray) -> float:
        """Return the share of a mask's pixels whose centres lie in the view, 0 to 1; NaN for an empty mask."""
        total = int(np.count_nonzero(mask))
        if total and self.is_whole:
            return 1.0
        x0, y0, x1, y1 = self._edges((mask.shape[0], mask.shape[1]))
        rows, columns = (np.arange(n) + 0.5 for n in mask.shape)
        seen = mask[np.ix_((rows >= y0) & (rows < y1), (columns >= x0) & (columns < x1))]
        return int(np.count_nonzero(seen)) / total if total else float("nan")

    def seen_of_boxes(self, boxes: np.ndarray, size: tuple[int, int] | None = None) -> float:
        """Return the share of the area of boxes, taken together, that lies in the view; NaN without an area."""
        total = union_area(boxes)
        edges = self._edges(size or self.image_size)
        inside = np.clip(boxes, np.tile(edges[:2], 2), np.tile(edges[2:], 2))
        return union_area(inside) / total if total else float("nan")


def _nearest(low: float, high: float, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for `count` pixels from `low` to `high` which of `length` cells holds each centre, and if there is one."""
    cells = np.floor(low + (np.arange(count) + 0.5) * (high - low) / count).astype(np.intp)
    return np.clip(cells, 0, length - 1), (cells >= 0) & (cells < length)


def union_area(boxes: np.ndarray) -> float:
    """Return the area that boxes cover together: x0, y0, x1, y1, float64 (G, 4)."""
    if len(boxes) == 1:
        return float(np.maximum(boxes[0, 2:] - boxes[0, :2], 0).prod())
    xs, ys = np.unique(boxes[:, [0, 2]]), np.unique(boxes[:, [1, 3]])
    covered = np.zeros((max(len(ys) - 1, 0), max(len(xs) - 1, 0)), bool)
    for x0, y0, x1, y1 in boxes:
        columns, rows = np.searchsorted(xs, (x0, x1)), np.searchsorted(ys, (y0, y1))
        covered[rows[0] : rows[1], columns[0] : columns[1]] = True
    return float((np.diff(ys)[:, None] * np.diff(xs))[covered].sum())
