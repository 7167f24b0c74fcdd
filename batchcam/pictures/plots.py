"""What a notebook draws of an open run: a sample's overlay, and a figure of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from batchcam.errors import RunError, one_line
from batchcam.pictures.originals import Originals, open_originals
from batchcam.pictures.overlay import Overlay, View, overlay
from batchcam.store.run import Rows, Run, Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST: Final = (720, 720)
"""Box that a picture is scaled to fit if it is larger."""

INCHES: Final = (2.4, 2.9)
"""Width and height of a picture with its caption."""

FIRST: Final = 12
MOST: Final = 200
"""Pictures of one figure, where no rows are given, and at all."""


def draw(sample: Sample, class_: int | str | None, data: str | None, **look: Any) -> np.ndarray:
    """Return `Sample.overlay`."""
    run = sample.run
    if class_ is None and sample.prediction is None:
        why = f": {one_line(sample.error)}" if sample.error else ""
        raise RunError(f"{run.path}: {one_line(sample.id)}: no prediction{why}")
    drawn = _drawn(sample, run.cam(sample.row, class_), open_originals(run, data), look)
    if drawn.reason:
        raise RunError(f"{run.path}: {one_line(sample.id)}: {drawn.reason}")
    return drawn.picture


def plot(
    run: Run, rows: Rows | None, class_: int | str | None, data: str | None, columns: int, **look: Any
) -> Figure:  # fmt: skip
    """Return `Run.plot`."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ModuleNotFoundError("a figure needs matplotlib: pip install 'batchcam[audit]'") from error

    wanted = np.atleast_1d(np.arange(len(run))[slice(FIRST) if rows is None else rows])
    if not 0 < len(wanted) <= MOST or columns < 1:
        raise ValueError(f"{len(wanted)} pictures in {columns} columns, where a figure has 1 to {MOST}")
    if class_ is not None:
        run.class_index(class_)
    originals = open_originals(run, data)
    lines = -(-len(wanted) // columns)
    # pyplot readies a notebook to show figures; closed there, this one is shown once, where it is the cell's value
    figure = pyplot.figure(figsize=(INCHES[0] * columns, INCHES[1] * lines), layout="constrained")
    pyplot.close(figure)
    for place, row in enumerate(wanted.tolist(), 1):
        sample = run[row]
        drawn = _drawn(sample, _cam(sample, class_), originals, look)
        axes = figure.add_subplot(lines, columns, place)
        axes.imshow(drawn.picture)
        axes.set_axis_off()
        axes.set_title(_caption(sample, drawn), fontsize=8, parse_math=False)
    return figure


def _cam(sample: Sample, class_: int | str | None) -> np.ndarray | None:
    try:
        return sample.run.cam(sample.row, class_)
    except KeyError:
        return None


def _drawn(sample: Sample, cam: np.ndarray | None, originals: Originals, look: dict[str, Any]) -> Overlay:
    view = View.of(sample.run, sample)
    return overlay(originals.read(sample).image, cam, view, view.fitted(LARGEST), **look)


def _caption(sample: Sample, drawn: Overlay) -> str:
    truth = sample.label or "?"
    if sample.labels is not None:
        truth = ", ".join(np.array(sample.run.class_names)[sample.labels == 1]) or "none"
    said = f"{truth} → {sample.prediction} {sample.confidence:.2f}" if sample.prediction else sample.error
    return "\n".join(one_line(text) for text in (sample.id, said, drawn.reason) if text)
