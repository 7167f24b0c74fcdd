"""The scores of a localisation, each beside that of the image's centre, over all samples and class by class."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numpy as np

from batchcam.commands.localize.judging import Judged, Method
from batchcam.commands.localize.protocol import ANY, ANY_RIGHT, IOU_LEVELS, LARGEST, STRICT, THRESHOLDS, Tally, mean
from batchcam.record.clusters import Design, design_of, jackknife_error, share_interval
from batchcam.record.intervals import LEVEL

SCORES: Final = {
    "max_box_acc_v2": "MaxBoxAccV2",
    **{f"max_box_acc_v2_iou_{level}": f"  at IoU {level}" for level in IOU_LEVELS},
    "max_box_acc": "MaxBoxAcc",
    "top_1_loc": "Top-1 Loc",
    "pxap": "PxAP",
    "pointing_game": "pointing game",
    "peak_inside": "peak inside",
    "energy_inside": "energy inside",
    "object_share": "object's share",
}
"""What people read for each score."""

COLUMNS: Final = {
    "pointing_game": ("points", "centre_points"),
    "peak_inside": ("peak_inside", "centre_inside"),
    "energy_inside": ("energy", "centre_energy"),
    # a map that is the same everywhere would have so much of its energy inside
    "object_share": ("object_share", "object_share"),
}
"""Scores that are means over samples: the column of the maps, and that of the centre."""

RATES: Final = ("pointing_game", "peak_inside")
DESIGNS: Final = ("peak_inside", "energy_inside")
"""Scores whose design effect is told."""


@dataclasses.dataclass(frozen=True)
class Score:
    """One number of a set of samples, and the same for the centre's Gaussian, which has seen no image.

    Attributes:
        percent: 0 to 100; None where no sample could be judged.
        centre_percent: of the centre.
        samples: that it is about.
        interval: of `percent`, None where none is known, as of boxes and pixels of a class.
        threshold: share of a map's largest value at which boxes are drawn; None where there is none.
        centre_threshold: of the centre.
    """

    percent: float | None
    centre_percent: float | None
    samples: int
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    centre_threshold: float | None = None


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """The same for the samples of one class.

    Attributes:
        name: the class whose CAM is judged.
        samples: judged.
        scores: by name; boxes are drawn at the thresholds of the whole set.
    """

    name: str
    samples: int
    scores: dict[str, Score]


@dataclasses.dataclass(frozen=True)
class _Thresholds:
    """Number of the threshold for each rule and IoU level, int (3, 3): of the maps and of the centre."""

    maps: np.ndarray
    centre: np.ndarray


def score(
    judged: Judged, method: Method, class_names: tuple[str, ...], level: float = LEVEL
) -> tuple[dict[str, Score], list[ClassScores]]:
    """Return the scores by name, of all judged cases and of those of each class that has any.

    Args:
        level: of confidence of their intervals.
    """
    rows, totals = judged.rows, judged.total()
    best = (np.stack([tally.best(rule) for rule in (LARGEST, ANY, ANY_RIGHT)]) for tally in totals)
    thresholds = _Thresholds(*best)
    classes = []
    for class_ in sorted(judged.tallies):
        members = rows[judged.classes[rows] == class_]
        scores = _scores(judged, members, judged.tallies[class_], thresholds, method, level)
        classes.append(ClassScores(class_names[class_], len(members), scores))
    scores = _scores(judged, rows, totals, thresholds, method, level)
    scores["pointing_game"] = _over_classes([c.scores["pointing_game"] for c in classes])
    for name, error in errors(judged, totals[0]).items():
        if name in scores and (share := scores[name].percent) is not None and math.isfinite(error):
            units = scores[name].samples if judged.clusters is None else len(np.unique(judged.clusters[rows]))
            interval = share_interval(share / 100, error / 100, min(units, scores[name].samples), level)
            scores[name] = dataclasses.replace(scores[name], interval=_percents(interval))
    return scores, classes


def errors(judged: Judged, total: Tally) -> dict[str, float]:
    """Return standard errors of scores that are no means, by leaving out one group of samples after the other.

    Boxes are drawn at the thresholds of all: of few samples, new ones would find as many boxes whichever are left out.
    """
    found = []
    for part in judged.group_tallies.values():
        rest = total - part
        any_box, right, largest = (rest.found(rule, total.best(rule)) for rule in (ANY, ANY_RIGHT, LARGEST))
        levels = {f"max_box_acc_v2_iou_{level}": any_box[i] for i, level in enumerate(IOU_LEVELS)}
        boxes = {"max_box_acc_v2": any_box.mean(), "max_box_acc": largest[STRICT], "top_1_loc": right[STRICT]}
        found.append({**levels, **boxes, "pxap": rest.pixel_precision()})
    of_all = jackknife_error(np.array([[*each.values()] for each in found]))
    return {**dict(zip(found[0], of_all.tolist(), strict=True)), "pointing_game": _pointing_error(judged)}


def _pointing_error(judged: Judged) -> float:
    """Return the standard error of the mean of classes' pointing games, in per cent, likewise."""
    rows = judged.rows[np.isfinite(judged.columns["points"][judged.rows])]
    classes, groups = (np.unique(each[rows], return_inverse=True)[1] for each in (judged.classes, judged.groups))
    if len({*groups.tolist()}) < 2:
        return math.nan
    hits, counts = np.zeros((2, classes.max() + 1, groups.max() + 1))
    np.add.at(hits, (classes, groups), judged.columns["points"][rows])
    np.add.at(counts, (classes, groups), 1)
    hits, counts = (each.sum(1, keepdims=True) - each for each in (hits, counts))
    rates = np.divide(hits, counts, out=np.full(hits.shape, np.nan), where=counts > 0)
    return float(100 * jackknife_error(np.nanmean(rates, 0)))


