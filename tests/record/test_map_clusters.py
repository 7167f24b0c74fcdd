"""Clusters of maps are those that scikit-learn finds, of the same maps always the same, and few are drawn of many."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score

from batchcam.record import map_clusters
from batchcam.record.map_clusters import COMPONENTS, DrawnMaps, find_clusters, silhouette
from batchcam.store.opening import open_run
from tests.helpers.export_runs import shard_columns, write_run
from tests.helpers.small_blocks import small_blocks

SHAPES = 3


def separated(count: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Maps (n, 5, 7) of SHAPES shapes, of any strength, and the shape of each, (n,)."""
    rng = np.random.default_rng(seed)
    shapes, shape = rng.normal(size=(SHAPES, 5, 7)), rng.integers(0, SHAPES, count)
    maps = (shapes[shape] + 0.3 * rng.normal(size=(count, 5, 7))) * rng.uniform(0.1, 10, (count, 1, 1))
    return maps.astype(np.float32), shape


def test_separated_clusters_and_their_number_are_found_as_scikit_learn_finds_them() -> None:
    maps, shape = separated()
    unit = maps.reshape(len(maps), -1).astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    pca = PCA(COMPONENTS).fit(unit)
    reference = pca.transform(unit)
    found = find_clusters(maps)
    points = found.embedded(maps)
    clusters = found.assigned(points)
    assert found.count == SHAPES
    np.testing.assert_allclose(np.abs(points), np.abs(reference), atol=1e-9)
    np.testing.assert_allclose(found.variances, pca.explained_variance_ * (len(maps) - 1) / len(maps), rtol=1e-9)
    own = KMeans(SHAPES, n_init=5, random_state=0).fit_predict(reference)
    assert adjusted_rand_score(own, clusters) == adjusted_rand_score(shape, clusters) == 1
    assert np.bincount(clusters).tolist() == sorted(np.bincount(shape).tolist(), reverse=True)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    for count in found.centres:
        assigned = found.assigned(points, count)
        if count > 1:
            assert silhouette(distances, assigned) == pytest.approx(silhouette_score(points, assigned), abs=1e-9)


def test_neither_order_nor_strength_of_the_maps_matters() -> None:
    maps, _ = separated()
    order = np.random.default_rng(1).permutation(len(maps))
    strength = 2.0 ** np.random.default_rng(2).integers(-9, 9, (len(maps), 1, 1))
    first, second = find_clusters(maps), find_clusters((maps * strength)[order])
    np.testing.assert_array_equal(first.axes, second.axes)
    assert first.count == second.count
    for count, centres in first.centres.items():
        np.testing.assert_array_equal(centres, second.centres[count])


def test_maps_without_structure_are_one_cluster() -> None:
    assert find_clusters(np.random.default_rng(0).normal(size=(300, 7, 7)).astype(np.float32)).count == 1


@pytest.mark.parametrize(
    ("maps", "most"),
    [
        pytest.param(separated(1)[0], 1, id="one"),
        pytest.param(separated(3)[0], 3, id="three"),
        pytest.param(np.repeat(separated(1)[0], 9, 0), 1, id="equal"),
        pytest.param(np.zeros((4, 3, 5), np.float32), 1, id="zero"),
        pytest.param(np.ones((4, 1, 1), np.float32), 1, id="one-cell"),
    ],
)
def test_of_few_maps_there_are_no_more_clusters_than_differ(maps: np.ndarray, most: int) -> None:
    found = find_clusters(maps)
    points = found.embedded(maps)
    assert max(found.centres) == most
    assert np.isfinite(points).all()
    for count in (None, 1, 8):
        assert len(np.unique(found.assigned(points, count))) <= most


def test_of_many_maps_those_of_the_smallest_digests_are_held_and_all_are_given_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _, _ = write_run(tmp_path, [f"ant/{i:05d}.png" for i in range(120)])
    monkeypatch.setattr(map_clusters, "MOST_FITTED", 16)
    small_blocks(monkeypatch, 5000)
    cams = shard_columns(path, "cams")["cams"]
    rows = np.flatnonzero(np.isfinite(cams).all((1, 2, 3)))
    classes = rows % 3
    maps = cams[rows, classes]
    with open_run(path) as run:
        drawn = DrawnMaps(run, rows, classes)
        for start in range(0, len(rows), 7):
            drawn.add(rows[start : start + 7], maps[start : start + 7])
        clusters, given = drawn.clusters(), list(drawn.blocks())
        ids = run.sample_id[rows]
    digest = np.array([hashlib.sha256(each.encode()).hexdigest() for each in ids])
    for class_ in np.unique(classes):
        own = np.flatnonzero(classes == class_)
        assert len(own) > 16
        held = own[np.argsort(digest[own])[:16]]
        assert set(held) == set(given[0][0]) & set(own)
        np.testing.assert_array_equal(clusters[class_].axes, find_clusters(maps[held]).axes)
    assert len(given) > 2
    places = np.concatenate([each for each, _ in given])
    np.testing.assert_array_equal(np.sort(places), np.arange(len(rows)))
    np.testing.assert_array_equal(np.concatenate([each for _, each in given]), maps[places])
