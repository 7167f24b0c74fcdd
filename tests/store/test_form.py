"""The form of JSON content: what has it passes, and what has not is told by its place."""

from __future__ import annotations

import pytest

from batchcam.store.form import COUNT_LIMIT, TEXT_LIMIT, mismatch

FORM = {"name": str, "sizes": [int], "note?": (str, None), "totals": {"samples": int, "*": (float, None)}}
SOUND = {"name": "x", "sizes": [1, 2], "note": None, "totals": {"samples": 3, "accuracy": 0.5, "largest": None}}


@pytest.mark.parametrize(
    "content",
    [
        SOUND,
        {**SOUND, "sizes": []},
        {**SOUND, "note": "x"},
        {name: value for name, value in SOUND.items() if name != "note"},
        {**SOUND, "unknown": [object()]},
        {**SOUND, "totals": {"samples": 0}},
        {**SOUND, "sizes": [0, COUNT_LIMIT - 1]},
        {**SOUND, "name": "x" * TEXT_LIMIT},
    ],
)
def test_content_of_the_form_passes(content: dict[str, object]) -> None:
    assert mismatch(content, FORM) is None


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ([], ""),
        (None, ""),
        ({}, "name"),
        ({**SOUND, "name": 1}, "name"),
        ({**SOUND, "name": "x" * (TEXT_LIMIT + 1)}, "name"),
        ({**SOUND, "sizes": {"0": 1}}, "sizes"),
        ({**SOUND, "sizes": [1, "2"]}, "sizes[1]"),
        ({**SOUND, "sizes": [True]}, "sizes[0]"),
        ({**SOUND, "sizes": [1.0]}, "sizes[0]"),
        ({**SOUND, "sizes": [-1]}, "sizes[0]"),
        ({**SOUND, "sizes": [COUNT_LIMIT]}, "sizes[0]"),
        ({**SOUND, "note": 1}, "note"),
        ({**SOUND, "totals": None}, "totals"),
        ({**SOUND, "totals": {}}, "totals.samples"),
        ({**SOUND, "totals": {"samples": 1, "accuracy": "all"}}, "totals.accuracy"),
        ({**SOUND, "totals": {"samples": 1, "accuracy": True}}, "totals.accuracy"),
    ],
)
def test_other_content_is_told_by_its_place(content: object, where: str) -> None:
    assert mismatch(content, FORM) == where