def _percents(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def macro(classes: list[ClassScores]) -> dict[str, Score]:
    """Return the mean of each score over the classes that have it."""
    return {name: _over_classes([c.scores[name] for c in classes if name in c.scores]) for name in SCORES}


def percent(share: float) -> float | None:
    """Return a share as a percentage, None for NaN."""
    return _known(100 * share)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _scores(
    judged: Judged,
    rows: np.ndarray,
    tallies: tuple[Tally, Tally],
    thresholds: _Thresholds,
    method: Method,
    level: float,
) -> dict[str, Score]:
    """Return the scores of the samples in `rows`, whose counts are `tallies`, of the maps and of the centre."""
    maps, centre = tallies
    scores = _box_scores(maps, centre, thresholds, method.target == "label")
    scores["pxap"] = Score(_known(maps.pixel_precision()), _known(centre.pixel_precision()), maps.masked)
    for name, columns in COLUMNS.items():
        values, of_centre = (judged.columns[column][rows] for column in columns)
        known = np.isfinite(values)
        design = design_of(values, None if judged.clusters is None else judged.clusters[rows])
        interval = _mean_interval(values[known], design, name in RATES, level)
        scores[name] = Score(percent(mean(values)), percent(mean(of_centre)), int(known.sum()), interval)
    return scores


def _mean_interval(values: np.ndarray, design: Design, is_rate: bool, level: float) -> tuple[float, float] | None:
    """Return the interval of the mean of shares, in per cent."""
    if len(values) < 2 and not (is_rate and len(values)):
        return None
    if is_rate:
        return _percents(design.wilson(int(values.sum()), len(values), level))
    ends = _percents(design.mean(float(values.mean()), float(values.std(ddof=1)), len(values), level))
    return None if ends is None else (max(0.0, ends[0]), min(100.0, ends[1]))


def _box_scores(maps: Tally, centre: Tally, thresholds: _Thresholds, labelled: bool) -> dict[str, Score]:
    found = [maps.found(rule, thresholds.maps[rule]) for rule in range(3)]
    of_centre = [centre.found(rule, thresholds.centre[rule]) for rule in range(3)]

    def at(rule: int, level: int) -> Score:
        if not maps.boxed:
            return Score(None, None, 0)
        cuts = (float(THRESHOLDS[each[rule, level]]) for each in (thresholds.maps, thresholds.centre))
        return Score(float(found[rule][level]), float(of_centre[rule][level]), maps.boxed, None, *cuts)

    scores = {"max_box_acc_v2": Score(_known(found[ANY].mean()), _known(of_centre[ANY].mean()), maps.boxed)}
    for i, level in enumerate(IOU_LEVELS):
        scores[f"max_box_acc_v2_iou_{level}"] = at(ANY, i)
    scores["max_box_acc"] = at(LARGEST, STRICT)
    if labelled:
        scores["top_1_loc"] = at(ANY_RIGHT, STRICT)
    return scores


def _over_classes(scores: list[Score]) -> Score:
    """Return the mean over classes that have samples: the pointing game counts each class alike."""
    scores = [s for s in scores if s.percent is not None]
    percents = np.array([(s.percent, s.centre_percent) for s in scores], np.float64).reshape(-1, 2)
    if not len(percents):
        return Score(None, None, 0)
    shown, centre = percents.mean(0).tolist()
    return Score(shown, centre, sum(s.samples for s in scores))
