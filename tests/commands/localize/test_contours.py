"""Boxes at every grey level equal those of a flood fill, and of OpenCV's contours followed at each level."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from batchcam.commands.localize.contours import _has_one_contour, boxes_at, greys, level_boxes
from tests.helpers.synthetic import bilinear

Maker = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def noise(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.random(size)


def steps(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Wide plateaus, whose pixels are all peaks or pits unless ties are settled."""
    return rng.integers(0, 4, size) / 3


def islands(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return (rng.random(size) > 0.6) * rng.random(size)


def upsampled(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    cells = rng.integers(1, 8, 2)
    values = bilinear(rng.normal(size=(1, *cells)), size)[0]
    return (values - values.min()) / max(float(np.ptp(values)), 1e-9)


def rings(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(y - size[0] * rng.random(), x - size[1] * rng.random())
    return 0.5 + 0.5 * np.sin(distance * rng.uniform(0.3, 1.5))


MAKERS = (noise, steps, islands, upsampled, rings)


def parts(inside: np.ndarray, diagonal: bool) -> Iterator[list[tuple[int, int]]]:
    """Yield the pixels of each connected part, by flood fill."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(inside), strict=True)}
    while left:
        part, border = [], [left.pop()]
        while border:
            y, x = border.pop()
            part.append((y, x))
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    near = (y + down, x + right)
                    if near in left and (diagonal or not (down and right)):
                        left.remove(near)
                        border.append(near)
        yield part


def filled_boxes(grey: np.ndarray, level: int) -> set[tuple[int, int, int, int]]:
    """Boxes around the parts of the foreground, and one pixel outside of the holes in it, that end a pixel behind."""
    height, width = grey.shape
    inside = grey > level
    boxes = set()
    for part in parts(inside, diagonal=True):
        ys, xs = zip(*part, strict=True)
        boxes.add((min(xs), min(ys), min(max(xs) + 1, width - 1), min(max(ys) + 1, height - 1)))
    for part in parts(~inside, diagonal=False):
        ys, xs = zip(*part, strict=True)
        if min(xs) > 0 and min(ys) > 0 and max(xs) < width - 1 and max(ys) < height - 1:
            boxes.add((min(xs) - 1, min(ys) - 1, min(max(xs) + 2, width - 1), min(max(ys) + 2, height - 1)))
    return boxes


def boxes_of(scores: np.ndarray) -> list[np.ndarray]:
    found = level_boxes(scores)
    return np.split(found.boxes, found.starts[1:])


@pytest.mark.parametrize("maker", MAKERS)
def test_the_boxes_of_every_level_are_those_of_a_flood_fill(maker: Maker) -> None:
    rng = np.random.default_rng(0)
    for size in ((9, 12), (12, 7), (1, 9), (6, 1), (1, 1)):
        scores = maker(rng, size)
        grey = greys(scores)
        if not grey.any():
            continue
        by_level = boxes_of(scores)
        assert len(by_level) == grey.max()
        for level in np.unique(grey[grey < grey.max()]).tolist():
            assert {tuple(box) for box in by_level[level].tolist()} == filled_boxes(grey, level)


@pytest.mark.parametrize("maker", MAKERS)
def test_boxes_order_and_largest_contour_are_opencvs_at_every_level(maker: Maker) -> None:
    rng = np.random.default_rng(1)
    for size in ((40, 56), (33, 17), (64, 64)):
        scores = maker(rng, size)
        grey, found = greys(scores), level_boxes(scores)
        for level, boxes in enumerate(boxes_of(scores)):
            foreground = (grey > level).astype(np.uint8)
            contours, _ = cv2.findContours(foreground, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
            corners = [cv2.boundingRect(c) for c in contours]
            last = size[1] - 1, size[0] - 1
            expected = [[x, y, min(x + w, last[0]), min(y + h, last[1])] for x, y, w, h in corners]
            assert boxes.tolist() == expected
            largest = max(range(len(contours)), key=lambda i: cv2.contourArea(contours[i]))
            assert found.largest[level] - found.starts[level] == largest


def test_contours_are_followed_at_few_levels_of_a_map_with_one_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[:224, :224] / 224
    scores = np.exp(-8 * ((x - 0.4) ** 2 + (y - 0.6) ** 2))
    scores = (scores - scores.min()) / np.ptp(scores)
    monkeypatch.setattr(cv2, "findContours", lambda *a: pytest.fail("a contour was followed"))
    assert len(level_boxes(scores).boxes) == 255


@pytest.mark.parametrize("maker", MAKERS)
def test_a_level_said_to_have_one_contour_has_one(maker: Maker) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        scores = maker(rng, tuple(rng.integers(1, 30, 2)))
        grey = greys(scores)
        for level in np.flatnonzero(_has_one_contour(scores, grey)[: grey.max()]).tolist():
            assert len(filled_boxes(grey, level)) == 1


def test_two_parts_and_a_hole_are_not_taken_for_one_part() -> None:
    """Their Euler characteristic is that of one part without a hole."""
    scores = np.zeros((40, 60))
    scores[4:20, 4:20] = 1
    scores[10:14, 10:14] = 0.2
    scores[26:34, 40:52] = 0.6
    levels = range(51, 152)
    assert not _has_one_contour(scores, greys(scores))[levels].any()
    for boxes in [boxes_of(scores)[level] for level in levels]:
        assert {tuple(box) for box in boxes.tolist()} == {(4, 4, 20, 20), (9, 9, 15, 15), (40, 26, 52, 34)}


def test_the_boxes_at_one_threshold_are_those_of_its_level() -> None:
    scores = upsampled(np.random.default_rng(3), (48, 64)) * 0.8
    found = level_boxes(scores)
    assert found.top == 204
    for threshold in (0.0, 0.1, 0.5, 0.999):
        (level,) = found.at(np.array([threshold])).tolist()
        assert level == int(threshold * 204)
        np.testing.assert_array_equal(boxes_at(scores, threshold), boxes_of(scores)[level])


def test_a_map_without_foreground_has_one_box_in_its_corner() -> None:
    found = level_boxes(np.zeros((5, 6)))
    assert (found.boxes.tolist(), found.largest.tolist(), found.top) == ([[0, 0, 0, 0]], [0], 0)
    assert found.at(np.array([0.0, 0.999])).tolist() == [0, 0]
    assert boxes_at(np.zeros((5, 6)), 0.5).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf])
def test_scores_out_of_range_are_refused(value: float) -> None:
    scores = np.full((3, 4), 0.5)
    scores[1, 2] = value
    with pytest.raises(ValueError, match="from 0 to 1"):
        level_boxes(scores)
