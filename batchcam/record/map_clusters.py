"""Clusters of class activation maps: in which shapes the maps of one class come. They are no findings by themselves.

PCA and k-means are OpenCV's. Same maps, same clusters, whatever the order and the sharding of their samples.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

import cv2
import numpy as np

from batchcam.record.rows import cam_blocks
from batchcam.record.similarity import says_nothing
from batchcam.store.run import Run

COMPONENTS: Final = 8
"""Principal components in which maps are clustered, of fewer cells or maps as many as these."""

MOST_CLUSTERS: Final = 8

LEAST_SILHOUETTE: Final = 0.5
"""Mean silhouette below which the maps of a class are one cluster: the "reasonable structure" of Rousseeuw's rule."""

FEWEST, LEAST_SHARE = 10, 0.05
"""Maps of a cluster, also as a share of the class's, below which it is a few odd ones."""

MOST_FITTED: Final = 1000
HELD_CELLS: Final = 2**25  # of all classes together, 128 MiB

RULE: Final = (
    "each map divided by its L2 norm; principal components; k-means with the number of clusters from 2 to "
    f"{MOST_CLUSTERS} that has the largest mean silhouette, one if that is below {LEAST_SILHOUETTE:g}; found from at "
    f"most {MOST_FITTED:,} maps of a class, those with the smallest SHA-256 of the sample id"
)
"""In words, for readers."""


