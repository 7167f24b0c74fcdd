"""What samples are searched by, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from batchcam.record.measures import certainty_measures, evidence_measures, in_image
from batchcam.rules import CERTAINTY, EVIDENCE, PEAK_IN_IMAGE


def test_evidence_is_of_the_predicted_classs_map() -> None:
    cams = np.random.default_rng(0).normal(size=(20, 3, 4, 5)).astype(np.float32)
    prediction = np.arange(20) % 3
    found = evidence_measures({"cams": cams, "prediction": prediction})
    assert tuple(found) == EVIDENCE
    for n, class_ in enumerate(prediction):
        cells = {(y, x): max(float(cams[n, class_, y, x]), 0) for y in range(4) for x in range(5)}
        total = sum(cells.values())
        ring = sum(v for (y, x), v in cells.items() if y in (0, 3) or x in (0, 4))
        corner = sum(v for (y, x), v in cells.items() if y in (0, 3) and x in (0, 4))
        y, x = max(cells, key=lambda cell: cells[cell])
        spread = -sum(v / total * math.log(v / total) for v in cells.values() if v) / math.log(20)
        expected = (ring / total, corner / total, spread, (y + 0.5) / 4, (x + 0.5) / 5)
        assert [found[name][n] for name in EVIDENCE] == pytest.approx(expected, abs=1e-9)


def test_a_map_that_is_not_stored_or_constant_has_no_peak() -> None:
    block = {
        "cams": np.ones((2, 1, 4, 4), np.float32),
        "cam_class": np.array([[0], [1]]),
        "prediction": np.array([1, 1]),
    }
    found = evidence_measures(block)
    assert np.isnan([found["peak_y"], found["peak_x"]]).all()
    assert np.isnan(found["border_share"]).tolist() == [True, False]


def test_a_peak_is_found_in_the_image_through_the_view() -> None:
    measured = {"peak_y": np.array([0.125, 0.5]), "peak_x": np.array([0.875, np.nan])}
    found = in_image(measured, np.array([[10, 20, 110, 60], [-50, 0, 50, 100]], np.float32))
    assert tuple(found) == PEAK_IN_IMAGE
    np.testing.assert_allclose(found["peak_image_y"], [25, 50])
    np.testing.assert_allclose(found["peak_image_x"], [97.5, np.nan])


def test_certainty_is_of_the_softmax() -> None:
    logits = np.array([[2, 1, -1], [1000, 0, 0], [np.nan, 0, 0]], np.float32)
    found = certainty_measures(logits, np.array([1, -1, 0]))
    assert tuple(found) == CERTAINTY
    p = np.exp([2, 1, -1]) / np.exp([2, 1, -1]).sum()
    np.testing.assert_allclose(found["entropy"], [-(p * np.log(p)).sum(), 0, np.nan], atol=1e-12)
    np.testing.assert_allclose(found["margin"], [p[0] - p[1], 1, np.nan])
    np.testing.assert_allclose(found["loss"], [-np.log(p[1]), np.nan, np.nan])


def test_certainty_says_nothing_of_logits_that_are_not_finite() -> None:
    logits = np.array([[0, -np.inf], [np.inf, 0], [np.nan, 0]], np.float32)
    assert all(np.isnan(values).all() for values in certainty_measures(logits, np.array([0, 0, 1])).values())


def test_a_sure_class_has_no_negative_zero() -> None:
    for logits in ([[1000, 0]], [[3]]):
        found = certainty_measures(np.array(logits, np.float32), np.array([0]))
        assert (found["entropy"], found["margin"], found["loss"]) == (0, 1, 0)
        assert not np.signbit([found["entropy"], found["loss"]]).any()
