"""render: overlays of chosen samples on their original images, in one sheet or one file each. No torch."""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata
from typing import Final

import numpy as np

from batchcam.commands.render.config import RenderConfig
from batchcam.commands.render.selection import is_wrong, most_wrong, select, shown_class, spread
from batchcam.errors import ConfigError
from batchcam.job.console import Progress, note
from batchcam.pictures import heatmap, sheet
from batchcam.pictures.originals import Original, Originals, State, open_originals
from batchcam.pictures.overlay import View, overlay
from batchcam.record.asked import open_asked
from batchcam.record.rows import class_index
from batchcam.record.sigmoid_scores import sigmoid
from batchcam.record.spatial import spatial_share
from batchcam.rules import Status
from batchcam.store import landing
from batchcam.store.bringing import shown
from batchcam.store.ours import require_ours
from batchcam.store.problem import require_single_label
from batchcam.store.run import Run, Sample
from batchcam.store.stored_cams import stored_cam, stored_ranks

SHEET_PICTURES: Final = 20
"""Pictures of a sheet for which no number was asked: two rows of ten, evenly spread over the selected samples."""

SHEET_TILE: Final = (160, 160)
SINGLE_SIDE: Final = (320, 1200)
"""Pixels between which the longer side of a picture in a folder is brought; smaller or larger ones are scaled."""

SLUG_BYTES: Final = 100
LABELS_SHOWN: Final = 2
"""Of several labels a sample, in a caption."""

PREDICTED, LABEL = "predicted", "label"
"""What --contrast calls the class of each sample itself, unless a class has this very name."""

WRONG_COLOUR: Final = sheet.CHANGED_COLOUR


@dataclasses.dataclass(frozen=True)
class RenderSummary:
    """What was drawn.

    Attributes:
        out: the sheet, or the folder.
        files: written.
        selected: samples that the selection picked.
        pictures: of them drawn.
        unreadable: of these: samples that the worker could not read, shown as their error.
        missing_originals: drawn on grey because there is no image.
        unread_originals: drawn on grey because the image can't be decoded as the worker decoded it.
        changed_originals: drawn on grey because the image is not the one that was explained; findings.
        without_map: shown without a map: constant, not finite, or of a class whose CAM the run does not store.
        data: where --data says that the originals are; None: where the run found them.
        lost_files: shards, or run.h5, left out because they are gone or damaged; findings.
    """

    run: str
    out: str
    files: int
    selected: int
    pictures: int
    unreadable: int
    missing_originals: int
    unread_originals: int
    changed_originals: int
    without_map: int
    data: str | None = None
    lost_files: int = 0

    @property
    def misplaced(self) -> int:
        """How many originals are not where --data says that they are, if not one of those looked for is there."""
        looked_for = self.pictures - self.unreadable
        return self.missing_originals if self.data is not None and self.missing_originals == looked_for else 0

    @property
    def findings(self) -> int:
        """How many originals are not those explained, or all that were looked for in vain; and lost files."""
        return self.changed_originals + self.misplaced + self.lost_files


def render(config: RenderConfig) -> RenderSummary:
    """Draw the maps of a run's chosen samples over their original images.

    Raises:
        ConfigError: the run has no such sample or class, or the pictures would go into the run.
        RunError: not a run.
    """
    if config.of_one_label:
        why = "is of one label a sample; ask by --class, --wrong, --by confidence"
        require_single_label(f"render {config.of_one_label}", config.run, why=why)
    if config.is_sheet:
        require_ours(config.out, config.overwrite)
    with open_asked(config.run, config.partial, config.quiet) as run:
        rows = select(run, config.selection)
        drawing = _Drawing(run, config)
        if not len(rows):
            return _summary(config, drawing, 0, 0, 0, len(run.lost))
        drawn = _drawn_rows(rows, config)
        with Progress("render", len(drawn), "pictures", config.quiet) as progress:
            if config.is_sheet:
                files = _write_sheet(drawing, drawn, config, progress)
            else:
                _require_own_pictures(run, drawn, config)
                files = _write_each(drawing, drawn, config, progress)
    if drawing.first_missing:
        note(f"{drawing.counts[State.MISSING]} originals are missing: {drawing.first_missing}", config.quiet)
    return _summary(config, drawing, files, len(rows), len(drawn), len(run.lost))


def _summary(
    config: RenderConfig, drawing: _Drawing, files: int, selected: int, pictures: int, lost: int
) -> RenderSummary:
    return RenderSummary(
        run=shown(config.run),
        out=str(config.out),
        files=files,
        selected=selected,
        pictures=pictures,
        unreadable=drawing.unreadable,
        missing_originals=drawing.counts[State.MISSING],
        unread_originals=drawing.counts[State.UNREADABLE],
        changed_originals=drawing.counts[State.CHANGED],
        without_map=drawing.without_map,
        data=config.data,
        lost_files=lost,
    )


