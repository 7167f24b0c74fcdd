"""What a notebook draws of a run: overlays as reports have them, figures of several samples, and docs/audit.ipynb."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import batchcam
from batchcam.pictures.overlay import View, overlay
from batchcam.store.plan import Plan
from docs.make.conformance import SOUND, Sound, make_run
from tests.helpers import ROOT
from tests.helpers.synthetic import UNREADABLE, Rows

CLASSES = ("ant", "bee", "cat", "dog", "elk")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with RUN, whose third sample is unreadable, and the photos that it was made from; we are in it."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)

    def with_photos(plan: Plan, rows: Rows) -> Plan:
        for row in range(plan.sample_count):
            name = f"{row}$x$.png"
            cv2.imwrite(str(photos / name), rng.integers(0, 255, (48, 80, 3), np.uint8))
            rows.texts["sample_id"][row] = name
            if row != UNREADABLE:
                digest = hashlib.sha256((photos / name).read_bytes()).digest()
                rows.columns["input_sha256"][row] = np.frombuffer(digest, np.uint8)
        return plan

    make_run(tmp_path / "RUN", Sound("", {"class_names": CLASSES, "cams": "predicted+label"}, with_photos))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Iterator[batchcam.Run]:
    with batchcam.open_run(folder / "RUN") as opened:
        assert isinstance(opened, batchcam.Run)
        yield opened


@pytest.mark.parametrize("look", [{}, {"signed": True}, {"cells": True, "palette": "jet"}], ids=str)
def test_an_overlay_is_that_of_the_photo_and_the_class(run: batchcam.Run, folder: Path, look: dict[str, Any]) -> None:
    sample = run[1]
    photo = cv2.imread(str(folder / "photos" / sample.id))[:, :, ::-1]
    for class_ in (None, sample.label):
        want = overlay(photo, run.cam(1, class_), View.of(run, sample), (48, 80), **look)
        np.testing.assert_array_equal(sample.overlay(class_, **look), want.picture)


def test_an_overlay_takes_grey_for_a_photo_that_is_another_now(run: batchcam.Run, folder: Path) -> None:
    cv2.imwrite(str(folder / "photos" / run[1].id), np.zeros((48, 80, 3), np.uint8))
    want = overlay(None, run.cam(1), View.of(run, run[1]), (48, 80))
    np.testing.assert_array_equal(run[1].overlay(), want.picture)


def test_what_has_no_map_is_refused_with_the_reason(run: batchcam.Run) -> None:
    with pytest.raises(batchcam.RunError, match=re.escape(f"{UNREADABLE}$x$.png: no prediction: not an image")):
        run[UNREADABLE].overlay()
    with pytest.raises(batchcam.RunError, match="constant map"):
        run[9].overlay()
    other = next(name for name in CLASSES if name not in (run[1].label, run[1].prediction))
    with pytest.raises(KeyError, match="the run stores"):
        run[1].overlay(other)
    with pytest.raises(KeyError, match="no class"):
        run.plot([1], "fly")
    with pytest.raises(batchcam.ConfigError, match="no such folder"):
        run[1].overlay(data="elsewhere")


def test_a_figure_has_a_picture_and_a_caption_for_each_row(run: batchcam.Run) -> None:
    pytest.importorskip("matplotlib")
    rows = [5, UNREADABLE, 0]
    figure = run.plot(rows, columns=2)
    figure.canvas.draw()
    titles = [axes.get_title().split("\n") for axes in figure.axes]
    assert [title[0] for title in titles] == [f"{row}$x$.png" for row in rows]
    assert titles[0][1] == f"{run[5].label} → {run[5].prediction} {run[5].confidence:.2f}"
    assert titles[1][2] == "no map"
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), run[0].overlay())
    assert len(run.plot().axes) == 12
    mask = run.label[:] == 2
    assert len(run.plot(mask).axes) == mask.sum()


def test_a_caption_names_the_labels_of_a_multi_label_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    several = SOUND["multi-label"]
    make_run(tmp_path / "RUN", dataclasses.replace(several, fields={**several.fields, "class_names": CLASSES}))
    with batchcam.open_run(tmp_path / "RUN") as run:
        captions = [axes.get_title().split("\n")[1] for axes in run.plot().axes]
        assert [caption.partition(" → ")[0] for caption in captions] == ["ant, elk", "none", "bee, cat"]


@pytest.mark.parametrize("rows", [[], np.zeros(21, bool), [0] * 201], ids=["none", "none of a mask", "too many"])
def test_a_figure_of_no_rows_or_too_many_is_refused(run: batchcam.Run, rows: Any) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="a figure has 1 to 200"):
        run.plot(rows)


def test_the_notebook_runs_from_its_first_cell_to_its_last(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("pandas")
    notebook = json.loads((ROOT / "docs" / "audit.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), names)
    assert names["picture"].shape == (48, 80, 3)
    assert "cells for" in capsys.readouterr().out
    assert all(not cell.get("outputs") for cell in notebook["cells"])
