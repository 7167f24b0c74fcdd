"""docs/explain.md's table of kinds of data, which tests try: `python -m docs.make.data_kinds` writes it."""

from __future__ import annotations

import re

from tests.helpers import ROOT
from tests.helpers.data_kinds import KINDS, DataKind, read_kinds

PAGE = ROOT / "docs" / "explain.md"
MARKED = re.compile(r"(?<=<!-- data kinds -->\n).*?(?=<!-- /data kinds -->)", re.DOTALL)


def table() -> str:
    """Return how many kinds are read, and a row for each: what it is, what names it, and how it is read."""
    cells = ((kind.given, f"`{kind.words}`", _told(kind)) for kind in KINDS)
    rows = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells)
    count = f"{read_kinds()} of {len(KINDS)} kinds are read."
    return "\n".join([count, "", "| kind | DATA | read |", "|---|---|---|", *rows]) + "\n"


def _told(kind: DataKind) -> str:
    if not kind.says:
        return "yes, without labels" if kind.labels == "none" else "yes"
    says = re.sub(r"\$$|\\", "", kind.says).replace(".*/", "…/").rstrip("?")
    return f"no: `… {says}`{' (tried)' if kind.helped else ''}"


if __name__ == "__main__":
    PAGE.write_text(MARKED.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
