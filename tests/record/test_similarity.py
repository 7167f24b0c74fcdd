"""Similarity of maps: against plain loops, hand-made maps and, where it is installed, SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from batchcam.record import similarity
from batchcam.record.similarity import (
    common_grid,
    compare_maps,
    is_constant,
    peak_shift,
    ranks,
    resample,
    says_nothing,
    spearman,
    top_iou,
)
from tests.helpers.synthetic import bilinear


def plain_ranks(values: list[float]) -> list[float]:
    """Rank by counting: how many are smaller, and the middle of those that are equal."""
    return [sum(v < w for v in values) + (sum(v == w for v in values) + 1) / 2 for w in values]


def plain_correlation(a: list[float], b: list[float]) -> float:
    """Pearson's correlation, written out."""
    n, mean_a, mean_b = len(a), sum(a) / len(a), sum(b) / len(b)
    covariance = sum((a[i] - mean_a) * (b[i] - mean_b) for i in range(n))
    return covariance / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


def plain_top(values: list[float]) -> set[int]:
    """Cells with fewer than a fifth of all cells, rounded up, above them."""
    count = math.ceil(len(values) / 5)
    return {i for i, v in enumerate(values) if sum(w > v for w in values) < count}


def random_pairs(seed: int, tied: bool, shape: tuple[int, ...] = (30, 4, 5)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if tied:
        return rng.integers(-3, 4, shape).astype(np.float32), rng.integers(-3, 4, shape).astype(np.float32)
    return rng.normal(size=shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("tied", [False, True])
def test_ranks_and_spearman_equal_those_of_plain_loops(tied: bool) -> None:
    first, second = random_pairs(0, tied)
    a, b = (maps.reshape(30, 20).tolist() for maps in (first, second))
    np.testing.assert_array_equal(ranks(first.reshape(30, 20)), [plain_ranks(row) for row in a])
    expected = [plain_correlation(plain_ranks(x), plain_ranks(y)) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(first, second), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_spearman_equals_that_of_scipy(tied: bool) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = random_pairs(1, tied)
    expected = [stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(spearman(first, second), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_cosine_overlap_and_peak_shift_equal_those_of_plain_loops(tied: bool) -> None:
    first, second = random_pairs(2, tied)
    alike = compare_maps(first, second)
    for i in range(len(first)):
        a, b = first[i].ravel().tolist(), second[i].ravel().tolist()
        norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
        assert alike.cosine[i] == pytest.approx(sum(x * y for x, y in zip(a, b, strict=True)) / norms, abs=1e-12)
        tops = plain_top(a), plain_top(b)
        assert alike.top_iou[i] == len(tops[0] & tops[1]) / len(tops[0] | tops[1])
        (ay, ax), (by, bx) = (divmod(v.index(max(v)), 5) for v in (a, b))
        assert alike.peak_shift[i] == pytest.approx(math.dist((ay, ax), (by, bx)), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-38, 1e-3, 1, 1e30])
def test_a_map_is_exactly_like_itself_whatever_its_scale(scale: float) -> None:
    maps = (random_pairs(3, False)[0] * scale).astype(np.float32)
    alike = compare_maps(maps, maps.copy())
    assert alike.measured.all()
    for name, value in {"spearman": 1, "cosine": 1, "top_iou": 1, "peak_shift": 0}.items():
        assert set(getattr(alike, name).tolist()) == {value}


def test_a_map_and_its_negative_are_opposite() -> None:
    maps = random_pairs(4, False)[0]
    alike = compare_maps(maps, -maps)
    assert (alike.spearman == -1).all()
    assert (alike.cosine == -1).all()
    assert (alike.top_iou == 0).all()


def test_spearman_sees_order_and_cosine_sees_sizes() -> None:
    first = np.array([[[1, 2], [3, 4]]], np.float32)
    alike = compare_maps(first, np.array([[[1, 10], [100, 1000]]], np.float32))
    assert alike.spearman[0] == 1
    assert alike.cosine[0] == pytest.approx(4321 / math.sqrt(30 * 1010101), abs=1e-12)


def test_the_strongest_cells_are_a_fifth_rounded_up_and_all_that_equal_the_last() -> None:
    first = np.arange(16, dtype=np.float32).reshape(1, 4, 4)  # strongest: cells 12 to 15
    tied = np.where(first >= 10, 5, 0).astype(np.float32)  # strongest: cells 10 to 15
    assert top_iou(first, tied)[0] == 4 / 6
    assert top_iou(first[:, :1, :1], tied[:, :1, :1])[0] == 1


def test_the_peak_of_equal_cells_is_the_first_from_the_top_left() -> None:
    first = np.array([[[0, 7, 0], [7, 0, 0]]])
    second = np.array([[[0, 0, 0], [0, 0, 7]]])
    assert peak_shift(first, second)[0] == math.dist((0, 1), (1, 2))


def test_constant_and_non_finite_maps_have_no_similarity() -> None:
    good = random_pairs(5, False, (6, 2, 3))[0]
    other = good.copy()
    other[0] = 3
    other[1] = 0
    other[2] = 1 + np.arange(6).reshape(2, 3) * 1e-7  # rounding, not evidence
    other[3, 0, 0] = np.nan
    other[4, 1, 1] = np.inf
    for pair in ((good, other), (other, good)):
        alike = compare_maps(*pair)
        assert alike.measured.tolist() == [False] * 5 + [True]
        for name in similarity.FUNCTIONS:
            assert np.isnan(getattr(alike, name)).tolist() == [True] * 5 + [False]
    assert is_constant(other).tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize(("grid", "size"), [((4, 4), (8, 8)), ((3, 5), (7, 11)), ((1, 1), (4, 2)), ((2, 7), (9, 7))])
def test_resampling_is_bilinear_between_cell_centres(grid: tuple[int, int], size: tuple[int, int]) -> None:
    maps = np.random.default_rng(6).normal(size=(5, *grid)).astype(np.float32)
    np.testing.assert_allclose(resample(maps, size), bilinear(maps.astype(np.float64), size), rtol=0, atol=1e-12)


def test_resampling_to_the_same_grid_changes_nothing() -> None:
    maps = random_pairs(7, False)[0]
    np.testing.assert_array_equal(resample(maps, (4, 5)), maps)


def field(height: int, width: int) -> np.ndarray:
    """The same two hills, whatever the grid: each cell the value at its centre, as a share of the view."""
    y, x = ((np.arange(n) + 0.5) / n for n in (height, width))
    hills = [(0.3, 0.8, 1.0), (0.8, 0.2, -0.7)]
    distances = [((y[:, None] - cy) ** 2 + (x[None] - cx) ** 2, height_) for cy, cx, height_ in hills]
    return sum(h * np.exp(-d / 0.08) for d, h in distances)[None]  # type: ignore[no-any-return]


def test_grids_of_one_field_are_alike_and_of_its_mirror_image_are_not() -> None:
    coarse, fine = field(4, 4), field(8, 8)
    alike, mirrored = compare_maps(coarse, fine), compare_maps(coarse, fine[:, :, ::-1])
    assert alike.spearman[0] > 0.95
    assert alike.cosine[0] > 0.95
    assert alike.peak_shift[0] <= math.sqrt(2)
    assert mirrored.spearman[0] < 0.6
    assert mirrored.peak_shift[0] >= 2


def test_a_grid_is_exactly_like_its_own_upsampling_from_either_side() -> None:
    coarse = random_pairs(8, False, (9, 4, 6))[0].astype(np.float64)
    fine = bilinear(coarse, (8, 6))
    for pair in ((coarse, fine), (fine, coarse)):
        alike = compare_maps(*pair)
        np.testing.assert_allclose(alike.cosine, 1, rtol=0, atol=1e-12)
        np.testing.assert_allclose(alike.peak_shift, 0, rtol=0, atol=0)


def test_grids_are_compared_on_the_finer_one_of_each_axis() -> None:
    assert common_grid((4, 9), (8, 3)) == (8, 9)


def test_blocks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = random_pairs(9, False)
    whole = compare_maps(first, second)
    monkeypatch.setattr(similarity, "BLOCK_CELLS", 60)
    parts = compare_maps(first, second)
    for name in similarity.FUNCTIONS:
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 3, 4), (3, 3, 4)), ((2, 0, 4), (2, 3, 4))])
def test_maps_that_are_no_pairs_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        compare_maps(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_no_pairs_have_no_similarities() -> None:
    assert compare_maps(np.zeros((0, 2, 2)), np.zeros((0, 3, 3))).spearman.shape == (0,)


def test_a_map_that_is_constant_or_not_finite_says_nothing() -> None:
    maps = np.stack([np.full((2, 3), value, np.float32) for value in (0, 5, 1, 1, 1, 1)])
    maps[2:, 0, 0] = 2
    maps[3, 1, 1], maps[4, 1, 1], maps[5, 1, 1] = np.nan, np.inf, -np.inf
    assert says_nothing(maps).tolist() == [True, True, False, True, True, True]
