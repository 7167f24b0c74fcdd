"""Pure numbers about predictions and maps."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from batchcam.record.clusters import INDEPENDENT, ClusterMeans, Design
from batchcam.record.intervals import LEVEL, Interval


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """How one class fares.

    Attributes:
        labelled: samples that are labelled with it and have a prediction.
        correct: of those, predicted right.
        predicted: samples predicted as it.
        left_out: samples that are labelled with it and have no prediction: unreadable, or not finite.
        intervals: of the accuracy.
    """

    name: str
    labelled: int
    correct: int
    predicted: int
    left_out: int
    intervals: dict[str, Interval | None] = dataclasses.field(default_factory=dict)

    @property
    def accuracy(self) -> float | None:
        """Share of the labelled samples that were predicted right; None without any."""
        return self.correct / self.labelled if self.labelled else None


class ClassCounts:
    """What scores of classes are made of, counted part by part.

    Args:
        class_count: K.
    """

    def __init__(self, class_count: int) -> None:
        self._counts = np.zeros((4, class_count), np.int64)
        self._right = ClusterMeans()

    def add(self, labels: np.ndarray, predictions: np.ndarray, clusters: np.ndarray | None = None) -> None:
        """Count some samples.

        Args:
            labels: int64 (n,), -1 where not known.
            predictions: int64 (n,), -1 where there is none.
            clusters: number of each one's, int64 (n,).
        """
        known = (labels >= 0) & (predictions >= 0)
        self._right.add(np.where(known, labels == predictions, np.nan), clusters, labels)
        of = (
            labels[known],
            labels[known & (labels == predictions)],
            predictions[predictions >= 0],
            labels[(labels >= 0) & (predictions < 0)],
        )
        self._counts += [np.bincount(classes, minlength=self._counts.shape[1]) for classes in of]

    @property
    def labelled(self) -> int:
        """Samples with a label and a prediction."""
        return int(self._counts[0].sum())

    @property
    def accuracy(self) -> float | None:
        """Share of these that were predicted right; None without any."""
        return int(self._counts[1].sum()) / self.labelled if self.labelled else None

    @property
    def design(self) -> Design:
        """That of the accuracy."""
        return self._right.design()

    def interval(self, level: float = LEVEL) -> Interval | None:
        """Return that of the accuracy."""
        return self.design.wilson(int(self._counts[1].sum()), self.labelled, level)

    def scores(self, class_names: tuple[str, ...], level: float = LEVEL) -> list[ClassScore]:
        """Return one score for each of the K names, with intervals at a level of confidence.

        Accuracy is over samples with a label and a prediction, predictions are all counted.
        """
        rows = zip(class_names, *self._counts.tolist(), strict=True)
        return [
            ClassScore(
                name,
                labelled,
                correct,
                predicted,
                left_out,
                {"accuracy": self._right.design_of(k).wilson(correct, labelled, level)},
            )
            for k, (name, labelled, correct, predicted, left_out) in enumerate(rows)
        ]


class PairCounts:
    """How often each pair of classes occurs, counted part by part: a matrix of 20,000 classes would take gigabytes.

    Args:
        class_count: K.
    """

    def __init__(self, class_count: int) -> None:
        self.class_count = class_count
        self._codes, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Count some pairs of class indices, int64 (n,) each."""
        codes, counts = np.unique(first * self.class_count + second, return_counts=True)
        self._codes, places = np.unique(np.concatenate([self._codes, codes]), return_inverse=True)
        known, self._counts = self._counts, np.zeros(len(self._codes), np.int64)
        np.add.at(self._counts, places, np.concatenate([known, counts]))

    @property
    def found(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First class, second class and count of each pair that occurs, in order of the classes, int64 (p,)."""
        return *np.divmod(self._codes, self.class_count), self._counts

    def most_frequent(self) -> list[tuple[int, int, int]]:
        """Return first class, second class and count of each pair, the most frequent first, equal ones by class."""
        first, second, counts = self.found
        order = np.lexsort((self._codes, -counts))
        return list(zip(first[order].tolist(), second[order].tolist(), counts[order].tolist(), strict=True))


class Means:
    """Means of the finite values of each class, counted part by part: of any parts the same.

    Args:
        class_count: K.
    """

    def __init__(self, class_count: int) -> None:
        self._sums, self._squares = np.zeros((2, class_count + 1))
        self._counts = np.zeros(class_count + 1, np.int64)
        self._clustered = ClusterMeans()

    def add(self, values: np.ndarray, classes: np.ndarray, clusters: np.ndarray | None = None) -> None:
        """Count values, (n,), each with its class, int64 (n,), -1: none, and the number of its cluster."""
        self._clustered.add(values, clusters, classes)
        finite = np.isfinite(values)
        # one after the other, so that the sum does not depend on where a part ends
        places, found = classes[finite] + 1, values[finite].astype(np.float64)
        np.add.at(self._sums, places, found)
        np.add.at(self._squares, places, found * found)
        self._counts += np.bincount(places, minlength=len(self._counts))

    @property
    def of_all(self) -> float | None:
        """The mean whatever the class, None without any value."""
        count = int(self._counts.sum())
        return float(self._sums.sum()) / count if count else None

    @property
    def of_classes(self) -> list[float | None]:
        """The mean of each of the K classes, None without any value."""
        pairs = zip(self._sums[1:].tolist(), self._counts[1:].tolist(), strict=True)
        return [total / count if count else None for total, count in pairs]

    @property
    def deviation(self) -> float | None:
        """The standard deviation whatever the class, over count - 1; None of less than two values."""
        return deviation(*(float(values.sum()) for values in (self._sums, self._squares, self._counts)))

    @property
    def deviations(self) -> list[float | None]:
        """The same of each of the K classes."""
        values = (self._sums[1:].tolist(), self._squares[1:].tolist(), self._counts[1:].tolist())
        return [deviation(*each) for each in zip(*values, strict=True)]

    def intervals(self, level: float = LEVEL) -> list[Interval | None]:
        """Return that of each of the K classes' mean of values from 0 to 1, None of less than two."""
        rows = zip(self._sums[1:].tolist(), self._squares[1:].tolist(), self._counts[1:].tolist(), strict=True)
        return [mean_share_interval(*row, level, self._clustered.design_of(k)) for k, row in enumerate(rows)]


def mean_share_interval(
    total: float, squares: float, count: float, level: float = LEVEL, design: Design = INDEPENDENT
) -> Interval | None:
    """Return the interval of a mean of values from 0 to 1, from sums of them and their squares; None of less than 2."""
    found = deviation(total, squares, count)
    ends = None if found is None else design.mean(total / count, found, int(count), level)
    return ends and (max(0.0, ends[0]), min(1.0, ends[1]))


def deviation(total: float, squares: float, count: float) -> float | None:
    """Return the standard deviation of values, over count - 1, from their sums likewise; None of less than two."""
    return math.sqrt(max(0.0, squares - total * total / count) / (count - 1)) if count > 1 else None


def rate_text(value: float) -> str:
    """Return a share with three digits, and as many more as it takes not to read as all or nothing when it is not."""
    for digits in range(3, 10):
        text = f"{value:.{digits}f}"
        if float(text) == value or float(text) not in (0, 1):
            break
    return text


def bounded_rate(rate: float | None, count: int, interval: Interval | None, more: str = "") -> str:
    """Return a share with its interval and of how many it is, "-" without one: "0.800 (0.68–0.88, n 60)".

    `more` is said in the brackets, too.
    """
    return "-" if rate is None else f"{rate_text(rate)} {brackets(interval, f', n {count}{more}')}"


def brackets(interval: Interval | None, more: str = "") -> str:
    """Return an interval, "(0.68–0.88)", with digits enough for its ends to differ, up to six, or just `more`."""
    if interval is None:
        return f"({more.removeprefix(', ')})" if more else ""
    low, high = interval
    width = (high - low) / 2
    digits = min(6, max(2, math.ceil(-math.log10(width)))) if width >= 5e-7 else 2
    return f"({low:.{digits}f}–{high:.{digits}f}{more})".replace("-", "−")


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float | None:
    """Return the share of samples with a known label and a prediction that are right; None without any."""
    known = (labels >= 0) & (predictions >= 0)
    return float((labels == predictions)[known].mean()) if known.any() else None


def peak_hits(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return for which samples the map's largest value, the first of equal ones, lies on the object; bool (n,).

    Args:
        maps: (n, H, W), finite.
        masks: where the object is, bool (n, H, W).

    Raises:
        ValueError: the shapes differ.
    """
    if maps.shape != masks.shape:
        raise ValueError(f"maps are {maps.shape}, masks {masks.shape}")
    rows = len(maps)
    peaks = maps.reshape(rows, -1).argmax(1)
    return np.asarray(masks.reshape(rows, -1)[np.arange(rows), peaks])


def centre_hits(masks: np.ndarray) -> np.ndarray:
    """Return for which samples the image's centre lies on the object, the baseline of `peak_hits`; bool (n,)."""
    return np.asarray(masks[:, masks.shape[1] // 2, masks.shape[2] // 2])
