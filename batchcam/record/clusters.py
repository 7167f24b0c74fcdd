"""Samples that are not independent, such as images of one patient: intervals and tests over clusters of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from statistics import NormalDist
from typing import Final

import numpy as np

from batchcam.errors import ConfigError
from batchcam.record.intervals import LEVEL, Interval, auroc_interval, mean_interval, needed, paired, student, wilson
from batchcam.record.names import stored_columns
from batchcam.rules import array_name
from batchcam.store.run import Run
from batchcam.store.schema import META, meta_array

FEWEST: Final = 10
"""Clusters below which intervals over them are rough."""

GROUPS: Final = 64
"""Into which clusters are dealt where an error follows from leaving out one group after the other."""

PENDING: Final = 2**18
"""Sums that are held before those of one cluster are joined."""

MASK: Final = 2**32 - 1
"""Of a code: the number of the cluster."""

NONE: Final = np.zeros(0)


@dataclasses.dataclass(frozen=True)
class Design:
    """How much samples tell of a mean.

    Attributes:
        effect: variance of the mean over that of as many independent samples; where they do not vary, as if those of a
            cluster were one (Kish 1965).
        clusters: that the samples are of; None: they are independent.
    """

    effect: float = 1.0
    clusters: int | None = None

    def wilson(self, successes: int, trials: int, level: float = LEVEL) -> Interval | None:
        """Return the interval of a rate as `intervals.wilson` does, of the effective number of trials."""
        share = self.share(level)
        return None if share is None else wilson(share * successes, share * trials, level)

    def paired(self, lost: int, won: int, trials: int, level: float = LEVEL) -> Interval | None:
        """Return the interval of a rate lost as `intervals.paired` does, of the effective number of pairs."""
        share = self.share(level)
        return None if share is None else paired(share * lost, share * won, share * trials, level)

    def mean(self, mean: float, deviation: float, count: int, level: float = LEVEL) -> Interval | None:
        """Return the interval of a mean as `intervals.mean_interval` does, by the variance between clusters.

        Liang and Zeger 1986, https://doi.org/10.1093/biomet/73.1.13, with Student's t of clusters - 1.
        """
        if self.clusters is None:
            return mean_interval(mean, deviation, count, level)
        if self.clusters < 2:
            return None
        return mean_interval(mean, deviation * math.sqrt(self.effect * self.clusters / count), self.clusters, level)

    def needed(self, rate: float, level: float = LEVEL) -> int:
        """Return how many trials `intervals.needed` has, with as many in a cluster as there are now."""
        return math.ceil(max(1.0, self.effect) * needed(rate, level=level))

    def share(self, level: float = LEVEL) -> float | None:
        """Return which share of the samples counts, None where nothing is known.

        Korn and Graubard 1998: 1 / effect, at most all of them, less for degrees of freedom.
        """
        if self.clusters is None:
            return 1.0
        if self.clusters < 2:
            return None
        return (NormalDist().inv_cdf((1 + level) / 2) / student(level, self.clusters - 1)) ** 2 / max(1.0, self.effect)


INDEPENDENT: Final = Design()


class ClusterMeans:
    """Means of values of samples in clusters, counted part by part: 32 bytes are kept of each cluster, of each kind."""

    def __init__(self) -> None:
        self._independent = True
        self._codes, self._sums = [np.zeros(0, np.int64)], [np.zeros((3, 0))]

    def add(self, values: np.ndarray, clusters: np.ndarray | None, kinds: np.ndarray | int = 0) -> None:
        """Count the finite ones of some values, (n,).

        Args:
            clusters: number of each one's, int64 (n,); None: they are independent.
            kinds: of each one, from -1, such as its class, int64 (n,).
        """
        if clusters is None:
            return
        self._independent = False
        known = np.isfinite(values)
        found = values[known].astype(np.float64)
        self._codes.append((((np.asarray(kinds) + 1) << 32) + clusters)[known])
        self._sums.append(np.stack([np.ones(len(found)), found, found * found]))
        if sum(map(len, self._codes[1:])) > max(PENDING, len(self._codes[0])):
            self._join()

    def _join(self) -> None:
        if len(self._codes) == 1:
            return
        codes, places = np.unique(np.concatenate(self._codes), return_inverse=True)
        sums = np.concatenate(self._sums, 1)
        self._codes, self._sums = [codes], [np.stack([np.bincount(places, row, len(codes)) for row in sums])]

    def by_cluster(self) -> np.ndarray:
        """Return count, sum and sum of squares of each cluster whatever the kind, (3, G)."""
        self._join()
        _, places = np.unique(self._codes[0] & MASK, return_inverse=True)
        return np.stack([np.bincount(places, row) for row in self._sums[0]])

    def design(self) -> Design:
        """Return the design of the mean of all values."""
        if self._independent:
            return INDEPENDENT
        counts, sums, squares = self.by_cluster()
        return _design(counts, sums, float(squares.sum()))

    def design_of(self, kind: int, sizes: np.ndarray | None = None) -> Design:
        """Return the design of the mean of the values of a kind.

        Args:
            sizes: how many values each cluster number has, where those that were not added are zero, (G,).
        """
        if self._independent:
            return INDEPENDENT
        self._join()
        start, end = np.searchsorted(self._codes[0], [(kind + 1) << 32, (kind + 2) << 32])
        counts, sums, squares = self._sums[0][:, start:end]
        if sizes is None:
            return _design(counts, sums, float(squares.sum()))
        there = self._codes[0][start:end] & MASK
        return _design(sizes[there], sums, float(squares.sum()), np.delete(sizes, there))

    def design_of_distances(self) -> Design:
        """Return the design of the sum over the kinds of how far their means are from 0, to the side of each."""
        if self._independent:
            return INDEPENDENT
        self._join()
        kinds, clusters = (
            np.unique(of, return_inverse=True)[1] for of in (self._codes[0] >> 32, self._codes[0] & MASK)
        )
        counts, sums, squares = self._sums[0]
        sides = np.sign(np.bincount(kinds, sums))[kinds]
        return _design(np.bincount(clusters, counts), np.bincount(clusters, sides * sums), float(squares.sum()))


def _design(counts: np.ndarray, sums: np.ndarray, squares: float, others: np.ndarray = NONE) -> Design:
    """Return the design of a mean.

    Args:
        counts, sums: of the values of each cluster.
        squares: sum of theirs.
        others: counts of clusters of zeros.
    """
    clusters, count = len(counts) + len(others), float(counts.sum() + others.sum())
    mean = float(sums.sum()) / max(count, 1)
    within = squares - mean * mean * count
    if clusters < 2 or within <= 1e-12 * squares:
        return Design(float((counts**2).sum() + (others**2).sum()) / max(count, 1), clusters)
    between = float(((sums - mean * counts) ** 2).sum()) + mean * mean * float((others**2).sum())
    return Design(between / within * (1 - 1 / count) / (1 - 1 / clusters), clusters)


def design_of(values: np.ndarray, clusters: np.ndarray | None) -> Design:
    """Return the design of the mean of the finite ones of some values, (n,), by the number of each one's cluster."""
    if clusters is None:
        return INDEPENDENT
    means = ClusterMeans()
    means.add(values, clusters)
    return means.design()


