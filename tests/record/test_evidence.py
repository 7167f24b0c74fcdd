"""Where evidence sits, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from batchcam.record.evidence import border, border_share, cell_shares, entropy, in_corner, peak

GRIDS = [(4, 4), (3, 5), (7, 7), (3, 3), (2, 5), (1, 6), (6, 1)]


def border_share_by_loops(cam: np.ndarray) -> float:
    height, width = cam.shape
    ring = whole = 0.0
    for y in range(height):
        for x in range(width):
            value = max(float(cam[y, x]), 0.0)
            whole += value
            if y in (0, height - 1) or x in (0, width - 1):
                ring += value
    return ring / whole


def entropy_by_loops(cam: np.ndarray) -> float:
    values = [max(float(v), 0.0) for v in cam.ravel()]
    shares = [v / sum(values) for v in values]
    return -sum(p * math.log2(p) for p in shares if p) / math.log2(len(shares))


@pytest.mark.parametrize("grid", GRIDS)
def test_numbers_are_those_of_plain_loops(grid: tuple[int, int]) -> None:
    cams = np.random.default_rng(0).normal(size=(20, *grid)).astype(np.float32)
    cams[:, 0, 0] = 1  # some evidence in each map
    shares = cell_shares(cams)
    np.testing.assert_allclose(border_share(shares), [border_share_by_loops(c) for c in cams], atol=1e-12)
    np.testing.assert_allclose(entropy(shares), [entropy_by_loops(c) for c in cams], atol=1e-12)


def test_evidence_in_one_cell_has_no_entropy_and_even_evidence_has_it_all() -> None:
    one, even = np.zeros((1, 4, 5), np.float32), np.full((1, 4, 5), 3, np.float32)
    one[0, 2, 2] = 7
    assert entropy(cell_shares(one)) == 0
    assert entropy(cell_shares(even)) == pytest.approx(1)


def test_evidence_against_the_class_counts_as_none() -> None:
    cam = np.full((1, 4, 4), -100, np.float32)
    cam[0, 1, 1] = 1
    assert border_share(cell_shares(cam)) == 0


def test_even_evidence_has_the_border_share_of_the_ring() -> None:
    shares = cell_shares(np.ones((1, 7, 7), np.float32))
    assert border_share(shares) == pytest.approx(24 / 49)
    assert border((7, 7)).sum() == 24


def test_evidence_on_the_ring_alone_is_exactly_one() -> None:
    cams = np.abs(np.random.default_rng(1).normal(size=(500, 5, 6))).astype(np.float32)
    cams[:, 1:-1, 1:-1] *= -1
    assert (border_share(cell_shares(cams)) == 1).all()
    cams[:, 2, 2] = 1e-3
    assert (border_share(cell_shares(cams)) < 1).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_has_no_numbers(bad: float) -> None:
    cams = np.ones((2, 4, 4), np.float32)
    cams[0, 1, 2] = bad
    assert np.isnan(border_share(cell_shares(cams))).tolist() == [True, False]
    assert np.isnan(entropy(cell_shares(cams))).tolist() == [True, False]


@pytest.mark.parametrize("value", [0, -1])
def test_a_map_without_positive_evidence_has_no_numbers(value: float) -> None:
    shares = cell_shares(np.full((1, 4, 4), value, np.float32))
    assert np.isnan(shares).all()
    assert np.isnan(border_share(shares)).all()
    assert np.isnan(entropy(shares)).all()


def test_the_largest_numbers_of_float32_add_up() -> None:
    cams = np.full((1, 4, 4), np.finfo(np.float32).max)
    assert border_share(cell_shares(cams)) == pytest.approx(12 / 16)


def test_a_grid_of_one_cell_has_no_entropy() -> None:
    assert np.isnan(entropy(cell_shares(np.ones((3, 1, 1), np.float32)))).all()


def test_no_maps_give_no_numbers() -> None:
    assert border_share(cell_shares(np.ones((0, 4, 4), np.float32))).shape == (0,)


def test_maps_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="want maps"):
        cell_shares(np.ones((4, 4), np.float32))


@pytest.mark.parametrize("grid", GRIDS)
def test_a_peak_is_the_first_of_the_largest_cells_and_in_a_corner_if_that_is_one(grid: tuple[int, int]) -> None:
    height, width = grid
    cams = np.random.default_rng(0).integers(0, 4, (200, height, width)).astype(np.float32)
    cams[0], cams[1, 0, 0] = 2, np.nan
    peaks = peak(cams)
    corners = in_corner(peaks, grid)
    assert np.isnan(peaks[:2]).all()
    assert np.isnan(corners[:2]).all()
    for cam, (y, x), corner in zip(cams[2:], peaks[2:], corners[2:], strict=True):
        cells = [(-cam[i, j], i, j) for i in range(height) for j in range(width)]
        _, i, j = min(cells)
        if cam.min() < cam.max():
            assert (y * height, x * width) == pytest.approx((i + 0.5, j + 0.5))
            assert corner == (i in (0, height - 1) and j in (0, width - 1))


def test_a_grid_that_is_all_corners_has_no_peaks_in_corners() -> None:
    assert np.isnan(in_corner(peak(np.eye(2)[None]), (2, 2))).all()
