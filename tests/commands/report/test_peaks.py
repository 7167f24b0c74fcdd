"""The report says where peaks gather, shows it, and tells how to check; of an honest run it claims nothing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from batchcam.commands.merge import merge
from batchcam.store.opening import open_run
from tests.helpers.report_pages import table_of, write
from tests.helpers.synthetic import land_shards, synthetic_plan, synthetic_rows
from tests.helpers.wellformed import Page

GRID = (5, 6)


def tagged_run(folder: Path, tagged: int | None, cams: str = "all", samples: int = 200) -> Path:
    """A run of which a class has its peaks in a corner cell; of the others, and of none, they lie anywhere."""
    plan = synthetic_plan(sample_count=samples, sample_id_bytes=60, grid_size=GRID, cams=cams)
    rows = synthetic_rows(plan)
    prediction = rows.columns["prediction"] = np.where(rows.columns["prediction"] < 0, -1, np.arange(samples) % 5)
    if cams == "predicted":
        rows.columns["cam_class"] = prediction[:, None]
    if tagged is not None:
        own = np.flatnonzero(prediction == tagged)
        y, x = np.random.default_rng(0).integers(0, 2, (2, len(own))) * -1  # the first or the last
        rows.columns["cams"][own, tagged if cams == "all" else 0, y, x] = 1e3
    land_shards(folder, plan, rows)
    merge(folder)
    return folder


def section(source: str, anchor: str) -> str:
    return re.search(rf'<section id="{anchor}".*?</section>', source, re.S).group()


@pytest.mark.parametrize("cams", ["all", "predicted"])
def test_a_class_whose_peaks_lie_in_the_corners_is_found_shown_and_checked(tmp_path: Path, cams: str) -> None:
    run = tagged_run(tmp_path / "run", 1, cams)
    summary, source = write(run, tmp_path / "report.html")
    (found,) = summary.gatherings
    assert (found.class_name, found.place) == ("Käfer", "the corner cells")
    first = Page(section(source, "look")).text
    assert re.search(
        f"Peaks gather in one place .*Käfer in the corner cells: {found.there} of {found.peaks} peaks", first
    )
    assert "Nothing found that needs a look" not in source
    told = section(source, "peaks")
    assert f"Käfer in the corner cells {found.there} of {found.peaks} peaks: " in Page(told).text
    assert "batchcam discover" in told
    assert told.count("<figure>") == 8
    with open_run(run) as opened:
        assert found.peaks >= 30
        own = {str(opened.sample_id[row]) for row in np.flatnonzero(opened.prediction[:] == 1)}
    assert set(re.findall(r"<code><bdi>(?!batchcam)(.*?)</bdi>", told)) <= own


def test_of_a_run_whose_peaks_lie_anywhere_nothing_is_claimed(tmp_path: Path) -> None:
    summary, source = write(tagged_run(tmp_path / "run", None), tmp_path / "report.html")
    assert summary.gatherings == ()
    assert "Peaks gather in one place" not in source
    assert "No place is named." in source


def test_the_table_counts_each_classs_peaks_as_a_loop_does(tmp_path: Path) -> None:
    run = tagged_run(tmp_path / "run", 2)
    _, source = write(run, tmp_path / "report.html", top=0)
    with open_run(run) as opened:
        cams, prediction = opened.cams[:], opened.prediction[:]
        names = opened.class_names
    corner: dict[str, list[bool]] = {}
    for cam, class_ in zip(cams, prediction, strict=True):
        own = cam[class_]
        if class_ >= 0 and np.isfinite(own).all() and np.ptp(own) > 1e-5:
            y, x = np.unravel_index(own.argmax(), GRID)
            corner.setdefault(names[class_], []).append(y in (0, GRID[0] - 1) and x in (0, GRID[1] - 1))
    first, *rows = table_of(source, "Where the peaks of each predicted class lie")
    assert first[0] == "class"
    assert rows[0][0] == names[2]  # of which a place is named
    assert {row[0]: (row[1], row[2].split()[0]) for row in rows} == {
        name: (str(len(hits)), f"{np.mean(hits):.3f}") for name, hits in corner.items()
    }
    assert "<figure>" not in section(source, "peaks")


def test_few_peaks_are_said_not_to_be_judged(tmp_path: Path) -> None:
    _, source = write(tagged_run(tmp_path / "run", 1, samples=18), tmp_path / "report.html")
    assert "Fewer than 20 peaks: nothing is judged." in source
    assert "No place is named." not in source


def test_a_coarse_grid_is_said_not_to_be_judged(sound_run: Path, tmp_path: Path) -> None:
    _, source = write(sound_run, tmp_path / "report.html")
    assert "This grid of 3×5 cells is too coarse to tell: nothing is judged." in source
