"""Localisation scores equal plain loops over pixels and thresholds, and what the protocol's own evaluator gave."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

from batchcam.commands.localize.frames import Frame
from batchcam.commands.localize.protocol import (
    ANY,
    ANY_RIGHT,
    BINS,
    EDGES,
    IOU_LEVELS,
    LARGEST,
    STRICT,
    THRESHOLDS,
    Tally,
    Truth,
    box_ious,
    centre_evidence,
    energy_inside,
    evidence,
    is_near,
    judge,
    mean,
    min_max,
    pixel_counts,
    score_bins,
)
from batchcam.record import metrics
from tests.helpers.synthetic import bilinear

SIDE = 224


@dataclasses.dataclass(frozen=True)
class Case:
    """One image of the seeded set: its score map, size, boxes, instance masks and ignored pixels."""

    name: str
    scores: np.ndarray
    image_size: tuple[int, int]
    boxes: list[tuple[int, int, int, int]]
    masks: list[np.ndarray]
    ignored: np.ndarray


def seeded_set(count: int = 12, side: int = SIDE) -> list[Case]:
    """Maps of coarse grids, some coarse steps, some not reaching 1, one that is zero; made from plain float64."""
    rng = np.random.default_rng(20260917)
    cases = []
    for number in range(count):
        height, width = (int(60 + 400 * rng.random()) for _ in range(2))
        cells = 2 + int(9 * rng.random())
        grid = rng.random((1, cells, cells))
        if number % 6 == 4:
            grid = np.floor(grid * 4) / 4
        scores = min_max(bilinear(grid, (side, side))[0]) * (0.7 if number % 6 == 3 else 1)
        if number == count - 1:
            scores = np.zeros((side, side))
        boxes = []
        for _ in range(1 + int(2 * rng.random())):
            (x0, x1), (y0, y1) = (np.sort(rng.random(2)) * n for n in (width, height))
            boxes.append((int(x0), int(y0), int(x1), int(y1)))
        if number % 3 < 2:  # also one that some threshold finds
            ys, xs = np.nonzero(scores >= (0.2 + 0.5 * rng.random()) * scores.max())
            shares = np.array([xs.min(), ys.min(), xs.max(), ys.max()]) / side
            boxes.append(tuple(int(v) for v in shares * (width, height, width, height)))
        blobs = [bilinear(rng.random((1, 4, 4)), (50 + int(99 * rng.random()), 70 + number))[0] for _ in range(3)]
        masks = [blob > 0.65 for blob in blobs[: 1 + number % 2]]
        cases.append(Case(f"c/{number}.jpg", scores, (height, width), boxes, masks, blobs[2] > 0.7))
    return cases


def truth_of(case: Case) -> Truth:
    frame = Frame(case.scores.shape, case.image_size)
    objects = np.logical_or.reduce([frame.resized(mask) for mask in case.masks])
    return Truth(frame.boxes(np.array(case.boxes, float)), objects, True, frame.resized(case.ignored))


def tally_of(cases: list[Case]) -> Tally:
    tally = Tally()
    for number, case in enumerate(cases):
        tally.add(judge(evidence(case.scores, case.scores), truth_of(case), 15), number % 3 > 0)
    return tally


def test_the_scores_are_those_of_the_protocols_own_evaluator() -> None:
    """Numbers that clovaai/wsolevaluation, commit 96f4b88679af41f005824661f47e6fe3628af2aa, gave for `seeded_set`.

    Its BoxEvaluator and MaskEvaluator accumulated each score map with annotations written in its own text and PNG
    files, thresholds np.arange(0, 1, 0.001), IoU 30, 50, 70, with multi_contour_eval off (LARGEST) and on (ANY), on
    NumPy 2.4.6 and OpenCV 5.0.0; np.float, which NumPy no longer has, was set to float.
    """
    tally = tally_of(seeded_set())
    best = {rule: tally.found(rule, tally.best(rule)) for rule in (LARGEST, ANY)}
    np.testing.assert_allclose(best[LARGEST], RECORDED["max_box_acc"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(best[ANY], RECORDED["max_box_acc_v2"], rtol=0, atol=1e-9)
    assert tally.pixel_precision() == pytest.approx(RECORDED["pxap"], rel=0, abs=1e-9)
    np.testing.assert_array_equal(tally.correct[LARGEST][:, ::100], RECORDED["correct_largest"])
    np.testing.assert_array_equal(tally.correct[ANY][:, ::100], RECORDED["correct_any"])
    np.testing.assert_array_equal([each[::100] for each in tally.pixels], RECORDED["pixels"])


RECORDED: dict[str, object] = {
    "max_box_acc": [75.0, 66.66666666666667, 50.0],
    "max_box_acc_v2": [75.0, 66.66666666666667, 50.0],
    "pxap": 50.95000952398935,
    "correct_largest": [[7, 8, 8, 8, 8, 9, 7, 3, 1, 1], [7, 7, 7, 7, 8, 7, 4, 2, 1, 0], [6, 6, 6, 5, 6, 3, 2, 2, 0, 0]],
    "correct_any": [[7, 8, 8, 8, 8, 9, 7, 4, 1, 1], [7, 7, 7, 7, 8, 8, 4, 2, 1, 0], [6, 6, 6, 5, 6, 3, 2, 2, 0, 0]],
    "pixels": [
        [26620, 123, 207, 255, 357, 318, 182, 225, 184, 102, 7266],
        [35141, 144, 364, 388, 480, 322, 255, 300, 177, 80, 2860],
    ],
}


def plain_iou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Pixels in both boxes over pixels in either, the last column and row included."""
    shared = 0
    for y in range(max(a[1], b[1]), min(a[3], b[3]) + 1):
        for x in range(max(a[0], b[0]), min(a[2], b[2]) + 1):
            shared += int(a[0] <= x <= a[2] and a[1] <= y <= a[3])
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return shared / (sum(areas) - shared)


