"""The report's first section shows what a person would look at, and claims nothing only where there is nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from batchcam.commands.merge import merge
from batchcam.store.opening import open_run
from batchcam.store.plan import Plan
from tests.helpers.report_pages import needs_chromium, probe, write
from tests.helpers.synthetic import CLASS_NAMES, Rows, land_shards, synthetic_plan, synthetic_rows
from tests.helpers.wellformed import Page

NOTHING = "Nothing found that needs a look."
ROWS = 60


def first_section(source: str) -> str:
    section, *_ = re.findall(r'<section id="(\w+).*?</section>', source, re.S)
    assert section == "look"
    return source.partition("<section")[2].partition("</section>")[0]


def blocks(source: str) -> dict[str, str]:
    """Each thing that the first section tells, by the section that its heading leads to."""
    found = re.findall(r'<article><h3><a href="#([^"]*)">.*?</article>', first_section(source), re.S)
    texts = re.findall(r"<article>.*?</article>", first_section(source), re.S)
    assert all(f'id="{anchor}"' in source for anchor in found)
    return dict(zip(found, texts, strict=True))


def ids(block: str) -> list[str]:
    return [Page(each).text for each in re.findall(r"<figure>.*?(<code>.*?</code>)", block, re.S)]


def sound(folder: Path, change: Callable[[Plan, Rows], None] = lambda plan, rows: None, **changes: Any) -> Path:
    """A run without anything odd, whose predictions are all right unless they are changed."""
    plan = synthetic_plan(sample_count=ROWS, sample_id_bytes=60, grid_size=(4, 5), **changes)
    rows = synthetic_rows(plan)
    good = np.flatnonzero((rows.columns["status"] == 0) & (rows.columns["cams"].max((1, 2, 3)) > 0))
    again = np.resize(good, ROWS)
    for name in rows.columns.keys() - {"sample_index", "input_bytes", "input_sha256"}:
        rows.columns[name] = rows.columns[name][again]
    rows.texts["error"] = [""] * ROWS
    rows.columns["label"] = rows.columns["prediction"].copy()
    rows.columns["cams"][:, :, 1, 2] += 0.5 * np.abs(rows.columns["cams"]).max()  # inside of the outermost ring
    change(plan, rows)
    land_shards(folder, plan, rows)
    merge(folder)
    return folder


def test_wrong_predictions_stand_first_with_their_interval_and_the_most_confident_pictures(tmp_path: Path) -> None:
    def mislabel(plan: Plan, rows: Rows) -> None:
        rows.columns["label"][:31] = (rows.columns["label"][:31] + 1) % 5

    run = sound(tmp_path / "run", mislabel)
    _, source = write(run, tmp_path / "r.html")
    found = blocks(source)
    low, high = binomtest(31, ROWS).proportion_ci(method="wilson")
    assert list(found) == ["mistakes"]
    told = f"31 of {ROWS} labelled predictions are wrong: {31 / ROWS:.3f} ({low:.2f}–{high:.2f})"
    assert told in Page(found["mistakes"]).text
    assert NOTHING not in source
    with open_run(run) as opened:
        ranked = sorted(range(31), key=lambda row: (-opened.confidence[row], row))[:5]
        assert ids(found["mistakes"]) == [str(opened.sample_id[row]) for row in ranked]


def test_nothing_is_found_only_where_every_prediction_is_right_and_the_nearest_are_shown(tmp_path: Path) -> None:
    run = sound(tmp_path / "run")
    _, source = write(run, tmp_path / "r.html")
    found = blocks(source)
    low, _ = binomtest(ROWS, ROWS).proportion_ci(method="wilson")
    assert NOTHING in first_section(source)
    assert list(found) == ["hits"]
    assert f"All {ROWS} labelled predictions are right ({low:.2f}–1.00)" in Page(found["hits"]).text
    with open_run(run) as opened:
        ranked = sorted(range(ROWS), key=lambda row: (opened.confidence[row], row))[:5]
        assert ids(found["hits"]) == [str(opened.sample_id[row]) for row in ranked]


def test_without_labels_it_is_said_that_right_and_wrong_are_not_known(tmp_path: Path) -> None:
    def unlabel(plan: Plan, rows: Rows) -> None:
        rows.columns["label"][:] = -1

    _, source = write(sound(tmp_path / "run", unlabel), tmp_path / "r.html")
    found = blocks(source)
    assert list(found) == ["unsure"]
    assert "No prediction has a label, so that what is right is not known" in Page(found["unsure"]).text
    assert len(ids(found["unsure"])) == 5
    assert NOTHING not in source


def test_a_part_of_a_run_is_never_said_to_have_nothing(tmp_path: Path) -> None:
    run = sound(tmp_path / "run")
    _, source = write(run / "shards/shard-00001.h5", tmp_path / "r.html")
    assert list(blocks(source)) == ["hits"]
    assert NOTHING not in source


def test_unreadable_samples_are_told_in_words_and_odd_maps_by_pictures(sound_run: Path, tmp_path: Path) -> None:
    _, source = write(sound_run, tmp_path / "r.html")
    found = blocks(source)
    assert list(found)[:2] == ["mistakes", "unreadable"]
    text = Page(found["unreadable"]).text
    assert "Unreadable samples: 1 of 21" in text
    assert "not an image: усечённый файл" in text
    for anchor, sample in (("odd-non-finite", 6), ("odd-constant", 9), ("odd-no-positive", 12)):
        assert f"蝶/фото {sample:05d}.png" in ids(found[anchor])


def test_peaks_in_one_place_are_shown_with_the_command_that_checks_them_in_the_runs_words(tmp_path: Path) -> None:
    def tag(plan: Plan, rows: Rows) -> None:
        rows.columns["cams"][rows.columns["prediction"] == 1, :, 0, 0] = 1e3
        rows.columns["prediction"][:30] = rows.columns["label"][:30] = 1
        rows.columns["cams"][:30, 1, 0, 0] = 1e3

    folder = tmp_path / "the run's; echo <b>"
    _, source = write(sound(folder, tag), tmp_path / "r.html")
    found = blocks(source)["peaks"]
    (command,) = (Page(each).text for each in re.findall("<code>.*?</code>", found) if "batchcam" in each)
    words = ["--checkpoint", "weights/modèle.pth", "--data", "photos", "--out", "discovered"]
    assert shlex.split(command) == ["batchcam", "discover", str(folder), *words]
    assert f"peaks of {CLASS_NAMES[1]} in the" in Page(found).text
    assert len(ids(found)) == 4
    assert NOTHING not in source


@needs_chromium
@pytest.mark.parametrize("width", [1280, 500])
def test_a_window_shows_a_picture_before_anything_is_scrolled(sound_run: Path, tmp_path: Path, width: int) -> None:
    _, source = write(sound_run, tmp_path / "r.html")
    assert probe(source, tmp_path, width=width)["first_picture_ends"] < 800
