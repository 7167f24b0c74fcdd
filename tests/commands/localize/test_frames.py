"""Boxes and masks of an image land on the map's pixels that cover the same place, cropped or not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from batchcam.commands.localize.frames import Frame, union_area


def plain_seen(boxes: list[list[int]], view: tuple[int, int, int, int], size: tuple[int, int]) -> float:
    """Share of the pixels in any box that lie in the view, pixel by pixel."""
    total = seen = 0
    for y in range(size[0]):
        for x in range(size[1]):
            if any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in boxes):
                total += 1
                seen += view[0] <= x < view[2] and view[1] <= y < view[3]
    return seen / total


def test_boxes_on_a_map_of_the_whole_image_are_scaled_and_cut_as_by_hand() -> None:
    frame = Frame((224, 224), (333, 500))
    boxes = np.array([[1, 2, 499, 332], [3, 3, 3, 3]], float)
    expected = [[int(v * 224 / n) for v, n in zip(box, (500, 333, 500, 333), strict=True)] for box in boxes.tolist()]
    assert frame.boxes(boxes).tolist() == expected
    assert Frame((224, 224), (333, 500), (0, 0, 500, 333)).boxes(boxes).tolist() == expected


def test_whole_numbers_stay_whole_where_a_ratio_would_round_them_down() -> None:
    for width in range(1, 400):
        edges = np.array([[0, 0, x, 1] for x in range(width + 1)], float)
        found = Frame((width, width), (width, width)).boxes(edges)[:, 2]
        np.testing.assert_array_equal(found, np.arange(width + 1))


def test_boxes_are_moved_and_clipped_to_the_view_and_left_out_where_they_lie_outside() -> None:
    frame = Frame((48, 80), (100, 200), (20, 10, 180, 90))
    boxes = np.array(
        [[20, 10, 180, 90], [0, 0, 60, 50], [0, 0, 20, 100], [180, 20, 190, 30], [100, 50, 110, 60]], float
    )
    assert frame.boxes(boxes).tolist() == [[0, 0, 80, 48], [0, 0, 20, 24], [40, 24, 45, 30]]


def test_boxes_drawn_in_a_picture_of_another_size_are_scaled_to_the_image() -> None:
    frame = Frame((48, 80), (100, 200), (20, 10, 180, 90))
    boxes = np.array([[40, 20, 100, 60]], float)
    np.testing.assert_array_equal(frame.boxes(boxes, (100, 200)), frame.boxes(boxes * 2, (200, 400)))
    np.testing.assert_array_equal(frame.box_mask(boxes), frame.box_mask(boxes * 2, (200, 400)))
    assert frame.seen_of_boxes(boxes) == frame.seen_of_boxes(boxes * 2, (200, 400))


def test_a_mask_of_boxes_holds_the_pixels_whose_centres_lie_in_one() -> None:
    frame = Frame((12, 20), (30, 41), (3, 2, 38, 27))
    boxes = np.array([[0, 0, 10.5, 9], [20, 11, 33.3, 30], [21, 12, 22, 13]])
    expected = np.zeros((12, 20), bool)
    for y in range(12):
        for x in range(20):
            place = (3 + (x + 0.5) * 35 / 20, 2 + (y + 0.5) * 25 / 12)
            expected[y, x] = any(b[0] <= place[0] < b[2] and b[1] <= place[1] < b[3] for b in boxes.tolist())
    np.testing.assert_array_equal(frame.box_mask(boxes), expected)


@pytest.mark.parametrize("mask_size", [(30, 41), (60, 82), (7, 9)])
def test_a_mask_is_looked_up_at_the_centres_of_the_maps_pixels(mask_size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(mask_size) > 0.5
    frame = Frame((12, 20), (30, 41), (-2, 2, 39, 33))
    expected = np.zeros((12, 20), bool)
    for y in range(12):
        for x in range(20):
            across = (-2 + (x + 0.5) * 41 / 20) * mask_size[1] / 41
            down = (2 + (y + 0.5) * 31 / 12) * mask_size[0] / 30
            inside = 0 <= across < mask_size[1] and 0 <= down < mask_size[0]
            expected[y, x] = inside and mask[int(down), int(across)]
    np.testing.assert_array_equal(frame.mask(mask), expected)
    assert not expected[:, 0].any()  # left of the image


def test_a_mask_of_the_maps_own_size_stays_as_it_is() -> None:
    mask = np.random.default_rng(1).random((12, 20)) > 0.5
    np.testing.assert_array_equal(Frame((12, 20), (12, 20)).mask(mask), mask)
    np.testing.assert_array_equal(Frame((12, 20), (12, 20)).resized(mask), mask)


def test_a_mask_is_resized_to_the_pixels_at_the_same_share_of_its_sides() -> None:
    mask = np.random.default_rng(2).random((8, 12)) > 0.5
    expected = [[mask[y * 8 // 16, x * 12 // 6] for x in range(6)] for y in range(16)]
    np.testing.assert_array_equal(Frame((16, 6), (1, 1)).resized(mask), expected)


def test_the_seen_share_counts_overlapping_boxes_once() -> None:
    boxes = [[2, 3, 12, 14], [8, 8, 20, 18], [25, 0, 30, 4]]
    view = (5, 2, 22, 15)
    frame = Frame((5, 5), (20, 30), view)
    assert frame.seen_of_boxes(np.array(boxes, float)) == pytest.approx(plain_seen(boxes, view, (20, 30)), abs=1e-12)
    mask = np.zeros((20, 30), bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    assert frame.seen_of_mask(mask) == plain_seen(boxes, view, (20, 30))


def test_nothing_has_no_share_that_is_seen() -> None:
    frame = Frame((5, 5), (20, 30), (0, 0, 10, 10))
    assert math.isnan(frame.seen_of_mask(np.zeros((20, 30), bool)))
    assert math.isnan(frame.seen_of_boxes(np.array([[4.0, 4, 4, 9]])))


def test_the_area_of_boxes_together_is_counted_once() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        corners = np.sort(rng.integers(0, 12, (4, 2, 2)), 1)
        boxes = np.concatenate([corners[:, 0], corners[:, 1]], 1)
        covered = np.zeros((12, 12), bool)
        for x0, y0, x1, y1 in boxes.tolist():
            covered[y0:y1, x0:x1] = True
        assert union_area(boxes.astype(float)) == covered.sum()
    assert union_area(np.zeros((0, 4))) == 0
