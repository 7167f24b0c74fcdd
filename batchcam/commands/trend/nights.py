"""What `trend` keeps of a run: a few sums of each measure, overall, of each class and of each group."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from batchcam.commands.compare.matching import match_classes
from batchcam.commands.compare.reading import Part, Sides, measure
from batchcam.job.stop import stop_if_asked
from batchcam.record.calibration import Reliability, expected_calibration_error
from batchcam.record.control_charts import arcsine, mann_whitney
from batchcam.record.evidence import border_share, cell_shares, entropy, in_corner, peak
from batchcam.record.groups import MOST_GROUPS, Numbering, group_name, grouped_by
from batchcam.rules import FEWEST_IN_GROUP, Status, array_name
from batchcam.store.plan import Plan
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
"""Classes, or groups, beyond which they have no series."""

OVERALL, CLASS, GROUP = "overall", "class", "group"
SCOPES: Final = (OVERALL, CLASS, GROUP)


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number a night.

    Attributes:
        of: which class's samples a series of a class has: `labelled` or `predicted`; "" where it is overall alone.
        is_rate: whether it is the share of samples of which something is true, so that its noise is known.
    """

    text: str
    of: str = "predicted"
    is_rate: bool = False


RANK: Final = "_rank"
"""What follows the name of a measure that is held against the reference's as a population."""

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
SUMMED: Final = tuple(name for name, measure in MEASURES.items() if measure.of)
NONE: Final = (math.nan,) * 3


@dataclasses.dataclass(frozen=True)
class Night:
    """What is kept of a run.

    Attributes:
        digest: of its manifest: the same one, the same numbers.
        reference: the digest of the run that flips and similarity are told against; its own: it has none.
        checkpoint: digest of its weights, and which of the checkpoint's.
        kind: what has to be the same of all nights.
        group_by: columns of its groups.
        numbers: by scope, a class's or group's name, and measure: the value as people read it, as it is judged, and the
            sampling variance of that.
        histograms: counts of each of `RANKED`.
    """

    name: str
    digest: str
    reference: str
    checkpoint: str
    kind: dict[str, Any]
    group_by: list[str]
    samples: int
    numbers: dict[str, dict[str, dict[str, list[float]]]]
    histograms: dict[str, list[int]]

    def value(self, scope: str, name: str, measure: str, reference: Night) -> Sequence[float]:
        """Return a value as people read it, as it is judged, and the sampling variance of that; NaN where none is."""
        ranked = measure.removesuffix(RANK)
        if ranked == measure:
            return self.numbers.get(scope, {}).get(name, {}).get(measure, NONE)
        if scope != OVERALL or reference.digest == self.digest:
            return NONE
        value, variance = mann_whitney(*(np.array(night.histograms[ranked]) for night in (self, reference)))
        return value, value, variance

    @property
    def size(self) -> int:
        """How many values it has."""
        return sum(len(of_name) for names in self.numbers.values() for of_name in names.values())


