"""docs/explain.md's table of what is refused, which tests try: `python -m docs.make.refusals` writes it."""

from __future__ import annotations

import re

from tests.helpers import ROOT
from tests.helpers.refusals import REFUSALS

PAGE = ROOT / "docs" / "explain.md"
MARKED = re.compile(r"(?<=<!-- refusals -->\n).*?(?=<!-- /refusals -->)", re.DOTALL)


def table() -> str:
    """Return the rows: what is given, and what explain says."""
    rows = (f"| {refusal.given} | {_code(refusal.says)} |" for refusal in REFUSALS)
    return "\n".join(["| given | what explain says |", "|---|---|", *rows]) + "\n"


def _code(text: str) -> str:
    """Return text as it is, for a cell of a table."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(MARKED.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
