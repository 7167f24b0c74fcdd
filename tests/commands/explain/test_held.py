"""explain --new-since: a night explains what came, and nothing that another run holds already."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import pytest

from batchcam.commands.explain.explain import explain
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import ConfigError, RunError
from tests.commands.explain.test_listing import CLASSES, PLANNED, classifier, columns, config, draw, photos

__all__ = ["classifier", "photos"]


def test_a_night_explains_what_came_and_changed_and_what_could_not_be_read(classifier, photos, tmp_path, capsys):
    runs = tmp_path / "runs"
    broken = photos / "ant" / "00.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:20] + bytes(len(whole) - 20))
    assert explain(config(classifier, photos, runs / "1", new_since=runs.parent)).left_out == 0
    broken.write_bytes(whole)
    draw(photos / "bee" / "90.png", 90)
    (photos / "cat" / "11.png").write_bytes((photos / "cat" / "11.png").read_bytes() + b" ")
    os.symlink(runs / "1", runs / "latest")
    second = explain(config(classifier, photos, runs / "2", new_since=runs, quiet=False))
    assert (second.samples, second.left_out, second.complete) == (3, PLANNED - 2, True)
    told = capsys.readouterr().err
    assert f"{PLANNED - 2} of {PLANNED + 1} samples left out: {runs} holds them already" in told
    assert columns(runs / "2")["sample_id"] == ["ant/00.png", "bee/90.png", "cat/11.png"]
    assert columns(runs / "2")["label"] == [0, 1, 2]
    origin = json.loads((runs / "2/run.json").read_bytes())["origin"]
    assert origin["left_out"] == PLANNED - 2
    assert any("left out" in remark for remark in origin["remarks"])
    assert verify(VerifyConfig(runs / "2", quiet=True), confine=False).found == []
    explain(config(classifier, photos, runs / "2", new_since=runs, quiet=False))
    assert "came since" not in capsys.readouterr().err
    draw(photos / "bee" / "91.png", 91)
    explain(config(classifier, photos, runs / "2", quiet=False))
    assert "1 file came since" in capsys.readouterr().err


def test_what_is_left_is_explained_to_the_same_rows(classifier, photos, tmp_path):
    explain(config(classifier, photos, tmp_path / "all"))
    first = tmp_path / "first"
    for number in range(0, PLANNED, 2):
        path = f"{CLASSES[number % 3]}/{number:02d}.png"
        draw(first / path, number)
    explain(config(classifier, first, tmp_path / "half"))
    explain(config(classifier, photos, tmp_path / "rest", new_since=tmp_path / "half"))
    seen = [columns(tmp_path / name) for name in ("half", "rest")]
    both = sorted(zip(*(a + b for a, b in zip(*(each.values() for each in seen), strict=True)), strict=True))
    assert both == sorted(zip(*columns(tmp_path / "all").values(), strict=True))


def test_nothing_new_makes_no_run(classifier, photos, tmp_path, run_cli, capsys):
    explain(config(classifier, photos, tmp_path / "1"))
    summary = explain(config(classifier, photos, tmp_path / "2", new_since=tmp_path / "1"))
    assert (summary.samples, summary.left_out, summary.complete, summary.run_id) == (0, PLANNED, False, "")
    assert not (tmp_path / "2").exists()


def test_a_run_that_explains_otherwise_or_is_not_complete_is_refused_or_passed_over(
    classifier, photos, tmp_path, capsys
):
    runs = tmp_path / "runs"
    explain(config(classifier, photos, runs / "partial", task="0/3"))
    explain(config(classifier, photos, runs / "weak", control="head"))
    for name, reason in (("partial", "not complete"), ("weak", "explains otherwise: another control")):
        with pytest.raises(RunError, match=f"--new-since .*{name}: {reason}"):
            explain(config(classifier, photos, tmp_path / "new", new_since=runs / name))
    assert explain(config(classifier, photos, tmp_path / "new", new_since=runs, quiet=False)).left_out == 0
    told = capsys.readouterr().err
    assert f"{runs / 'partial'} passed over: not complete" in told
    assert f"{runs / 'weak'} passed over: explains otherwise" in told
    with pytest.raises(ConfigError, match="no such folder"):
        explain(config(classifier, photos, tmp_path / "other", new_since=tmp_path / "nowhere"))


def test_digests_find_what_sizes_do_not_tell(classifier, photos, tmp_path, capsys):
    explain(config(classifier, photos, tmp_path / "1"))
    replaced = photos / "bee" / "01.png"
    content = bytearray(replaced.read_bytes())
    content[-1] ^= 1  # of the last chunk's checksum, behind the pixels
    replaced.write_bytes(content)
    by_size = config(classifier, photos, tmp_path / "2", new_since=tmp_path / "1", dry_run=True)
    assert explain(by_size).left_out == PLANNED
    by_digest = explain(dataclasses.replace(by_size, by_digest=True))
    assert (by_digest.left_out, by_digest.to_do_samples) == (PLANNED - 1, 1)
    data = "python:tests.commands.explain.test_listing:Named"
    explain(config(classifier, data, tmp_path / "3"))
    unknown = config(classifier, data, tmp_path / "4", new_since=tmp_path / "3", dry_run=True, quiet=False)
    assert explain(unknown).left_out == 0
    assert f"{PLANNED} samples held, but of no known size, and new therefore" in capsys.readouterr().err
    assert explain(dataclasses.replace(unknown, by_digest=True)).left_out == PLANNED


def test_samples_without_ids_are_in_no_other_run(classifier, tmp_path):
    data = "python:tests.commands.explain.test_listing:Numbered"
    explain(config(classifier, data, tmp_path / "1"))
    with pytest.raises(ConfigError, match="have no ids of their own, by which other runs could hold them"):
        explain(config(classifier, data, tmp_path / "2", new_since=tmp_path / "1", by_digest=True))


def test_by_digest_alone_is_refused(classifier, photos, tmp_path):
    with pytest.raises(ConfigError, match="--by-digest: says how --new-since compares"):
        explain(config(classifier, photos, tmp_path / "1", by_digest=True))


def test_a_damaged_run_is_no_proof(classifier, photos, tmp_path):
    explain(config(classifier, photos, tmp_path / "1"))
    shutil.copy(tmp_path / "1/run.json", tmp_path / "1/run.h5")
    with pytest.raises(RunError, match=r"run\.h5: changed after it was written"):
        explain(config(classifier, photos, tmp_path / "2", new_since=tmp_path / "1"))
