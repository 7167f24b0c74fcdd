"""What reviewers said: summed up as plain loops do, and refused by file and line where it does not fit."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from batchcam.errors import BatchcamError, ConfigError
from batchcam.record.draw import DRAW_FILE, Draw, draw
from batchcam.record.review import Review, read_review
from batchcam.record.verdicts import Verdict, append_verdict, sheet_of
from batchcam.rules import VERDICTS
from batchcam.store.document import seal
from batchcam.store.opening import open_run

RIGHT, WRONG, UNCLEAR = VERDICTS


@pytest.fixture
def drawn(sound_run: Path, tmp_path: Path) -> Draw:
    """A draw of 12 samples by class, whose document lies in the folder."""
    with open_run(sound_run) as run:
        found, _ = draw(run, np.arange(len(run)), 12, 0, "class", VERDICTS)
    (tmp_path / DRAW_FILE).write_bytes(seal(found.content))
    return found


def fill(drawn: Draw, path: Path, words: str, reviewer: str = "") -> Path:
    """Fill in a copy of the sheet by the first letters of words, '.' leaves a line open."""
    meant = {"r": RIGHT, "w": WRONG, "u": UNCLEAR, ".": ""}
    lines = zip(drawn.samples, words, strict=True)
    path.write_bytes(sheet_of(dataclasses.replace(s, verdict=meant[w], reviewer=reviewer) for s, w in lines))
    return path


def counts(review: Review) -> dict[str, int]:
    return {share.verdict: share.samples for share in review.shares if share.samples}


def test_two_reviewers_are_summed_up_as_plain_loops_do(drawn: Draw, tmp_path: Path) -> None:
    ann, bo = "rrrrrrwwuu..", "rrrrrwwrur.w"
    fill(drawn, tmp_path / "a.csv", ann, "Ann")
    fill(drawn, tmp_path / "b.csv", bo, "Bo")
    fill(drawn, tmp_path / "verdicts.csv", "." * 12)
    found = read_review([tmp_path])
    assert counts(found) == {RIGHT: 5, WRONG: 2, UNCLEAR: 1, "disputed": 3, "open": 1}
    assert found.reviewers == {"Ann": 10, "Bo": 11}
    assert [(c.sample_id, c.state) for c in found.cases] == [
        (drawn.samples[i].sample_id, state)
        for i, state in ((5, "disputed"), (7, "disputed"), (9, "disputed"), (10, "open"))
    ]
    assert found.cases[0].verdicts == {"Ann": RIGHT, "Bo": WRONG}
    assert found.agreement is not None
    assert (found.agreement.samples, found.agreement.agreed) == (10, 7)
    expected: collections.Counter[str] = collections.Counter()
    for place, sample in enumerate(drawn.samples):
        said = {ann[place], bo[place]} - {"."}
        expected[said.pop() if len(said) == 1 else "open" if not said else "disputed"] += float(sample.weight) / 21
    words = {RIGHT: "r", WRONG: "w", UNCLEAR: "u"}
    for share in found.shares:
        assert share.share == pytest.approx(expected[words.get(share.verdict, share.verdict)])
        assert share.interval is None or share.interval[0] <= (share.share or 0) <= share.interval[1]
    assert sum(share.share or 0 for share in found.shares) == pytest.approx(1)


def test_the_last_verdict_of_a_file_counts_and_may_be_taken_back(drawn: Draw, tmp_path: Path) -> None:
    first, second = drawn.samples[:2]
    for word in (RIGHT, WRONG):
        append_verdict(tmp_path / "view.csv", dataclasses.replace(first, verdict=word, reviewer="ann"))
    for word in (RIGHT, ""):
        append_verdict(tmp_path / "view.csv", dataclasses.replace(second, verdict=word, reviewer="ANN"))
    found = read_review([tmp_path / "view.csv"])
    assert counts(found) == {WRONG: 1, "open": 11}
    assert found.notes == ("verdicts changed by their reviewers: 2; the last one counts",)


def test_a_person_in_two_files_is_refused_where_they_differ(drawn: Draw, tmp_path: Path) -> None:
    fill(drawn, tmp_path / "a.csv", "r" + "." * 11, "ann")
    fill(drawn, tmp_path / "b.csv", ".w" + "." * 10, "Ann")
    assert counts(read_review([tmp_path])) == {RIGHT: 1, WRONG: 1, "open": 10}
    fill(drawn, tmp_path / "b.csv", "w" + "." * 11, "Ann")
    message = f"b.csv:2: ann says {WRONG} of .*, and {RIGHT} at .*a.csv:2: leave the one that counts"
    with pytest.raises(BatchcamError, match=message):
        read_review([tmp_path])


def test_a_name_is_one_persons_in_whichever_unicode_form(drawn: Draw, tmp_path: Path) -> None:
    fill(drawn, tmp_path / "a.csv", "r" + "." * 11, "\u00c7elik")
    fill(drawn, tmp_path / "b.csv", "r" + "." * 11, "c\u0327elik")
    found = read_review([tmp_path])
    assert (found.reviewers, found.agreement) == ({"\u00c7elik": 1}, None)


def test_a_file_without_names_is_of_whoever_it_is_called_after(drawn: Draw, tmp_path: Path) -> None:
    fill(drawn, tmp_path / "ann.csv", "r" * 12)
    fill(drawn, tmp_path / "bo.csv", "r" * 12)
    found = read_review([tmp_path / "ann.csv", tmp_path / "bo.csv", tmp_path / "bo.csv"])
    assert found.reviewers == {"ann": 12, "bo": 12}
    assert found.notes == ("no reviewer in ann.csv, bo.csv: the file's name stands for theirs",)


@pytest.mark.parametrize("column", ["run_id", "input_sha256", "prediction", "label", "reason", "sample_id"])
def test_an_edited_line_is_refused_by_file_and_line(drawn: Draw, column: str, tmp_path: Path) -> None:
    samples = [*drawn.samples]
    samples[3] = dataclasses.replace(samples[3], **{column: "other"})
    (tmp_path / "a.csv").write_bytes(sheet_of(samples))
    with pytest.raises(BatchcamError, match=r"a\.csv:5: .*'other'") as refused:
        read_review([tmp_path])
    assert "edited" in str(refused.value) or "was not drawn" in str(refused.value)


def test_verdicts_on_others_than_those_drawn_do_not_count(drawn: Draw, sound_run: Path, tmp_path: Path) -> None:
    with open_run(sound_run) as run:
        other = next(each for each in run if each.id not in {sample.sample_id for sample in drawn.samples})
        append_verdict(
            tmp_path / "v.csv", Verdict(drawn.run_id, other.id, other.input_sha256, verdict=RIGHT, reviewer="a")
        )
        found = read_review([tmp_path / "v.csv"], run)
    assert (counts(found), found.reviewers) == ({"open": 12}, {})
    assert found.notes == ("verdicts on samples that were not drawn left out: 1",)


def test_without_a_draw_nothing_follows_for_other_samples(drawn: Draw, sound_run: Path, tmp_path: Path) -> None:
    fill(drawn, tmp_path / "a.csv", "rrrrrrrrwwww", "ann")
    (tmp_path / DRAW_FILE).unlink()
    with open_run(sound_run) as run:
        found = read_review([tmp_path], run)
    assert (found.draw, found.size, found.samples) == (None, None, 12)
    assert counts(found) == {RIGHT: 8, WRONG: 4}
    assert {share.share for share in found.shares} == {None}
    assert "nothing follows for others" in found.notes[0]


def test_a_run_has_to_hold_the_samples_and_images_that_were_judged(
    drawn: Draw, sound_run: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    fill(drawn, tmp_path / "a.csv", "r" * 12, "ann")
    with open_run(sound_run) as run:
        assert counts(read_review([tmp_path], run)) == {RIGHT: 12}
    with open_run(make_run("same", seed=1)) as other, pytest.raises(BatchcamError, match=r"judged is run .*, image "):
        read_review([tmp_path], other)
    few = open_run(sound_run / "shards" / "shard-00002.h5")
    with few, pytest.raises(BatchcamError, match=r"has no sample .* that was judged"):
        read_review([tmp_path], few)


def test_other_words_are_those_of_the_draw_or_asked_for(drawn: Draw, tmp_path: Path) -> None:
    said = dataclasses.replace(drawn.samples[0], verdict="artefact", reviewer="ann")
    (tmp_path / "a.csv").write_bytes(sheet_of([said]))
    with pytest.raises(BatchcamError, match=f"a.csv:2: verdict 'artefact': none of {RIGHT}, {WRONG}, {UNCLEAR}"):
        read_review([tmp_path])
    assert counts(read_review([tmp_path], words=["artefact"])) == {"artefact": 1, "open": 11}
    (tmp_path / DRAW_FILE).write_bytes(seal(dataclasses.replace(drawn, verdicts=("artefact", "fine")).content))
    assert counts(read_review([tmp_path])) == {"artefact": 1, "open": 11}


def test_files_of_two_draws_are_refused(drawn: Draw, tmp_path: Path) -> None:
    paths = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / DRAW_FILE).write_bytes(seal(dataclasses.replace(drawn, seed=seed).content))
        paths.append(fill(drawn, folder / "a.csv", "r" * 12, "ann"))
    with pytest.raises(ConfigError, match="two draws: review each by itself"):
        read_review(paths)
    assert counts(read_review(paths, draw_file=paths[0].parent / DRAW_FILE)) == {RIGHT: 12}


def test_a_folder_without_tables_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}: holds no .csv file")):
        read_review([tmp_path])
    with pytest.raises(BatchcamError, match=r"a\.csv: cannot read: No such file"):
        read_review([tmp_path / "a.csv"])
