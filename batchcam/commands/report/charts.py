"""Charts as inline SVG and small maps as PNG, for a page that runs no script.

Colours are CSS classes of the page's stylesheet, so that one chart serves light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from batchcam.commands.report.html import Markup, element
from batchcam.pictures.heatmap import colour_signed, write_png
from batchcam.record.calibration import Bin

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 12, 40
SQUARE = 340
BAR_GAP = 1.5
TICKS = 4

MOST_CELLS: Final = 28
"""Cells on a side of a small map; larger grids are averaged down to it."""


def histogram(counts: Sequence[int], low: float, high: float, axis: str, kind: str, summary: str) -> Markup:
    """Return a histogram over bins of equal width.

    Args:
        counts: one for each bin.
        low, high: outer edges of the bins.
        axis: what is counted, under the horizontal axis.
        kind: CSS class of the bars.
        summary: the chart in a sentence, for those who don't see it.
    """
    most = max([*counts, 1])
    ticks = nice_ticks(most)
    scale = (HEIGHT - TOP - BOTTOM) / max(ticks[-1], most)
    step = (WIDTH - LEFT - RIGHT) / len(counts)
    base = HEIGHT - BOTTOM
    bars = []
    for index, count in enumerate(counts):
        edges = [low + (high - low) * i / len(counts) for i in (index, index + 1)]
        height = max(1.0, count * scale) if count else 0.0
        bar = element(
            "rect",
            element("title", f"{_plain(edges[0])} to {_plain(edges[1])}: {count}"),
            x=_number(LEFT + index * step + BAR_GAP / 2),
            y=_number(base - height),
            width=_number(max(0.5, step - BAR_GAP)),
            height=_number(height),
            class_=f"bar {kind}",
        )
        bars.append(bar if count else None)
    grid = [_horizontal(base - tick * scale, f"{tick:,}", LEFT, WIDTH - RIGHT) for tick in ticks]
    labels = [
        _label(LEFT + (WIDTH - LEFT - RIGHT) * i / TICKS, base + 16, _plain(low + (high - low) * i / TICKS))
        for i in range(TICKS + 1)
    ]
    return _svg((HEIGHT, WIDTH), summary, *grid, *bars, *labels, _axis_name(WIDTH, HEIGHT, axis))


def reliability_diagram(bins: Sequence[Bin], names: tuple[str, str], summary: str) -> Markup:
    """Return what is true over its probability: a bar for each bin, a dot at its mean, and the ideal as a diagonal.

    Args:
        bins: of equal width from 0 to 1.
        names: of the probability, and of the share that is true.
        summary: the chart in a sentence, for those who don't see it.
    """
    side_x, side_y = SQUARE - LEFT - RIGHT, SQUARE - TOP - BOTTOM
    base = SQUARE - BOTTOM
    grid = [_horizontal(base - side_y * i / TICKS, f"{i / TICKS:g}", LEFT, SQUARE - RIGHT) for i in range(TICKS + 1)]
    labels = [_label(LEFT + side_x * i / TICKS, base + 16, f"{i / TICKS:g}") for i in range(TICKS + 1)]
    bars: list[Markup] = []
    dots: list[Markup] = []
    for each in bins:
        if each.true is None or each.confidence is None:
            continue
        said = f"{names[0]} {each.confidence:.3f}, {names[1]} {each.true:.3f}, of {each.count}"
        height = max(1.0, each.true * side_y)
        bars.append(
            element(
                "rect",
                element("title", said),
                x=_number(LEFT + each.low * side_x + BAR_GAP / 2),
                y=_number(base - height),
                width=_number((each.high - each.low) * side_x - BAR_GAP),
                height=_number(height),
                class_="bar right",
            )
        )
        dot = {"cx": LEFT + each.confidence * side_x, "cy": base - each.true * side_y}
        dots.append(
            element("circle", element("title", said), **{k: _number(v) for k, v in dot.items()}, r=3.5, class_="dot")
        )
    diagonal = element("line", x1=LEFT, y1=base, x2=LEFT + side_x, y2=TOP, class_="diagonal")
    name = _axis_name(SQUARE, SQUARE, f"{names[0]} → · {names[1]} ↑")
    return _svg((SQUARE, SQUARE), summary, *grid, *bars, diagonal, *dots, *labels, name)


def nice_ticks(most: float) -> list[int]:
    """Return whole numbers from 0 to at least `most`, evenly spaced by 1, 2 or 5 times a power of ten."""
    rough = max(1.0, most / TICKS)
    power = 10 ** math.floor(math.log10(rough))
    step = next(int(power * factor) for factor in (1, 2, 5, 10) if power * factor >= rough)
    return list(range(0, math.ceil(most / step) * step + 1, step))


def _svg(size: tuple[int, int], summary: str, *content: Markup | None) -> Markup:
    height, width = size
    return element(
        "svg", *content, viewBox=f"0 0 {width} {height}", width=width, height=height, role="img", aria_label=summary
    )


def _horizontal(y: float, text: str, left: float, right: float) -> Markup:
    line = element("line", x1=left, y1=_number(y), x2=right, y2=_number(y), class_="gridline")
    return Markup(line + element("text", text, x=left - 6, y=_number(y + 4), text_anchor="end"))


def _label(x: float, y: float, text: str) -> Markup:
    return element("text", text, x=_number(x), y=_number(y), text_anchor="middle")


def _axis_name(width: int, height: int, text: str) -> Markup:
    return element("text", text, x=(LEFT + width - RIGHT) / 2, y=height - 6, text_anchor="middle", class_="axis")


def _plain(value: float) -> str:
    return f"{round(value, 6) or 0:.4g}".replace("-", "−")


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def signed_map(cam: np.ndarray, limit: float) -> bytes:
    """Return a raw map as a PNG of one pixel a cell: blue against the class, near white none, red for it.

    Args:
        cam: raw map (h, w), signed; grids larger than MOST_CELLS on a side are averaged.
        limit: the magnitude at the ends of the palette; values beyond it show as the ends.

    Raises:
        ValueError: the map is not (h, w), a value of it or the limit is not finite, or the limit is negative.
    """
    if cam.ndim != 2:
        raise ValueError(f"want a map (h, w), not {cam.shape}")
    return write_png(colour_signed(_few_cells(cam), limit))


def signed_ramp() -> bytes:
    """Return the signed palette from its negative to its positive end as a PNG."""
    return write_png(colour_signed(np.linspace(-1, 1, 161)[None], 1))


def _few_cells(cam: np.ndarray) -> np.ndarray:
    height, width = (min(side, MOST_CELLS) for side in cam.shape)
    if (height, width) == cam.shape:
        return cam
    # cv2 takes (width, height); every size of ours is (height, width)
    return np.asarray(cv2.resize(cam.astype(np.float64), (width, height), interpolation=cv2.INTER_AREA))


def shade(share: float) -> int:
    """Return the step, 0 to 10, of the page's shading for a share from 0 to 1; any share above 0 shows."""
    return min(10, math.ceil(share * 10)) if share > 0 else 0
