"""A report's chapter on an older run says what plain loops over both runs say, and shows both maps on one image."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import re
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import binomtest

from batchcam.cli.printing import report_text
from batchcam.commands.compare.compare import compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.noise import noise_lines
from batchcam.commands.report.config import ReportConfig
from batchcam.commands.report.report import ReportSummary
from batchcam.errors import ConfigError, RunError
from batchcam.store.plan import Plan
from tests.helpers.damage import edit_document
from tests.helpers.report_pages import HOSTILE_IDS, browse, console, decoded, needs_chromium, probe, table_of, write
from tests.helpers.run_pairs import COUNT, SPECIAL, make_rows, permute_classes, plain_spearman, predict
from tests.helpers.run_pairs import write as write_run
from tests.helpers.synthetic import (
    CLASS_NAMES,
    CONSTANT,
    NON_FINITE,
    UNLABELLED,
    UNREADABLE,
    Rows,
    land_shards,
    run_command,
    synthetic_plan,
    synthetic_rows,
)
from tests.helpers.wellformed import Page

KEPT = [row for row in range(COUNT) if row not in (UNREADABLE, NON_FINITE)]
MEASURED = [row for row in KEPT if row != CONSTANT]

Side = tuple[Plan, Rows]


@pytest.fixture
def sides() -> tuple[Side, Side]:
    """Two checkpoints on the same images, each in its own numbers."""
    return make_rows(1), make_rows(2)


def write_both(sides: tuple[Side, Side], folder: Path) -> tuple[Path, Path]:
    return write_run(folder / "old", *sides[0]), write_run(folder / "new", *sides[1])


def reported(sides: tuple[Side, Side], folder: Path, **options: object) -> tuple[ReportSummary, str]:
    """The report of both runs, whose images are not there."""
    old, new = write_both(sides, folder)
    return write(new, folder / "r.html", against=old, **{"top": 4, **options})


@dataclasses.dataclass(frozen=True)
class Told:
    """Two runs in numbers, and what the report says of them; to be read only."""

    old: Rows
    new: Rows
    folder: Path
    summary: ReportSummary
    source: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The report of two checkpoints on the same images, which are not there."""
    folder = tmp_path_factory.mktemp("told")
    both = make_rows(1), make_rows(2)
    return Told(both[0][1], both[1][1], folder, *reported(both, folder, top=24))


def chapter(source: str) -> str:
    return source.partition('<section id="moved"')[2].partition("</section>")[0]


