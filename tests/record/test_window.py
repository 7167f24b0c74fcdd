"""Where the image lies in the network's view, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from batchcam.record.window import image_window


@pytest.mark.parametrize(
    "view",
    [(0, 0, 50, 30), (-10, -7.5, 60, 37.5), (5, 5, 45, 25), (-20, 4, 30, 60), (49.9, -5, 90, 9), (60, 0, 90, 30)],
)
def test_a_pixel_of_the_map_is_in_the_window_where_its_centre_is_in_the_image(view: tuple[float, ...]) -> None:
    x0, y0, x1, y1 = view
    expected = np.zeros((16, 20), bool)
    for y in range(16):
        for x in range(20):
            across, down = x0 + (x + 0.5) * (x1 - x0) / 20, y0 + (y + 0.5) * (y1 - y0) / 16
            expected[y, x] = 0 <= across < 50 and 0 <= down < 30
    found = np.zeros((16, 20), bool)
    found[image_window(view, (30, 50), (16, 20))] = True
    np.testing.assert_array_equal(found, expected)


def test_no_pixel_lies_in_an_image_of_which_the_view_is_not_known() -> None:
    found = image_window((np.nan,) * 4, (30, 50), (16, 20))
    assert not np.ones((16, 20))[found].size
