"""What `trend` keeps of a run: a few sums of each measure, overall, of each class and of each group."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from batchcam.commands.compare.matching import match_classes
from batchcam.commands.compare.reading import Part, Sides, measure, stated_labels, target_classes
from batchcam.job.stop import stop_if_asked
from batchcam.record.calibration import Reliability, expected_calibration_error
from batchcam.record.control_charts import arcsine, mann_whitney
from batchcam.record.evidence import border_share, cell_shares, entropy, in_corner, peak
from batchcam.record.groups import Numbering, group_name, grouped_by
from batchcam.rules import FEWEST_IN_GROUP, Status
from batchcam.store.run import Run
from batchcam.store.schema import meta_array
from batchcam.store.stored_cams import predicted_cams

MOST_PAIRS: Final = 2000
"""Maps of a night that are compared with the reference's, at even distances: the mean is known to 0.01 then."""

BINS: Final = 50
"""Of the histograms of shares."""

MAP_BYTES: Final = 64
"""Held for each cell of a map while its evidence is measured."""

MOST_NAMED: Final = 500
"""Classes, or groups, beyond which they have no series: what is kept of a year of nights would fill no document."""

OVERALL, CLASS, GROUP = "overall", "class", "group"
SCOPES: Final = (OVERALL, CLASS, GROUP)


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number a night.

    Attributes:
        text: what it is.
        of: which class's samples a series of a class has: `labelled` or `predicted`; "" where it is overall alone.
        is_rate: whether it is the share of samples of which something is true, so that its noise is known.
    """

    text: str
    of: str = "predicted"
    is_rate: bool = False


MEASURES: Final = {
    "accuracy": Measure("accuracy", "labelled", True),
    "unreadable": Measure("unreadable samples", "labelled", True),
    "confidence": Measure("mean confidence"),
    "calibration": Measure("calibration error (ECE)", ""),
    "flips": Measure("flips against the reference, of shared samples", is_rate=True),
    "similarity": Measure("CAM similarity to the reference, of shared samples"),
    "border": Measure("border share"),
    "spread": Measure("spread"),
    "peak_y": Measure("height of the peak, from the top"),
    "peak_x": Measure("place of the peak, from the left"),
    "corner": Measure("peaks in corner cells", is_rate=True),
    "confidence_rank": Measure("confidence above the reference's (Mann–Whitney)", ""),
    "border_rank": Measure("border share above the reference's (Mann–Whitney)", ""),
    "spread_rank": Measure("spread above the reference's (Mann–Whitney)", ""),
}
RANKED: Final = ("confidence", "border", "spread")
ADDED: Final = tuple(name for name, measure in MEASURES.items() if measure.of)


@dataclasses.dataclass(frozen=True)
class Night:
    """What is kept of a run.

    Attributes:
        name: of the run.
        digest: of its manifest: the same one, the same numbers.
        reference: digest of the manifest of the run that flips and similarity are told against; of itself, it has none.
        checkpoint: digest of its weights, and which of the checkpoint's.
        kind: class names and grid.
        group_by: columns of its groups.
        samples: how many it has.
        sums: count, sum and sum of squares of each measure, by scope, a class's or group's name, and the measure.
        calibration: ECE and its sampling variance; none without labels.
        histograms: counts of each of `RANKED`.
    """

    name: str
    digest: str
    reference: str
    checkpoint: str
    kind: dict[str, Any]
    group_by: list[str]
    samples: int
    sums: dict[str, dict[str, dict[str, list[float]]]]
    calibration: list[float]
    histograms: dict[str, list[int]]

    def value(self, scope: str, name: str, measure: str) -> tuple[float, float, float]:
        """Return a value as people read it, as it is judged, and the sampling variance of that; NaN where none is."""
        count, total, squares = self.sums.get(scope, {}).get(name, {}).get(measure, (0, 0, 0))
        if count < FEWEST_IN_GROUP:
            return math.nan, math.nan, math.nan
        mean = total / count
        if MEASURES[measure].is_rate:
            angle, variance = arcsine(np.array(total), np.array(count))
            return mean, float(angle), float(variance)
        return mean, mean, max(0.0, squares / count - mean * mean) / (count - 1)

    def overall(self, measure: str, reference: Night) -> tuple[float, float, float]:
        """Return the same of a measure that is of all samples alone."""
        if measure == "calibration":
            value, variance = self.calibration or (math.nan, math.nan)
        elif reference.digest != self.digest:
            counts = (np.array(night.histograms[measure.removesuffix("_rank")]) for night in (self, reference))
            value, variance = mann_whitney(*counts)
        else:
            value = variance = math.nan
        return value, value, variance


class _Sums:
    """Count, sum and sum of squares of each measure, by a number of what has them."""

    def __init__(self) -> None:
        self._sums = {name: np.zeros((3, 0)) for name in ADDED}

    def add(self, measure: str, numbers: np.ndarray, values: np.ndarray) -> None:
        known = np.isfinite(values) & (numbers >= 0)
        numbers, values = numbers[known], values[known].astype(np.float64)
        there = self._sums[measure]
        size = max(there.shape[1], int(numbers.max(initial=-1)) + 1)
        grown = np.zeros((3, size))
        grown[:, : there.shape[1]] = there
        for row, weights in zip(grown, (None, values, values * values), strict=True):
            row += np.bincount(numbers, weights, size)
        self._sums[measure] = grown

    def named(self, names: Sequence[str]) -> dict[str, dict[str, list[float]]]:
        found: dict[str, dict[str, list[float]]] = {}
        for name, sums in self._sums.items():
            for number in np.flatnonzero(sums[0]).tolist():
                found.setdefault(names[number], {})[name] = sums[:, number].tolist()
        return found


class _Counter:
    """Counts a run's rows overall, by class and by group."""

    def __init__(self, run: Run, columns: Sequence[str]) -> None:
        self.run, self.columns = run, [meta_array(column).name for column in columns]
        self._sums = {scope: _Sums() for scope in SCOPES}
        self._groups, self._reliability = Numbering(), Reliability()
        self._histograms = {name: np.zeros(BINS, np.int64) for name in RANKED}

    def rows(self) -> None:
        """Count what the run alone tells."""
        names = ("label", "prediction", "confidence", "status", "cams", "cam_class", *self.columns)
        grid = self.run.plan.grid_size
        for _, block in self.run.blocks(names, held=MAP_BYTES * math.prod(grid)):
            label, prediction = block["label"], block["prediction"]
            cams = predicted_cams(block)
            shares, peaks = cell_shares(cams), peak(cams)
            judged = (label >= 0) & (prediction >= 0)
            confidence = np.where(prediction >= 0, block["confidence"], np.nan)
            values = {
                "accuracy": np.where(judged, label == prediction, np.nan),
                "unreadable": (block["status"] & Status.UNREADABLE > 0).astype(float),
                "confidence": confidence,
                "border": border_share(shares) if min(grid) > 2 else np.full(len(label), np.nan),
                "spread": entropy(shares),
                "peak_y": peaks[:, 0],
                "peak_x": peaks[:, 1],
                "corner": in_corner(peaks, grid),
            }
            self._add(values, {"labelled": label, "predicted": prediction}, block)
            sure = judged & np.isfinite(confidence)
            self._reliability.add(confidence[sure], (label == prediction)[sure])
            for name, counts in self._histograms.items():
                counts += np.histogram(values[name][np.isfinite(values[name])], BINS, (0, 1))[0]
            stop_if_asked()

    def against(self, reference: Run) -> None:
        """Count what moved since the reference, on samples of one id and the same image."""
        classes = match_classes(reference.class_names, self.run.class_names, shared_only=False)
        sides = Sides(reference, self.run, classes)
        step = -(-len(sides.rows.old) // MOST_PAIRS)
        for part in sides.parts():
            pairs = part.compared
            flips = classes.number(pairs.old["prediction"], classes.old) != classes.number(
                pairs.new["prediction"], classes.new
            )
            self._add_pairs("flips", flips, pairs)
            pairs = pairs.take(pairs.old_rows % step == 0)
            label, _ = stated_labels(pairs, classes)
            old = target_classes(pairs, classes, label, "old")
            alike = measure(sides, pairs, classes, label, old, lambda _: stop_if_asked())
            self._add_pairs("similarity", alike.spearman, pairs)

    def _add_pairs(self, name: str, values: np.ndarray, pairs: Part) -> None:
        block = {column: self.run[column][pairs.new_rows] for column in self.columns}
        self._add({name: values}, {"predicted": pairs.new["prediction"]}, block)

    def _add(
        self, values: Mapping[str, np.ndarray], classes: Mapping[str, np.ndarray], block: Mapping[str, np.ndarray]
    ) -> None:
        groups = self._groups.of([block[column] for column in self.columns]) if self.columns else None
        for name, each in values.items():
            self._sums[OVERALL].add(name, np.zeros(len(each), np.int64), each)
            self._sums[CLASS].add(name, classes[MEASURES[name].of], each)
            if groups is not None:
                self._sums[GROUP].add(name, groups, each)

    def sums(self) -> dict[str, dict[str, dict[str, list[float]]]]:
        """Return what was counted, by scope, name and measure."""
        groups = [group_name(group) for group in self._groups.numbers]
        names = {OVERALL: [""], CLASS: self.run.class_names, GROUP: groups}
        return {scope: self._sums[scope].named(named) for scope, named in names.items() if len(named) <= MOST_NAMED}

    def calibration(self) -> list[float]:
        """Return ECE and its sampling variance, with the square of what it is above 0 by chance."""
        bins = self._reliability.bins()
        error, total = expected_calibration_error(bins), sum(each.count for each in bins)
        if error is None or total < FEWEST_IN_GROUP:
            return []
        spreads = [each.count * each.true * (1 - each.true) for each in bins if each.true is not None]
        by_chance = sum(math.sqrt(2 * spread / math.pi) for spread in spreads) / total
        return [error, sum(spreads) / total**2 + by_chance**2]

    def histograms(self) -> dict[str, list[int]]:
        """Return the counts of each of `RANKED`."""
        return {name: counts.tolist() for name, counts in self._histograms.items()}


def read_night(run: Run, name: str, digests: tuple[str, str], reference: Run, columns: Sequence[str]) -> Night:
    """Return what is kept of a run.

    Args:
        run: open.
        name: of the night.
        digests: of the manifests of the run and of the reference.
        reference: the run that flips and similarity are told against, open; may be the run itself.
        columns: of the manifest, to group samples by.

    Raises:
        RunError: a file of it is damaged.
    """
    counter = _Counter(run, grouped_by(columns, run.plan.meta, run.path))
    counter.rows()
    own, of_reference = digests
    if own != of_reference:
        counter.against(reference)
    plan = run.plan
    return Night(
        name=name,
        digest=own,
        reference=of_reference,
        checkpoint=f"{plan.checkpoint_sha256} {plan.weights_key or ''}".strip(),
        kind=kind_of(run),
        group_by=[*columns],
        samples=len(run),
        sums=counter.sums(),
        calibration=counter.calibration(),
        histograms=counter.histograms(),
    )


def kind_of(run: Run) -> dict[str, Any]:
    """Return what has to be the same of all nights, as JSON types."""
    return {"class_names": [*run.class_names], "grid_size": [*run.plan.grid_size], "method": run.plan.method}
