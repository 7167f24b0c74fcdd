"""Charts show the numbers they are given, and are read by eyes and by ears."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from batchcam.commands.report.charts import (
    MOST_CELLS,
    histogram,
    nice_ticks,
    reliability_diagram,
    shade,
    signed_map,
    signed_ramp,
)
from batchcam.record.calibration import Reliability
from tests.helpers.wellformed import Page


def bars(source: str) -> list[dict[str, str | None]]:
    return [found for tag, found in Page(source).attributes if tag == "rect"]


def pixels(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def test_bars_of_a_histogram_are_as_high_as_their_counts() -> None:
    source = histogram([0, 100, 50, 1000], 0, 1, "confidence", "right", "a summary")
    heights = [float(str(b["height"])) for b in bars(source)]
    assert Page(source).wrong == []
    assert len(heights) == 3
    np.testing.assert_allclose(np.array(heights) / heights[2], [0.1, 0.05, 1], atol=0.002)


def test_a_single_sample_among_many_still_shows() -> None:
    heights = [float(str(b["height"])) for b in bars(histogram([1, 10**6], 0, 1, "x", "right", "s"))]
    assert heights[0] >= 1


def test_a_histogram_of_nothing_is_an_empty_chart() -> None:
    source = histogram([0, 0], 0, 1, "x", "right", "nothing")
    assert bars(source) == []
    assert Page(source).wrong == []


def test_a_chart_says_its_summary_and_each_bar_its_numbers() -> None:
    source = histogram([3], 0, 1, "x", "right", "<three>")
    parsed = Page(source)
    assert parsed.attributes[0][1]["aria-label"] == "<three>"
    assert "0 to 1: 3" in parsed.text


def test_bars_of_a_reliability_diagram_stand_at_their_bin_and_dots_on_their_mean() -> None:
    counted = Reliability(bins=5)
    counted.add(np.array([0.1, 0.1, 0.9, 0.9]), np.array([True, False, True, True]))
    bins = counted.bins()
    source = reliability_diagram(bins, ("said", "true"), "s")
    parsed = Page(source)
    first, last = bars(source)
    dots = [found for tag, found in parsed.attributes if tag == "circle"]
    axis = next(found for tag, found in parsed.attributes if tag == "line" and found["class"] == "diagonal")
    left, right = float(str(axis["x1"])), float(str(axis["x2"]))
    bottom, top = float(str(axis["y1"])), float(str(axis["y2"]))
    assert parsed.wrong == []
    assert float(str(first["height"])) == pytest.approx(0.5 * (bottom - top), abs=0.1)
    assert float(str(last["height"])) == pytest.approx(bottom - top, abs=0.1)
    assert [float(str(d["cx"])) for d in dots] == pytest.approx(
        [left + s * (right - left) for s in (0.1, 0.9)], abs=0.1
    )
    assert [float(str(d["cy"])) for d in dots] == pytest.approx([(bottom + top) / 2, top], abs=0.1)


@pytest.mark.parametrize("most", [1, 2, 3, 7, 10, 11, 99, 101, 12345, 10**9])
def test_ticks_are_whole_few_and_reach_the_largest_count(most: int) -> None:
    ticks = nice_ticks(most)
    assert ticks[0] == 0
    assert ticks[-1] >= most
    assert len(set(np.diff(ticks).tolist())) == 1
    assert 2 <= len(ticks) <= 6


def test_a_signed_map_is_red_for_blue_against_and_pale_between() -> None:
    shown = pixels(signed_map(np.array([[-2.0, 0.0, 2.0], [-9.0, 1.0, 9.0]]), 2))
    (against, none, for_), (beyond, half, beyond_for) = shown.tolist()
    assert against[2] > against[0] + 50
    assert for_[0] > for_[2] + 50
    assert min(none) > 240
    assert beyond == against
    assert beyond_for == for_
    assert for_[1] < half[1] < none[1]


def test_a_small_map_has_a_pixel_for_each_cell() -> None:
    assert pixels(signed_map(np.zeros((3, 5)), 1)).shape == (3, 5, 3)


def test_a_large_map_is_averaged() -> None:
    cam = np.tile([1.0, -1.0], (64, 32))
    shown = pixels(signed_map(cam, 1))
    assert shown.shape == (MOST_CELLS, MOST_CELLS, 3)
    assert np.ptp(pixels(signed_map(np.full((64, 64), 0.5), 1)), (0, 1)).max() == 0


def test_the_ramp_goes_from_blue_over_pale_to_red() -> None:
    ramp = pixels(signed_ramp())[0]
    np.testing.assert_array_equal(ramp[[0, -1]], pixels(signed_map(np.array([[-1.0, 1.0]]), 1))[0])
    assert ramp[len(ramp) // 2].min() > 240


@pytest.mark.parametrize(("cam", "limit"), [(np.zeros(3), 1), (np.array([[np.nan]]), 1), (np.zeros((2, 2)), np.inf)])
def test_a_map_that_can_not_be_shown_is_refused(cam: np.ndarray, limit: float) -> None:
    with pytest.raises(ValueError, match="want"):
        signed_map(cam, limit)


@pytest.mark.parametrize(
    ("share", "step"), [(0, 0), (1e-9, 1), (0.1, 1), (0.100001, 2), (0.95, 10), (1, 10), (1.5, 10)]
)
def test_shading_has_eleven_steps_and_any_share_shows(share: float, step: int) -> None:
    assert shade(share) == step