def plain_boxes(scores: np.ndarray, threshold: float) -> tuple[list[tuple[int, ...]], int]:
    """Boxes of all contours at one threshold, and which encloses the largest area."""
    grey = np.array([[int(255 * v) for v in row] for row in scores.tolist()], np.uint8)
    cut = int(threshold * int(grey.max()))
    contours, _ = cv2.findContours((grey > cut).astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return [(0, 0, 0, 0)], 0
    corners = [cv2.boundingRect(c) for c in contours]
    areas = [cv2.contourArea(c) for c in contours]
    last = scores.shape[1] - 1, scores.shape[0] - 1
    return [(x, y, min(x + w, last[0]), min(y + h, last[1])) for x, y, w, h in corners], areas.index(max(areas))


def test_box_scores_are_those_of_plain_loops_over_samples_and_thresholds() -> None:
    cases = seeded_set(6, 20)
    tally = tally_of(cases)
    correct = np.zeros((3, len(IOU_LEVELS), len(THRESHOLDS)), int)
    for number, case in enumerate(cases):
        truth = [tuple(box) for box in truth_of(case).boxes.tolist()]
        for t in range(0, 1000, 7):
            boxes, largest = plain_boxes(case.scores, t * 0.001)
            ious = [max(plain_iou(box, other) for other in truth) for box in boxes]
            for level, least in enumerate(IOU_LEVELS):
                correct[LARGEST, level, t] += ious[largest] >= least
                correct[ANY, level, t] += max(ious) >= least
                correct[ANY_RIGHT, level, t] += max(ious) >= least and number % 3 > 0
    np.testing.assert_array_equal(tally.correct[..., ::7], correct[..., ::7])
    assert tally.boxed == 6


def plain_pixel_precision(cases: list[Case]) -> float:
    """Area under precision over recall: from the highest threshold down, each gain of recall at its precision."""
    area, recall_before = 0.0, 0.0
    truths = [truth_of(case) for case in cases]
    all_objects = sum(int(t.object.sum()) for t in truths)
    for edge in [1.0, *np.arange(0, 1, 0.001)[::-1].tolist()]:
        inside = outside = 0
        for case, truth in zip(cases, truths, strict=True):
            shown = case.scores >= edge
            inside += int((shown & truth.object).sum())
            outside += int((shown & ~truth.object & ~truth.ignored).sum())
        if inside + outside:
            recall = inside / all_objects
            area += inside / (inside + outside) * (recall - recall_before)
            recall_before = recall
    return 100 * area


def test_pixel_precision_is_that_of_plain_loops() -> None:
    cases = seeded_set(6, 20)
    assert tally_of(cases).pixel_precision() == pytest.approx(plain_pixel_precision(cases), abs=1e-9)


def test_a_map_that_is_the_mask_has_a_pixel_precision_of_100() -> None:
    mask = np.zeros((8, 9), bool)
    mask[2:5, 3:7] = True
    tally = Tally()
    tally.add(judge(evidence(mask * 1.0, mask * 1.0), Truth(np.zeros((0, 4), int), mask, True), 0), True)
    assert (tally.pixel_precision(), tally.masked, tally.boxed) == (100, 1, 0)


def test_a_constant_map_has_the_objects_share_as_its_pixel_precision() -> None:
    mask = np.zeros((8, 9), bool)
    mask[2:5, 3:7] = True
    zeros = np.zeros((8, 9))
    tally = Tally()
    tally.add(judge(evidence(zeros, zeros), Truth(np.zeros((0, 4), int), mask, True), 0), True)
    assert tally.pixel_precision() == pytest.approx(100 * 12 / 72, abs=1e-12)


def test_pixels_have_no_precision_without_an_object() -> None:
    assert math.isnan(Tally().pixel_precision())


def test_one_threshold_serves_the_whole_set() -> None:
    """Two maps, each found at a threshold where the other is not: half of them are found at any one threshold."""
    low, high = np.full((20, 20), 0.25), np.full((20, 20), 0.75)
    for scores, at in ((low, 0.3), (high, 0.7)):
        scores[0, 0], scores[19, 19] = 0, 1
        scores[7:13, 7:13] = at + 0.1
    tally = Tally()
    for scores in (low, high):
        truth = Truth(np.array([[7, 7, 13, 13]]), np.ones((20, 20), bool), False)
        tally.add(judge(evidence(scores, scores), truth, 0), True)
    assert tally.found(ANY, tally.best(ANY)).tolist() == [50, 50, 50]
    assert (tally.correct[ANY].max(-1) == 1).all()


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    cases = seeded_set(9, 32)
    whole, parts = Tally(), [Tally() for _ in range(3)]
    for number, case in enumerate(cases):
        verdict = judge(evidence(case.scores, case.scores), truth_of(case), 2)
        whole.add(verdict, True)
        parts[number % 3].add(verdict, True)
    added = sum(parts, Tally())
    assert (added.boxed, added.masked) == (whole.boxed, whole.masked) == (9, 9)
    np.testing.assert_array_equal(added.correct, whole.correct)
    np.testing.assert_array_equal(added.pixels, whole.pixels)
    assert [added.pixel_precision(), *added.found(ANY, added.best(ANY))] == [
        whole.pixel_precision(),
        *whole.found(ANY, whole.best(ANY)),
    ]


def test_overlaps_are_those_of_pixels_counted_one_by_one() -> None:
    rng = np.random.default_rng(0)
    boxes, others = (np.sort(rng.integers(0, 9, (n, 2, 2)), 1).reshape(n, 4) for n in (12, 7))
    expected = [[plain_iou(tuple(a), tuple(b)) for b in others.tolist()] for a in boxes.tolist()]
    np.testing.assert_array_equal(box_ious(boxes, others), expected)


def test_each_score_falls_into_the_bin_between_its_edges() -> None:
    edges = np.arange(0, 1, 0.001)
    scores = np.concatenate([edges, np.nextafter(edges[1:], 0), np.nextafter(edges, 1), [1.0], np.linspace(0, 1, 9999)])
    bins = score_bins(scores[None])[0]
    np.testing.assert_array_equal(bins, np.searchsorted(EDGES, scores, "right") - 1)
    assert bins.max() == 1000


def test_ignored_pixels_count_as_neither_unless_they_are_the_objects() -> None:
    scores = np.linspace(0, 1, 12).reshape(3, 4)
    mask, ignored = np.zeros((3, 4), bool), np.zeros((3, 4), bool)
    mask[0], ignored[0, 0], ignored[2] = True, True, True
    counts = pixel_counts(score_bins(scores), Truth(np.zeros((0, 4), int), mask, True, ignored))
    assert (counts.shape, counts.sum(1).tolist()) == ((2, BINS), [4, 4])
    assert counts[0, 0] == 1


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3, 15])
def test_a_point_is_near_a_mask_when_a_pixel_of_it_is_nearer_than_the_tolerance(tolerance: float) -> None:
    rng = np.random.default_rng(1)
    mask = rng.random((20, 30)) > 0.97
    for y, x in rng.integers(0, (20, 30), (50, 2)).tolist():
        distances = [math.hypot(y - b, x - a) for b, a in zip(*np.nonzero(mask), strict=True)]
        assert is_near(mask, (y, x), tolerance) == (bool(mask[y, x]) or min(distances) < tolerance)
    assert not is_near(mask, None, tolerance)


