"""ARCHITECTURE.md's table of folders, which tests/test_imports.py holds: `python -m docs.make.folders` writes it."""

from __future__ import annotations

import ast
import re

from tests.helpers import ROOT
from tests.test_imports import PACKAGE, TABLE

PAGE = ROOT / "ARCHITECTURE.md"
MARKED = re.compile(r"(?<=<!-- folders -->\n).*?(?=<!-- /folders -->)", re.DOTALL)
LOOSE = {"__init__", "__main__", "errors", "rules", "config"}


def table() -> str:
    """Return the rows: folder, what it owns, what it may import of ours, which packages."""
    lines = ["| folder | owns | may import | packages |", "|---|---|---|---|"]
    for name in sorted(TABLE.keys() - LOOSE):
        ours = sorted(TABLE[name] & (TABLE.keys() | {"commands"}) - {"__init__"})
        packages = sorted(TABLE[name] - TABLE.keys() - {"commands"})
        lines.append(f"| `{name}` | {_owns(name)} | {', '.join(ours)} | {', '.join(packages)} |")
    return "\n".join(lines) + "\n"


def _owns(name: str) -> str:
    """Return the first line of a folder's docstring, or of its only file's."""
    path = PACKAGE / name
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0].rstrip(".")


if __name__ == "__main__":
    PAGE.write_text(MARKED.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