@dataclasses.dataclass(frozen=True)
class MapClusters:
    """Clusters of the maps of one class.

    Attributes:
        mean: of the maps as they are compared, float64 (h·w,).
        axes: principal axes, the largest variance first, float64 (c, h·w).
        variances: of the maps along them, float64 (c,).
        centres: of the clusters for each number k of them that was tried, the largest first, by k, float64 (k, c).
        count: the k that was chosen.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    centres: dict[int, np.ndarray]
    count: int

    def embedded(self, maps: np.ndarray) -> np.ndarray:
        """Return the principal components of raw CAMs (n, h, w), float64 (n, c)."""
        return np.asarray((_unit(maps) - self.mean) @ self.axes.T)

    def assigned(self, points: np.ndarray, count: int | None = None) -> np.ndarray:
        """Return the cluster of each point from `embedded`, int64 (n,), that with the nearest centre.

        Args:
            count: how many clusters, default: as many as were chosen. Of fewer maps than these, as many as possible.
        """
        return _nearest(points, self.centres[min(count or self.count, max(self.centres))])


def find_clusters(maps: np.ndarray) -> MapClusters:
    """Return the clusters of raw CAMs of one class, finite (n, h, w), n > 0."""
    unit = _unit(maps)
    unit = unit[np.lexsort(unit.T)]  # sums round by order
    mean, axes, variances = cv2.PCACompute2(unit, np.empty(0), maxComponents=min(COMPONENTS, *unit.shape))
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    points = (unit - mean) @ axes.T
    different = len(np.unique(points.astype(np.float32), axis=0))
    centres = {k: _centres(points, k) for k in range(1, min(MOST_CLUSTERS, different) + 1)}
    distances = np.sqrt(np.maximum(0, _squared(points, points)))
    several = [k for k in centres if 1 < k < len(points)]
    scores = {k: silhouette(distances, _nearest(points, centres[k])) for k in several}
    best = max(scores, key=lambda k: (scores[k], -k), default=1)
    count = best if scores.get(best, 0.0) >= LEAST_SILHOUETTE else 1
    return MapClusters(mean[0], axes, variances[:, 0], centres, count)


def silhouette(distances: np.ndarray, clusters: np.ndarray) -> float:
    """Return the mean silhouette of points: Rousseeuw 1987, https://doi.org/10.1016/0377-0427(87)90125-7.

    Args:
        distances: between them, (n, n).
        clusters: of each, at least two, int64 (n,).
    """
    members = np.asarray(clusters[:, None] == np.unique(clusters), np.float64)
    sizes, sums = members.sum(0), distances @ members
    own = members @ sizes
    within = (sums * members).sum(1) / np.maximum(1, own - 1)
    nearest = np.where(members > 0, np.inf, sums / sizes).min(1)
    larger = np.maximum(within, nearest)
    scores = np.where((own > 1) & (larger > 0), (nearest - within) / np.where(larger > 0, larger, 1), 0)
    return float(scores.mean())


@dataclasses.dataclass(frozen=True)
class SplitClass:
    """A class whose maps come in several clusters.

    Attributes:
        class_: its index.
        means: of the maps of each cluster as they are compared, float64 (k, h, w); the largest cluster first.
        rows: of the run, those of each cluster, the nearest to its centre first, int64 (n,) each.
    """

    class_: int
    means: np.ndarray
    rows: Sequence[np.ndarray]


class DrawnMaps:
    """The maps by which each class's clusters are found: all of a class, or of many those that a hash draws.

    Args:
        rows: of the run, ascending, int64 (n,).
        classes: whose map is meant of each, int64 (n,).
    """

    def __init__(self, run: Run, rows: np.ndarray, classes: np.ndarray) -> None:
        self._run, self._rows, self._classes = run, rows, classes
        grid, keys = run.plan.grid_size, np.zeros(len(rows), np.uint64)
        start = 0
        for some, block in run.blocks(("sample_id",), rows):
            digests = [hashlib.sha256(str(each).encode()).digest()[:8] for each in block["sample_id"]]
            keys[start : (start := start + len(some))] = np.frombuffer(b"".join(digests), ">u8")
        order = np.lexsort((keys, classes))
        _, first, sizes = np.unique(classes[order], return_index=True, return_counts=True)
        most = max(2 * MOST_CLUSTERS, min(MOST_FITTED, HELD_CELLS // (max(1, len(sizes)) * grid[0] * grid[1])))
        self._drawn = np.sort(order[np.arange(len(rows)) - np.repeat(first, sizes) < most])
        self._held = rows[self._drawn]
        self._maps = np.full((len(self._held), *grid), np.nan, np.float32)

    def add(self, rows: np.ndarray, maps: np.ndarray) -> None:
        """Keep those of the maps of rows of the run, ascending, (b, h, w), that are drawn."""
        first, stop = np.searchsorted(self._held, (rows[0], rows[-1] + 1))
        self._maps[first:stop] = maps[np.searchsorted(rows, self._held[first:stop])]

    def clusters(self) -> dict[int, MapClusters]:
        """Return the clusters of each class's maps, once all maps were added."""
        classes = self._classes[self._drawn]
        return {class_: find_clusters(self._maps[classes == class_]) for class_ in np.unique(classes).tolist()}

    def split(self) -> Iterator[SplitClass]:
        """Yield the classes whose maps come in several clusters of some size, those of the most maps first."""
        classes = np.where(says_nothing(self._maps), -1, self._classes[self._drawn])
        known, sizes = np.unique(classes[classes >= 0], return_counts=True)
        for class_ in known[np.argsort(-sizes, kind="stable")].tolist():
            maps, rows = self._maps[classes == class_], self._held[classes == class_]
            found = find_clusters(maps)
            points = found.embedded(maps)
            clusters, far = found.assigned(points), _squared(points, found.centres[found.count])
            members = [np.flatnonzero(clusters == k) for k in range(found.count)]
            if sum(len(each) >= max(FEWEST, LEAST_SHARE * len(maps)) for each in members) > 1:
                means = np.stack([_unit(maps[each]).mean(0).reshape(maps.shape[1:]) for each in members])
                nearest = [rows[each[np.argsort(far[each, k], kind="stable")]] for k, each in enumerate(members)]
                yield SplitClass(class_, means, nearest)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield which of the rows these are, int64 (b,), and their maps: the drawn ones, then others, read again."""
        yield self._drawn, self._maps
        others = np.setdiff1d(np.arange(len(self._rows)), self._drawn)
        for part, maps, _ in cam_blocks(self._run, self._rows[others], self._classes[others]):
            yield others[part], maps


def _unit(maps: np.ndarray) -> np.ndarray:
    """Return maps as they are compared, float64 (n, h·w): zero where a map is zero, or not finite."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    flat[~np.isfinite(flat).all(1)] = 0
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.where(norms > 0, norms, 1))


def _centres(points: np.ndarray, count: int) -> np.ndarray:
    """Return the centres that k-means finds, that of the largest cluster first."""
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-6)
    single, none = points.astype(np.float32), np.empty(0, np.int32)
    _, labels, centres = cv2.kmeans(single, count, none, stop, 5, cv2.KMEANS_PP_CENTERS)
    return np.asarray(centres[np.argsort(-np.bincount(labels[:, 0], minlength=count), kind="stable")], np.float64)


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.asarray(_squared(points, centres).argmin(1))


def _squared(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.asarray((points**2).sum(1)[:, None] + (others**2).sum(1) - 2 * points @ others.T)
