"""review as people call it: numbers as text and JSON, and limits that end it with 3."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(name="judged")
def _judged(sound_run: Path, run_cli: Cli, tmp_path: Path) -> Path:
    """A draw of ten that Ann and Bo have judged, Bo in a spreadsheet that writes semicolons."""
    folder = tmp_path / "review"
    assert run_cli("sample", sound_run, "--n", 10, "--out", folder, "-q")[0] == 0
    rows = list(csv.DictReader(io.StringIO((folder / "verdicts.csv").read_text("utf-8-sig"), newline="")))
    for name, wrong, separator in (("ann", (0, 1), ","), ("bo", (1, 2), ";")):
        filled = [row | {"reviewer": name, "verdict": "right-reasons"} for row in rows]
        for place in wrong:
            filled[place]["verdict"] = "wrong-reasons"
        with (folder / f"{name}.csv").open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]][::-1], delimiter=separator)
            writer.writeheader()
            writer.writerows(filled)
    return folder


def test_a_review_is_told_as_text_and_as_json(judged: Path, sound_run: Path, run_cli: Cli) -> None:
    code, told, _ = run_cli("review", judged / "ann.csv", judged / "bo.csv", "--run", sound_run, "--json")
    *text, last = told.splitlines()
    found = json.loads(last)
    assert code == 0
    assert found["shares"][0] | {"interval": 0} == {
        "verdict": "right-reasons",
        "samples": 7,
        "share": 0.7,
        "interval": 0,
        "most": 0.9,
        "most_interval": found["shares"][0]["most_interval"],
    }
    assert found["agreement"]["kappa"] == pytest.approx(1 - 0.2 / 0.32)
    assert [case["verdicts"] for case in found["cases"]] == [
        {"ann": "wrong-reasons", "bo": "right-reasons"},
        {"ann": "right-reasons", "bo": "wrong-reasons"},
    ]
    assert "judged by   ann 10, bo 10" in text
    assert any("8 of 10 the same" in line and "Cohen's kappa 0.375" in line for line in text)
    assert any(line.startswith("right-reasons        7  0.700 (") for line in text)
    assert sum("disputed: " in line for line in text) == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--max", "wrong-reasons=30"), 0),  # 1 of 10, and 2 of which one of both says so
        (("--max", "wrong-reasons=29.9"), 3),
        (("--max", "unclear=0"), 0),
        (("--max", "disputed=20", "--max", "open=0"), 0),
        (("--max", "disputed=19"), 3),
        (("--min-kappa", "0.37"), 0),
        (("--min-kappa", "0.38"), 3),
        (("--min-kappa", "0.38", "--findings-ok"), 0),
        (("--max", "maybe=3"), 2),
        (("--max", "open"), 2),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_limits_decide_how_it_ends(judged: Path, run_cli: Cli, words: tuple[str, ...], code: int) -> None:
    assert run_cli("review", judged, *words)[0] == code


def test_a_limit_on_a_verdict_is_not_kept_by_leaving_samples_open(judged: Path, run_cli: Cli) -> None:
    assert run_cli("review", judged / "verdicts.csv", "--max", "wrong-reasons=99")[0] == 3
    assert run_cli("review", judged / "verdicts.csv", "--max", "wrong-reasons=100", "--max", "disputed=0")[0] == 0


def test_a_limit_on_an_agreement_that_is_not_known_is_not_kept(judged: Path, run_cli: Cli) -> None:
    code, told, _ = run_cli("review", judged / "ann.csv", "--min-kappa", "0")
    assert code == 3
    assert "STOPS: --min-kappa 0: nothing to judge by" in told


@pytest.mark.parametrize("words", ["a,A", "open,closed", "a,,b"])
def test_words_that_can_be_mistaken_are_refused(judged: Path, run_cli: Cli, words: str) -> None:
    code, _, error = run_cli("review", judged, "--verdicts", words)
    assert code == 2
    assert f"--verdicts '{words}':" in error
