"""Of the CAMs stored for a sample, the one of the class asked for, or NaN."""

from __future__ import annotations

import numpy as np
import pytest

from batchcam.store.stored_cams import picked_cams, predicted_cams, stored_cam, stored_ranks

CAMS = np.arange(4 * 3 * 2 * 5, dtype=np.float32).reshape(4, 3, 2, 5)
RANKED = np.array([[5, 7, 1], [7, 5, 1], [0, 1, -1], [-1, -1, -1]])
"""Class of each stored CAM; the third sample has two, the last none."""


@pytest.mark.parametrize(
    ("classes", "ranks"),
    [([5, 5, 5, 5], [0, 1, -1, -1]), ([1, 7, 1, -1], [2, 0, 1, -1]), ([-1, -1, -1, -1], [-1, -1, -1, -1])],
)
def test_a_cam_is_found_by_its_class_and_class_minus_one_has_none(classes: list[int], ranks: list[int]) -> None:
    wanted = np.array(classes)
    assert stored_ranks(RANKED, wanted).tolist() == ranks
    picked = picked_cams(CAMS, RANKED, wanted)
    assert (picked.dtype, picked.shape) == (np.float32, (4, 2, 5))
    for row, (class_, rank) in enumerate(zip(classes, ranks, strict=True)):
        expected = CAMS[row, rank] if rank >= 0 else np.full((2, 5), np.nan, np.float32)
        np.testing.assert_array_equal(picked[row], expected)
        single = stored_cam(CAMS[row], RANKED[row], class_)
        np.testing.assert_array_equal(np.full((2, 5), np.nan) if single is None else single, expected)


def test_where_all_classes_are_stored_the_rank_is_the_class() -> None:
    classes, listed = np.array([2, 0, -1, 1]), np.tile(np.arange(3), (4, 1))
    assert stored_ranks(None, classes).tolist() == stored_ranks(listed, classes).tolist() == [2, 0, -1, 1]
    np.testing.assert_array_equal(picked_cams(CAMS, None, classes), picked_cams(CAMS, listed, classes))


def test_the_predicted_cams_of_a_block_are_those_of_its_predictions() -> None:
    block = {"cams": CAMS, "cam_class": RANKED, "prediction": np.array([7, 7, 0, -1])}
    np.testing.assert_array_equal(predicted_cams(block)[:3], CAMS[[0, 1, 2], [1, 0, 0]])
    assert np.isnan(predicted_cams(block)[3]).all()


def test_what_is_stored_is_left_as_it_is() -> None:
    stored = CAMS.copy()
    picked_cams(stored, RANKED, np.full(4, -1))[:] = 0
    np.testing.assert_array_equal(stored, CAMS)


def test_no_samples_have_no_cams() -> None:
    none = np.empty(0, np.int64)
    assert picked_cams(CAMS[:0], RANKED[:0], none).shape == (0, 2, 5)
    assert picked_cams(CAMS[:0], None, none).shape == (0, 2, 5)
