"""Pure numbers about whether maps find the object: MaxBoxAcc, MaxBoxAccV2, PxAP, pointing game, energy inside.

Boxes and pixels are judged as in Choe et al. 2020 (arXiv 2001.07437), the pointing game as in Zhang et al. 2016
(arXiv 1608.00507). Everything that is counted over samples is a whole number that adds up over shards.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from batchcam.commands.localize.contours import LevelBoxes, level_boxes

THRESHOLDS: Final = np.arange(0, 1, 0.001)
"""Shares of a map's largest value at which its foreground is cut, and at which its pixels are counted."""

IOU_LEVELS: Final = (0.3, 0.5, 0.7)
"""Least overlaps at which a box counts as found; MaxBoxAccV2 is the mean over them."""

STRICT: Final = IOU_LEVELS.index(0.5)
"""The overlap of MaxBoxAcc and of Top-1 Loc."""

EDGES: Final = np.concatenate([THRESHOLDS, [1.0, 2.0, 3.0]])
BINS: Final = len(EDGES) - 1

TOLERANCE: Final = 15 / 224
"""Share of the map's shorter side: as near to an object a point counts as on it in the pointing game."""

CENTRE_SPREAD: Final = 0.25
"""Standard deviation of the centre's Gaussian, in shares of each side; MaxBoxAcc and PxAP hardly depend on it."""

LARGEST, ANY, ANY_RIGHT = range(3)
"""Which boxes are tried: the largest contour's, every contour's, every contour's if the class is predicted right."""


def min_max(values: np.ndarray) -> np.ndarray:
    """Return values scaled to 0…1, float64; zeros where they are all equal or one is not finite."""
    values = values.astype(np.float64)
    if not values.size:
        return values
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low == high:
        return np.zeros(values.shape)
    values -= low
    values /= high - low
    return values


