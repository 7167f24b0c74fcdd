"""Gates: whether what moved between two runs may go on to production."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from batchcam.commands.compare.groups import GroupMovement
from batchcam.commands.compare.matching import Apart
from batchcam.commands.compare.movement import ClassMovement, SampleTotals, Totals
from batchcam.commands.compare.sigmoids import SigmoidChange, SigmoidGroupMovement, SigmoidMovement, SigmoidTotals
from batchcam.job.console import counted
from batchcam.record.groups import group_name
from batchcam.rules import FEWEST_IN_GROUP

CLASS_MAPS: Final = 10
"""Pairs of maps below which the mean of a class is not judged."""

BOTH_LABELS: Final = "of a class that both label, some yes and some no"

Found = tuple[float | None, str, str]
"""What was found, in words, and what is missing where nothing was."""

SLACK: Final = 1e-9  # a gate is exceeded by more than the rounding of its percentage


@dataclasses.dataclass(frozen=True)
class Gate:
    """A limit that was asked for.

    Attributes:
        option: that set it.
        limit: the largest, or smallest, value that passes.
        value: what was found; None: there is nothing to judge by, which does not pass.
        passed: whether the new run may go on.
        reason: why or why not, in one line.
    """

    option: str
    limit: float
    value: float | None
    passed: bool
    reason: str


def judge_gates(
    totals: Totals | SigmoidTotals,
    classes: Sequence[ClassMovement | SigmoidMovement],
    max_flips: float | None = None,
    max_accuracy_drop: float | None = None,
    max_auroc_drop: float | None = None,
    max_class_auroc_drop: float | None = None,
    min_cam_similarity: float | None = None,
    min_class_similarity: float | None = None,
    max_group_drop: float | None = None,
    groups: Sequence[GroupMovement | SigmoidGroupMovement] = (),
) -> tuple[Gate, ...]:
    """Return the gates that were asked for.

    Args:
        totals: what moved.
        classes: what moved for each class.
        max_flips: per cent of the compared samples, None: any.
        max_accuracy_drop: percentage points on the samples labelled in both, of single-label runs; None: any.
        max_auroc_drop, max_class_auroc_drop: points of 0.01 in the mean over the classes, and of each that has enough
            labels, of multi-label runs; None: any.
        min_cam_similarity: mean Spearman correlation of the maps, None: any.
        min_class_similarity: the same of each class that has `CLASS_MAPS` pairs of maps or more, None: any.
        max_group_drop: percentage points in each group that has enough labels, of multi-label runs of the AUROC of
            each class in each; None: any.
        groups: what moved in each group.
    """
    t = totals
    flipped = "have a class told otherwise" if isinstance(t, SigmoidTotals) else "flipped"
    flips = (t.flips_percent, f"{_number(t.flips_percent)} % of {t.compared} compared samples {flipped}", "compared")
    text = f"mean similarity {_number(t.spearman)} over {t.maps} pairs of maps"
    alike = (t.spearman, text, "with a map in both")
    asked = (
        ("--max-flips", max_flips, flips),
        *_drops(t, classes, max_accuracy_drop, max_auroc_drop, max_class_auroc_drop),
        ("--min-cam-similarity", min_cam_similarity, alike),
        ("--min-class-similarity", min_class_similarity, _least_alike(classes)),
        ("--max-group-drop", max_group_drop, _worst_group(groups)),
    )
    return tuple(_judge(option, limit, *found) for option, limit, found in asked if limit is not None)


def _drops(
    totals: Totals | SigmoidTotals,
    classes: Sequence[ClassMovement | SigmoidMovement],
    max_accuracy: float | None,
    max_auroc: float | None,
    max_class_auroc: float | None,
) -> Iterator[tuple[str, float | None, Found]]:
    """Yield option, limit and what was found of each gate on a score."""
    if isinstance(totals, SigmoidTotals):
        mean = totals.auroc_drop
        over = counted(totals.macro["auroc"].classes, "class") if mean is not None else ""
        text = f"a drop of {_number(mean)} points of the mean AUROC over {over}"
        yield "--max-auroc-drop", max_auroc, (mean, text, BOTH_LABELS)
        changes = [c for c in classes if isinstance(c, SigmoidChange)]
        yield "--max-class-auroc-drop", max_class_auroc, _worst_class(changes)
    else:
        text = f"a drop of {_number(totals.accuracy_drop)} points on {totals.labelled} labelled samples"
        yield "--max-accuracy-drop", max_accuracy, (totals.accuracy_drop, text, "labelled in both")


def _worst_class(changes: Sequence[SigmoidChange]) -> Found:
    """Return what a gate says of the class whose AUROC dropped most, among those with enough labels."""
    judged = [c for c in changes if c.is_judged]
    if not judged:
        return None, "", f"{BOTH_LABELS} with {FEWEST_IN_GROUP} labels"
    worst = max(judged, key=lambda c: c.auroc_drop or 0)
    left = len(changes) - len(judged)
    few = f"; {left} with too few labels not judged" if left else ""
    text = f"a drop of {_number(worst.auroc_drop)} points of AUROC on {counted(worst.old.known, 'label')} of"
    return worst.auroc_drop, f"{text} {group_name(worst.named)}{few}", ""


def judge_evidence(
    limit: float, totals: SampleTotals, samples: int, apart: Mapping[str, int], of_maps: bool
) -> tuple[Gate, ...]:
    """Return whether enough of OLD's samples were compared for the other gates to mean anything.

    Args:
        limit: per cent of them.
        totals: what moved.
        samples: of OLD.
        apart: how many ids of either run are not compared, by reason.
        of_maps: whether enough of them need a pair of maps too.
    """
    found = [(totals.compared, compared_text(totals, samples, apart))]
    if of_maps:
        reasons = _because(totals.without_maps)
        found.append((totals.maps, f"{totals.maps} of {samples} samples have a pair of maps{reasons}"))
    return tuple(_judge("--min-compared", limit, 100 * count / samples, text, "compared") for count, text in found)


def compared_text(totals: SampleTotals, samples: int, apart: Mapping[str, int]) -> str:
    """Return how many of OLD's samples could be compared, and why not the others."""
    reasons = {reason: count for reason, count in apart.items() if reason != Apart.ADDED.text}
    return f"{totals.compared} of {samples} samples could be compared{_because(reasons)}"


