"""Groups of samples in evaluate, info and render: against plain counts over the manifest."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import sem, t
from statsmodels.stats.proportion import proportion_confint

from batchcam import open_run
from batchcam.commands.compare.compare import compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.gates import judge_gates
from batchcam.commands.compare.groups import GroupMovement
from batchcam.commands.compare.values import Moved
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.config.gates import Gates
from batchcam.config.shared import Classifier, Compute
from tests.helpers.networks import GapNetwork, seeded
from tests.helpers.outputs import run_json

CLASSES = ("ant", "bee", "cat")
SITES = ("north", "south")
COUNT = 48


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A run of a manifest that says the site of each image, the manifest, and what names network and classes."""
    folder = tmp_path_factory.mktemp("groups")
    rows = ["path,label,site,age"]
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        rows.append(f"{number:02d}.png,{CLASSES[number % 3]},{SITES[number % 2]},{'young' if number < 8 else ''}")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    (folder / "00.png").write_bytes(b"no image")
    torch.save(seeded(GapNetwork).state_dict(), folder / "model.pth")
    (folder / "names.txt").write_text("\n".join(CLASSES))
    told = {"model": "tests.helpers.networks:GapNetwork", "preprocess": "stl10", "image_size": "16"}
    classifier = Classifier(folder / "model.pth", class_names=folder / "names.txt", **told)
    torch.save(seeded(GapNetwork, 6).state_dict(), folder / "newer.pth")
    newer = Classifier(folder / "newer.pth", class_names=folder / "names.txt", **told)
    compute = Compute(batch_size=8, workers=0, threads=1, device="cpu")
    for each, run in ((classifier, "run"), (newer, "newer")):
        explain(ExplainConfig(each, str(folder / "list.csv"), folder / run, compute=compute, quiet=True))
    words = [word for name, value in told.items() for word in (f"--{name.replace('_', '-')}", value)]
    words += ["--class-names", str(folder / "names.txt"), "-j", "0", "--threads", "1", "--device", "cpu"]
    return folder / "run", folder / "list.csv", words


def counted(run: Path, column: str) -> dict[str, tuple[int, int, int]]:
    """Return samples, labelled and correct ones of each value, counted one by one."""
    found: dict[str, tuple[int, int, int]] = {}
    with open_run(run) as opened:
        for sample in opened:
            samples, labelled, correct = found.get(sample.meta[column], (0, 0, 0))
            judged = sample.prediction is not None
            right = judged and sample.prediction == sample.label
            found[sample.meta[column]] = (samples + 1, labelled + judged, correct + right)
    return found


@pytest.mark.parametrize("column", ["site", "age"])
def test_info_and_evaluate_count_each_group(made: tuple[Path, Path, list[str]], column: str) -> None:
    run, data, words = made
    about = run_json("info", run, "--group-by", column)
    judged = run_json("evaluate", run.parent / "model.pth", data, *words, "--group-by", column)
    assert (about.code, judged.code) == (0, 3)
    for told in (about.said, judged.said):
        assert told["group_by"] == [column]
        found = {g["group"][0]: (g["samples"], g["labelled"], g["correct"]) for g in told["groups"]}
        assert found == counted(run, column)


def test_two_columns_make_a_group_of_each_pair_and_the_table_says_which_are_too_few(made, run_cli) -> None:
    code, out, _ = run_cli("info", made[0], "--group-by", "site", "--group-by", "age")
    table = out[out.index("site, age") :].splitlines()
    assert code == 0
    assert [line.split("  ")[0] for line in table[1:5] if "too few" in line] == ["north, young", "south, young"]
    assert sum(line.startswith(("north, (empty)", "south, (empty)")) for line in table) == 2
    assert table[-1].endswith("by Holm for 2 groups")