def exchanged_by_chance(sums: np.ndarray) -> float:
    """Return the exact two-sided p-value of so large a sum if each cluster's could as well have the other sign.

    The permutation test that swaps the two sides of a pair, cluster by cluster; of clusters of one sample it is
    McNemar's. Asymptotically that of Yang et al. 2010, https://doi.org/10.1002/bimj.201000035.

    Args:
        sums: what each cluster lost less what it won, whole numbers (G,).
    """
    sizes, times = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    most = round(float(sizes @ times))
    angles = np.pi * np.arange(most + 1) / (most + 1)
    with np.errstate(divide="ignore"):
        transform = sum((t * np.log(np.cos(s * angles) + 0j) for s, t in zip(sizes, times, strict=True)), 0 * angles)
    chances = np.fft.fft(np.exp(transform + 1j * most * angles)).real / (most + 1)
    beyond = np.abs(2 * np.arange(most + 1) - most) >= abs(round(float(sums.sum())))
    return min(1.0, max(0.0, float(chances[beyond].sum())))


def auroc_influence_of_clusters(
    influence: np.ndarray, true: np.ndarray, clusters: np.ndarray, count: int = 0
) -> np.ndarray:
    """Return what each cluster adds to an AUROC, or to its drop, (count,): the sum of squares is its variance.

    Obuchowski 1997, https://doi.org/10.2307/2533958, but that both sides' corrections for few clusters also stand at
    their covariance.

    Args:
        influence: of each sample, as `intervals.auroc_influence` has it, (n,).
        true: yes or no, bool (n,).
        clusters: number of each one's, int64 (n,).
        count: of the clusters, where it is more than the largest number.
    """
    found = influence.copy()
    for side in (true, ~true):
        samples, others = (max(2, len(of)) for of in (influence[side], np.unique(clusters[side])))
        found[side] *= math.sqrt((1 - 1 / samples) / (1 - 1 / others))
    return np.bincount(clusters, found, count)


def auroc_interval_of_clusters(drop: float, error: float, fewest: int, level: float = LEVEL) -> Interval | None:
    """Return the interval of a drop of AUROC as `auroc_interval` does, by Student's t.

    Args:
        fewest: clusters with a yes, or with a no, whichever are fewer.
    """
    if fewest < 2:
        return None
    wider = student(level, fewest - 1) / NormalDist().inv_cdf((1 + level) / 2)
    return auroc_interval(drop, wider * error, fewest, level)


