"""The rules that worker and auditor share."""

from __future__ import annotations

import pytest

from batchcam.rules import CamSelection


@pytest.mark.parametrize(
    ("text", "count", "is_all", "has_label"),
    [
        ("all", 5, True, False),
        ("predicted", 1, False, False),
        ("predicted+label", 2, False, True),
        ("positive", 5, False, False),
        ("topk:1", 1, False, False),
        ("topk:5", 5, False, False),
        ("topk:03", 3, False, False),
    ],
)
def test_a_selection_of_cams_is_what_its_text_says_and_keeps_the_text(text, count, is_all, has_label):
    selection = CamSelection.parse(text)
    assert (selection.count(5), selection.is_all, selection.has_label, str(selection)) == (
        count, is_all, has_label, text
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "some", "ALL", "topk", "topk:", "topk:0", "topk:-1", "topk:x", "topk:1.5"])
def test_what_is_no_selection_of_cams_is_refused_with_those_that_are(text):
    with pytest.raises(
        ValueError, match=r"choose one of all, predicted, predicted\+label, positive, topk:N with N from 1"
    ):
        CamSelection.parse(text)


def test_more_cams_than_there_are_classes_are_refused():
    with pytest.raises(ValueError, match="cams topk:6: more than the 5 classes"):
        CamSelection.parse("topk:6").count(5)