def test_report_tells_where_the_evidence_of_each_group_sits(made, run_cli, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run_cli("report", made[0], "--group-by", "site", "--out", page)[0] == 3  # an image can't be read
    with open_run(made[0]) as run:
        shares = {site: [] for site in SITES}
        for sample in run:
            positive = np.maximum(run.cam(sample.row).astype(float), 0) if sample.prediction else np.zeros((1, 1))
            if positive.sum() > 0:
                shares[sample.meta["site"]].append(1 - positive[1:-1, 1:-1].sum() / positive.sum())
    section = page.read_text("utf-8").split('id="groups"')[1].split("</section>")[0]
    for site, (samples, labelled, correct) in counted(made[0], "site").items():
        cells = re.findall("<td[^>]*>([^<]*)(?:<small>.*?)?</td>", section.split(f">{site}<")[1].split("</tr>")[0])
        assert cells[0] == f"{correct / labelled:.3f}"
        assert cells[1:3] == [str(labelled), str(samples)]
        assert cells[5] == f"{np.mean(shares[site]):.3f}"
    run_cli("report", made[0], "--out", page, "--overwrite")
    assert 'id="groups"' not in page.read_text("utf-8")


def test_no_rate_stands_without_its_interval(made, run_cli, tmp_path: Path) -> None:
    out = run_cli("info", made[0], "--group-by", "site")[1]
    told = [line for line in out.splitlines() if re.match("samples |class |site |ant |bee |cat |north |south ", line)]
    rates = re.findall(r"\b[01]\.\d{3}\b(.{0,2})", "\n".join(told))
    assert len(rates) == 6
    assert set(rates) == {" ("}
    assert out.count("in brackets: 95% intervals, of rates by Wilson") == 2
    page = tmp_path / "page.html"
    run_cli("report", made[0], "--group-by", "site", "--out", page)
    cells = re.findall(r"<(?:td|dd)>([01]\.\d{3})(.*?)</(?:td|dd)>", page.read_text("utf-8"))
    assert len(cells) > 15
    assert all("<small>" in rest for _, rest in cells)
    assert 'id="intervals"' in page.read_text("utf-8")


@pytest.mark.parametrize("confidence", [80, 99])
def test_intervals_are_as_sure_as_was_asked(made, confidence: float, tmp_path: Path) -> None:
    info = run_json("info", made[0], "--group-by", "site", "--confidence", confidence).said
    report = run_json("report", made[0], "--confidence", confidence, "--out", tmp_path / "page.html").said
    totals = info["totals"]
    rates = [(totals["correct"], totals["labelled"], each["intervals"]["accuracy"]) for each in (info, report)]
    rates += [(each["correct"], each["labelled"], each["intervals"]["accuracy"]) for each in info["classes"]]
    rates += [(each["correct"], each["labelled"], each["interval"]) for each in info["groups"]]
    for part, whole, ends in rates:
        assert ends == pytest.approx(proportion_confint(part, whole, 1 - confidence / 100, "wilson"), abs=1e-12)
    assert info["level"] == report["level"] == confidence / 100
    assert info["needed"] == report["needed"] > totals["labelled"]
    with open_run(made[0]) as run:
        for group in info["groups"]:
            said = [s.confidence for s in run if s.meta["site"] == group["group"][0] and np.isfinite(s.confidence)]
            expected = t.interval(confidence / 100, len(said) - 1, np.mean(said), sem(said))
            assert group["intervals"]["confidence"] == pytest.approx(expected, rel=1e-4)


def test_only_samples_with_the_value_are_drawn(made, run_cli, tmp_path: Path) -> None:
    run = made[0]
    out = tmp_path / "pictures"
    assert run_cli("render", run, "--out", out, "--where", "site=north", "--where", "age=young")[0] == 0
    with open_run(run) as opened:
        wanted = {sample.index for sample in opened if sample.meta == {"site": "north", "age": "young"}}
    assert {int(path.name[:7]) for path in out.iterdir()} == wanted
    assert len(wanted) == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("info", "--group-by", "hospital"), "no column 'hospital'; it has age, site"),
        (("render", "--out", "pictures", "--where", "hospital=b"), "--where hospital=b: no column 'hospital'; it has"),
        (("render", "--out", "pictures", "--where", "site"), "--where site: say COLUMN=VALUE, such as site=b"),
    ],
)
def test_a_column_that_is_not_there_is_refused_by_name(made, run_cli, tmp_path, monkeypatch, words, told) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run_cli(words[0], made[0], *words[1:])
    assert code == 2
    assert told in err


