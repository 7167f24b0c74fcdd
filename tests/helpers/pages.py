"""The pages for people, and the blocks of code in them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from tests.helpers import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])

BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<mark>.+?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: name of its page, relative to the checkout.
        line: of the page, at which it starts.
        language: what stands behind its fence.
        mark: the reason, in a word, for which it is not run; "" if it is.
        text: its lines.
    """

    page: str
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the blocks of code of a page."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page.relative_to(ROOT).as_posix(), line, match["language"], match["mark"] or "", match["text"])


def blocks(language: str, holding: str = "") -> list[Block]:
    """Return the blocks of one language on all pages that are to be run and hold a text."""
    found = (block for page in PAGES for block in blocks_of(page))
    return [b for b in found if b.language == language and not b.mark and holding in b.text]