def on_image(values: np.ndarray, padding: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return raw values, -inf on padding, and the others scaled to 0…1, 0 on padding, both (H, W)."""
    if padding is None:
        return values, min_max(values)
    scores = np.zeros(values.shape)
    scores[~padding] = min_max(values[~padding])
    return np.where(padding, -np.inf, values), scores


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is judged of one map.

    Attributes:
        boxes: at each grey level.
        bins: bin of `EDGES` that each pixel's score falls into, int (H, W).
        peak: y, x of its largest value, the first of equal ones; None for a map that says nothing about where.
        positive: its values above zero, others as zero, float64 (H, W); NaN where a value is.
    """

    boxes: LevelBoxes
    bins: np.ndarray
    peak: tuple[int, int] | None
    positive: np.ndarray


def evidence(values: np.ndarray, scores: np.ndarray) -> Evidence:
    """Prepare a map to be judged.

    Args:
        values: raw values in units of the logit, float (H, W); -inf where the network saw nothing of the image.
        scores: the same map scaled to 0…1, float64 (H, W); all zero where the map says nothing about where.
    """
    says = bool(scores.any())
    peak = np.unravel_index(int(values.argmax()), values.shape) if says else None
    return Evidence(
        level_boxes(scores),
        score_bins(scores),
        None if peak is None else (int(peak[0]), int(peak[1])),
        np.maximum(values.astype(np.float64), 0),
    )


def centre_evidence(size: tuple[int, int], padding: np.ndarray | None = None) -> Evidence:
    """Return the baseline: a Gaussian around the middle of a map of `size` (H, W), which has seen no image.

    Args:
        size: (H, W).
        padding: pixels that count as nothing, bool (H, W).
    """
    v, u = (((np.arange(n) + 0.5) / n - 0.5) / CENTRE_SPREAD for n in size)
    values = np.exp(-(v[:, None] ** 2 + u**2) / 2)
    # of the four middle pixels the one that metrics.centre_hits takes
    return dataclasses.replace(evidence(*on_image(values, padding)), peak=(size[0] // 2, size[1] // 2))


@dataclasses.dataclass(frozen=True)
class Truth:
    """Where the object is, in the pixels of the map.

    Attributes:
        boxes: x0, y0, x1, y1, int64 (G, 4); may be none.
        object: bool (H, W).
        exact: whether `object` and `ignored` come from masks, not from boxes: only then are pixels counted.
        ignored: pixels that count as neither, bool (H, W); None: there are none.
        padding: pixels outside of the image, which count as nothing, bool (H, W); None: there are none.
    """

    boxes: np.ndarray
    object: np.ndarray
    exact: bool
    ignored: np.ndarray | None = None
    padding: np.ndarray | None = None

    @property
    def object_share(self) -> float:
        """The object's part of the map's pixels that show the image."""
        return float((self.object if self.padding is None else self.object[~self.padding]).mean())


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How one map does on one sample; None or NaN where nothing could be judged.

    Attributes:
        found: for the largest contour and for any, at each IoU level and threshold, bool (2, 3, 1000).
        pixels: of the object and of the background in each bin, int64 (2, BINS).
        peak_inside: whether the peak lies on the object.
        points: whether it lies on the object or nearer to it than the tolerance.
        energy: share of its positive evidence that lies on the object, 0 to 1.
    """

    found: np.ndarray | None
    pixels: np.ndarray | None
    peak_inside: bool | None
    points: bool | None
    energy: float


def judge(found: Evidence, truth: Truth, tolerance: float) -> Verdict:
    """Judge a map by where the object is.

    Args:
        truth: in the same pixels.
        tolerance: of the pointing game, in pixels: a distance below it is a hit.
    """
    has_object = bool(truth.object.any())
    return Verdict(
        found=_found(found.boxes, truth.boxes) if len(truth.boxes) else None,
        pixels=pixel_counts(found.bins, truth) if truth.exact else None,
        peak_inside=is_near(truth.object, found.peak, 0) if has_object else None,
        points=is_near(truth.object, found.peak, tolerance) if has_object else None,
        energy=energy_inside(found.positive, truth.object) if has_object else float("nan"),
    )


def box_ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each pair of boxes, float64 (M, G).

    As the protocol counts it, a box from x0 to x1 is x1 - x0 + 1 pixels wide.

    Args:
        boxes: x0, y0, x1, y1, int64 (M, 4).
        others: int64 (G, 4).
    """
    a, b = boxes[:, None], others[None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.maximum(high - low + 1, 0).prod(-1)
    areas = [(each[..., 2:] - each[..., :2] + 1).prod(-1) for each in (a, b)]
    union = areas[0] + areas[1] - shared
    return np.asarray(np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0))


def _found(boxes: LevelBoxes, truth: np.ndarray) -> np.ndarray:
    best = box_ious(boxes.boxes, truth).max(1)
    by_level = np.stack([best[boxes.largest], np.maximum.reduceat(best, boxes.starts)])
    reached = by_level[:, None] >= np.array(IOU_LEVELS)[:, None]
    return np.asarray(reached[..., boxes.at(THRESHOLDS)])


def score_bins(scores: np.ndarray) -> np.ndarray:
    """Return the bin of `EDGES` that holds each score, int16: EDGES[bin] <= score < EDGES[bin + 1]."""
    bins = (scores * len(THRESHOLDS)).astype(np.int16)
    # the product may be rounded across an edge, by less than a bin
    bins -= scores < EDGES[bins]
    bins += scores >= EDGES[bins + 1]
    return bins


def pixel_counts(bins: np.ndarray, truth: Truth) -> np.ndarray:
    """Return how many pixels of the object, and of the background, fall into each bin, int64 (2, BINS)."""
    kinds = bins + np.int16(BINS) * ~truth.object
    left_out = [mask for mask in (truth.ignored, truth.padding) if mask is not None]
    counted = kinds[~np.logical_or.reduce(left_out) | truth.object] if left_out else kinds.ravel()
    return np.asarray(np.bincount(counted, minlength=2 * BINS).reshape(2, BINS))


def is_near(mask: np.ndarray, point: tuple[int, int] | None, tolerance: float) -> bool:
    """Return whether a point (y, x) lies on a mask's pixel, or nearer to one than `tolerance` pixels; None never."""
    if point is None:
        return False
    y, x = point
    if mask[y, x] or tolerance <= 0:
        return bool(mask[y, x])
    reach = int(np.ceil(tolerance))
    top, left = max(0, y - reach), max(0, x - reach)
    down, across = np.nonzero(mask[top : y + reach + 1, left : x + reach + 1])
    return bool(((down + top - y) ** 2 + (across + left - x) ** 2 < tolerance**2).any())


def energy_inside(positive: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of a map's positive evidence on a mask, 0 to 1; NaN where the map has none, or is not finite."""
    total = float(positive.sum())
    return float(positive[mask].sum()) / total if 0 < total < np.inf else float("nan")


@dataclasses.dataclass
class Tally:
    """Counts over samples, from which the scores of a set follow; they add up over parts of the set.

    Attributes:
        boxed: samples judged by boxes.
        correct: of them found by LARGEST, ANY and ANY_RIGHT, at each IoU level and threshold, int64 (3, 3, 1000).
        masked: samples judged by masks.
        pixels: of objects and of backgrounds in each bin, int64 (2, BINS).
    """

    boxed: int = 0
    correct: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros((3, len(IOU_LEVELS), len(THRESHOLDS)), np.int64)
    )
    masked: int = 0
    pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((2, BINS), np.int64))

    def add(self, verdict: Verdict, right: bool) -> None:
        """Count one more sample.

        Args:
            verdict: on its map.
            right: whether its predicted class is its label.
        """
        if verdict.found is not None:
            self.boxed += 1
            self.correct[: ANY + 1] += verdict.found
            if right:
                self.correct[ANY_RIGHT] += verdict.found[ANY]
        if verdict.pixels is not None:
            self.masked += 1
            self.pixels += verdict.pixels

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.boxed + other.boxed,
            self.correct + other.correct,
            self.masked + other.masked,
            self.pixels + other.pixels,
        )

    def __sub__(self, part: Tally) -> Tally:
        return Tally(
            self.boxed - part.boxed,
            self.correct - part.correct,
            self.masked - part.masked,
            self.pixels - part.pixels,
        )

    def best(self, rule: int) -> np.ndarray:
        """Return at each IoU level the first threshold, by its number, at which most samples are found; int (3,).

        One threshold serves all samples: choosing it for each image would flatter the map.
        """
        return np.asarray(self.correct[rule].argmax(-1))

    def found(self, rule: int, thresholds: np.ndarray) -> np.ndarray:
        """Return the percentage of samples found at each IoU level at a threshold of its own; NaN without samples.

        Args:
            rule: LARGEST, ANY or ANY_RIGHT.
            thresholds: number of the threshold for each IoU level, int (3,).
        """
        if not self.boxed:
            return np.full(len(IOU_LEVELS), np.nan)
        return np.asarray(self.correct[rule, np.arange(len(IOU_LEVELS)), thresholds] * 100.0 / self.boxed)

    def pixel_precision(self) -> float:
        """Return PxAP, the area under the curve of precision over recall of all samples' pixels, in percent.

        NaN without a pixel of an object.
        """
        inside, outside = (each[::-1].cumsum() for each in self.pixels)
        if not inside[-1]:
            return float("nan")
        shown = inside + outside
        precision = inside / np.maximum(shown, 1)  # no recall is gained where nothing is shown
        recall = inside / inside[-1]
        return float((precision[1:] * np.diff(recall)).sum()) * 100


def mean(values: np.ndarray) -> float:
    """Return the mean of the numbers among values, 0 and 1 for no and yes; NaN where there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
