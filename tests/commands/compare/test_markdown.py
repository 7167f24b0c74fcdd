"""`compare --markdown`, as a reader of Markdown finds it: verdict first, and no name that is more than text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from batchcam.commands.compare.compare import CompareSummary, compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.compare.markdown import LONGEST, code, compare_markdown
from batchcam.errors import one_line
from tests.helpers.outputs import run_json
from tests.helpers.run_pairs import COUNT, make_rows, write
from tests.helpers.synthetic import run_command

HOSTILE = (
    "a|b\\|c",
    "`` `x` ```",
    "</details><img src=x onerror=alert(1)>",
    "@octocat #1 :x: https://example.org www.example.org",
    "**[a](javascript:alert(1))** ![i](http://x)\n| new | row |\n# head\n```",
)
IDS = [f"{HOSTILE[i % 5]}{i}" for i in range(COUNT)]


def inline(source: str) -> list[Token]:
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(source)
    return [child for token in tokens for child in token.children or () if child.type != "softbreak"]


def tables(source: str) -> list[list[list[str]]]:
    """The cells of each table, as text."""
    found: list[list[list[str]]] = []
    inside = False
    for token in MarkdownIt("commonmark").enable("table").parse(source):
        inside = (inside or token.type == "table_open") and token.type != "table_close"
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and inside:
            found[-1][-1].append("".join(child.content for child in token.children or ()))
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [write(folder / str(seed), *make_rows(seed, IDS, class_names=HOSTILE)) for seed in (1, 2)]


def of(pair: list[Path], **options: Any) -> CompareSummary:
    return compare(CompareConfig(*pair, quiet=True, **options))


def test_verdict_gates_and_the_worst_classes_stand_in_this_order(pair: list[Path]) -> None:
    summary = of(pair, max_flips=1, min_accuracy=2)
    source = compare_markdown(summary)
    assert source.startswith("### batchcam compare: STOPPED by --max-flips, --min-compared")
    gates, facts, classes, movers = tables(source)
    assert gates[1][:2] == ["exceeded", "--max-flips 1"]
    assert [row[1] for row in gates[1:]] == [g.parts[0] for g in sorted(summary.gates, key=lambda g: g.passed)]
    assert [row[0] for row in facts[1:4]] == ["old", "new", "compared"]
    worst = sorted(summary.classes, key=lambda c: -(c.accuracy_drop or 0))[0]
    assert classes[1][0] == one_line(worst.name)
    assert len(movers) == 11
    assert compare_markdown(of(pair)).startswith("### batchcam compare: no gate was asked for\n")


def test_no_name_is_more_than_text(pair: list[Path]) -> None:
    source = compare_markdown(of(pair, max_flips=1, max_count_shift=0, min_compared=0))
    kinds = {token.type for token in inline(source)}
    assert kinds == {"text", "code_inline", "strong_open", "strong_close"}
    texts = "".join(token.content for token in inline(source) if token.type == "text")
    assert not set("@#`<>|") & set(texts)
    for table in tables(source):
        assert {len(row) for row in table} == {len(table[0])}
    assert {row[0] for row in tables(source)[2][1:]} == {one_line(name) for name in HOSTILE}


@pytest.mark.parametrize("text", [*HOSTILE, "", " ", "`", "a`", "\\", "\\|", "|", "x" * 900, "\u202etxt.\x1b[2J"])
def test_code_reads_as_what_was_written(text: str) -> None:
    ((head, cell),) = tables(f"| a | b |\n|---|---|\n| {code(text)} | c |")[0][1:]
    expected = one_line(text)
    assert head.strip() == (expected if len(expected) <= LONGEST else expected[:LONGEST] + "…")
    assert cell == "c"


def test_markdown_alone_is_on_stdout_and_never_json(pair: list[Path]) -> None:
    exit_code, out, _ = run_command("compare", *pair, "--markdown", "--quiet", "--max-flips", 1)
    assert (exit_code, out) == (3, compare_markdown(of(pair, max_flips=1)) + "\n")
    ended = run_json("compare", *pair, "--markdown")
    assert (ended.code, "--markdown and --json exclude each other" in ended.err) == (2, True)
