"""The report's section on what people said: numbers, names, digests and open cases, with nothing that runs."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

import pytest

from batchcam.commands.sample.config import SampleConfig
from batchcam.commands.sample.sample import sample
from batchcam.errors import BatchcamError
from batchcam.record.draw import read_draw
from batchcam.record.verdicts import sheet_of
from tests.helpers.report_pages import write
from tests.helpers.wellformed import Page

HOSTILE = "<script>alert(1)</script>\u202e"


@pytest.fixture(name="judged")
def _judged(sound_run: Path, tmp_path: Path) -> Path:
    """A draw of five, one of them disputed by two reviewers, one open; the second has a hostile name."""
    folder = tmp_path / "review"
    sample(SampleConfig(sound_run, folder, n=5, quiet=True))
    drawn = read_draw(folder / "draw.json").samples
    for name, words in (("ann", "rrru"), (HOSTILE, "rrrr")):
        said = [{"r": "right-reasons", "u": "unclear"}[word] for word in words]
        filled = [dataclasses.replace(s, verdict=w, reviewer=name) for s, w in zip(drawn, said, strict=False)]
        (folder / f"{name[:3].strip('<')}.csv").write_bytes(sheet_of(filled))
    return folder


def test_a_report_tells_what_people_said(judged: Path, sound_run: Path, tmp_path: Path) -> None:
    _, text = write(sound_run, tmp_path / "r.html", review=(judged,))
    page = Page(text)
    assert page.wrong == []
    assert "5 drawn of 21 samples" in page.text
    assert re.search(r"right-reasons 3 0\.600 \(0\.\d+–0\.\d+\)", page.text)
    assert "3 of 4 the same" in page.text
    assert "Cohen's kappa 0.000" in page.text
    for file in judged.glob("*.csv"):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in page.text
    drawn = read_draw(judged / "draw.json").samples
    assert f"{drawn[3].sample_id} disputed: ann unclear" in page.text
    assert f"{drawn[4].sample_id} open" in page.text


def test_a_reviewers_name_is_text(judged: Path, sound_run: Path, tmp_path: Path) -> None:
    _, text = write(sound_run, tmp_path / "r.html", review=(judged,))
    assert "<script" not in text
    assert "\u202e" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in text


def test_a_report_without_verdicts_has_no_section_on_them(sound_run: Path, tmp_path: Path) -> None:
    assert 'id="review"' not in write(sound_run, tmp_path / "r.html")[1]


def test_verdicts_on_another_run_are_refused(judged: Path, sound_run: Path, tmp_path: Path) -> None:
    lines = (judged / "ann.csv").read_text("utf-8-sig").splitlines(keepends=True)
    (judged / "ann.csv").write_text("".join([*lines[:2], lines[2].replace(lines[2][:64], "0" * 64), *lines[3:]]))
    with pytest.raises(BatchcamError, match=r"ann\.csv:3: run_id of .* is '0000"):
        write(sound_run, tmp_path / "r.html", review=(judged,))
    assert not (tmp_path / "r.html").exists()
