"""The nearest sample is scikit-learn's, whatever the blocks, and what says nothing has none."""

from __future__ import annotations

import numpy as np
import pytest

from batchcam.record import neighbours
from batchcam.record.neighbours import nearest

sklearn_neighbors = pytest.importorskip("sklearn.neighbors")


@pytest.mark.parametrize("kind", ["float16", "float32"])
@pytest.mark.parametrize("block_rows", [1, 7, 64, 2048])
def test_neighbours_are_those_of_scikit_learn(monkeypatch, kind: str, block_rows: int) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", block_rows)
    random = np.random.default_rng(0)
    features, others = (random.random((n, 9)).astype(kind) for n in (60, 45))
    search = sklearn_neighbors.NearestNeighbors(metric="cosine", algorithm="brute")
    distance, rows = search.fit(others.astype(float)).kneighbors(features.astype(float), 1)
    found, similarity = nearest(features, others)
    np.testing.assert_array_equal(found, rows[:, 0])
    np.testing.assert_allclose(similarity, 1 - distance[:, 0], atol=1e-6)
    _, rows = search.fit(features.astype(float)).kneighbors(features.astype(float), 2)
    np.testing.assert_array_equal(nearest(features)[0], rows[:, 1])


def test_rows_that_say_nothing_are_nobodys_neighbours(monkeypatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", 2)
    features = np.array([[1, 0], [np.nan, 1], [0, 0], [np.inf, 1], [1, 1]], np.float32)
    rows, similarity = nearest(features)
    assert rows.tolist() == [4, -1, -1, -1, 0]
    np.testing.assert_allclose(similarity, [0.5**0.5, np.nan, np.nan, np.nan, 0.5**0.5])
    assert nearest(features[:1])[0].tolist() == [-1]
