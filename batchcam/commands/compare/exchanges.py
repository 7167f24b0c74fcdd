"""Classes that look exchanged between two runs: suspected from predictions and last layers, then measured."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from batchcam.commands.compare.matching import Classes
from batchcam.commands.compare.movement import ClassMovement, Movement
from batchcam.commands.compare.reading import Sides, measure, target_classes
from batchcam.job.console import Progress
from batchcam.record.metrics import PairCounts
from batchcam.store.run import Run

DEVIATIONS = 2.5
"""Standard deviations of a fair coin by which more than half of a class's samples must follow it to another."""


@dataclasses.dataclass(frozen=True)
class Exchange:
    """Classes of the new run that each look like a different class of the old run: like the one before it.

    Attributes:
        classes: their names; the first looks like the last.
        samples: samples that the old run predicts as one of them.
        followed: of these, how many the new run predicts as the class that follows.
        same_weights: whether the new last layer has, for each, exactly the old weights and bias of the one before.
        maps: pairs of maps, of these samples, of the class that follows.
        spearman: mean over these.
        spearman_as_named: mean over the samples' maps of one class name.
    """

    classes: tuple[str, ...]
    samples: int
    followed: int
    same_weights: bool
    maps: int
    spearman: float | None
    spearman_as_named: float | None


def find_exchanges(sides: Sides, predicted: PairCounts) -> list[Exchange]:
    """Return the classes that look exchanged, those of most samples first; the runs are read again if there are any.

    Args:
        sides: the runs.
        predicted: how often the compared samples are predicted as one class by the old run and as another by the new.

    Raises:
        RunError: a shard can't be read.
    """
    by_prediction = followers(predicted)
    by_weights = same_weights(sides.old, sides.new, sides.classes)
    by_prediction[np.isin(by_prediction, by_weights)] = -1  # a class follows one other at most
    following = np.where(by_weights >= 0, by_weights, by_prediction)
    found = cycles(following)
    if not found:
        return []
    as_named, exchanged = _measure(sides, found)
    exchanges = [_exchange(cycle, as_named, exchanged, by_weights) for cycle in found]
    return sorted(exchanges, key=lambda e: -e.samples)


def followers(predicted: PairCounts) -> np.ndarray:
    """Return what each class of the old run became in the new one, int64 (K,), -1 where that can't be told.

    Class a became class b where the samples predicted as a by the old run and as b by the new one are clearly more
    than half of the old run's a and of the new run's b: by `DEVIATIONS`, so of 7 samples all, of 40 at least 28, of
    1000 at least 540.

    Args:
        predicted: how often each pair of predicted classes occurs, the old run's first.
    """
    before, after, counts = predicted.found
    clear = np.ones(len(counts), bool)
    for classes in (before, after):
        sizes = np.bincount(classes, counts, predicted.class_count)[classes]
        clear &= counts - sizes / 2 > DEVIATIONS / 2 * np.sqrt(sizes)
    following = np.full(predicted.class_count, -1)
    following[before[clear]] = after[clear]
    return following


def same_weights(old: Run, new: Run, classes: Classes) -> np.ndarray:
    """Return the class whose weights and bias in the new last layer are exactly those of each class in the old one.

    Args:
        old, new: the runs.
        classes: of both.

    Returns:
        Numbers of the common numbering, int64 (K,); -1 where there is none, rows of equal weights, or a series of
        several networks.
    """
    following = np.full(len(classes.names), -1)
    if max(len(old.networks), len(new.networks)) > 1:
        return following
    places = _places(new, classes.new)
    for digest, number in _places(old, classes.old).items():
        following[number] = places.get(digest, -1)
    return following


def _places(run: Run, numbers: np.ndarray) -> dict[bytes, int]:
    """Return the class of each row of the last layer by the row's digest, without rows that stand twice."""
    weight, bias = run.classifier
    digests = [hashlib.sha256(w.tobytes() + b.tobytes()).digest() for w, b in zip(weight, bias, strict=True)]
    _, first, counts = np.unique(np.array(digests, "V32"), return_index=True, return_counts=True)
    return {digests[row]: int(numbers[row]) for row in first[counts == 1].tolist()}


def cycles(following: np.ndarray) -> list[tuple[int, ...]]:
    """Return the cycles of two and more among classes, each from its smallest one.

    Args:
        following: class that follows each class, -1 for none; no two are followed by one.
    """
    found = []
    seen = np.zeros(len(following), bool)
    for start in range(len(following)):
        path, each = [], start
        while each >= 0 and not seen[each]:
            seen[each] = True
            path.append(each)
            each = int(following[each])
        if each == start and len(path) > 1:
            found.append(tuple(path))
    return found


def _measure(sides: Sides, found: Sequence[tuple[int, ...]]) -> tuple[list[ClassMovement], list[ClassMovement]]:
    """Return what moved for each class of the old run as named, and when the classes of cycles take each other's names.

    Only samples that the old run predicts as a class of a cycle count.
    """
    classes, members = sides.classes, [each for cycle in found for each in cycle]
    followed = np.arange(len(classes.names))
    followed[members] = [each for cycle in found for each in np.roll(cycle, -1)]
    renamed = dataclasses.replace(classes, new=np.argsort(followed)[classes.new])
    moved = [Movement(classes.names) for _ in range(2)]
    with Progress("compare", 0, "maps", quiet=True) as progress:
        for part in sides.parts():
            chosen = part.compared
            chosen = chosen.take(np.isin(classes.number(chosen.old["prediction"], classes.old), members))
            unlabelled = np.full(len(chosen.reasons), -1)
            for each, movement in zip((classes, renamed), moved, strict=True):
                predicted = target_classes(chosen, each, unlabelled, "old")
                movement.add(measure(sides, chosen, each, unlabelled, predicted, progress.advance))
    as_named, exchanged = (movement.classes() for movement in moved)
    return as_named, exchanged


def _exchange(
    cycle: tuple[int, ...], as_named: list[ClassMovement], exchanged: list[ClassMovement], by_weights: np.ndarray
) -> Exchange:
    mine = [exchanged[k] for k in cycle]
    samples = sum(c.old_predicted for c in mine)
    return Exchange(
        classes=tuple(c.name for c in mine),
        samples=samples,
        followed=samples - sum(c.left for c in mine),
        same_weights=bool((by_weights[list(cycle)] == np.roll(cycle, -1)).all()),
        maps=sum(c.maps for c in mine),
        spearman=_mean_similarity(mine),
        spearman_as_named=_mean_similarity([as_named[k] for k in cycle]),
    )


def _mean_similarity(classes: Sequence[ClassMovement]) -> float | None:
    maps = sum(c.maps for c in classes if c.spearman is not None)
    return sum(c.spearman * c.maps for c in classes if c.spearman is not None) / maps if maps else None
