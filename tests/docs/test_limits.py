"""What the page shows of limits is what `docs.make.limits` asks; it trains, which these tests don't."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from docs.make.limits import ASKED, MOVED, OVERALL, said
from tests.docs.test_docs import parsed
from tests.helpers.nights import land_nights
from tests.helpers.pages import blocks_of
from tests.helpers.run_pairs import make_rows, write


def test_the_page_shows_the_commands_that_are_run_and_they_parse() -> None:
    page = Path(__file__).parents[2] / "docs" / "studies.md"
    shown = [block.text.splitlines()[0] for block in blocks_of(page) if block.mark == "limits"]
    assert [re.sub("  # exit code .*", "", line) for line in shown] == [f"$ batchcam {words}" for words in ASKED]
    for words in ASKED:
        parsed(shlex.split(words))


def test_a_command_is_shown_with_its_exit_code_and_the_lines_that_matter(tmp_path: Path) -> None:
    for name, seed in (("old", 1), ("new", 2)):
        write(tmp_path / name, *make_rows(seed))
    first, *lines = said(tmp_path, "compare old new --max-flips 10", MOVED).splitlines()
    assert first == "$ batchcam compare old new --max-flips 10  # exit code 3"
    assert lines[0].startswith("verdict     STOPPED by --max-flips")
    assert {line.split()[0] for line in lines} == {"verdict", "gate", "accuracy"}
    land_nights(tmp_path / "nights", 8, 60)
    first, *lines = said(tmp_path, "trend nights --baseline 7", OVERALL).splitlines()
    assert lines[0] == "8 nights: 001 to 008, against 001"