class _Counter:
    """Counts a run's rows overall, by class and by group."""

    def __init__(self, run: Run, columns: Sequence[str]) -> None:
        self.run, self.columns = run, [meta_array(column).name for column in columns]
        sizes = {OVERALL: 1, CLASS: len(run.class_names), GROUP: MOST_GROUPS if columns else 0}
        self._sums = {scope: {name: np.zeros((3, size)) for name in SUMMED} for scope, size in sizes.items()}
        self._groups, self._reliability = Numbering(), Reliability()
        self.histograms = {name: np.zeros(BINS, np.int64) for name in RANKED}

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
            for name, counts in self.histograms.items():
                counts += np.histogram(values[name][np.isfinite(values[name])], BINS, (0, 1))[0]
            stop_if_asked()

    def against(self, reference: Run) -> None:
        """Count what moved since the reference, on samples of one id and the same image."""
        classes = match_classes(reference.class_names, self.run.class_names, shared_only=False)
        sides = Sides(reference, self.run, classes)
        step = -(-len(sides.rows.old) // MOST_PAIRS)
        for part in sides.parts():
            pairs = part.compared
            self._add_pairs("flips", pairs.old["prediction"] != pairs.new["prediction"], pairs)
            pairs = pairs.take(pairs.old_rows % step == 0)
            old = classes.number(pairs.old["prediction"], classes.old)
            alike = measure(sides, pairs, classes, old, old, lambda _: stop_if_asked())
            self._add_pairs("similarity", alike.spearman, pairs)

    def _add_pairs(self, name: str, values: np.ndarray, pairs: Part) -> None:
        block = {column: self.run[column][pairs.new_rows] for column in self.columns}
        self._add({name: values}, {"predicted": pairs.new["prediction"]}, block)

    def _add(
        self, values: Mapping[str, np.ndarray], classes: Mapping[str, np.ndarray], block: Mapping[str, np.ndarray]
    ) -> None:
        groups = {GROUP: self._groups.of([block[column] for column in self.columns])} if self.columns else {}
        for name, each in values.items():
            numbers = {OVERALL: np.zeros(len(each), np.int64), CLASS: classes[MEASURES[name].of], **groups}
            for scope, number in numbers.items():
                known = np.isfinite(each) & (number >= 0)
                told = each[known].astype(np.float64)
                for row, weights in zip(self._sums[scope][name], (None, told, told * told), strict=True):
                    row += np.bincount(number[known], weights, len(row))

    def numbers(self) -> dict[str, dict[str, dict[str, list[float]]]]:
        """Return what was counted, by scope, name and measure."""
        groups = [group_name(group) for group in self._groups.numbers]
        names = {OVERALL: [""], CLASS: self.run.class_names, GROUP: groups}
        found: dict[str, dict[str, dict[str, list[float]]]] = {
            scope: {} for scope, named in names.items() if len(named) <= MOST_NAMED
        }
        for scope, of_scope in found.items():
            for name, sums in self._sums[scope].items():
                for number in np.flatnonzero(sums[0] >= FEWEST_IN_GROUP).tolist():
                    of_scope.setdefault(names[scope][number], {})[name] = _judged(name, *sums[:, number].tolist())
        if error := self._calibration():
            found[OVERALL].setdefault("", {})["calibration"] = error
        return found

    def _calibration(self) -> list[float]:
        """Return ECE, twice, and its sampling variance, with the square of what it is above 0 by chance."""
        bins = self._reliability.bins()
        error, total = expected_calibration_error(bins), sum(each.count for each in bins)
        if error is None or total < FEWEST_IN_GROUP:
            return []
        spreads = [each.count * each.true * (1 - each.true) for each in bins if each.true is not None]
        by_chance = sum(math.sqrt(2 * spread / math.pi) for spread in spreads) / total
        return [error, error, sum(spreads) / total**2 + by_chance**2]


def _judged(measure: str, count: float, total: float, squares: float) -> list[float]:
    """Return a mean, as it is judged, and the sampling variance of that, from the sums of its values."""
    mean = total / count
    if MEASURES[measure].is_rate:
        return [mean, *map(float, arcsine(np.array(total), np.array(count)))]
    return [mean, mean, max(0.0, squares / count - mean * mean) / (count - 1)]


def read_night(run: Run, name: str, digests: tuple[str, str], reference: Run, columns: Sequence[str]) -> Night:
    """Return what is kept of a run.

    Args:
        run: open.
        digests: of the manifests of the run and of the reference.
        reference: the run that flips and similarity are told against, open; may be the run itself.
        columns: of the manifest, to group samples by; a run that lacks one has no groups.

    Raises:
        RunError: a file of it is damaged.
    """
    plan, (own, of_reference) = run.plan, digests
    counter = _Counter(run, grouped_by(columns, plan.meta, run.path) if has_columns(plan, columns) else ())
    counter.rows()
    if own != of_reference:
        counter.against(reference)
    return Night(
        name=name,
        digest=own,
        reference=of_reference,
        checkpoint=f"{plan.checkpoint_sha256} {plan.weights_key or ''}".strip(),
        kind=kind_of(plan),
        group_by=[*columns],
        samples=len(run),
        numbers=counter.numbers(),
        histograms={name: counts.tolist() for name, counts in counter.histograms.items()},
    )


def has_columns(plan: Plan, columns: Sequence[str]) -> bool:
    """Return whether samples of a run can be grouped by columns of the manifest."""
    return all(column in plan.meta or array_name(column) in plan.meta for column in columns)


def kind_of(plan: Plan) -> dict[str, Any]:
    """Return what has to be the same of all nights, as JSON types."""
    return {
        "class_names": [*plan.class_names],
        "grid_size": [*plan.grid_size],
        "method": plan.method,
        "control": plan.control,
        "problem_type": plan.problem_type,
    }