def picture_name(index: int, sample_id: str) -> str:
    """Return the file name of a sample's picture: its position in the dataset, and its id as far as names can hold it.

    Letters and digits of any script, dots, hyphens and underscores stay; runs of anything else become one underscore;
    the id's own extension goes. The position makes it unique, also where a file system knows no difference of case.
    """
    stem = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", unicodedata.normalize("NFC", sample_id))
    kept = re.sub(r"[^\w.-]+", "_", stem)
    slug = kept.encode("utf-8", "replace")[-SLUG_BYTES:].decode("utf-8", "ignore").strip("._- ")
    return f"{index:07d}-{slug}.png" if slug else f"{index:07d}.png"


def _drawn_rows(rows: np.ndarray, config: RenderConfig) -> np.ndarray:
    chosen = config.selection
    asked = bool(chosen.top or chosen.bottom or chosen.sample_ids)
    return rows if asked or not config.is_sheet else spread(rows, SHEET_PICTURES)


def _write_sheet(drawing: _Drawing, rows: np.ndarray, config: RenderConfig, progress: Progress) -> int:
    drawn = []
    for row in rows.tolist():
        drawn.append(drawing.draw(row, SHEET_TILE, SHEET_TILE))
        progress.advance(1)
    page = sheet.sheet(
        [d.tile for d in drawn], [d.caption for d in drawn], tile_size=SHEET_TILE, colours=[d.colour for d in drawn]
    )
    landing.make_folder(config.out.parent)
    landing.land(config.out, heatmap.write_png(page))
    landing.remove_stale_partials(config.out.parent, [config.out.name])
    return 1


def _require_own_pictures(run: Run, rows: np.ndarray, config: RenderConfig) -> None:
    for index, sample_id in zip(run.sample_index[rows].tolist(), run.sample_id[rows], strict=True):
        require_ours(config.out / picture_name(index, sample_id), config.overwrite)


def _write_each(drawing: _Drawing, rows: np.ndarray, config: RenderConfig, progress: Progress) -> int:
    landing.make_folder(config.out)
    smallest, largest = ((side, side) for side in SINGLE_SIDE)
    for row in rows.tolist():
        drawn = drawing.draw(row, smallest, largest)
        height, width = drawn.tile.shape[:2]
        # a caption beneath a narrow picture would have no room
        page = sheet.sheet([drawn.tile], [drawn.caption], 1, (height, max(width, SINGLE_SIDE[0])), 8, [drawn.colour])
        landing.land(config.out / picture_name(drawn.index, drawn.sample_id), heatmap.write_png(page))
        progress.advance(1)
    landing.remove_stale_partials(config.out, os.listdir(config.out))
    return len(rows)


@dataclasses.dataclass(frozen=True)
class _Drawn:
    index: int
    sample_id: str
    tile: np.ndarray
    caption: str
    colour: sheet.Colour


class _NoMapError(Exception):
    """A sample has no map to show; the message says why."""


