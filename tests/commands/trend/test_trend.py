"""What moves over the nights is told, what does not is not, and what can't be read is left out."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import batchcam
from batchcam.commands.compare.movement import Pairs
from batchcam.commands.compare.reading import Part, Sides, measure
from batchcam.commands.trend import nights as reading
from batchcam.commands.trend.config import TrendConfig
from batchcam.commands.trend.nights import MEASURES
from batchcam.commands.trend.summary import TrendSummary
from batchcam.commands.trend.trend import trend
from batchcam.errors import ConfigError, RunError
from batchcam.record.evidence import border_share, cell_shares, entropy
from batchcam.record.similarity import compare_maps
from tests.helpers.nights import CLASSES, Told, land_night, land_nights
from tests.helpers.wellformed import Page

NIGHTS, CHANGE = 12, 10
COUNTS = ("--baseline", 7)


def told_by(folder: Path, **options: Any) -> TrendSummary:
    return trend(TrendConfig((folder,), **{"baseline": 7, "quiet": True, **options}))


def moved(night: int) -> Told:
    return Told(border=0.5 if night >= CHANGE else 0.3, unreadable=0.02)


@pytest.fixture(scope="module")
def drifted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nights of the same samples, of which the last two show other evidence."""
    folder = tmp_path_factory.mktemp("drifted")
    return land_nights(folder, NIGHTS, 150, moved, same_samples=True, meta={"site": 8})


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nights of other samples each, from one population."""
    return land_nights(tmp_path_factory.mktemp("steady"), NIGHTS, 150)


@pytest.fixture
def own(steady: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(steady, tmp_path / "own"))


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "trend.csv").open() as file:
        return list(csv.DictReader(file))


def test_evidence_that_moves_is_told_with_the_night_of_the_change(drifted: Path) -> None:
    summary = told_by(drifted)
    alarms = {alarm.measure: alarm for alarm in summary.alarms if alarm.scope == "overall"}
    assert {"border", "border_rank", "spread"} <= set(alarms)
    assert not {"accuracy", "unreadable", "calibration"} & set(alarms)
    assert alarms["border"].night == "012"
    assert alarms["border"].since == "011"
    assert alarms["border"].level > alarms["border"].high
    assert summary.findings == len(summary.alarms)


def test_nights_of_one_population_are_well_and_the_alarm_option_says_nothing(steady: Path, run_cli) -> None:
    assert run_cli("trend", steady, "--alarm", *COUNTS) == (0, "", "")
    assert told_by(steady).alarms == []


def test_each_alarm_is_a_line_and_the_exit_code_tells_of_them(drifted: Path, run_cli) -> None:
    code, stdout, _ = run_cli("trend", drifted, "--alarm", "--json", *COUNTS)
    *lines, said = stdout.splitlines()
    assert code == json.loads(said)["exit_code"] == 3
    assert len(lines) == len(json.loads(said)["alarms"])
    assert all(line.startswith("ALARM 012: ") for line in lines)


def test_the_values_are_those_of_the_rows(drifted: Path, tmp_path: Path) -> None:
    told_by(drifted, out=tmp_path / "out", group_by=("site",))
    found = {
        (r["scope"], r["name"], r["measure"]): float(r["value"]) for r in rows(tmp_path / "out") if r["night"] == "012"
    }
    with batchcam.open_run(drifted / "012") as run, batchcam.open_run(drifted / "001") as first:
        label, prediction, old = run.label[:], run.prediction[:], first.prediction[:]
        cams, others = run.cams[:][:, 0], first.cams[:][:, 0]
        confidence, site = run.confidence[:], run["meta/site"][:]
    shares, known = cell_shares(cams), prediction >= 0
    both = known & (old >= 0)
    same = both & (old == prediction)
    expected = {
        ("overall", "", "accuracy"): (label == prediction)[known].mean(),
        ("overall", "", "unreadable"): (~known).mean(),
        ("overall", "", "confidence"): confidence[known].mean(),
        ("overall", "", "border"): np.nanmean(border_share(shares)),
        ("overall", "", "spread"): np.nanmean(entropy(shares)),
        ("overall", "", "flips"): (old != prediction)[both].mean(),
        ("overall", "", "similarity"): compare_maps(cams[same], others[same]).spearman.mean(),
        ("group", "south", "accuracy"): (label == prediction)[known & (site == "south")].mean(),
        ("class", "bee", "accuracy"): (label == prediction)[known & (label == 1)].mean(),
        ("class", "bee", "border"): border_share(shares[prediction == 1]).mean(),
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-5), key


def test_other_samples_each_night_have_no_flips_but_are_populations(steady: Path, tmp_path: Path) -> None:
    told_by(steady, out=tmp_path / "out")
    measures = {row["measure"] for row in rows(tmp_path / "out")}
    assert measures == set(MEASURES) - {"flips", "similarity"}


def test_another_checkpoint_is_an_event_and_begins_the_baseline_again(tmp_path: Path) -> None:
    changed = {"checkpoint_sha256": lambda night: ("a" if night < 9 else "b") * 64}
    folder = land_nights(tmp_path / "runs", 11, 150, lambda n: Told(accuracy=0.95 if n < 9 else 0.6), **changed)
    summary = told_by(folder)
    assert summary.events == {"010": "b" * 64}
    assert (summary.judged, summary.alarms) == (0, [])
    assert summary.waiting > 0
    assert "accuracy" in {alarm.measure for alarm in told_by(folder, one_baseline=True).alarms}


def test_a_change_that_is_meant_to_stay_begins_the_baseline_again(drifted: Path) -> None:
    assert told_by(drifted, since="011").judged == 0
    with pytest.raises(ConfigError, match=r"--since 2026: no such night: from 001 to 012"):
        told_by(drifted, since="2026")


def test_a_damaged_run_is_left_out_told_and_a_finding(own: Path, run_cli) -> None:
    shard = next((own / "005" / "shards").glob("*.h5"))
    content = bytearray(shard.read_bytes())
    content[2000] ^= 1
    shard.write_bytes(content)
    code, _, stderr = run_cli("trend", own, "--alarm", *COUNTS)
    assert code == 3
    assert str(shard) in stderr
    summary = told_by(own, out=own / "trend")
    page = Page((own / "trend" / "trend.html").read_text()).text
    assert "No alarm in the newest night: " in page
    assert " 0 not yet. Left out: 1 damaged run." in page
    assert "005" not in summary.nights
    assert [*summary.left_out] == [str(own / "005")]


def test_a_damaged_first_run_is_no_reference(own: Path) -> None:
    shard = next((own / "001" / "shards").glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert told_by(own).reference == "002"


def test_runs_that_are_not_complete_or_not_verified_are_left_out_and_no_finding(own: Path, run_cli) -> None:
    (own / "003" / "manifest.json").unlink()
    (own / "004.unverified").touch()
    code, _, stderr = run_cli("trend", own, *COUNTS)
    assert code == 0
    assert "not complete" in stderr
    assert "verify has not passed it" in stderr
    assert {"003", "004"}.isdisjoint(told_by(own).nights)


def test_runs_are_taken_in_the_order_in_which_they_are_named(steady: Path) -> None:
    names = ["003", "001", "002"]
    summary = trend(TrendConfig([steady / name for name in names], quiet=True))
    assert summary.nights == names
    assert summary.reference == "003"


def test_runs_before_other_classes_are_left_out_and_told_but_refused_where_they_were_named(own: Path) -> None:
    land_night(own / "013", 12, 30, Told(), class_names=("ant", "bee", "wasp"))
    summary = told_by(own)
    assert (summary.nights, summary.findings) == (["013"], 0)
    assert "class names (2 fly there, wasp here)" in summary.left_out[str(own / "012")]
    with pytest.raises(RunError, match=r"012: of another kind than 013 \(here\): class names"):
        trend(TrendConfig((own / "012", own / "013"), quiet=True))


def test_how_maps_are_stored_makes_no_other_kind(own: Path) -> None:
    land_night(own / "013", 12, 150, Told(), input_size=(160, 160))
    assert told_by(own).nights[0] == "001"


def test_a_link_to_a_run_is_that_run(drifted: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest"
    link.symlink_to(drifted / "012")
    summary = told_by(drifted, reference=link)
    assert (summary.nights[-1], summary.reference) == ("012", "012")
    assert {alarm.night for alarm in summary.alarms} == {"012"}
    assert trend(TrendConfig((drifted / "011", link, drifted / "012"), quiet=True)).nights == ["011", "012"]


def test_runs_without_the_column_of_the_groups_have_none(drifted: Path, tmp_path: Path, run_cli) -> None:
    runs = Path(shutil.copytree(drifted, tmp_path / "runs"))
    shutil.rmtree(runs / "003")
    land_night(runs / "003", 2, 150, Told())
    code, _, stderr = run_cli("trend", runs, "--out", tmp_path / "out", "--group-by", "site", *COUNTS)
    assert code == 3
    assert f"no groups of 1 run, such as {runs / '003'}" in stderr
    nights = {row["night"] for row in rows(tmp_path / "out") if row["scope"] == "group"}
    assert len(nights) == NIGHTS - 1
    assert run_cli("trend", runs, "--group-by", "ward")[0] == 2


def test_a_reference_that_is_gone_is_told_and_groups_of_other_columns_go(
    drifted: Path, tmp_path: Path, run_cli
) -> None:
    runs, out = Path(shutil.copytree(drifted, tmp_path / "runs")), tmp_path / "out"
    told_by(runs, out=out, group_by=("site",))
    shutil.rmtree(runs / "001")
    assert "the reference was 001, which is not among RUNS" in run_cli("trend", runs, "--out", out, *COUNTS)[2]
    found = rows(out)
    assert {row["scope"] for row in found} == {"overall", "class"}
    assert {row["measure"] for row in found if row["night"] == "001"} == set(MEASURES) - {"flips", "similarity"}
    assert "not among RUNS" not in run_cli("trend", runs, "--out", out, *COUNTS)[2]


def test_a_night_of_few_samples_is_told_where_those_before_were_judged(own: Path, run_cli) -> None:
    land_night(own / "013", 12, 5, Told())
    code, stdout, stderr = run_cli("trend", own, "--alarm", *COUNTS)
    assert (code, stdout) == (0, "")
    assert "013, 5 samples: no accuracy, no unreadable samples, no mean confidence" in stderr


def test_only_runs_that_can_not_be_read_are_an_error_with_a_reference_too(own: Path) -> None:
    (own / "002" / "manifest.json").unlink()
    with pytest.raises(RunError, match="002: no run can be read: not complete"):
        trend(TrendConfig((own / "002",), reference=own / "001", quiet=True))


def test_the_newest_nights_are_kept_as_far_as_a_document_holds_them(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_by(own, out=tmp_path / "all")
    monkeypatch.setattr("batchcam.commands.trend.trend.MOST_KEPT", 200)
    told_by(own, out=tmp_path / "some")
    nights = json.loads((tmp_path / "some" / "trend.json").read_text())["nights"]
    assert 0 < len(nights) < NIGHTS
    assert nights == json.loads((tmp_path / "all" / "trend.json").read_text())["nights"][-len(nights) :]


def test_what_is_no_run_is_refused(tmp_path: Path, run_cli) -> None:
    assert run_cli("trend", tmp_path / "none")[0] == 1
    assert run_cli("trend")[0] == 2
    assert run_cli("trend", tmp_path, "--baseline", 3)[0] == 2


def test_what_is_known_of_a_run_is_not_read_again_and_outlives_it(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    told_by(own, out=out)
    before = rows(out)
    shutil.rmtree(own / "002")
    monkeypatch.setattr("batchcam.commands.trend.runs._read_all", lambda names, *_: iter([1 / 0] if names else []))
    summary = told_by(own, out=out)
    assert "002" in summary.nights
    assert rows(out) == before


def test_a_run_that_was_made_again_is_read_again(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told_by(own, out=out)
    shutil.rmtree(own / "012")
    land_night(own / "012", 500, 150, Told(accuracy=0.2))
    assert "accuracy" in {alarm.measure for alarm in told_by(own, out=out).alarms}


def test_the_same_runs_give_the_same_files_from_any_number_of_processes(
    steady: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for cpus in (1, 2):
        monkeypatch.setattr("batchcam.commands.trend.runs.available_cpus", lambda cpus=cpus: cpus)
        told_by(steady, out=tmp_path / str(cpus))
        found.append([(tmp_path / str(cpus) / name).read_bytes() for name in ("trend.csv", "trend.json")])
    assert found[0] == found[1]


def test_the_page_has_a_chart_of_each_series_and_escapes_names(tmp_path: Path) -> None:
    folder = land_nights(tmp_path / "<b>runs", 9, 60, moved, same_samples=True, class_names=("<i>", "bee", "fly"))
    told_by(folder, out=tmp_path / "out")
    source = (tmp_path / "out" / "trend.html").read_text()
    series = {(row["scope"], row["name"], row["measure"]) for row in rows(tmp_path / "out")}
    assert source.count("<svg") == len(series)
    assert "<i>" not in source
    assert "border share" in Page(source).text


def test_what_trend_did_not_make_is_not_replaced(steady: Path, tmp_path: Path) -> None:
    (tmp_path / "trend.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"trend\.csv"):
        told_by(steady, out=tmp_path)
    (tmp_path / "mine.prom").write_text("mine")
    with pytest.raises(ConfigError, match="--prometheus"):
        told_by(steady, prometheus=tmp_path / "mine.prom")


def test_nothing_is_written_into_a_run_but_beside_it(own: Path) -> None:
    with pytest.raises(ConfigError, match="lies in the run"):
        told_by(own, out=own / "001" / "trend")
    assert told_by(own, out=own / "trend").nights == told_by(own, out=own / "trend").nights


def test_prometheus_has_the_newest_night(drifted: Path, tmp_path: Path) -> None:
    summary = told_by(drifted, prometheus=tmp_path / "trend.prom")
    lines = (tmp_path / "trend.prom").read_text().splitlines()
    assert f'batchcam_trend_alarms{{night="012"}} {len(summary.alarms)}' in lines
    (border,) = (a for a in summary.alarms if (a.scope, a.measure) == ("overall", "border"))
    assert f'batchcam_trend_level{{scope="overall",name="",measure="border"}} {border.level!r}' in lines
    told_by(drifted, prometheus=tmp_path / "trend.prom")


def test_few_samples_of_a_class_are_no_series(tmp_path: Path) -> None:
    folder = land_nights(tmp_path / "runs", 2, 40)
    told_by(folder, out=tmp_path / "out")
    assert {row["scope"] for row in rows(tmp_path / "out")} == {"overall"}
    assert len(CLASSES) * 20 > 40


def test_maps_are_compared_on_so_many_pairs_at_most(drifted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def measured(sides: Sides, pairs: Part, *others: Any) -> Pairs:
        counts.append(len(pairs.old_rows))
        return measure(sides, pairs, *others)

    monkeypatch.setattr(reading, "MOST_PAIRS", 50)
    monkeypatch.setattr(reading, "measure", measured)
    monkeypatch.setattr("batchcam.commands.trend.runs.crew", in_this_process)
    told_by(drifted)
    assert len(counts) == NIGHTS - 1
    assert 30 < max(counts) <= 50


@contextlib.contextmanager
def in_this_process(count: int, work: Callable[[int], Iterator[Any]]) -> Iterator[list[Iterator[Any]]]:
    yield [work(number) for number in range(count)]
