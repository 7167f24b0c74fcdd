"""Parts of charts as inline SVG, whose colours are CSS classes of the page's stylesheet: for light, dark and print."""

from __future__ import annotations

import math
from typing import Final

from batchcam.pictures.html import Markup, element

TICKS: Final = 4
"""Lines of a grid, at most one more."""

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 12, 40


def svg(size: tuple[int, int], summary: str, *content: Markup | None) -> Markup:
    """Return a chart of a size (height, width); `summary` is it in a sentence, for those who don't see it."""
    height, width = size
    return element(
        "svg", *content, viewBox=f"0 0 {width} {height}", width=width, height=height, role="img", aria_label=summary
    )


def horizontal(y: float, text: str, left: float, right: float) -> Markup:
    """Return a line of the grid with its value."""
    line = element("line", x1=left, y1=number(y), x2=right, y2=number(y), class_="gridline")
    return Markup(line + element("text", text, x=left - 6, y=number(y + 4), text_anchor="end"))


def label_at(x: float, y: float, text: str) -> Markup:
    """Return a value under the horizontal axis."""
    return element("text", text, x=number(x), y=number(y), text_anchor="middle")


def axis_name(width: int, height: int, text: str) -> Markup:
    """Return what the horizontal axis is."""
    return element("text", text, x=(LEFT + width - RIGHT) / 2, y=height - 6, text_anchor="middle", class_="axis")


def grid_step(span: float) -> float:
    """Return what the lines of a grid over `span` are apart: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= span / TICKS)


def plain(value: float) -> str:
    """Return a number as an axis has it."""
    return f"{round(value, 6) or 0:.4g}".replace("-", "−")


def number(value: float) -> str:
    """Return a coordinate."""
    return f"{value:.1f}".removesuffix(".0")