def part(source: str, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    return re.split(r"<h[2-4]", chapter(source).partition(f">{heading}</h")[2])[0]


def numbers(source: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", chapter(source)))


def figures(source: str) -> dict[str, str]:
    """Each mover of the chapter by its sample id."""
    found = re.findall(r"<figure><img.*?</figure>", chapter(source), re.S)
    return {Page(re.findall(r"<code>.*?</code>", figure, re.S)[0]).text: figure for figure in found}


def shown(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


# numbers


def test_the_chapter_stands_behind_the_findings_and_is_well_formed(told: Told) -> None:
    page = Page(told.source)
    assert page.wrong == []
    assert re.findall(r'<section id="([a-z]*)"', told.source)[:3] == ["look", "summary", "moved"]
    assert told.summary.bytes == len(told.source.encode())
    assert f"What moved against OLD: {told.summary.flips} of 19 predictions" in page.text


def test_the_same_runs_give_the_same_file(told: Told, tmp_path: Path) -> None:
    again = write(told.folder / "new", tmp_path / "again.html", against=told.folder / "old", top=24)
    assert again[1] == told.source


def test_a_report_without_an_older_run_has_no_chapter(sound_run: Path, tmp_path: Path) -> None:
    summary, source = write(sound_run, tmp_path / "r.html")
    assert summary.flips is None
    assert "OLD" not in Page(source).text


def test_flips_accuracy_and_confidence_are_those_of_a_loop(told: Told) -> None:
    old, new, source = told.old, told.new, told.source
    kinds: Counter[str] = Counter()
    for row in KEPT:
        label, *predictions = (int(c[row]) for c in (old.columns["label"], *_predictions(old, new)))
        if predictions[0] != predictions[1]:
            right = [label == p and label >= 0 for p in predictions]
            kinds["fixed" if right[1] else "broken" if right[0] else "changed otherwise"] += 1
    said = numbers(source)
    assert min(kinds.values()) > 0
    assert {name: int(said[name]) for name in ("fixed", "broken", "changed otherwise")} == kinds
    assert told.summary.flips == sum(kinds.values())
    assert said["samples compared"] == "19"
    low, high = binomtest(told.summary.flips, 19).proportion_ci(method="wilson")
    share = f"{100 * told.summary.flips / 19:.1f}% ({100 * low:.2f}–{100 * high:.2f})"
    assert said[f"flips: predictions of another class, {share}"] == str(told.summary.flips)
    labelled = [row for row in KEPT if row != UNLABELLED]
    shares = [sum(r.columns["prediction"][i] == r.columns["label"][i] for i in labelled) / 18 for r in (old, new)]
    means = [sum(float(r.columns["confidence"][i]) for i in KEPT) / 19 for r in (old, new)]
    rows = {row[0]: row[1:] for row in table_of(chapter(source), "Over all compared samples")[1:]}
    points = f"{100 * (shares[1] - shares[0]):+.2f} points".replace("-", "−")
    cells = rows["accuracy on 18 samples labelled in both"]
    assert [cell.partition(" (")[0] for cell in cells] == [*map(shown, shares), points]
    assert rows["mean confidence"][:2] == [*map(shown, means)]
    assert rows["mean confidence"][2] == f"{means[1] - means[0]:+.3f}".replace("-", "−")


def _predictions(old: Rows, new: Rows) -> tuple[np.ndarray, np.ndarray]:
    return old.columns["prediction"], new.columns["prediction"]


def _similarity(old: Rows, new: Rows, row: int) -> float:
    class_ = old.columns["prediction"][row]
    return plain_spearman(old.columns["cams"][row, class_], new.columns["cams"][row, class_])


def test_the_table_of_classes_counts_what_a_loop_counts(told: Told) -> None:
    old, new, source = told.old, told.new, told.source
    rows = {row[0]: row[1:] for row in table_of(chapter(source), "What moved by class")[1:]}
    before, after = _predictions(old, new)
    label = old.columns["label"]
    for class_, name in enumerate(CLASS_NAMES):
        mine = [i for i in KEPT if label[i] == class_]
        right = [[i for i in mine if p[i] == class_] for p in (before, after)]
        alike = [_similarity(old, new, i) for i in MEASURED if before[i] == class_]
        shares = [len(r) / len(mine) for r in right]
        counts = [cell.partition(" (")[0] for cell in rows[name]]
        assert counts[:6] == [
            str(len(mine)),
            *map(shown, shares),
            f"{100 * (shares[1] - shares[0]):+.1f}".replace("-", "−"),
            str(len(set(right[1]) - set(right[0]))),
            str(len(set(right[0]) - set(right[1]))),
        ]
        assert counts[6:9] == [
            str(sum(before[i] == class_ for i in KEPT)),
            str(sum(after[i] == class_ for i in KEPT)),
            str(sum(before[i] == class_ != after[i] for i in KEPT)),
        ]
        assert counts[10] == (shown(sum(alike) / len(alike)) if alike else "–")


def test_bars_of_similarity_count_the_pairs_of_maps_between_their_edges(told: Told) -> None:
    old, new, source = told.old, told.new, told.source
    before, after = _predictions(old, new)
    charts = re.findall(r"<svg.*?</svg>", part(source, "Similarity of maps"), re.S)
    assert len(charts) == 2
    for chart, flipped in zip(charts, (False, True), strict=True):
        alike = [_similarity(old, new, i) for i in MEASURED if (before[i] != after[i]) == flipped]
        bars = re.findall(r"<title>([^ ]*) to ([^ ]*): (\d+)</title>", chart.replace("−", "-"))
        assert sum(int(count) for *_, count in bars) == len(alike)
        for low, high, count in bars:
            inside = [v for v in alike if float(low) - 1e-3 <= v <= float(high) + 1e-3]
            assert len(inside) >= int(count)
    assert "18 of 19 samples have a pair of maps. Without: 1 constant in both." in Page(chapter(source)).text


def test_the_most_frequent_flips_come_first(told: Told) -> None:
    old, new, source = told.old, told.new, told.source
    before, after = _predictions(old, new)
    counts = Counter((CLASS_NAMES[before[i]], CLASS_NAMES[after[i]]) for i in KEPT if before[i] != after[i])
    rows = table_of(chapter(source), "The most frequent flips")[1:]
    found = [int(row[2]) for row in rows]
    assert found == sorted(counts.values(), reverse=True)[:10]
    assert all(counts[row[0], row[1]] == int(row[2]) for row in rows)


# samples that moved


@pytest.fixture
def pictured(sides: tuple[Side, Side], tmp_path: Path) -> tuple[Path, Path, Path, tuple[Side, Side]]:
    """An older and a newer run, the folder of their images, 48×80 pixels each of one grey, and their numbers."""
    data = tmp_path / "photos"
    for row, sample_id in enumerate(sides[0][1].texts["sample_id"]):
        path = data / sample_id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.full((48, 80, 3), 90 + 2 * row, np.uint8))[1].tobytes())
        for _, rows in sides:
            if row != UNREADABLE:
                digest = hashlib.sha256(path.read_bytes()).digest()
                rows.columns["input_sha256"][row] = np.frombuffer(digest, np.uint8)
    return *write_both(sides, tmp_path), data, sides


def tiles(figure: str, count: int) -> list[np.ndarray]:
    """The pictures that stand side by side in a figure."""
    picture = decoded(re.findall(r"base64,([^\"]*)", figure)[0])
    assert picture.shape[1] == count * 200 + (count - 1) * 4
    return [picture[:, 204 * i : 204 * i + 200] for i in range(count)]


def test_both_maps_of_one_class_stand_beside_the_original(
    pictured: tuple[Path, Path, Path, tuple[Side, Side]], tmp_path: Path
) -> None:
    old, new, data, sides = pictured
    summary, source = write(new, tmp_path / "r.html", against=old, data=str(data))
    assert summary.without_image == 0
    found = figures(source)
    assert len(found) > 5
    for sample_id, figure in found.items():
        row = sides[0][1].texts["sample_id"].index(sample_id)
        class_ = sides[0][1].columns["prediction"][row]
        original, *overlays = tiles(figure, 3)
        assert np.abs(original[10:-10, 10:-10] - (90 + 2 * row)).max() < 12
        if row == CONSTANT:
            assert "OLD: no map NEW: no map" in Page(figure).text
            continue
        for overlay, (_, rows) in zip(overlays, sides, strict=True):
            cam = rows.columns["cams"][row, class_]
            greens = [
                overlay[int((y + 0.5) * overlay.shape[0] / 3), int((x + 0.5) * overlay.shape[1] / 5), 1]
                for y, x in (np.unravel_index(int(cell), cam.shape) for cell in (cam.argmin(), cam.argmax()))
            ]
            # viridis goes from dark violet to yellow: green rises throughout
            assert greens[1] > greens[0] + 20


def test_a_caption_says_what_both_runs_predict_and_how_alike_their_maps_are(told: Told) -> None:
    old, new, source = told.old, told.new, told.source
    found = figures(source)
    for sample_id, figure in found.items():
        row, text = old.texts["sample_id"].index(sample_id), Page(figure).text
        for side, rows in (("OLD", old), ("NEW", new)):
            name, confidence = CLASS_NAMES[rows.columns["prediction"][row]], rows.columns["confidence"][row]
            assert f"{side} {name} , {confidence:.3f}" in text
        if row == CONSTANT:
            assert "not compared, constant in both" in text
        else:
            assert f"similarity {shown(_similarity(old, new, row))}" in text
    least = min(MEASURED, key=lambda i: _similarity(old, new, i))
    assert old.texts["sample_id"][least] in found


def test_broken_predictions_come_first_the_most_confident_mistake_at_the_top(tmp_path: Path) -> None:
    plan, old = make_rows(1)
    for row in range(COUNT):
        if row not in SPECIAL:
            predict(old, row, row % 5, 0.9)
    new = copy.deepcopy(old)
    for row, confidence in ((0, 0.6), (1, 0.8), (5, 0.7)):
        predict(new, row, (row + 1) % 5, confidence)
    predict(new, 11, 1, 0.5)  # same class, less sure of it
    both = ((plan, old), (dataclasses.replace(plan, checkpoint_sha256="e" * 64), new))
    _, source = reported(both, tmp_path, top=2)
    order = [sample_id[-9:-4] for sample_id in figures(source)]
    assert order == ["00001", "00005", "00011", "00000"]
    assert "2 of 3 shown" in Page(part(source, "Predictions that broke")).text
    assert [sample_id[-9:-4] for sample_id in re.findall(r"фото \d{5}\.png", part(source, "Confidence that was lost"))]


def test_a_map_that_one_run_does_not_store_leaves_its_place_empty(tmp_path: Path) -> None:
    old, new = make_rows(1), make_rows(2, cams="predicted")
    _, source = reported((old, new), tmp_path)
    flipped = [
        figure for sample_id, figure in figures(source).items()
        if len({r.columns["prediction"][old[1].texts["sample_id"].index(sample_id)] for _, r in (old, new)}) == 2
    ]  # fmt: skip
    assert flipped
    for figure in flipped:
        assert "NEW: no map" in Page(figure).text
        assert np.ptp(tiles(figure, 2)[1][:, 4:].reshape(-1, 3), 0).max() < 12


def test_without_images_both_maps_stand_over_grey_and_that_is_said(told: Told) -> None:
    summary = told.summary
    assert summary.without_image == summary.pictures
    assert summary.changed == 0
    for figure in figures(told.source).values():
        assert "maps alone over grey: the image is not at hand" in Page(figure).text
        tiles(figure, 2)
    said = f"{summary.pictures} of the {summary.pictures} samples shown: the image is not at hand"
    assert said in Page(told.source).text


def test_a_changed_image_of_a_mover_is_a_finding_counted_once(
    pictured: tuple[Path, Path, Path, tuple[Side, Side]], tmp_path: Path
) -> None:
    old, new, data, _ = pictured
    before, source = write(new, tmp_path / "a.html", against=old, data=str(data))
    sample_id = next(iter(figures(source)))
    (data / sample_id).write_bytes(b"another image")
    after, source = write(new, tmp_path / "b.html", against=old, data=str(data))
    assert (after.changed, after.findings) == (1, before.findings + 1)
    assert "maps alone over grey: not the image that was explained" in Page(figures(source)[sample_id]).text


def test_no_samples_are_drawn_where_none_are_asked_for(sides: tuple[Side, Side], tmp_path: Path) -> None:
    summary, source = reported(sides, tmp_path, top=0)
    assert summary.pictures == 0
    assert figures(source) == {}
    assert Page(source).wrong == []


# which samples, which runs


def test_samples_that_are_not_compared_are_listed_by_reason(tmp_path: Path) -> None:
    old = make_rows(1)
    new = make_rows(2, [*old[1].texts["sample_id"][:19], "neu 1.png", "neu 2.png"])
    new[1].columns["input_sha256"][[0, 2, 19, 20], 0] ^= 1
    _, source = reported((old, new), tmp_path)
    counts = {row[0]: int(row[1]) for row in table_of(chapter(source), "By reason")[1:]}
    expected = {
        "added": ["neu 1.png", "neu 2.png"],
        "removed": old[1].texts["sample_id"][19:],
        "changed input": [old[1].texts["sample_id"][row] for row in (0, 2)],
        "unreadable in both": [old[1].texts["sample_id"][UNREADABLE]],
        "not finite in both": [old[1].texts["sample_id"][NON_FINITE]],
    }
    assert counts == {reason: len(ids) for reason, ids in expected.items()}
    lists = re.findall(r"<details><summary>\d+ ([a-z ]*)</summary>(.*?)</details>", chapter(source), re.S)
    assert {reason: [Page(i).text for i in re.findall(r"<li>.*?</li>", ids)] for reason, ids in lists} == expected
    assert not set(figures(source)) & {i for ids in expected.values() for i in ids}


def test_a_sample_that_moved_is_shown_with_both_ids(tmp_path: Path) -> None:
    old = make_rows(1)
    new = make_rows(2, [f"neu/{row}.png" for row in range(COUNT)])
    source = reported((old, new), tmp_path)[1]
    shown = [Page(figure).text for figure in figures(source).values()]
    both = zip(old[1].texts["sample_id"], new[1].texts["sample_id"], strict=True)
    told = [f"{before} , in NEW {after}" for before, after in both]
    assert shown
    assert all(any(pair in figure for pair in told) for figure in shown)


def test_gates_stand_in_a_table_and_one_that_stops_is_a_finding(tmp_path: Path) -> None:
    both = make_rows(1), make_rows(2)
    plain, _ = reported(both, tmp_path)
    asked = {"max_flips": 10.0, "max_accuracy_drop": 100.0, "min_compared": 50.0}
    summary, source = reported(both, tmp_path, **asked, overwrite=True)
    gates = compare(CompareConfig(tmp_path / "old", tmp_path / "new", quiet=True, **asked)).gates
    assert summary.gates == gates
    rows = table_of(chapter(source), "What each gate says")
    assert rows == [["gate", "verdict", "found"], *(list(gate.parts) for gate in sorted(gates, key=lambda g: g.passed))]
    assert [row[1] for row in rows[1:]][:2] == ["exceeded", "passed"]
    assert "Gates: STOPPED by --max-flips." in Page(chapter(source)).text
    assert summary.findings == plain.findings + 1
    assert Page(source).wrong == []


def test_the_chapter_tells_intervals_and_what_retraining_moves_as_compare_does(tmp_path: Path) -> None:
    noise = tuple(write_run(tmp_path / f"seed {seed}", *make_rows(seed)) for seed in (3, 4))
    asked = {"noise": noise, "max_flips": 90.0, "min_compared": 0.0}
    summary, source = reported((make_rows(1), make_rows(2)), tmp_path, **asked)
    told = compare(CompareConfig(tmp_path / "old", tmp_path / "new", quiet=True, **asked))
    page = Page(chapter(source))
    lines = [*noise_lines(told.noise)]
    assert lines
    assert all(line in page.text for line in lines)
    ends = {name: sorted(100 * end for end in told.intervals[name]) for name in ("spearman", "accuracy_drop")}
    low, high = (shown(end / 100) for end in ends["spearman"])
    assert f"({low} to {high})" in numbers(source)["mean similarity of maps"]
    low, high = (f"{-end / 100:+.2f}".replace("-", "−") for end in reversed(ends["accuracy_drop"]))
    assert f"points ({low} to {high})" in page.text
    assert told.gates[0].verdict == "undecided"
    assert told.gates[0].reason in report_text(summary)


def test_a_gate_without_an_older_run_is_refused_and_groups_are_not(tmp_path: Path) -> None:
    for asked in ({"max_flips": 1.0}, {"rename": ("a=b",)}, {"decide": "proven-within"}):
        with pytest.raises(ConfigError, match=f"^--{next(iter(asked)).replace('_', '-')} needs --against$"):
            ReportConfig(tmp_path / "run", out=tmp_path / "r.html", **asked)
    ReportConfig(tmp_path / "run", out=tmp_path / "r.html", group_by=("site",))


def test_gates_of_variables_are_for_other_commands_where_there_is_no_older_run(
    sides: tuple[Side, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = write_both(sides, tmp_path)
    monkeypatch.setenv("BATCHCAM_MAX_FLIPS", "1")
    words = ("report", new, "--quiet", "--overwrite", "--out", tmp_path / "r.html")
    assert "--max-flips" not in run_command(*words)[1]
    monkeypatch.setenv("BATCHCAM_CONFIDENCE", "80")
    assert json.loads(run_command(*words, "--json")[1].splitlines()[-1])["level"] == 0.8
    assert "--max-flips 1: exceeded" in run_command(*words, "--against", old)[1]
    assert run_command(*words, "--max-flips", 1)[0] == 2


def test_a_gate_judges_runs_of_other_classes_only_where_compare_would(sides: tuple[Side, Side], tmp_path: Path) -> None:
    old, (plan, rows) = sides
    renamed = dataclasses.replace(plan, class_names=(*CLASS_NAMES[:4], "lynx")), rows
    with pytest.raises(ConfigError, match="classes differ: 1 class only in OLD"):
        reported((old, renamed), tmp_path, max_flips=100.0, min_compared=0.0)
    asked = {"rename": (f"{CLASS_NAMES[4]}=lynx",), "max_flips": 100.0, "min_compared": 0.0}
    told, source = reported((old, renamed), tmp_path, **asked, overwrite=True)
    assert [gate.passed for gate in told.gates] == [True]
    assert "Gates: passed." in Page(chapter(source)).text


def test_what_differs_between_the_runs_is_marked(tmp_path: Path) -> None:
    old, new = make_rows(1), make_rows(2, target_layer="layer3", preprocessing={"resize": [64, 80]})
    _, source = reported((old, new), tmp_path)
    rows = {row[0]: row[1:] for row in table_of(chapter(source), "What both runs are")[1:]}
    assert rows["Checkpoint SHA-256"] == ["differs", f"{1:064x}", f"{2:064x}"]
    assert rows["Network"] == ["differs", "resnet18 , layer4", "resnet18 , layer3"]
    assert rows["Preprocessing"] == ["differs", "mean [0.5, 0.5, 0.5], resize [48, 80]", "resize [64, 80]"]
    assert {name for name, row in rows.items() if row[0] == ""} >= {"Precision", "Dataset fingerprint", "Identity"}
    assert (
        "the runs differ in target layer layer4 → layer3, preprocessing mean [0.5, 0.5, 0.5] → none, preprocessing "
        "resize [48, 80] → [64, 80]"
    ) in Page(chapter(source)).text


def test_a_run_against_itself_says_that_nothing_moved(sound_run: Path, tmp_path: Path) -> None:
    summary, source = write(sound_run, tmp_path / "r.html", against=sound_run)
    text = Page(source).text
    assert summary.flips == 0
    assert "Nothing moved: over the 19 compared samples" in text
    nothing = "What moved against OLD: nothing, over 19 compared samples; not compared: 1 unreadable in both"
    assert nothing in text
    assert "both are the same run" in text
    assert figures(source) == {}
    assert Page(source).wrong == []


def test_what_is_not_compared_stands_beside_nothing_moved(tmp_path: Path) -> None:
    plan, old = make_rows(1)
    new = copy.deepcopy(old)
    for row in (1, 2):
        new.columns["input_sha256"][row, 0] ^= 1
    for row in (4, 5, 7, 8, 10, 11):
        new.texts["sample_id"][row] = f"new {row}"
        new.columns["input_sha256"][row, 0] ^= 1
    _, source = reported(((plan, old), (dataclasses.replace(plan, checkpoint_sha256="e" * 64), new)), tmp_path)
    text = Page(source).text
    assert (
        "What moved against OLD: nothing, over 11 compared samples; not compared: 6 added; 6 removed; 2 changed" in text
    )


def test_runs_of_which_no_sample_can_be_compared_do_not_say_that_nothing_moved(
    sides: tuple[Side, Side], tmp_path: Path
) -> None:
    sides[1][1].columns["input_sha256"][:, 31] ^= 1
    summary, source = reported(sides, tmp_path)
    text = Page(source).text
    assert summary.flips == 0
    assert "No sample can be compared" in text
    assert "othing moved" not in text
    assert Page(source).wrong == []


def test_classes_whose_names_were_swapped_are_told(tmp_path: Path) -> None:
    plan, old = make_rows(1)
    new = permute_classes(old, [1, 0, 2, 3, 4])
    new.columns["label"] = old.columns["label"]
    both = ((plan, old), (dataclasses.replace(plan, checkpoint_sha256="e" * 64), new))
    assert "ant and Käfer look swapped" in Page(chapter(reported(both, tmp_path)[1])).text


def test_a_change_of_one_logit_alone_is_not_nothing(tmp_path: Path) -> None:
    plan, old = make_rows(1)
    new = copy.deepcopy(old)
    new.columns["logits"][0, old.columns["prediction"][0]] += 1e-3
    both = ((plan, old), (dataclasses.replace(plan, checkpoint_sha256="e" * 64), new))
    assert "Nothing moved" not in Page(reported(both, tmp_path)[1]).text


def test_classes_are_matched_by_name(sides: tuple[Side, Side], tmp_path: Path) -> None:
    old, (plan, rows) = sides
    order = [3, 0, 4, 2, 1]
    renumbered = (
        dataclasses.replace(plan, class_names=tuple(CLASS_NAMES[k] for k in order)),
        permute_classes(rows, order),
    )
    straight = reported(sides, tmp_path / "a")[1]
    crossed = reported((old, renumbered), tmp_path / "b")[1]
    for caption in ("What moved by class", "Over all compared samples", "The most frequent flips"):
        assert table_of(chapter(straight), caption) == table_of(chapter(crossed), caption)
    assert [Page(f).text for f in figures(straight).values()] == [Page(f).text for f in figures(crossed).values()]


def test_classes_that_one_run_alone_has_are_named(sides: tuple[Side, Side], tmp_path: Path) -> None:
    old, (plan, rows) = sides
    for row in (0, 4, 5):
        predict(rows, row, 4, 0.9)
    renamed = dataclasses.replace(plan, class_names=(*CLASS_NAMES[:4], "lynx"))
    text = Page(reported((old, (renamed, rows)), tmp_path)[1]).text
    assert "Only OLD has zèbre 🦓 ." in text
    assert "Only NEW has lynx ." in text


def test_runs_without_a_class_or_a_sample_in_common_are_refused_in_one_line(
    sides: tuple[Side, Side], tmp_path: Path
) -> None:
    old, new = write_both(sides, tmp_path)
    plan, rows = make_rows(3)
    others = write_run(tmp_path / "others", dataclasses.replace(plan, class_names=tuple("abcde")), rows)
    with pytest.raises(ConfigError, match=r"^no class is in both runs: [^\n]*$"):
        write(new, tmp_path / "r.html", against=others)
    plan, rows = make_rows(3, [f"{i}.png" for i in range(COUNT)])
    rows.columns["input_sha256"][:, 0] ^= 255
    strangers = write_run(tmp_path / "strangers", plan, rows)
    with pytest.raises(RunError, match=r"^[^\n]*no sample id is in both[^\n]*$"):
        write(old, tmp_path / "r.html", against=strangers)
    assert not (tmp_path / "r.html").exists()


def test_an_older_run_that_is_damaged_or_none_is_refused_in_one_line(sides: tuple[Side, Side], tmp_path: Path) -> None:
    old, new = write_both(sides, tmp_path)
    shard = old / "shards" / "shard-00001.h5"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(RunError, match=r"^[^\n]*shard-00001\.h5[^\n]*$"):
        write(new, tmp_path / "r.html", against=old)
    edit_document(old / "run.json", sample_count=-1)
    for none in (old, old / "shards", tmp_path / "nowhere"):
        with pytest.raises(RunError, match=r"^[^\n]*$"):
            write(new, tmp_path / "r.html", against=none)
    assert not (tmp_path / "r.html").exists()


def test_a_report_never_goes_into_the_older_run(sound_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lies in the run"):
        ReportConfig(tmp_path / "new", sound_run / "r.html", against=sound_run)


def test_an_older_run_that_is_not_complete_is_compared_as_far_as_it_goes(
    sides: tuple[Side, Side], tmp_path: Path
) -> None:
    land_shards(tmp_path / "part", *sides[0], skip=(1,))
    new = write_run(tmp_path / "new", *sides[1])
    _, source = write(new, tmp_path / "r.html", against=tmp_path / "part")
    assert "OLD is not complete: 2 of 3 shards" in Page(source).text
    assert ["added", "8"] in table_of(chapter(source), "By reason")
    assert Page(source).wrong == []


def test_a_single_shard_has_a_report_that_says_what_it_is_of(sides: tuple[Side, Side], tmp_path: Path) -> None:
    old, new = write_both(sides, tmp_path)
    shard = new / "shards" / "shard-00001.h5"
    summary, source = write(shard, tmp_path / "r.html", against=old)
    text = Page(source).text
    assert (summary.complete, summary.samples) == (False, 8)
    assert text.index("A single shard: 8 of 21 samples, from position 8 on") < text.index("Summary What moved")
    assert ["removed", "13"] in table_of(chapter(source), "By reason")
    assert Page(source).wrong == []
    with pytest.raises(ConfigError, match="lies in the run"):
        ReportConfig(shard, new / "shards" / "r.html")


@pytest.mark.parametrize("changes", [{"grid_size": (4, 4), "maps": "none"}, {"cams": "topk:2", "identity": False}])
def test_runs_of_another_kind_are_compared(tmp_path: Path, changes: dict[str, object]) -> None:
    summary, source = reported((make_rows(1), make_rows(2, **changes)), tmp_path)
    assert summary.pictures > 10
    assert Page(source).wrong == []


def test_runs_without_labels_are_compared(sides: tuple[Side, Side], tmp_path: Path) -> None:
    for _, rows in sides:
        rows.columns["label"][:] = -1
    summary, source = reported(sides, tmp_path)
    said = numbers(source)
    assert int(said["changed otherwise"]) == summary.flips
    assert Page(source).wrong == []


# hostile text


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[Path, Path]:
    """An older and a newer run whose ids, classes, layers and files try to get out."""
    names = ("<b>bold</b>", "\u202eevil", "a\x1b[31m", '"quoted" onclick="x"', "</table></section><h1>")
    ids = [*HOSTILE_IDS, *(f"{i}.png" for i in range(len(HOSTILE_IDS), COUNT))]
    old = make_rows(1, [*ids[:-1], "<script>alert('old')</script>"], class_names=names, target_layer="<b>layer</b>")
    new = make_rows(2, [*ids[:-1], "<script>alert('new')</script>"], class_names=(*names[:-1], "<i>other</i>"))
    return write_run(tmp_path / "<b>old</b>", *old), write_run(tmp_path / "new", *new)


def test_hostile_names_of_either_run_stay_text(hostile: tuple[Path, Path], tmp_path: Path) -> None:
    _, source = write(hostile[1], tmp_path / "r.html", against=hostile[0], data=str(tmp_path))
    page = Page(source)
    assert page.wrong == []
    assert page.elements["h1"] == 1
    assert page.elements["script"] == page.elements["b"] == page.elements["i"] == 0
    assert {c for c in source if not c.isprintable()} == {"\n"}
    for text in ("<script>alert('old')</script>", "<script>alert('new')</script>", "Only NEW has <i>other</i>"):
        assert text in page.text
    assert "root:" not in source


@needs_chromium
def test_a_browser_shows_both_maps_and_complains_of_nothing(hostile: tuple[Path, Path], tmp_path: Path) -> None:
    _, source = write(hostile[1], tmp_path / "r.html", against=hostile[0], data=str(tmp_path))
    assert console(browse(tmp_path / "r.html", "--dump-dom")) == []
    found = probe(source, tmp_path, width=500)
    assert found["images"] == Page(source).elements["img"] > 20
    assert (found["broken"], max(found["overflow"], 0)) == (0, 0)


# size


@pytest.mark.slow
def test_two_runs_of_ten_thousand_samples_take_seconds_and_a_file_that_mail_carries(tmp_path: Path) -> None:
    names = tuple(f"class {i}" for i in range(100))
    digests = np.random.default_rng(0).integers(0, 256, (10_000, 32), dtype=np.uint8)
    for seed, name in enumerate(("old", "new")):
        plan = synthetic_plan(
            class_names=names, channels=100, sample_count=10_000, shard_size=10_000, maps="none",
            checkpoint_sha256=f"{seed:064x}",
        )  # fmt: skip
        rows = synthetic_rows(plan, seed)
        rows.columns["input_sha256"] = digests
        write_run(tmp_path / name, plan, rows)
    start = time.monotonic()
    summary, source = write(tmp_path / "new", tmp_path / "r.html", against=tmp_path / "old")
    assert time.monotonic() - start < 20
    assert summary.bytes < 15e6
    assert numbers(source)["samples compared"] == "9,998"
    assert Page(source).wrong == []