def test_peaks_and_the_centre_are_those_of_the_demos_measure() -> None:
    rng = np.random.default_rng(2)
    maps, masks = rng.normal(size=(30, 12, 10)), rng.random((30, 12, 10)) > 0.6
    centre = centre_evidence((12, 10))
    none = np.zeros((0, 4), int)
    verdicts = [judge(evidence(m, min_max(m)), Truth(none, t, True), 0) for m, t in zip(maps, masks, strict=True)]
    assert [v.peak_inside for v in verdicts] == metrics.peak_hits(maps, masks).tolist()
    of_centre = [judge(centre, Truth(none, t, True), 0).peak_inside for t in masks]
    assert of_centre == metrics.centre_hits(masks).tolist()


def test_energy_inside_is_the_share_of_positive_values_on_the_object() -> None:
    values, mask = np.array([[3.0, -5.0], [1.0, 0.0]]), np.array([[True, True], [False, False]])
    found = evidence(values, min_max(values))
    assert energy_inside(found.positive, mask) == 0.75
    assert judge(found, Truth(np.zeros((0, 4), int), mask, True), 0).energy == 0.75


@pytest.mark.parametrize("values", [np.full((4, 4), -1.0), np.full((4, 4), np.nan)])
def test_a_map_without_positive_evidence_has_no_energy_and_no_peak(values: np.ndarray) -> None:
    verdict = judge(evidence(values, min_max(values)), Truth(np.array([[0, 0, 3, 3]]), np.ones((4, 4), bool), True), 15)
    assert math.isnan(verdict.energy)
    assert (verdict.peak_inside, verdict.points) == (False, False)
    assert verdict.found is not None
    assert not verdict.found.any()


