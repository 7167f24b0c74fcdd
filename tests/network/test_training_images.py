"""Images that a network was trained on are known again by their digests, and nothing else is taken for them."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pytest
import torch

from batchcam.network.training_images import TrainingImages


def digests(*names: str) -> np.ndarray:
    """The SHA-256 of some texts, uint8 (n, 32)."""
    joined = b"".join(hashlib.sha256(name.encode()).digest() for name in names)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def names_of(numbers: range) -> list[str]:
    return [f"image {number}" for number in numbers]


def test_images_are_held_that_a_plain_set_of_digests_holds() -> None:
    images = TrainingImages.of(digests(*names_of(range(0, 300, 3))), "files")
    known = {digest.tobytes() for digest in digests(*names_of(range(0, 300, 3)))}
    asked = digests(*names_of(range(400)))
    assert images.hold(asked).tolist() == [digest.tobytes() in known for digest in asked]
    assert len(images) == 100


def test_it_is_packed_as_sorted_beginnings_of_digests_each_once() -> None:
    packed = TrainingImages.of(digests("b", "a", "b", "c"), "pixels").packed()
    expected = sorted({hashlib.sha256(name.encode()).digest()[:8] for name in "abc"})
    assert [bytes(row) for row in packed["digests"].tolist()] == expected
    assert packed["kinds"] == ["pixels"]


def test_it_survives_a_file_that_is_loaded_as_weights_only() -> None:
    buffer = io.BytesIO()
    torch.save(TrainingImages.of(digests("a", "b"), "files").packed(), buffer)
    buffer.seek(0)
    again = TrainingImages.unpacked(torch.load(buffer, weights_only=True))
    assert again.hold(digests("b", "c", "a")).tolist() == [True, False, True]
    assert again.kinds == {"files"}


def test_the_union_holds_both_and_tells_of_images_whose_digests_are_all_of_one_kind() -> None:
    files, more = TrainingImages.of(digests("a", "b"), "files"), TrainingImages.of(digests("b", "c"), "files")
    assert (files | more).hold(digests(*"abcd")).tolist() == [True, True, True, False]
    assert len(files | more) == 3
    assert (files | more).tell_of("files")
    assert not files.tell_of("pixels")
    assert not (files | TrainingImages.of(digests("d"), "pixels")).tell_of("files")


def test_no_images_hold_none_and_are_packed_too() -> None:
    nothing = TrainingImages()
    assert not nothing.hold(digests("a")).any()
    assert not TrainingImages.unpacked(nothing.packed()).hold(digests("a")).any()
    assert (nothing | TrainingImages.of(digests("a"), "files")).hold(digests("a")).all()
    assert TrainingImages.of(digests("a"), "files").hold(np.empty((0, 32), np.uint8)).tolist() == []


@pytest.mark.parametrize(
    "packed",
    [
        None,
        [],
        {"digests": torch.zeros(2, 8, dtype=torch.uint8)},
        {"digests": torch.zeros(2, 8), "kinds": ["files"]},
        {"digests": torch.zeros(2, 7, dtype=torch.uint8), "kinds": ["files"]},
        {"digests": torch.zeros(8, dtype=torch.uint8), "kinds": ["files"]},
        {"digests": torch.tensor(0, dtype=torch.uint8), "kinds": ["files"]},
        {"digests": torch.zeros(1, 1, dtype=torch.uint8).expand(10**12, 8), "kinds": ["files"]},
        {"digests": torch.zeros(2, 8, dtype=torch.uint8), "kinds": [1]},
        {"digests": "text", "kinds": ["files"]},
    ],
    ids=["none", "list", "no-kinds", "floats", "short", "vector", "number", "claimed", "kinds-are-numbers", "text"],
)
def test_something_else_is_refused(packed: Any) -> None:
    with pytest.raises(ValueError, match="digests"):
        TrainingImages.unpacked(packed)