def share_interval(share: float, error: float, units: int, level: float = LEVEL) -> Interval | None:
    """Return the interval of a share that is no plain rate: Wilson's, of as many trials as give its standard error.

    Args:
        error: its standard error, by the jackknife.
        units: samples, or clusters of them.
    """
    if units < 2:
        return None
    trials = share * (1 - share) / error**2 if error > 0 and 0 < share < 1 else units
    trials *= (NormalDist().inv_cdf((1 + level) / 2) / student(level, min(units, GROUPS) - 1)) ** 2
    return wilson(share * trials, trials, level)


def dealt(clusters: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a number below `GROUPS` for each sample, the same for those of a cluster, dealt at random, int64 (n,)."""
    _, places = np.unique(clusters, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(int(places.max(initial=-1)) + 1)[places] % GROUPS)


def jackknife_error(without: np.ndarray) -> np.ndarray:
    """Return the standard error of what has been computed without one group after the other, (R, ...), by `dealt`.

    The delete-a-group jackknife: Kott 2001, Journal of Official Statistics 17(4), 521-526.
    """
    return np.asarray(np.sqrt((len(without) - 1) * without.var(0)))


def stored_cluster(column: str, there: Iterable[str], whose: object) -> str:
    """Return a column that says which samples belong together as it is stored, given as `patient` or `meta/patient`.

    Raises:
        ConfigError: the column is not there.
    """
    known = [*there]
    name = column if array_name(column) in known else column.removeprefix(f"{META}/")
    return stored_columns([name], known, f"--cluster: {whose}")[0]


def cluster_array(column: str, there: Iterable[str], whose: object) -> str:
    """Return the array of such a column."""
    return meta_array(stored_cluster(column, there, whose)).name


class Clusters:
    """Numbers clusters as they are met; a sample without a value is one by itself.

    Args:
        column: that says which samples belong together.
    """

    def __init__(self, column: str) -> None:
        self._column, self._numbers = column.removeprefix(f"{META}/"), dict[str, int]()
        self._samples = self._without = 0

    def __len__(self) -> int:
        """Return how many there are so far."""
        return len(self._numbers) + self._without

    def of(self, values: Iterable[str]) -> np.ndarray:
        """Return the number of the cluster of each sample, int64 (n,)."""
        found = []
        for value in values:
            if value.strip():
                found.append(self._numbers.setdefault(value, len(self)))
            else:
                found.append(len(self))
                self._without += 1
        self._samples += len(found)
        return np.array(found, np.int64)

    def require_several(self) -> None:
        """Refuse samples that are all of one cluster.

        Raises:
            ConfigError: they are.
        """
        if len(self) == 1:
            raise ConfigError(
                f"--cluster {self._column}: all samples are of one {self._column}: of one nothing follows"
            )

    def notes(self, designs: Mapping[str, Design], of: str = "samples") -> Iterator[str]:
        """Yield what readers of intervals over the clusters should know.

        Args:
            designs: of what is told, by its name.
            of: what was numbered.
        """
        effects = ", ".join(f"{name} {design.effect:.2g}" for name, design in designs.items() if design.clusters)
        told = f"; design effect: {effects}" if effects else ""
        yield f"{self._samples} {of} in {len(self)} clusters by {self._column}: intervals over clusters{told}"
        if self._without:
            yield f"{self._without} {of} without a value of {self._column} are a cluster each"
        if len(self) < FEWEST:
            yield f"ONLY {len(self)} clusters by {self._column}: intervals over fewer than {FEWEST} are rough"


class ClusterColumn:
    """The column of a run that says which samples belong together, if one was named.

    Attributes:
        arrays: what is read for it.

    Raises:
        ConfigError: the run has no such column.
    """

    def __init__(self, run: Run, column: str | None) -> None:
        self.arrays: tuple[str, ...] = () if column is None else (cluster_array(column, run.plan.meta, run.path),)
        self._clusters = None if column is None else Clusters(column)

    def of(self, block: Mapping[str, Iterable[str]]) -> np.ndarray | None:
        """Return the number of the cluster of each sample of a block, int64 (n,), None without a column."""
        return None if self._clusters is None else self._clusters.of(block[self.arrays[0]])

    @property
    def count(self) -> int | None:
        """How many clusters there are, None without a column."""
        return None if self._clusters is None else len(self._clusters)

    def notes(self, designs: Mapping[str, Design]) -> list[str]:
        """Return what `Clusters.notes` yields.

        Raises:
            ConfigError: all samples are of one cluster.
        """
        if self._clusters is None:
            return []
        self._clusters.require_several()
        return [*self._clusters.notes(designs)]


def read_clusters(run: Run, column: str | None, rows: np.ndarray) -> tuple[Clusters | None, np.ndarray | None]:
    """Return the clusters of rows of a run by a column of the manifest, and the number of each row's, int64 (n,).

    Raises:
        ConfigError: the run has no such column.
    """
    if column is None:
        return None, None
    clusters = Clusters(column)
    return clusters, clusters.of(run[cluster_array(column, run.plan.meta, run.path)][:][rows])
