"""Pictures of one sample, against pixels of images and maps chosen here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from batchcam.commands.view.pictures import SIDES, Asked, draw
from batchcam.pictures.originals import Original, State
from batchcam.store.opening import open_run
from batchcam.store.run import Run, Sample

IMAGE = np.broadcast_to(np.linspace(0, 255, 80).astype(np.uint8)[None, :, None], (48, 80, 3)).copy()


class Found:
    """Gives one image, or the reason why there is none."""

    def __init__(self, original: Original) -> None:
        self.original = original

    def read(self, sample: Sample) -> Original:
        return self.original


def drawn(run: Run, sample: Sample, original: Original | None = None, **asked: Any) -> np.ndarray:
    """The pixels of a picture, RGB int (H, W, 3), of which JPEG keeps about five steps of 255."""
    originals: Any = Found(original or Original(State.FOUND, IMAGE))
    data = draw(run, sample, originals, Asked(**{"kind": "map", "class_": 0, **asked}))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


@pytest.fixture
def one(run: Path) -> tuple[Run, Sample]:
    """A sample whose map of class 0 is largest in its right half, and of class 1 in its left half."""
    with open_run(run) as opened:
        right = np.repeat([[-1.0, -1.0, 0.0, 2.0, 2.0]], 3, 0).astype(np.float32)
        cams = np.stack([right, right[:, ::-1], *np.zeros((3, 3, 5), np.float32)])
        return opened, dataclasses.replace(opened[0], cams=cams)


def test_the_original_is_shown_as_it_is_in_its_shape(one: tuple[Run, Sample]) -> None:
    picture = drawn(*one, kind="original", size="large")
    assert picture.shape == (432, SIDES["large"], 3)
    assert np.abs(picture - cv2.resize(IMAGE, (720, 432)).astype(int)).max() < 12


def test_a_signed_map_is_red_for_and_blue_against_and_a_contrast_likewise(one: tuple[Run, Sample]) -> None:
    for asked in ({"kind": "signed"}, {"minus": 1}, {"kind": "signed", "cells": True}):
        picture = drawn(*one, **asked)[:90]
        right, left = (np.median(half[..., 0] - half[..., 2]) for half in (picture[:, -40:], picture[:, :40]))
        assert right > 25
        assert left < -25
    itself = drawn(*one, minus=0)
    assert np.abs(itself[..., 0] - itself[..., 2])[:90].max() < 12


def test_each_class_has_its_own_map(one: tuple[Run, Sample]) -> None:
    first, second = (drawn(*one, original=Original(State.MISSING), class_=k, palette="jet")[60] for k in (0, 1))
    assert np.abs(first - second[::-1]).max() < 30
    assert first[-10:, 0].min() > first[:10, 0].max()


def test_an_original_that_changed_is_not_shown_and_told_in_red(one: tuple[Run, Sample]) -> None:
    changed = Original(State.CHANGED, reason="its SHA-256 differs")
    top = drawn(*one, original=changed)[2, -40:].mean(0)
    assert np.abs(top - (170, 20, 30)).max() < 15
    assert np.abs(drawn(*one, original=changed, kind="original")[-5:] - 240).max() < 12  # words, on light grey


def test_a_class_without_a_stored_map_leaves_the_original(one: tuple[Run, Sample]) -> None:
    run, sample = one
    fewer = dataclasses.replace(sample, cams=sample.cams[:1], cam_class=np.array([0]))
    below = drawn(run, fewer, class_=3)[30:]
    assert np.abs(below - drawn(run, fewer, kind="original")[30:]).max() < 12
