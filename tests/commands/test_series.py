"""Every reading command says of a series what it says of one run over the same samples."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from batchcam.commands.explain.explain import explain
from batchcam.commands.report.config import ReportConfig
from batchcam.commands.report.facts import gather
from batchcam.commands.report.report import report
from batchcam.errors import StoppedEarlyError
from batchcam.store.opening import open_run
from tests.commands.explain.test_explain import Countdown
from tests.commands.explain.test_listing import CLASSES, classifier, config, draw
from tests.helpers.damage import flip
from tests.helpers.outputs import READERS, strict_json
from tests.helpers.series import land_night, whole_and_series
from tests.helpers.synthetic import synthetic_plan, synthetic_rows

__all__ = ["classifier"]

SAME_FILES = {
    **{name: READERS[name] for name in ("render sheet", "render folder", "export csv", "export png", "export wsol")},
    "localize": lambda run, out: [
        "localize", run, "--annotations", run.parent / "boxes.csv", "--out", out / "scores", "--tolerance", 3,
    ],
}  # fmt: skip
ABOUT_RUN = ("export.json", "localize.json")


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    pair = whole_and_series(folder)
    with open_run(pair[0]) as run:
        lines = [f"{sample_id},10,10,40,30" for sample_id in run.sample_id[:]]
    (folder / "boxes.csv").write_text("\n".join(["id,x0,y0,x1,y1", *lines, ""]))
    return pair


@pytest.fixture
def nights(pair, tmp_path) -> Path:
    return Path(shutil.copytree(pair[1], tmp_path / "nights"))


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in ABOUT_RUN]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("command", SAME_FILES)
def test_a_command_writes_the_same_files_of_a_series(pair, tmp_path, run_cli, command):
    for run, out in zip(pair, ("whole", "series"), strict=True):
        (tmp_path / out).mkdir()
        code, _, err = run_cli(*SAME_FILES[command](run, tmp_path / out), "-q")
        assert code in (0, 3), err
    assert files(tmp_path / "series") == files(tmp_path / "whole") != {}


def test_info_adds_up_the_runs_and_lists_them(pair, run_cli):
    (_, _, whole), (code, text, series) = ((0, *told(run_cli("info", run, "--json"))) for run in pair)
    assert code == 0
    for name in ("totals", "classes", "trained_on", "unreadable", "complete"):
        assert series[name] == whole[name]
    assert [run["totals"]["samples"] for run in series["runs"]] == [8, 7, 6]
    assert (series["shards_landed"], series["shards"]) == (8, 8)
    assert f"{pair[1]} (3 complete runs)" in text
    assert "night-2: 7; accuracy" in text


def told(ended: tuple[int, str, str]) -> tuple[str, dict]:
    code, out, err = ended
    assert code in (0, 3), err
    return out, strict_json(out.splitlines()[-1])


def test_info_counts_samples_that_stand_in_two_runs_once(nights, pair, run_cli):
    shutil.copytree(nights / "night-2", nights / "night-4")
    _, series = told(run_cli("info", nights, "--json"))
    _, whole = told(run_cli("info", pair[0], "--json"))
    assert series["totals"] == whole["totals"]
    assert any("7 rows of samples that stand in several runs left out" in note for note in series["notes"])


def test_a_report_has_the_numbers_of_one_run_and_names_every_manifest(pair, tmp_path):
    summaries = [report(ReportConfig(run, out=tmp_path / f"{run.name}.html", quiet=True)) for run in pair]
    for name in ("samples", "labelled", "left_out", "accuracy", "pictures", "findings", "complete"):
        assert getattr(summaries[1], name) == getattr(summaries[0], name)
    with open_run(pair[0]) as whole, open_run(pair[1]) as series:
        first, second = (gather(each, top=9, unreadable=9, quiet=True) for each in (whole, series))
    for name in ("totals", "scores", "confusions", "bins", "means"):
        assert getattr(second, name) == getattr(first, name)
    for name, rows in first.firsts.items():
        np.testing.assert_array_equal(second.firsts[name].rows, rows.rows)
    np.testing.assert_allclose(second.maps.class_cams, first.maps.class_cams)
    page = (tmp_path / "nights.html").read_text()
    assert "Complete: all 21 samples of 3 runs." in page
    for night in pair[1].iterdir():
        assert hashlib.sha256((night / "manifest.json").read_bytes()).hexdigest() in page


def test_compare_and_report_against_measure_the_same_between_series(pair, tmp_path, run_cli):
    whole, series = whole_and_series(tmp_path, seed=3)
    seen = []
    for old, new in ((pair[0], whole), (pair[1], whole), (pair[0], series), (pair[1], series)):
        out = tmp_path / f"compared-{len(seen)}"
        _, summary = told(run_cli("compare", old, new, "--out", out, "--json", "-q", "--max-flips", 0))
        numbers = {k: v for k, v in summary.items() if k not in ("old", "new", "old_run_id", "new_run_id", "out")}
        seen.append((numbers, columns(out / "compare.h5"), (out / "movers.csv").read_bytes()))
    assert all(each == seen[0] for each in seen[1:])
    summary = report(ReportConfig(series, out=tmp_path / "page.html", against=pair[1], quiet=True))
    assert summary.flips == seen[0][0]["totals"]["flips"] > 0


def columns(file: Path) -> dict[str, bytes]:
    with h5py.File(file) as opened:
        return {name: opened[name][...].tobytes() for name in opened if isinstance(opened[name], h5py.Dataset)}


def test_a_series_of_two_networks_is_compared_without_its_weights(pair, nights, tmp_path, run_cli):
    rows = synthetic_rows(synthetic_plan(), 4)
    rows.texts["sample_id"][:] = [f"new {i}" for i in range(21)]
    land_night(nights / "night-4", rows, checkpoint_sha256="f" * 64)
    _, summary = told(run_cli("compare", pair[0], nights, "--json", "-q"))
    assert summary["totals"]["flips"] == 0
    assert "NEW: the runs differ in checkpoint sha256" in summary["notes"]


def test_virelay_shows_the_same_samples_from_parts_of_each_run(pair, tmp_path, run_cli):
    shown = []
    for run in pair:
        out = tmp_path / run.name
        assert run_cli("export", run, "--to", "virelay", "--out", out, "-q")[0] == 0
        with h5py.File(out / "cam.attribution.h5") as file:
            shown.append({name: file[name][...] for name in file} | {"csv": (out / "samples.csv").read_bytes()})
    assert shown[0].keys() == shown[1].keys()
    for name, values in shown[0].items():
        np.testing.assert_array_equal(shown[1][name], values)


def test_verify_checks_each_run_and_its_findings_name_the_run(nights, run_cli):
    (nights / "night-4").mkdir()
    shutil.copy(nights / "night-1/run.json", nights / "night-4/run.json")
    out, sound = told(run_cli("verify", nights, "--json", "-q"))
    assert (sound["found"], sound["samples"], sound["shards"], sound["exit_code"]) == ([], 21, 8, 0)
    assert sound["notes"] == ["left out of the series: night-4 (not complete)"]
    assert f"night-3: manifest.json SHA-256 {sound['runs'][2]['manifest_sha256']}" in out
    flip(nights / "night-2/shards/shard-00001.h5", 5000)
    (nights / "night-3/run.json").unlink()
    out, damaged = told(run_cli("verify", nights, "--json", "-q"))
    assert damaged["exit_code"] == 3
    assert [(f["kind"], f["file"]) for f in damaged["found"]] == [
        ("digest-mismatch", "night-2/shards/shard-00001.h5"),
        ("plan-damaged", "night-3/run.json"),
    ]
    assert "night-2: digest-mismatch: shards/shard-00001.h5" in out


def test_what_is_about_one_run_refuses_a_series_by_one_line_that_names_one(nights, tmp_path, run_cli):
    (tmp_path / "model.pth").write_bytes(b"")
    asked = [
        ["verify", nights, "--recompute", 3, "--checkpoint", tmp_path / "model.pth", "--data", tmp_path],
        ["verify", nights, "--manifest-sha256", "0" * 64],
        ["info", nights, "--watch"],
        ["info", nights, "--stall", "30m"],
        ["faithfulness", nights, "--checkpoint", tmp_path / "model.pth", "--data", tmp_path],
        ["discover", nights, "--checkpoint", tmp_path / "model.pth", "--data", tmp_path],
    ]
    for words in asked:
        code, _, err = run_cli(*words)
        assert code == 1, words
        assert len(err.splitlines()) == 1
        assert f"{nights}: a series of runs: " in err
        assert f"such as {nights / 'night-3'}" in err


def test_partial_leaves_out_damaged_shards_of_each_run(nights, tmp_path, run_cli):
    flip(nights / "night-2/shards/shard-00001.h5", 5000)
    assert run_cli("export", nights, "--to", "csv", "--out", tmp_path / "all", "-q")[0] == 1
    code, out, err = run_cli("export", nights, "--to", "csv", "--out", tmp_path / "rest", "--partial", "--json", "-q")
    assert code == 3
    assert err.count("left out:") == 1
    assert "7 of 8 shards, 18 of 21 samples" in out


def test_prometheus_has_the_numbers_of_a_series(nights, pair, tmp_path, run_cli):
    written = []
    for run in (pair[0], nights):
        assert run_cli("info", run, "--prometheus", tmp_path / f"{run.name}.prom")[0] == 0
        lines = (tmp_path / f"{run.name}.prom").read_text().splitlines()
        values = dict(line.replace(f'run="{run}"', "").split("} ") for line in lines if not line.startswith("#"))
        written.append({name: values[name] for name in values if "samples" in name or "accuracy" in name})
    assert written[0] == written[1] != {}


def test_a_folder_that_grows_while_nights_are_too_short_ends_as_a_series_with_every_photo_once(
    classifier, tmp_path, run_cli
):
    photos, runs, size = tmp_path / "photos", tmp_path / "runs", 0
    runs.mkdir()
    for night in (1, 2, 3):
        for number in range(size, size := size + (12, 5, 3)[night - 1]):
            draw(photos / CLASSES[number % 3] / f"{number:02d}.png", number)
        # the last batch's shard has landed when the worker is stopped
        with Countdown(2) if night < 3 else contextlib.nullcontext() as stop:
            ended = contextlib.nullcontext() if stop is None else pytest.raises(StoppedEarlyError)
            with ended:
                explain(config(classifier, photos, runs / "night-1", new_since=runs))
        assert len(list((runs / "night-1/shards").glob("*.h5"))) == night
        assert (runs / "night-1/manifest.json").exists() == (night == 3)
    assert explain(config(classifier, photos, runs / "night-3", new_since=runs)).samples == 8
    explain(config(classifier, photos, tmp_path / "whole"))
    with open_run(runs) as series, open_run(tmp_path / "whole") as whole:
        assert sorted(series.sample_id[:]) == sorted(whole.sample_id[:])
        assert series.remarks == ()
        for sample in whole:
            same = series.sample(sample.id)
            np.testing.assert_allclose(same.cams, sample.cams, atol=1e-5)  # in other batches
    assert told(run_cli("verify", runs, "--json", "-q"))[1]["found"] == []
    for name in ("samples", "correct", "status"):
        totals = [told(run_cli("info", run, "--json"))[1]["totals"][name] for run in (runs, tmp_path / "whole")]
        assert totals[0] == totals[1]
    summary = report(ReportConfig(runs, out=tmp_path / "page.html", quiet=True))
    assert (summary.samples, summary.without_image, summary.findings) == (20, 0, 0)