def test_compare_tells_what_moved_in_each_group_and_its_gate_judges_the_worst(made, run_cli) -> None:
    old, new = made[0], made[0].with_name("newer")
    words = ("--group-by", "site", "--max-group-drop", 100)
    said = run_json("compare", old, new, *words).said
    with open_run(old) as first, open_run(new) as second:
        pairs = [(a, b) for a, b in zip(first, second, strict=True) if a.prediction and b.prediction]
    for group in said["groups"]:
        some = [(a, b) for a, b in pairs if a.meta["site"] == group["group"][0]]
        right = [sum(each[side].prediction == each[side].label for each in some) for side in (0, 1)]
        flips = sum(a.prediction != b.prediction for a, b in some)
        assert (group["compared"], group["labelled"], group["flips"]) == (len(some), len(some), flips)
        assert (group["old_correct"], group["new_correct"]) == tuple(right)
        assert group["accuracy_drop"] == pytest.approx(100 * (right[0] - right[1]) / len(some))
    drops = [group["accuracy_drop"] for group in said["groups"]]
    assert drops == sorted(drops, reverse=True)
    (gate,) = (gate for gate in said["gates"] if gate["option"] == "--max-group-drop")
    assert gate["value"] == max(drops)
    codes = [run_json("compare", *runs, *words[:3], 0).code for runs in ((old, new), (new, old))]
    assert codes == [3 if max(drops) > 0 else 0, 3 if min(drops) < 0 else 0]
    assert 3 in codes
    code, out, _ = run_cli("compare", old, new, "--group-by", "age", "--max-group-drop", 100)
    assert code == 0
    assert "not judged: 1 with fewer than 20 labelled samples" in out
    assert [line.endswith("too few to judge") for line in out.splitlines() if line.startswith("young ")] == [True]


def test_a_gate_of_groups_needs_groups_and_enough_labels(made, run_cli) -> None:
    old, new = made[0], made[0].with_name("newer")
    code, _, err = run_cli("compare", old, new, "--max-group-drop", 5)
    assert (code, "--max-group-drop: of which groups? say --group-by COLUMN" in err) == (2, True)
    code, _, err = run_cli("compare", old, new, "--group-by", "hospital")
    assert (code, "newer: no column 'hospital'; it has age, site" in err) == (2, True)
    few = GroupMovement(("north",), 19, 0, None, 19, 19, 0, 0, 100.0, None)
    totals = compare(CompareConfig(old, new, quiet=True)).totals
    moved = Moved(totals, [], [few], samples=19, labelled=19, apart={})
    (gate,) = judge_gates(moved, Gates(max_group_drop=100, group_by=("site",), min_compared=0))
    assert (gate.passed, gate.value) == (False, None)
    assert "no sample is of a group with 20 samples labelled in both" in gate.reason


def test_compare_tells_whose_groups_they_are_where_the_runs_say_otherwise(made, run_cli) -> None:
    run, data, words = made
    lines = data.read_text().splitlines()
    moved, renamed = lines.copy(), lines.copy()
    moved[9] = moved[9].replace("north", "south")  # a sample of the north
    renamed[0] = renamed[0].replace("site", "hospital/ward")
    for name, content in (("moved", moved), ("renamed", renamed)):
        (data.parent / f"{name}.csv").write_text("\n".join(content) + "\n")
        out = data.parent / f"{name}-run"
        code = run_cli("explain", data.parent / "model.pth", data.parent / f"{name}.csv", "--out", out, *words)[0]
        assert code == 3  # an image can't be read
    told = run_cli("compare", run, data.parent / "moved-run", "--group-by", "site")[1]
    assert "groups are NEW's: of 1 compared sample OLD says another site" in told
    told = run_cli("compare", run, data.parent / "renamed-run", "--group-by", "site")[1]
    assert "groups by site are OLD's: NEW has no such column" in told
    told = run_cli("info", data.parent / "renamed-run", "--group-by", "hospital/ward")[1]
    assert "hospital/ward  accuracy" in told
    assert "note" not in run_cli("compare", run, run.with_name("newer"), "--group-by", "site")[1].split("gate")[0]