def test_nothing_is_judged_where_there_is_no_object() -> None:
    scores = min_max(np.arange(16.0).reshape(4, 4))
    verdict = judge(evidence(scores, scores), Truth(np.zeros((0, 4), int), np.zeros((4, 4), bool), False), 15)
    assert (verdict.found, verdict.pixels, verdict.peak_inside, verdict.points) == (None, None, None, None)
    assert math.isnan(verdict.energy)


def test_pixels_outside_of_the_view_have_neither_peak_nor_energy() -> None:
    values = np.full((4, 4), -np.inf)
    values[1:3, 1:3] = [[-3, -2], [-1, -4]]
    scores = np.zeros((4, 4))
    scores[1:3, 1:3] = min_max(values[1:3, 1:3])
    found = evidence(values, scores)
    assert found.peak == (2, 1)
    assert not found.positive.any()


@pytest.mark.parametrize("size", [(224, 224), (47, 81)])
def test_the_centres_map_is_symmetric_and_its_boxes_lie_around_the_middle(size: tuple[int, int]) -> None:
    centre = centre_evidence(size)
    np.testing.assert_allclose(centre.positive, centre.positive[::-1, ::-1], rtol=1e-9)
    assert centre.peak == (size[0] // 2, size[1] // 2)
    x0, y0, x1, y1 = centre.boxes.boxes[centre.boxes.largest[200]].tolist()
    assert (x0 + x1, y0 + y1) == (size[1], size[0])


@pytest.mark.parametrize("values", [[1.0, 1.0], [1.0, np.nan], [np.inf, 0.0]])
def test_what_says_nothing_is_scaled_to_zeros(values: list[float]) -> None:
    assert min_max(np.array(values)).tolist() == [0, 0]


def test_scaling_keeps_the_values_it_is_given() -> None:
    values = np.array([-2.0, 0.0, 2.0])
    assert min_max(values).tolist() == [0, 0.5, 1]
    assert values.tolist() == [-2, 0, 2]


def test_a_mean_leaves_out_what_is_not_known() -> None:
    assert mean(np.array([1.0, np.nan, 0.0, 1.0])) == pytest.approx(2 / 3)
    assert math.isnan(mean(np.array([np.nan])))


def test_an_empty_tally_has_no_percentage() -> None:
    tally = Tally()
    assert np.isnan(tally.found(ANY, tally.best(ANY))).all()
    assert STRICT == 1