class _Drawing:
    """Draws samples of one run and counts what was not as it should be."""

    def __init__(self, run: Run, config: RenderConfig) -> None:
        self.counts = dict.fromkeys(State, 0)
        self.unreadable = 0
        self.without_map = 0
        self.first_missing = ""
        self._run, self._config = run, config
        self._originals: Originals = open_originals(run, config.data)
        self._shown = shown_class(run, config.selection)
        self._contrast = tuple(self._class_named(name) for name in config.contrast or ())
        if config.contrast and len(run.class_names) < 2:
            raise ConfigError("--contrast: the run has one class, and nothing to contrast it with")
        if config.contrast and run.plan.maps_per_sample < 2:
            raise ConfigError(f"--contrast: the run stores CAMs of '{run.plan.cams}' only; explain with --cams all")

    def draw(self, row: int, smallest: tuple[int, int], largest: tuple[int, int]) -> _Drawn:
        """Return a sample's tile and caption.

        Args:
            row: of the run.
            smallest: (height, width) that a smaller picture is scaled up to fit.
            largest: (height, width) that a larger picture is scaled down to fit.
        """
        sample = self._run[row]
        class_ = self._class_of(sample)
        if sample.status & Status.UNREADABLE:
            self.unreadable += 1
            tile = sheet.message(f"unreadable: {sample.error}", smallest)
        else:
            original = self._originals.read(sample)
            self.counts[original.state] += 1
            if original.state is State.MISSING:
                self.first_missing = self.first_missing or original.reason
            tile = self._picture(sample, class_, original, smallest, largest)
        if sample.labels is None:
            wrong = None not in (sample.label, sample.prediction) and sample.label != sample.prediction
        else:
            wrong = class_ >= 0 and bool(is_wrong(self._run, sample.labels, sample.logits)[class_])
        return _Drawn(
            index=sample.index,
            sample_id=sample.id,
            tile=tile,
            caption=self._caption(sample, class_, wrong),
            colour=WRONG_COLOUR if wrong else sheet.CAPTION_COLOUR,
        )

    def _class_of(self, sample: Sample) -> int:
        """Return the class that a sample's picture is about, -1: none."""
        if self._shown is not None:
            return self._shown
        worst = None
        if self._config.selection.wrong and sample.labels is not None:
            worst = most_wrong(self._run, sample.labels, sample.logits)
        return int(self._run.prediction[sample.row]) if worst is None else worst

    def _picture(
        self, sample: Sample, class_: int, original: Original, smallest: tuple[int, int], largest: tuple[int, int]
    ) -> np.ndarray:
        signed, cam, reason = self._config.is_signed, None, ""
        try:
            cam = self._evidence(sample, class_)
        except _NoMapError as error:
            reason = str(error)
        bar = sheet.BAR_HEIGHT if signed else 0
        view = View.of(self._run, sample)
        size = view.fitted((largest[0] - bar, largest[1]), (smallest[0] - bar, smallest[1]))
        drawn = overlay(original.image, cam, view, size, self._config.palette, self._config.cells, signed)
        remarks = [original.remark] if original.image is None else []
        if not signed and cam is not None and np.isfinite(cam).all() and not (cam > 0).any():
            remarks.append("no positive evidence")
        picture = drawn.picture
        if drawn.reason:
            self.without_map += 1
            remarks.append(reason or drawn.reason)
        elif signed:
            picture = np.concatenate([picture, sheet.colour_bar(drawn.limit, picture.shape[1])])
        background = sheet.CHANGED_COLOUR if original.state is State.CHANGED else sheet.REMARK_COLOUR
        return sheet.with_banner(picture, ", ".join(remarks), background) if remarks else picture

    def _evidence(self, sample: Sample, class_: int) -> np.ndarray:
        """Return the raw map to show, (h, w)."""
        if not self._contrast:
            return self._cam(sample, class_)
        first, second = (self._cam(sample, wanted) for wanted in self._contrast)
        with np.errstate(over="ignore"):
            return np.asarray(first - second)

    def _cam(self, sample: Sample, wanted: int | str) -> np.ndarray:
        column = {PREDICTED: "prediction", LABEL: "label"}
        chosen = wanted if isinstance(wanted, int) else int(getattr(self._run, column[wanted])[sample.row])
        if chosen < 0:
            raise _NoMapError("no label" if wanted == LABEL else "no prediction")
        cam = stored_cam(sample.cams, sample.cam_class, chosen)
        if cam is None:
            raise _NoMapError(f"no CAM of {self._run.class_names[chosen]} stored")
        return cam

    def _class_named(self, name: str) -> int | str:
        if name in (PREDICTED, LABEL) and name not in self._run.class_names:
            return name
        return class_index(self._run, name, "--contrast")

    def _caption(self, sample: Sample, class_: int, wrong: bool) -> str:
        if sample.labels is None:
            outcome = "no prediction" if sample.prediction is None else f"{sample.prediction} {sample.confidence:.2f}"
            lines = [sample.id, f"{'unlabelled' if sample.label is None else sample.label} → {outcome}"]
        else:
            lines = [sample.id, _several(self._run, sample.labels), "→ no prediction"]
            if class_ >= 0 and np.isfinite(sample.logits[class_]):
                said = ("falsely", "missed")[sample.labels[class_]] if wrong else "→"
                lines[-1] = f"{said} {self._run.class_names[class_]} {float(sigmoid(sample.logits[class_])):.2f}"
        if sample.offset is not None and (rank := stored_ranks(sample.cam_class[None], np.array([class_]))[0]) >= 0:
            share = float(spatial_share(sample.cams[rank].mean(), sample.offset[rank]))
            lines += [f"{share:.0%} of this logit is in these cells"] if np.isfinite(share) else []
        if self._config.contrast:
            lines.append(" − ".join(self._config.contrast))
        return "\n".join(sheet.printable(line) for line in lines)


def _several(run: Run, labels: np.ndarray) -> str:
    """Return the first classes that are true of a sample, and how many more there are."""
    true = [run.class_names[k] for k in np.flatnonzero(labels == 1).tolist()]
    more = f" +{len(true) - LABELS_SHOWN}" if len(true) > LABELS_SHOWN else ""
    return ", ".join(true[:LABELS_SHOWN]) + more or ("no class" if (labels >= 0).any() else "unlabelled")
