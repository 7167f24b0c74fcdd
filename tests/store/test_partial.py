"""What is left of a damaged run can be looked at: `--partial` of render, report and export."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import pytest

from batchcam.store.plan import read_plan
from tests.helpers.outputs import read_table
from tests.store.test_run import edit, truncate

COMMANDS = {
    "report": lambda run, out: ["report", run, "--out", out / "page.html"],
    "export": lambda run, out: ["export", run, "--to", "csv", "--out", out / "table"],
    "render": lambda run, out: ["render", run, "--out", out / "sheet.png"],
}


def ids_of(table: Path) -> list[str]:
    return [row["sample_id"] for row in read_table(table / "samples.csv")]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", [Path.unlink, truncate, edit], ids=["gone", "truncated", "edited"])
def test_a_damaged_shard_is_told_and_left_out_when_asked_for(finished_run, tmp_path, run_cli, command, damage):
    shard = read_plan(finished_run).shards[1]
    damage(finished_run / "shards" / shard.file)
    words = COMMANDS[command](finished_run, tmp_path)
    code, out, err = run_cli(*words)
    assert code == 1, out
    code, out, err = run_cli(*words, "--partial", "--json", "-q")
    assert code == 3, err
    assert json.loads(out.splitlines()[-1])["lost_files"] == 1
    told = [line for line in err.splitlines() if "left out:" in line]
    assert len(told) == 1
    assert f"shards/{shard.file}" in told[0]


def test_the_other_shards_rows_are_exported_as_from_the_whole_run(finished_run, tmp_path, run_cli):
    assert run_cli("export", finished_run, "--to", "csv", "--out", tmp_path / "whole")[0] == 0
    shard = read_plan(finished_run).shards[1]
    edit(finished_run / "shards" / shard.file)
    assert run_cli("export", finished_run, "--to", "csv", "--out", tmp_path / "rest", "--partial")[0] == 3
    whole = ids_of(tmp_path / "whole")
    assert ids_of(tmp_path / "rest") == whole[: shard.first] + whole[shard.first + shard.count :]


def test_a_report_says_that_it_is_about_a_part_and_which_files_are_damaged(finished_run, tmp_path, run_cli):
    truncate(finished_run / "shards" / read_plan(finished_run).shards[0].file)
    run_cli("report", finished_run, "--out", tmp_path / "page.html", "--partial")
    digest = hashlib.sha256((finished_run / "manifest.json").read_bytes()).hexdigest()
    page = (tmp_path / "page.html").read_text()
    assert digest in page
    assert "Nothing found" not in page
    assert "shards/shard-00000.h5" in page
    assert "run batchcam explain again" not in page
    assert "Damaged: 2 of 3 shards" in page


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_run_h5_is_done_without(finished_run, tmp_path, run_cli, command):
    with h5py.File(finished_run / "run.h5", "r+") as file:
        file["label"][0] += 1
    words = COMMANDS[command](finished_run, tmp_path)
    assert command == "render" or run_cli(*words)[0] == 1  # which needs none of its columns
    code, _, err = run_cli(*words, "--partial")
    assert code == 3
    assert "left out: " in err
    assert "run.h5: changed after" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_sound_run_is_read_as_ever(sound_run, tmp_path, run_cli, command):
    for name, more in (("plain", []), ("partial", ["--partial"])):
        (tmp_path / name).mkdir()
        code, _, err = run_cli(*COMMANDS[command](sound_run, tmp_path / name), *more)
        assert (code, "left out:" in err) == (run_cli(*COMMANDS[command](sound_run, tmp_path / name))[0], False)
    files = [sorted(p for p in (tmp_path / name).rglob("*") if p.is_file()) for name in ("plain", "partial")]
    for plain, partial in zip(*files, strict=True):
        if plain.name != "export.json":
            assert plain.read_bytes() == partial.read_bytes(), plain


def test_a_shard_without_its_digest_file_is_told_as_such(finished_run, tmp_path, run_cli):
    (finished_run / "shards" / "shard-00001.h5.sha256").unlink()
    _, _, err = run_cli("render", finished_run, "--out", tmp_path / "sheet.png", "--partial")
    assert "shard-00001.h5: it, or its .sha256, is gone from a complete run" in err


@pytest.mark.parametrize("form", ["csv", "wsol", "png"])
def test_the_export_of_a_part_does_not_go_where_the_whole_runs_lies(finished_run, tmp_path, run_cli, form):
    words = ["export", finished_run, "--to", form, "--out", tmp_path / "out"]
    run_cli(*words)
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    edit(finished_run / "shards" / "shard-00001.h5")
    assert run_cli(*words, "--partial")[0] == 1
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("more", [[], ["--partial"]], ids=["plain", "partial"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_complete_run_without_any_shard_is_told_as_such(finished_run, tmp_path, run_cli, command, more):
    for path in (finished_run / "shards").iterdir():
        path.unlink()
    code, _, err = run_cli(*COMMANDS[command](finished_run, tmp_path), *more)
    assert code == 1
    assert "3 of 3 shards gone from a complete run; see batchcam verify" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_without_a_sound_shard_is_refused(finished_run, tmp_path, run_cli, command):
    for shard in read_plan(finished_run).shards:
        truncate(finished_run / "shards" / shard.file)
    code, _, err = run_cli(*COMMANDS[command](finished_run, tmp_path), "--partial")
    assert code == 1
    assert "shard-00000.h5" in err


def test_many_lost_files_are_counted(make_run, tmp_path, run_cli):
    run = make_run(shard_size=2)
    shards = read_plan(run).shards
    for shard in shards[1:]:
        truncate(run / "shards" / shard.file)
    _, _, err = run_cli("render", run, "--out", tmp_path / "sheet.png", "--partial")
    told = [line for line in err.splitlines() if "left out:" in line]
    assert len(told) == 6
    assert f"{len(shards) - 6} more files" in told[-1]
