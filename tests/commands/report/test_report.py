"""The report says what the run says, hides nothing, and is one file that a browser reads without network or script."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from batchcam.commands.merge import merge
from batchcam.commands.report.config import ReportConfig
from batchcam.commands.report.facts import Facts, First, gather
from batchcam.commands.report.report import ReportSummary
from batchcam.errors import BatchcamError, ConfigError, RunError
from batchcam.store.opening import open_run
from batchcam.store.plan import Plan
from tests.helpers.report_pages import HOSTILE_IDS, browse, console, decoded, needs_chromium, probe, table_of, write
from tests.helpers.small_blocks import small_blocks
from tests.helpers.synthetic import CLASS_NAMES, Rows
from tests.helpers.wellformed import Page

MakeRun = Callable[..., Path]
MakeShards = Callable[..., None]


@pytest.fixture
def written(sound_run: Path, tmp_path: Path) -> tuple[ReportSummary, str]:
    """The report of the finished run, whose images are not there."""
    return write(sound_run, tmp_path / "report.html")


def facts_of(run: Path) -> Facts:
    with open_run(run) as opened:
        return gather(opened, top=4, unreadable=2, quiet=True)


# what it says


def test_the_page_is_well_formed_named_and_complete(written: tuple[ReportSummary, str]) -> None:
    summary, source = written
    page = Page(source)
    assert page.wrong == []
    assert page.elements["h1"] == 1
    assert page.elements["script"] == 0
    assert summary.bytes == len(source.encode())
    assert summary.complete
    assert "Complete: all 21 samples" in page.text


def test_the_provenance_names_run_weights_data_and_manifest(
    written: tuple[ReportSummary, str], sound_run: Path
) -> None:
    text = Page(written[1]).text
    plan = json.loads((sound_run / "run.json").read_text())
    manifest = hashlib.sha256((sound_run / "manifest.json").read_bytes()).hexdigest()
    for fact in (
        plan["run_id"],
        "c" * 64,
        plan["plan"]["dataset_fingerprint"],
        manifest,
        "weights/modèle.pth",
        "photos",
        "layer4",
        "node1",
    ):
        assert fact in text


def test_totals_are_those_of_the_manifest(written: tuple[ReportSummary, str], sound_run: Path) -> None:
    summary, source = written
    totals = json.loads((sound_run / "manifest.json").read_text())["totals"]
    assert summary.accuracy == totals["accuracy"]
    assert summary.samples == totals["samples"]
    numbers = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)(?:<small>[^<]*</small>)?</dd>", source))
    accuracy = numbers[f"accuracy of {totals['labelled']} with label and prediction; ± 0.01 needs {summary.needed:,}"]
    assert accuracy == f"{totals['accuracy']:.3f}"
    assert (summary.labelled, summary.left_out) == (totals["labelled"], 2)
    assert numbers["with a label"] == str(totals["labelled"] + 2)
    assert numbers["of those left out: unreadable or not finite"] == "2"
    assert numbers["unreadable samples"] == "1"


def test_unreadable_and_non_finite_samples_are_findings_and_named(written: tuple[ReportSummary, str]) -> None:
    summary, source = written
    assert summary.findings == 2
    assert table_of(source, "Unreadable samples")[1][0::2] == ["蝶/фото 00003.png", "not an image: усечённый файл"]
    for anchor, sample in (("non-finite", 6), ("constant", 9), ("no-positive", 12)):
        part = source.partition(f'id="odd-{anchor}"')[2].partition("</ul>")[0]
        assert f"фото {sample:05d}.png" in part


def test_the_confusion_matrix_counts_what_a_loop_counts(written: tuple[ReportSummary, str], sound_run: Path) -> None:
    with open_run(sound_run) as run:
        pairs = list(zip(run.label[:].tolist(), run.prediction[:].tolist(), strict=True))
    counts = [[pairs.count((a, b)) for b in range(5)] for a in range(5)]
    head, *rows = table_of(written[1], "Confusion matrix")
    assert head[1:] == list(CLASS_NAMES)
    assert [[int(c) for c in row[1:]] for row in rows] == counts
    assert [row[0] for row in rows] == list(CLASS_NAMES)


def test_more_classes_than_a_matrix_can_show_give_the_largest_confusions(make_run: MakeRun, tmp_path: Path) -> None:
    names = tuple(f"class {i}" for i in range(40))
    run = make_run(class_names=names, sample_count=300, shard_size=100, channels=40, sample_id_bytes=40)
    _, source = write(run, tmp_path / "r.html")
    with open_run(run) as opened:
        pairs = list(zip(opened.label[:].tolist(), opened.prediction[:].tolist(), strict=True))
    rows = table_of(source, "The largest")[1:]
    assert "Confusion matrix" not in source
    counts = [int(row[2]) for row in rows]
    assert counts == sorted(counts, reverse=True)
    for label, prediction, count, _, back in rows:
        pair = (names.index(label), names.index(prediction))
        assert pairs.count(pair) == int(count)
        assert pairs.count(pair[::-1]) == int(back)
    assert counts[0] == max(pairs.count(p) for p in set(pairs) if p[0] != p[1] and min(p) >= 0)


@pytest.mark.parametrize("cams", ["all", "predicted", "predicted+label", "topk:2"])
def test_a_class_mean_is_that_of_its_correct_samples_maps(make_run: MakeRun, cams: str) -> None:
    run = make_run(cams=cams, sample_count=60)
    found = facts_of(run).maps.class_cams
    with open_run(run) as opened:
        for index in range(5):
            maps = [
                opened.cam(s.row).astype(np.float64)
                for s in opened
                if s.prediction == s.label == CLASS_NAMES[index] and not s.status & 3
            ]
            expected = sum(maps) / len(maps) if maps else np.full((3, 5), np.nan)
            np.testing.assert_allclose(found[index], expected, rtol=1e-6)


def test_blocks_of_any_size_give_the_same_numbers(sound_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = facts_of(sound_run)
    small_blocks(monkeypatch, 1)
    by_row = facts_of(sound_run)
    for field in dataclasses.fields(whole.maps):
        np.testing.assert_allclose(getattr(by_row.maps, field.name), getattr(whole.maps, field.name), rtol=1e-12)
    for name in ("totals", "predicted", "judged", "odd", "scores", "confusions", "bins", "means"):
        assert getattr(by_row, name) == getattr(whole, name)
    for name, first in whole.firsts.items():
        assert (by_row.firsts[name].count, by_row.firsts[name].rows.tolist()) == (first.count, first.rows.tolist())
    for one, other in zip(by_row.groups, whole.groups, strict=True):
        assert (one.name, one.size) == (other.name, other.size)
        assert [d.histogram(20) for d in one.spread.values()] == [d.histogram(20) for d in other.spread.values()]


def test_the_first_rows_are_those_of_a_stable_sort_of_all() -> None:
    values = np.random.default_rng(0).integers(0, 5, 60) / 4
    first = First(9)
    for part in np.array_split(np.arange(60), 7):
        first.add(values[part], part)
    assert first.rows.tolist() == np.argsort(values, kind="stable")[:9].tolist()
    assert first.count == 60


def test_mistakes_come_by_falling_and_hits_by_rising_confidence(written: tuple[ReportSummary, str]) -> None:
    source = written[1]
    for anchor, falling in (("mistakes", True), ("hits", False)):
        part = source.partition(f'<section id="{anchor}"')[2].partition("</section>")[0]
        said = [float(c) for c in re.findall(r"</strong>, ([0-9.]+)", part)]
        assert len(said) > 3
        assert said == sorted(said, reverse=falling)


def test_no_more_samples_of_a_kind_are_shown_than_asked(sound_run: Path, tmp_path: Path) -> None:
    summary, source = write(sound_run, tmp_path / "r.html", top=1)
    assert summary.pictures <= 2 + 4
    assert "1 of " in Page(source).text
    none, without = write(sound_run, tmp_path / "n.html", top=0)
    assert none.pictures == 0
    assert Page(without).wrong == []


def test_an_incomplete_run_says_so_at_the_top(
    make_plan: Callable[..., Plan], make_rows: Callable[..., Rows], make_shards: MakeShards, tmp_path: Path
) -> None:
    plan = make_plan()
    make_shards(tmp_path / "run", plan, make_rows(plan), skip=(1,))
    summary, source = write(tmp_path / "run", tmp_path / "r.html")
    text = Page(source).text
    assert not summary.complete
    assert summary.samples == 13
    assert text.index("Incomplete: 2 of 3 shards, 13 of 21 samples") < text.index("What to look at Summary")
    assert Page(source).wrong == []


def test_a_waived_identity_is_said_at_the_top(make_run: MakeRun, tmp_path: Path) -> None:
    _, source = write(make_run(identity=False), tmp_path / "r.html")
    text = Page(source).text
    assert text.index("The identity was waived") < text.index("What to look at Summary")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "gradcam"}, "made by gradcam, not exact: they do not add up to the logits"),
        ({"control": "head"}, "A control: the last layer had random weights"),
        ({"control": "weights"}, "A control: every layer had random weights"),
    ],
)
def test_what_is_special_about_maps_is_said_at_the_top(
    make_run: MakeRun, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    _, source = write(make_run(**{"identity": "method" not in changes, **changes}), tmp_path / "r.html")
    text = Page(source).text
    assert text.index(said) < text.index("What to look at Summary")
    assert "waived" not in text.partition("What to look at Summary")[0]
    assert ("logit per cell" in text) == ("method" not in changes)
    identity = "none: maps by gradcam do not add up to the logits" if "method" in changes else "holds"
    assert f"Identity {identity}" in text


@pytest.fixture
def unlabelled(
    make_plan: Callable[..., Plan], make_rows: Callable[..., Rows], make_shards: MakeShards, tmp_path: Path
) -> Path:
    """A finished run of samples without labels."""
    plan = make_plan()
    rows = make_rows(plan)
    rows.columns["label"][:] = -1
    make_shards(tmp_path / "unlabelled", plan, rows)
    merge(tmp_path / "unlabelled")
    return tmp_path / "unlabelled"


def test_a_run_without_labels_has_a_report_that_judges_nothing(unlabelled: Path, tmp_path: Path) -> None:
    summary, source = write(unlabelled, tmp_path / "r.html")
    assert summary.accuracy is None
    assert Page(source).wrong == []
    assert "without a label" in source.lower()
    assert "<dt>wrong predictions</dt><dd>–</dd>" in source
    sections = re.findall(r'<section id="([^"]*)"', source)
    assert re.findall(r'<li><a href="#([^"]*)"', source)[: len(sections)] == sections
    assert not {"confusions", "mistakes", "hits"} & set(sections)
    head, *rows = table_of(source, "Classes, most often predicted first")
    with open_run(unlabelled) as run:
        predictions = run.prediction[:].tolist()
    assert head[:2] == ["class", "predicted as it"]
    assert {row[0]: int(row[1]) for row in rows} == {n: predictions.count(i) for i, n in enumerate(CLASS_NAMES)}
    assert [int(row[1]) for row in rows] == sorted((int(row[1]) for row in rows), reverse=True)


def test_without_labels_the_least_confident_samples_and_some_from_all_over_the_run_are_shown(
    unlabelled: Path, tmp_path: Path
) -> None:
    with open_run(unlabelled) as run:
        confidence = {s.row: s.confidence for s in run if s.prediction is not None}
    rows = sorted(confidence)
    expected = {
        "unsure": sorted(rows, key=lambda row: confidence[row])[:4],
        "across": [rows[0], rows[6], rows[12], rows[18]],
    }
    assert len(rows) == 19
    summary, source = write(unlabelled, tmp_path / "r.html", top=4)
    for anchor, samples in expected.items():
        part = source.partition(f'<section id="{anchor}"')[2].partition("</section>")[0]
        assert list(map(int, re.findall(r"фото (\d+)\.png</", part))) == samples
        assert "4 of 19 shown" in part
    assert summary.pictures >= len({*expected["unsure"], *expected["across"]})


def test_a_run_with_some_labels_is_judged_by_them(written: tuple[ReportSummary, str]) -> None:
    sections = re.findall(r'<section id="([^"]*)"', written[1])
    assert {"confusions", "mistakes", "hits"} <= set(sections)
    assert not {"unsure", "across"} & set(sections)


@pytest.mark.parametrize(
    "changes",
    [{"maps": "none"}, {"maps": "float32"}, {"grid_size": (1, 1)}, {"grid_size": (2, 40)}, {"sample_count": 1}],
)
def test_runs_of_every_kind_have_a_report(make_run: MakeRun, tmp_path: Path, changes: dict[str, Any]) -> None:
    _, source = write(make_run(**changes), tmp_path / "r.html")
    assert Page(source).wrong == []


def test_a_run_whose_only_sample_is_unreadable_has_a_report(
    make_plan: Callable[..., Plan], make_rows: Callable[..., Rows], make_shards: MakeShards, tmp_path: Path
) -> None:
    rows = make_rows(make_plan())
    plan = make_plan(sample_count=1)
    one = Rows(*({k: v[3:4] for k, v in part.items()} for part in (rows.columns, rows.texts)), rows.weight, rows.bias)
    one.columns["sample_index"][:] = 0
    make_shards(tmp_path / "run", plan, one)
    merge(tmp_path / "run")
    summary, source = write(tmp_path / "run", tmp_path / "r.html")
    assert summary.findings == 1
    assert Page(source).wrong == []


def test_the_same_run_gives_the_same_file(sound_run: Path, tmp_path: Path) -> None:
    assert write(sound_run, tmp_path / "a.html")[1] == write(sound_run, tmp_path / "b.html")[1]


# original images


@pytest.fixture
def pictured(
    make_plan: Callable[..., Plan], make_rows: Callable[..., Rows], make_shards: MakeShards, tmp_path: Path
) -> tuple[Path, Path]:
    """A finished run and the folder of its images, 48×80 pixels each, of one colour."""
    plan = make_plan()
    rows, data = make_rows(plan), tmp_path / "photos"
    for row, sample_id in enumerate(rows.texts["sample_id"]):
        path = data / sample_id
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = np.full((48, 80, 3), (10 * row, 255 - 10 * row, 90), np.uint8)
        path.write_bytes(cv2.imencode(".png", colour[..., ::-1])[1].tobytes())
        digest = hashlib.sha256(path.read_bytes()).digest()
        rows.columns["input_sha256"][row] = np.frombuffer(digest, np.uint8)
    make_shards(tmp_path / "run", plan, rows)
    merge(tmp_path / "run")
    return tmp_path / "run", data


def shown(source: str, sample: int) -> np.ndarray:
    """The picture of a sample in the report, RGB."""
    (figure, *_) = (f for f in re.findall(r"<figure>.*?</figure>", source, re.S) if f"фото {sample:05d}.png" in f)
    return decoded(re.findall(r"base64,([^\"]*)", figure)[0])


def test_the_original_stands_beside_its_overlay(pictured: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = pictured
    summary, source = write(run, tmp_path / "r.html", data=str(data))
    assert summary.without_image == 0
    sample = next(s for s in range(21) if s not in (3, 6, 9) and f"фото {s:05d}.png" in source)
    picture = shown(source, sample)
    assert picture.shape[1] == 2 * 200 + 4
    left = picture[10:-10, 10:190].reshape(-1, 3)
    assert np.abs(left - [10 * sample, 255 - 10 * sample, 90]).max() < 12
    assert np.ptp(picture[:, 210:].reshape(-1, 3), 0).max() > 30


def test_the_overlay_is_brightest_where_the_map_is_largest(pictured: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = pictured
    _, source = write(run, tmp_path / "r.html", data=str(data))
    with open_run(run) as opened:
        sample = next(s.row for s in opened if not s.status and f"фото {s.row:05d}.png" in source)
        cam = opened.cam(sample)
    overlay = shown(source, sample)[:, 204:]
    height, width = overlay.shape[:2]
    greens = [
        overlay[int((y + 0.5) * height / 3), int((x + 0.5) * width / 5), 1]
        for y, x in (np.unravel_index(int(cell), cam.shape) for cell in (cam.argmin(), cam.argmax()))
    ]
    # viridis goes from dark violet to yellow: green rises throughout
    assert greens[1] > greens[0] + 20


def test_a_constant_map_leaves_the_original_alone(pictured: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = pictured
    _, source = write(run, tmp_path / "r.html", data=str(data))
    assert shown(source, 9).shape[1] == 200


def test_a_changed_image_is_a_finding_and_not_shown(pictured: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = pictured
    before, source = write(run, tmp_path / "a.html", data=str(data))
    sample = next(s for s in range(21) if s not in (3, 6, 9, 12) and f"фото {s:05d}.png" in source)
    path = data / f"蝶/фото {sample:05d}.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((48, 80, 3), np.uint8))[1].tobytes())
    after, source = write(run, tmp_path / "b.html", data=str(data))
    assert (before.changed, after.changed) == (0, 1)
    assert after.findings == before.findings + 1
    assert shown(source, sample).shape[1] == 200
    assert "original changed: " in Page(source).text
    assert "no longer the one that was explained" in Page(source).text


def test_without_images_the_maps_stand_alone(written: tuple[ReportSummary, str]) -> None:
    summary, source = written
    assert summary.without_image == summary.pictures
    assert summary.changed == 0
    assert "the image is not at hand" in Page(source).text


# hostile text


@pytest.fixture
def hostile(
    make_plan: Callable[..., Plan], make_rows: Callable[..., Rows], make_shards: MakeShards, tmp_path: Path
) -> Path:
    """A finished run whose ids, classes and errors try to get out."""
    names = ("<b>bold</b>", "\u202eevil", "a\x1b[31m", '"quoted" onclick="x"', "</table></section><h1>")
    plan = make_plan(class_names=names, sample_id_bytes=1000)
    rows = make_rows(plan)
    rows.texts["sample_id"][: len(HOSTILE_IDS)] = HOSTILE_IDS
    rows.texts["error"][3] = "<script>alert('error')</script>"
    make_shards(tmp_path / "run", plan, rows)
    merge(tmp_path / "run")
    return tmp_path / "run"


def test_hostile_names_stay_text(hostile: Path, tmp_path: Path) -> None:
    _, source = write(hostile, tmp_path / "r.html", data=str(tmp_path))
    page = Page(source)
    assert page.wrong == []
    assert page.elements["h1"] == 1
    assert page.elements["script"] == page.elements["b"] == 0
    assert {c for c in source if not c.isprintable()} == {"\n"}
    assert html.escape("<script>document.title='owned'</script>.png", quote=True) in source
    assert r"a\u202egnp.exe" in page.text
    assert "x" * 200 not in source
    assert "root:" not in source


# refusals


def test_a_report_must_be_named_as_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        ReportConfig(tmp_path, tmp_path / "run.h5")


@pytest.mark.parametrize("top", [-1, 201])
def test_a_number_of_samples_that_can_not_be_meant_is_refused(tmp_path: Path, top: int) -> None:
    with pytest.raises(ConfigError, match="--top"):
        ReportConfig(tmp_path / "run", tmp_path / "r.html", top=top)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(RunError, match="not a run directory"):
        write(tmp_path / "run", tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_report_never_goes_into_the_run(sound_run: Path) -> None:
    with pytest.raises(ConfigError, match="lies in the run"):
        ReportConfig(sound_run, sound_run / "r.html")


def test_data_that_is_not_there_is_refused(sound_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data"):
        write(sound_run, tmp_path / "r.html", data=str(tmp_path / "nowhere"))


def test_a_file_that_can_not_be_written_is_one_line(sound_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BatchcamError, match=r"file: cannot write"):
        write(sound_run, tmp_path / "file" / "r.html")


def test_a_missing_folder_is_made(sound_run: Path, tmp_path: Path) -> None:
    write(sound_run, tmp_path / "new" / "deep" / "r.html")


# size


@pytest.mark.slow
def test_ten_thousand_samples_take_seconds_and_a_file_that_mail_carries(make_run: MakeRun, tmp_path: Path) -> None:
    names = tuple(f"class {i}" for i in range(100))
    run = make_run(class_names=names, channels=100, sample_count=10_000, shard_size=10_000, maps="none")
    start = time.monotonic()
    summary, source = write(run, tmp_path / "r.html")
    assert time.monotonic() - start < 20
    assert summary.bytes < 15e6
    assert Page(source).wrong == []


# in a browser


@needs_chromium
def test_a_browser_shows_all_pictures_and_complains_of_nothing(hostile: Path, tmp_path: Path) -> None:
    _, source = write(hostile, tmp_path / "r.html", data=str(tmp_path))
    done = browse(tmp_path / "r.html", "--dump-dom")
    assert console(done) == []
    assert "owned" not in re.findall("<title>.*</title>", done.stdout)[0]
    found = probe(source, tmp_path)
    assert found["images"] == Page(source).elements["img"] > 5
    assert found["broken"] == 0


@needs_chromium
def test_the_policy_stops_what_escaping_would_let_through(written: tuple[ReportSummary, str], tmp_path: Path) -> None:
    holed = tmp_path / "holed.html"
    attack = "<script>document.title='owned'</script><img src='https://example.invalid/x.png' alt='x'>"
    holed.write_text(written[1].replace("</main>", attack + "</main>"), encoding="utf-8")
    done = browse(holed, "--dump-dom")
    assert "<title>owned" not in done.stdout
    assert len(console(done)) == 2


@needs_chromium
@pytest.mark.parametrize(("scheme", "dark"), [(0, True), (1, False)])
def test_a_page_follows_the_readers_light_or_dark(
    written: tuple[ReportSummary, str], tmp_path: Path, scheme: int, dark: bool
) -> None:
    found = probe(written[1], tmp_path, f"--blink-settings=preferredColorScheme={scheme}")
    brightness = np.mean([int(c) for c in re.findall(r"\d+", found["background"])[:3]])
    assert (brightness < 60) if dark else (brightness > 240)


@needs_chromium
def test_a_narrow_window_scrolls_tables_and_not_the_page(hostile: Path, tmp_path: Path) -> None:
    _, source = write(hostile, tmp_path / "r.html")
    found = probe(source, tmp_path, width=500)
    assert found["overflow"] <= 0
    assert found["first"] == "Skip to the content"
    assert found["reachable"] > 10
