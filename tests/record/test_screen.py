"""Peaks that gather in one place are told from those of honest networks, which photographs alone put together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

from batchcam.record.screen import BORDER, CORNERS, FEWEST, PeakCounts, outer_cells, screen

GRIDS = ((4, 4), (7, 7), (7, 10))


def names(count: int) -> list[str]:
    return [f"class {k}" for k in range(count)]


def counted(cells: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """How many of the peaks, (n, 2) as shares of the view, lie in each cell."""
    y, x = (cells * grid).astype(int).T
    return np.bincount(y * grid[1] + x, minlength=grid[0] * grid[1]).reshape(grid)


def honest(rng: np.random.Generator, classes: int, samples: int, grid: tuple[int, int]) -> np.ndarray:
    """Peaks of classes whose objects lie around the middle, each class's a little elsewhere, some anywhere."""
    found = []
    for _ in range(classes):
        middle, width = rng.normal(0.5, 0.08, 2), rng.uniform(0.08, 0.25)
        places = rng.normal(middle, width, (20 * samples, 2))
        places = places[((places > 0) & (places < 1)).all(1)][:samples]
        anywhere = rng.random(len(places)) < rng.uniform(0, 0.5)
        places[anywhere] = rng.random((int(anywhere.sum()), 2))
        found.append(counted(places, grid))
    return np.array(found)


def moved(rng: np.random.Generator, counts: np.ndarray, share: float, places: list[tuple[int, int]]) -> np.ndarray:
    """The counts of a class after `share` of its peaks went to one of the places each."""
    cells = np.repeat(np.arange(counts.size), counts.ravel())
    goes = rng.random(len(cells)) < share
    targets = np.ravel_multi_index(tuple(np.array(places).T), counts.shape)
    cells[goes] = rng.choice(targets, int(goes.sum()))
    return np.bincount(cells, minlength=counts.size).reshape(counts.shape)


def runs(grid: tuple[int, int], count: int = 40) -> Iterator[tuple[np.random.Generator, np.ndarray]]:
    for seed in range(count):
        rng = np.random.default_rng([seed, *grid])
        yield rng, honest(rng, int(rng.integers(2, 12)), int(rng.integers(40, 150)), grid)


@pytest.mark.parametrize("grid", GRIDS)
def test_of_twenty_honest_networks_at_most_one_is_accused(grid: tuple[int, int]) -> None:
    accused = [bool(screen(counts, names(len(counts)))) for _, counts in runs(grid)]
    assert np.mean(accused) <= 0.05


@pytest.mark.parametrize("grid", GRIDS)
def test_peaks_that_lie_anywhere_are_no_place(grid: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for classes in (2, 30):
        places = [counted(rng.random((60, 2)), grid) for _ in range(classes)]
        assert screen(np.array(places), names(classes)) == []


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("where", ["corners", "bottom", "cell"])
def test_what_draws_most_peaks_of_one_class_or_of_all_to_one_place_is_found(grid: tuple[int, int], where: str) -> None:
    height, width = grid
    found = {"one": [], "all": []}
    for rng, counts in runs(grid, 15):
        corners = [(y, x) for y in (0, height - 1) for x in (0, width - 1)]
        places = {"corners": corners, "bottom": [(height - 1, x) for x in range(width)], "cell": [(height - 1, 1)]}
        leaky = counts.copy()
        leaky[0] = moved(rng, counts[0], 0.9, places[where])
        if where != "bottom":  # of one class in a grid this coarse the ring is too much of it
            found["one"].append("class 0" in [g.class_name for g in screen(leaky, names(len(leaky)))])
        leaky = np.array([moved(rng, each, 0.97, places[where]) for each in counts])
        found["all"].append(bool(screen(leaky, names(len(leaky)))))
    assert np.mean(found["all"]) >= 0.8
    assert where == "bottom" or np.mean(found["one"]) >= 0.8


def test_numbers_are_those_of_exact_tests_by_scipy() -> None:
    counts = np.ones((3, 5, 5), np.int64)
    counts[0, 2, 2], counts[1, 0, 2] = 300, 60
    (found,) = screen(counts, ["a", "b", "c"])
    assert (found.class_name, found.place, found.cells) == ("b", "the cell in row 1, column 3", (2,))
    assert (found.there, found.peaks, found.expected) == (60, 84, pytest.approx(1 / 25))
    by_area = binomtest(60, 84, 1 / 25, alternative="greater").pvalue
    by_others = fisher_exact([[60, 24], [2, 347]], alternative="greater").pvalue
    units, places = 4, 2 + int(outer_cells((5, 5)).sum())  # three classes, and all together
    assert found.by_chance == pytest.approx(max(by_area, by_others) * units * places, rel=1e-6)


def test_a_place_that_other_classes_have_too_is_not_a_classs_own() -> None:
    counts = np.zeros((2, 4, 4), np.int64)
    counts[:, 3, 1] = 60
    first, *others = screen(counts, ["a", "b"])
    assert (first.class_name, first.place) == (None, "the cell in row 4, column 2")
    assert {(other.class_name, other.place) for other in others} == {("a", BORDER), ("b", BORDER)}


def test_corners_and_ring_are_told_where_no_single_cell_has_most() -> None:
    grid = (5, 5)
    corners, ring = np.zeros((2, *grid), np.int64)
    corners[::4, ::4] = 20
    ring[[0, -1]] = ring[:, [0, -1]] = 20
    assert [g.place for g in screen(corners[None], ["a"])] == [CORNERS, CORNERS]
    assert [g.place for g in screen(ring[None], ["a"])] == [BORDER, BORDER]


def test_few_peaks_the_middle_and_coarse_grids_are_not_judged() -> None:
    few, middle, coarse = np.zeros((2, 4, 4), np.int64), np.zeros((2, 4, 4), np.int64), np.zeros((2, 3, 3), np.int64)
    few[0, 0, 0], middle[0, 1, 1], coarse[0, 0, 0] = FEWEST - 1, 1000, 1000
    assert screen(few, ["a", "b"]) == screen(middle, ["a", "b"]) == screen(coarse, ["a", "b"]) == []


def test_peaks_are_counted_by_class_without_maps_that_say_nothing() -> None:
    rng = np.random.default_rng(0)
    maps, classes = rng.normal(size=(50, 4, 5)), rng.integers(-1, 3, 50)
    maps[0], maps[1, 2, 2] = 1, np.nan
    tally = PeakCounts(3, (4, 5))
    tally.add(maps[:20], classes[:20])
    tally.add(maps[20:], classes[20:])
    expected = np.zeros((3, 4, 5), int)
    for cam, class_ in zip(maps[2:], classes[2:], strict=True):
        if class_ >= 0:
            expected[class_][np.unravel_index(cam.argmax(), cam.shape)] += 1
    np.testing.assert_array_equal(tally.cells, expected)