def _because(counts: Mapping[str, int]) -> str:
    """Return reasons in brackets, the runs by the names that they have on the command line."""
    named = (
        f"{n} {reason.replace(' in old', ' in OLD').replace(' in new', ' in NEW')}" for reason, n in counts.items()
    )
    return f" ({', '.join(named)})" if counts else ""


def _least_alike(classes: Sequence[ClassMovement | SigmoidMovement]) -> Found:
    """Return what a gate says of the class whose maps moved most."""
    found = [(c.spearman, c.name, c.maps) for c in classes if c.spearman is not None and c.maps >= CLASS_MAPS]
    if not found:
        return None, "", f"of a class with {CLASS_MAPS} pairs of maps"
    value, name, maps = min(found)
    return value, f"mean similarity {_number(value)} over {maps} pairs of maps of {name}", ""


def _worst_group(groups: Sequence[GroupMovement | SigmoidGroupMovement]) -> Found:
    """Return what a gate says of the group whose accuracy dropped most, or the AUROC of whose class did."""
    changes = [m for m in groups if isinstance(m, SigmoidGroupMovement)]
    if changes:
        return _worst_class(changes)
    judged = [m for m in groups if isinstance(m, GroupMovement) and m.is_judged]
    if not judged:
        return None, "", f"of a group with {FEWEST_IN_GROUP} samples labelled in both"
    worst = max(judged, key=lambda m: m.accuracy_drop or 0)
    few = f"; {counted(len(groups) - len(judged), 'smaller group')} not judged" if len(judged) < len(groups) else ""
    text = f"a drop of {_number(worst.accuracy_drop)} points on {worst.labelled} labelled samples of"
    return worst.accuracy_drop, f"{text} {group_name(worst.group)}{few}", ""


def _judge(option: str, limit: float, value: float | None, text: str, needed: str) -> Gate:
    """Return one gate: that what was found is at most its limit, or at least, as the option's name says."""
    if value is None:
        reason = f"{option} {limit:g}: exceeded: no sample is {needed}, so that nothing can be judged"
        return Gate(option, limit, None, False, reason)
    passed = value <= limit + SLACK if option.startswith("--max") else value >= limit - SLACK
    return Gate(option, limit, value, passed, f"{option} {limit:g}: {'passed' if passed else 'exceeded'}: {text}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.9g}"
