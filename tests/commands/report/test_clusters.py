"""The report shows the clusters of a class's maps with samples of each, and where there are none says so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from batchcam.commands.merge import merge
from batchcam.store.opening import open_run
from tests.commands.report.test_peaks import section
from tests.helpers.report_pages import table_of, write
from tests.helpers.synthetic import land_shards, synthetic_plan, synthetic_rows
from tests.helpers.wellformed import Page

CAPTION = "Clusters of maps and the samples nearest to them"


def run_of_clusters(folder: Path, samples: int = 200) -> Path:
    """A run of which each third of the maps of class 1 has its peak in another cell than the rest."""
    plan = synthetic_plan(sample_count=samples, sample_id_bytes=60, grid_size=(5, 6))
    rows = synthetic_rows(plan)
    prediction = rows.columns["prediction"] = np.where(rows.columns["prediction"] < 0, -1, np.arange(samples) % 5)
    own = np.flatnonzero(prediction == 1)
    rows.columns["cams"][own[::3], 1, 1, 2] = 30
    rows.columns["cams"][np.setdiff1d(own, own[::3]), 1, 3, 4] = 30
    land_shards(folder, plan, rows)
    merge(folder)
    return folder


def test_the_clusters_of_a_class_are_shown_largest_first_with_samples_of_each(tmp_path: Path) -> None:
    run = run_of_clusters(tmp_path / "run")
    _, source = write(run, tmp_path / "report.html")
    with open_run(run) as opened:
        own = np.flatnonzero(opened.prediction[:] == 1)
        cams = opened.cams[own][:, 1]
        sound = np.isfinite(cams).all((1, 2)) & (np.ptp(cams, (1, 2)) > 1e-3)
        first = cams[:, 1, 2] == 30
        ids = [{str(each) for each in opened.sample_id[own[of]]} for of in (sound & ~first, sound & first)]
    head, *rows = table_of(source, CAPTION)
    assert head == ["class", "maps", "mean map", "sample 1", "sample 2", "sample 3"]
    assert [row[0] for row in rows] == ["Käfer", "Käfer"]
    sizes = [len(of) for of in ids]
    assert [row[1].partition(" (")[0] for row in rows] == [f"{size} of {sum(sizes)}" for size in sizes]
    told = section(source, "clusters")
    assert Page(source).wrong == []
    shown = re.findall(r"<code><bdi>(?!batchcam)(.*?)</bdi>", told)
    assert (len(shown), set(shown[:3]) <= ids[0], set(shown[3:]) <= ids[1]) == (6, True, True)
    assert "Clusters are no findings" in told


def test_samples_of_clusters_are_no_more_than_asked_for(tmp_path: Path) -> None:
    _, source = write(run_of_clusters(tmp_path / "run"), tmp_path / "report.html", top=1)
    assert [row[3] != "" for row in table_of(source, CAPTION)] == [True, True, False]
    assert Page(source).wrong == []


def test_of_maps_without_clusters_it_says_so(tmp_path: Path) -> None:
    plan = synthetic_plan(sample_count=200, sample_id_bytes=60, grid_size=(5, 6))
    land_shards(tmp_path / "run", plan, synthetic_rows(plan))
    merge(tmp_path / "run")
    _, source = write(tmp_path / "run", tmp_path / "report.html")
    assert "No class has two clusters of at least 10 maps and 5 % of the class&#x27;s" in source
