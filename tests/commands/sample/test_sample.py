"""A draw as people get it: a table, a page of pictures in its order, and a document; the same bytes again."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from batchcam.store.opening import open_run
from tests.helpers.export_runs import write_run
from tests.helpers.wellformed import Page

Cli = Callable[..., tuple[int, str, str]]


def lines(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "verdicts.csv").read_text("utf-8-sig"), newline="")))


@pytest.fixture(name="pictured", scope="module")
def _pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("pictured"))[0]


def test_a_draw_is_a_table_a_page_in_its_order_and_a_document(pictured: Path, run_cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "review"
    words = ("sample", pictured, "--n", 6, "--stratify", "status", "--data", pictured.parent / "data", "--out", out)
    code, told, _ = run_cli(*words, "--json")
    summary = json.loads(told.splitlines()[-1])
    assert (code, summary["drawn"], summary["size"], summary["changed"]) == (0, 6, 21, 0)
    assert sorted(path.name for path in out.iterdir()) == ["draw.json", "sheet.html", "verdicts.csv"]
    table, page = lines(out), Page((out / "sheet.html").read_text())
    assert page.wrong == []
    shown = re.findall(r"line (\d+) (\S+) predicted", page.text)
    assert shown == [(str(line), row["sample_id"]) for line, row in enumerate(table, 2)]
    assert page.elements["img"] >= 5
    with open_run(pictured) as run:
        for row in table:
            sample = run.sample(row["sample_id"])
            assert (row["run_id"], row["input_sha256"]) == (run.plan.run_id, sample.input_sha256)
            assert (row["prediction"], row["label"]) == (sample.prediction or "", sample.label or "")
            assert (row["verdict"], row["reviewer"], row["comment"]) == ("", "", "")
    assert json.loads((out / "draw.json").read_text())["stratify"] == "status"


def test_a_draw_again_is_the_same_bytes_and_keeps_what_people_wrote(
    pictured: Path, run_cli: Cli, tmp_path: Path
) -> None:
    out, words = tmp_path / "review", ("sample", pictured, "--n", 5, "--out", tmp_path / "review", "-q")
    assert run_cli(*words)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run_cli(*words)[0] == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert run_cli(*words, "--verdicts", "yes,no")[0] == 2  # of which the table tells nothing
    judged = before["verdicts.csv"].replace(b",,,\n", b",unclear,ann,\n")
    (out / "verdicts.csv").write_bytes(judged)
    code, _, error = run_cli(*words)
    assert (code, (out / "verdicts.csv").read_bytes()) == (2, judged)
    assert "verdicts.csv is of another draw, or holds verdicts; choose another --out, or say --overwrite" in error
    assert run_cli(*words, "--overwrite")[0] == 0
    assert (out / "verdicts.csv").read_bytes() == before["verdicts.csv"]


def test_a_folder_with_something_else_is_left_alone(pictured: Path, run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "sheet.html").write_text("mine")
    code, _, error = run_cli("sample", pictured, "--out", tmp_path)
    assert (code, (tmp_path / "sheet.html").read_text()) == (2, "mine")
    assert "holds sheet.html of something else than draw.json" in error


def test_a_pool_is_drawn_from_alone_and_told(pictured: Path, run_cli: Cli, tmp_path: Path) -> None:
    with open_run(pictured) as run:
        label, prediction = run.label[:], run.prediction[:]
        wrong = run.sample_id[(label >= 0) & (prediction >= 0) & (label != prediction)].tolist()
    words = ("sample", pictured, "--wrong", "-q", "--out")
    assert run_cli(*words, tmp_path / "all", "--n", len(wrong))[0] == 0
    assert sorted(row["sample_id"] for row in lines(tmp_path / "all")) == sorted(wrong)
    code, _, error = run_cli(*words, tmp_path / "more", "--n", len(wrong) + 1)
    assert (code, (tmp_path / "more").exists()) == (2, False)
    assert f"more than the {len(wrong)} samples of --wrong: ask for at most {len(wrong)}" in error


def test_a_part_of_a_run_is_told_to_be_one(pictured: Path, run_cli: Cli, tmp_path: Path) -> None:
    code, told, _ = run_cli("sample", pictured / "shards" / "shard-00000.h5", "--n", 3, "--out", tmp_path, "-q")
    assert code == 0
    assert "3 of 8 samples drawn" in told
    assert "the run is not complete" in told
    assert "the run is not complete" in (tmp_path / "sheet.html").read_text()
