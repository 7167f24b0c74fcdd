"""The result of compare in GitHub's Markdown, for the summary of a pull request or a workflow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from batchcam.commands.compare.compare import CompareSummary
from batchcam.commands.compare.gates import Gate
from batchcam.commands.compare.sigmoids import SigmoidTotals
from batchcam.commands.compare.text import Table, facts, mover_ids, mover_text, ranked_gates, tables, verdict
from batchcam.errors import one_line

ROWS_SHOWN: Final = 10
LONGEST: Final = 500
"""Characters of one text; a comment of GitHub's has 65,536 at most."""

OWN: Final = ("compared", "flips", "accuracy", "confidence", "scores", "maps")
"""Facts that hold no text from data."""


def compare_markdown(summary: CompareSummary) -> str:
    """Return the result of `compare`: the verdict, the gates, what moved, the classes that moved most."""
    told = verdict(summary.gates) if summary.gates else "no gate was asked for"
    lines = [f"### batchcam compare: {told}", *_gates(ranked_gates(summary.gates))]
    rows = [(name, value if name in OWN else code(value)) for name, value in facts(summary)]
    lines += _table(("", "what moved"), [*rows, *(("note", code(note)) for note in summary.notes)])
    for table in tables(summary):
        lines += [*_moved(table), "", *(f"- {line}" for line in table.legend)]
    return "\n".join([*lines, *_movers(summary)])


def code(text: str) -> str:
    """Return text from data as code, in which nothing is markup, a link or a mention, fit for a cell of a table."""
    line = one_line(text) or " "
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    padding = " " if line[0] in "` " or line[-1] in "` " else ""
    return f"{ticks}{padding}{line}{padding}{ticks}".replace("|", r"\|")


def _gates(gates: Sequence[Gate]) -> list[str]:
    rows = [
        (told if gate.passed else f"**{told}**", code(asked), code(found))
        for gate in gates
        for asked, told, found in [gate.parts]
    ]
    return _table(("verdict", "gate", "found"), rows) if rows else []


def _moved(table: Table) -> list[str]:
    rows = [(code(name), *cells) for name, *cells in table.rows[:ROWS_SHOWN]]
    more = len(table.rows) - len(rows)
    return [*_table((code(table.head[0]), *table.head[1:]), rows), *([f"\n… and {more} more"] if more else [])]


def _movers(summary: CompareSummary) -> Iterator[str]:
    are_sigmoids = isinstance(summary.totals, SigmoidTotals)
    rows = [(m.reason, code(mover_ids(m)), code(mover_text(m, are_sigmoids))) for m in summary.movers[:ROWS_SHOWN]]
    if rows:
        yield "\n<details><summary>samples that moved most</summary>"
        yield from _table(("for", "sample", "what moved"), rows)
        yield "\n</details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["", *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))]
