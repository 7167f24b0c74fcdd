"""The report's last section: what people tell, who made the run, what is not in it, what it shares with training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from batchcam.commands.report.config import ReportConfig
from batchcam.errors import ConfigError, RunError
from tests.helpers.damage import edit_document
from tests.helpers.report_pages import table_of, write
from tests.helpers.synthetic import ORIGIN, land_shards, synthetic_plan, synthetic_rows, synthetic_run
from tests.helpers.wellformed import Page

HOSTILE = "</dd><script>alert(1)</script>\u202e"


def signoff(source: str) -> str:
    (part,) = re.findall(r'<section id="sign-off".*?</section>', source, re.DOTALL)
    return Page(part).text


def test_what_is_told_is_shown_and_what_is_not_is_said_to_be_missing(sound_run: Path, tmp_path: Path) -> None:
    told = ("Intended-Purpose=tell birds apart", "reviewer=Ann=A.", "CE_mark=none")
    _, source = write(sound_run, tmp_path / "r.html", note=told)
    assert Page(source).wrong == []
    text = signoff(source)
    assert "Intended purpose tell birds apart Provider not recorded Responsible person not recorded" in text
    assert "Reviewer Ann=A. CE_mark none" in text
    assert table_of(source, "Signatures")[1:] == [["Responsible person", "", "", ""], ["Reviewer", "Ann=A.", "", ""]]


def test_a_note_is_text(sound_run: Path, tmp_path: Path) -> None:
    _, source = write(sound_run, tmp_path / "r.html", note=(f"{HOSTILE}={HOSTILE}",))
    page = Page(source)
    assert (page.wrong, page.elements["script"]) == ([], 0)
    assert "\u202e" not in source
    assert "</dd><script>alert(1)</script>\\u202e" in page.text


@pytest.mark.parametrize(
    ("notes", "why"),
    [
        (("Ann",), "want NAME=TEXT"),
        (("=Ann",), "want NAME=TEXT"),
        (("reviewer= ",), "want NAME=TEXT"),
        (("reviewer=Ann", "Reviewer=Bob"), "reviewer stands twice"),
        (("intended purpose=a", "intended_purpose=b"), "intended purpose stands twice"),
    ],
)
def test_a_note_that_can_not_be_meant_is_refused(notes: tuple[str, ...], why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--note .*{why}"):
        ReportConfig(tmp_path / "run", tmp_path / "r.html", note=notes)


def test_who_ran_it_and_by_which_revision_is_what_the_signed_manifest_says(finished_run: Path, tmp_path: Path) -> None:
    made = [
        {"task": "0/2", "user": "eve", "host": "node7", "versions": {"batchcam": "1.2.dev3+g0123abc"}},
        {"task": "1/2", "user": HOSTILE, "host": "node8", "versions": {"batchcam": "1.2.dev3+g0123abc"}},
        {"task": "1/2"},
    ]
    edit_document(finished_run / "manifest.json", tasks=made)
    _, source = write(finished_run, tmp_path / "r.html")
    assert Page(source).wrong == []
    text = signoff(source)
    assert re.search(r"Run by eve on node7 , .*alert\(1\).* on node8 , not recorded Revision", text)
    assert "Revision of batchcam 1.2.dev3+g0123abc , not recorded Report by" in text


def test_a_record_that_does_not_say_who_ran_it_is_said_not_to(sound_run: Path, tmp_path: Path) -> None:
    text = signoff(write(sound_run, tmp_path / "r.html")[1])
    assert "Run by not recorded Revision of batchcam not recorded" in text


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    plan = synthetic_plan()
    land_shards(tmp_path / "run", plan, synthetic_rows(plan), skip=(2,))
    edit_document(tmp_path / "run/run.json", origin={**ORIGIN, "left_out": 7})
    text = signoff(write(tmp_path / "run", tmp_path / "r.html")[1])
    assert "5 samples that were planned and are not read here" in text
    assert "7 samples of the dataset that other runs held already" in text
    assert "1 samples that are unreadable" in text
    assert "1 samples that are non finite" in text
    assert "1 predictions without a label" in text


def test_images_of_the_training_data_are_findings(tmp_path: Path) -> None:
    plan = synthetic_plan()
    rows, others = synthetic_rows(plan), synthetic_rows(plan, seed=1)
    others.columns["input_sha256"][:2] = rows.columns["input_sha256"][4:6]
    rows.columns["input_sha256"][10] = rows.columns["input_sha256"][11]
    for name, each in (("test", rows), ("train", others)):
        land_shards(tmp_path / name, plan, each)
    alone, _ = write(tmp_path / "test", tmp_path / "a.html")
    beside, source = write(tmp_path / "test", tmp_path / "b.html", train_run=tmp_path / "train")
    assert beside.findings == alone.findings + 2
    text = Page(source).text
    told = "2 of 20 are in the training data too; 2 of 20 are in the run more than once"
    assert f"Images that are not independent {told}" in text
    assert "In the training data too 2 (0.100): 蝶/фото 00004.png , 蝶/фото 00005.png" in signoff(source)
    assert f"20 images with a digest of 21 in {tmp_path / 'train'}" in signoff(source)


def test_training_data_that_shares_nothing_is_no_finding_and_counted(sound_run: Path, tmp_path: Path) -> None:
    synthetic_run(tmp_path / "train", seed=1)
    summary, source = write(sound_run, tmp_path / "r.html", train_run=tmp_path / "train")
    assert summary.findings == write(sound_run, tmp_path / "a.html")[0].findings
    assert "In the training data too 0 (0.000) Training data 20 images" in signoff(source)
    assert "not independent" not in Page(source).text


def test_a_training_run_that_is_none_is_refused_before_anything_is_written(sound_run: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(RunError, match="not a run directory"):
        write(sound_run, tmp_path / "r.html", train_run=tmp_path / "train")
    assert not (tmp_path / "r.html").exists()


def test_a_report_never_goes_into_the_training_run(sound_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lies in the run"):
        ReportConfig(tmp_path / "run", sound_run / "r.html", train_run=sound_run)
