"""Classes that look exchanged between two runs: suspected from predictions and last layers, then measured."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from batchcam.commands.compare.matching import Classes, Matching
from batchcam.commands.compare.movement import Pairs, total
from batchcam.commands.compare.reading import Side, measure
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


def find_exchanges(old: Side, new: Side, rows: Matching, classes: Classes, pairs: Pairs) -> list[Exchange]:
    """Return the classes that look exchanged, those of most samples first.

    Args:
        old, new: the runs.
        rows: the compared pairs.
        classes: of both runs.
        pairs: what moved for each of `rows`.

    Raises:
        RunError: a shard can't be read.
    """
    by_prediction = followers(pairs.old_prediction, pairs.new_prediction, len(classes.names))
    by_weights = same_weights(old.run, new.run, classes)
    by_prediction[np.isin(by_prediction, by_weights)] = -1  # a class follows one other at most
    following = np.where(by_weights >= 0, by_weights, by_prediction)
    found = [_measure(old, new, rows, classes, pairs, cycle, by_weights) for cycle in cycles(following)]
    return sorted(found, key=lambda e: -e.samples)


def followers(old: np.ndarray, new: np.ndarray, class_count: int) -> np.ndarray:
    """Return what each class of the old run became in the new one, int64 (K,), -1 where that can't be told.

    Class a became class b where the samples predicted as a by the old run and as b by the new one are clearly more
    than half of the old run's a and of the new run's b: by `DEVIATIONS`, so of 7 samples all, of 40 at least 28, of
    1000 at least 540.

    Args:
        old, new: predicted class of each sample in one numbering, (n,).
        class_count: K.
    """
    codes, counts = np.unique(old * class_count + new, return_counts=True)
    before, after = np.divmod(codes, class_count)
    clear = np.ones(len(codes), bool)
    for classes, predictions in ((before, old), (after, new)):
        sizes = np.bincount(predictions, minlength=class_count)[classes]
        clear &= counts - sizes / 2 > DEVIATIONS / 2 * np.sqrt(sizes)
    following = np.full(class_count, -1)
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


def _measure(
    old: Side,
    new: Side,
    rows: Matching,
    classes: Classes,
    pairs: Pairs,
    cycle: tuple[int, ...],
    by_weights: np.ndarray,
) -> Exchange:
    """Return what the maps say when the new run's classes of a cycle take the name of the one before."""
    followed = np.arange(len(classes.names))
    followed[list(cycle)] = np.roll(cycle, -1)
    chosen = np.isin(pairs.old_prediction, cycle)
    part = dataclasses.replace(rows, old=rows.old[chosen], new=rows.new[chosen])
    unlabelled = np.full(len(part.old), -1)
    renamed = dataclasses.replace(classes, new=np.argsort(followed)[classes.new])
    as_named, exchanged = (
        total(measure(old, new, part, each, unlabelled, "old", quiet=True)) for each in (classes, renamed)
    )
    return Exchange(
        classes=tuple(classes.names[k] for k in cycle),
        samples=exchanged.compared,
        followed=exchanged.compared - exchanged.flips,
        same_weights=bool((by_weights[list(cycle)] == np.roll(cycle, -1)).all()),
        maps=exchanged.maps,
        spearman=exchanged.spearman,
        spearman_as_named=as_named.spearman,
    )
