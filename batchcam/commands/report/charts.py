"""Charts as inline SVG and small maps as PNG, for a page that runs no script.

Colours are CSS classes of the page's stylesheet, so that one chart serves light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from batchcam.pictures.heatmap import colour_signed, write_png
from batchcam.pictures.html import Markup, element
from batchcam.pictures.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TICKS,
    TOP,
    WIDTH,
    axis_name,
    grid_step,
    horizontal,
    label_at,
    number,
    plain,
    svg,
)
from batchcam.record.calibration import Bin

SQUARE = 340
BAR_GAP = 1.5

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
            element("title", f"{plain(edges[0])} to {plain(edges[1])}: {count}"),
            x=number(LEFT + index * step + BAR_GAP / 2),
            y=number(base - height),
            width=number(max(0.5, step - BAR_GAP)),
            height=number(height),
            class_=f"bar {kind}",
        )
        bars.append(bar if count else None)
    grid = [horizontal(base - tick * scale, f"{tick:,}", LEFT, WIDTH - RIGHT) for tick in ticks]
    labels = [
        label_at(LEFT + (WIDTH - LEFT - RIGHT) * i / TICKS, base + 16, plain(low + (high - low) * i / TICKS))
        for i in range(TICKS + 1)
    ]
    return svg((HEIGHT, WIDTH), summary, *grid, *bars, *labels, axis_name(WIDTH, HEIGHT, axis))


def reliability_diagram(bins: Sequence[Bin], names: tuple[str, str], summary: str) -> Markup:
    """Return what is true over its probability: a bar for each bin, a dot at its mean, and the ideal as a diagonal.

    Args:
        bins: of equal width from 0 to 1.
        names: of the probability, and of the share that is true.
        summary: the chart in a sentence, for those who don't see it.
    """
    side_x, side_y = SQUARE - LEFT - RIGHT, SQUARE - TOP - BOTTOM
    base = SQUARE - BOTTOM
    grid = [horizontal(base - side_y * i / TICKS, f"{i / TICKS:g}", LEFT, SQUARE - RIGHT) for i in range(TICKS + 1)]
    labels = [label_at(LEFT + side_x * i / TICKS, base + 16, f"{i / TICKS:g}") for i in range(TICKS + 1)]
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
                x=number(LEFT + each.low * side_x + BAR_GAP / 2),
                y=number(base - height),
                width=number((each.high - each.low) * side_x - BAR_GAP),
                height=number(height),
                class_="bar right",
            )
        )
        dot = {"cx": LEFT + each.confidence * side_x, "cy": base - each.true * side_y}
        dots.append(
            element("circle", element("title", said), **{k: number(v) for k, v in dot.items()}, r=3.5, class_="dot")
        )
    diagonal = element("line", x1=LEFT, y1=base, x2=LEFT + side_x, y2=TOP, class_="diagonal")
    name = axis_name(SQUARE, SQUARE, f"{names[0]} → · {names[1]} ↑")
    return svg((SQUARE, SQUARE), summary, *grid, *bars, diagonal, *dots, *labels, name)


def nice_ticks(most: float) -> list[int]:
    """Return whole numbers from 0 to at least `most`, evenly spaced by 1, 2 or 5 times a power of ten."""
    step = int(grid_step(max(most, TICKS)))
    return list(range(0, math.ceil(most / step) * step + 1, step))


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
