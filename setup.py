"""What setup.cfg cannot say: the README, with links that also lead somewhere on PyPI."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent

CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)

LINK = re.compile(r'(?P<before>\]\(|^\[[^]\n]+\]: +|(?:src|href)=")(?![a-z]+:|[#/])(?P<path>[^)\s"#]+)', re.MULTILINE)

PICTURES = (".gif", ".jpg", ".png", ".svg")


def with_absolute_links(text: str, url: str) -> str:
    """Return Markdown whose relative links lead to the repository at `url`: pictures as they are, others to be read."""

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link["path"].endswith(PICTURES) else "blob"
        return f"{link['before']}{url}/{kind}/HEAD/{link['path'].removeprefix('./')}"

    parts = CODE.split(text)
    parts[::2] = [LINK.sub(absolute, prose) for prose in parts[::2]]
    return "".join(parts)


if __name__ == "__main__":
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    setup(
        long_description=with_absolute_links((ROOT / "README.md").read_text("utf-8"), config["metadata"]["url"]),
        long_description_content_type="text/markdown",
    )
