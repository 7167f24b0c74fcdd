"""Honest retrainings beside OLD: whether they are that, what they move, and the limits that follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final

from batchcam.commands.compare.gates import Gate
from batchcam.commands.compare.matching import Apart, own_classes
from batchcam.commands.compare.movement import ClassMovement, Totals
from batchcam.commands.compare.reading import Sides
from batchcam.commands.compare.sigmoids import SigmoidMovement, SigmoidTotals
from batchcam.commands.compare.values import FEWEST_OF_CLASS
from batchcam.config.gates import Gates
from batchcam.config.options import flag
from batchcam.errors import ConfigError
from batchcam.job.console import counted
from batchcam.record.noise import MEASURES, Spread, Value, corrected, limit, spread
from batchcam.store.bringing import shown
from batchcam.store.run import Run

CAMS: Final = ("spearman", "cosine", "top_iou", "peak_shift")

LIMITS: Final = {
    "max_flips": ("flips_percent", 100 - 1e-6, "nothing exceeds it"),
    "min_cam_similarity": ("spearman", 0, "maps that have nothing in common pass"),
    "min_class_similarity": ("worst_class_spearman", 0, "maps that have nothing in common pass"),
}
"""What tells a limit that is auto, from where on it stops nothing, and why."""

TOLD: Final = {
    "flips_percent": ("predictions", "flip", "don't clearly flip", "% flips"),
    "accuracy": ("accuracy", "moves", "doesn't clearly move", "accuracy"),
    "auroc": ("mean AUROC", "moves", "doesn't clearly move", "AUROC"),
    "spearman": ("CAMs", "differ", "don't clearly differ", "similarity"),
}
SCORES: Final = ("accuracy", "auroc")
"""What is not told of samples whose labels NEW has otherwise."""
CLASSES_SHOWN: Final = 5

Means = dict[tuple[str, str | None], Value]
"""By measure, and class or None for all samples."""


@dataclasses.dataclass(frozen=True)
class Noise:
    """What retraining alone moves.

    Attributes:
        runs: honest retrainings.
        confidence: in per cent; that of all `limits` together.
        limits: of the gates that are auto.
        spreads: of all samples, and of each class; accuracy and AUROC are those of the later run.
    """

    runs: tuple[str, ...]
    confidence: float
    limits: dict[str, float]
    spreads: list[Spread]


class Retrainings:
    """Runs that are to be honest retrainings, one after the other.

    Args:
        sides: OLD, and NEW, which is none of them.
        apart: how many of their ids are not compared, by reason.
        relabelled: samples that NEW labels otherwise.

    Raises:
        ConfigError: NEW has other samples or classes than OLD.
    """

    def __init__(self, sides: Sides, apart: dict[str, int], relabelled: int) -> None:
        self._old, self._relabelled = sides.old, relabelled
        self._known = dict.fromkeys(sides.new.networks, "NEW's") | dict.fromkeys(sides.old.networks, "OLD's")
        self._names: list[str] = []
        self._means: list[Means] = []
        if others := _other_samples(apart):
            raise ConfigError(f"--noise: NEW has other samples than OLD ({others}), whose movement it can't tell")
        if own := own_classes(sides.classes.only_old, sides.classes.only_new):
            raise ConfigError(
                f"--noise: NEW has other classes than OLD ({'; '.join(own)}): no retraining tells of these"
            )

    def require_other_weights(self, run: Run) -> None:
        """Refuse a run of several networks, of other classes than OLD's, or of weights that were seen before.

        Raises:
            ConfigError: it is one.
        """
        if len(run.networks) > 1 or len(self._old.networks) > 1:
            raise ConfigError(f"--noise {run.path}: a series of several networks is no training: name one run")
        if run.class_names != self._old.class_names:
            raise ConfigError(f"--noise {run.path}: has other classes than OLD, or another order: no retraining of it")
        (network,) = run.networks
        if network in self._known:
            raise ConfigError(f"--noise {run.path}: has {self._known[network]} weights: name runs of other seeds")
        self._known[network] = f"{run.path}'s"

    def add(
        self,
        run: Run,
        differing: Sequence[str],
        apart: dict[str, int],
        relabelled: int,
        moved: bool,
        means: Means,
    ) -> None:
        """Take what a run moves against OLD.

        Args:
            run: the run.
            differing: in what its set-up is not OLD's.
            apart: how many ids of either are not compared, by reason.
            relabelled: samples that it labels otherwise.
            moved: whether it differs from OLD at all.
            means: what moved.

        Raises:
            ConfigError: it is no retraining by OLD's recipe.
        """
        others = _other_samples(apart) or (f"{relabelled} labelled otherwise" if relabelled else "")
        if others:
            raise ConfigError(f"--noise {run.path}: has other samples than OLD ({others}): explain OLD's with it")
        if differing:
            raise ConfigError(f"--noise {run.path}: is no retraining by OLD's recipe: {', '.join(differing)}")
        if not moved:
            raise ConfigError(f"--noise {run.path}: says what OLD says, sample by sample: name runs of other seeds")
        self._names.append(shown(run.path))
        self._means.append(means)

    def told(self, new: Means, asked: Gates) -> Noise:
        """Return what they move, and NEW beside it.

        Raises:
            ConfigError: they can't tell a limit that was to be taken from them, or tell one that stops nothing.
        """
        told = [key for key in new if key[0] not in SCORES or not self._relabelled]
        shared = {key: [means[key] for means in self._means] for key in told if all(key in m for m in self._means)}
        spreads = [spread(*key, values, new[key]) for key, values in shared.items()]
        of_classes = corrected([each for each in spreads if each.class_name is not None])
        level = 1 - (1 - asked.confidence / 100) / max(1, len(asked.auto))
        limits = {name: _limit(name, self._means, level) for name in asked.auto}
        overall = [each for each in spreads if each.class_name is None]
        return Noise(tuple(self._names), asked.confidence, limits, overall + of_classes)


def _limit(name: str, retrained: Sequence[Means], level: float) -> float:
    measure, useless, why = LIMITS[name]
    values = [means[measure, None] for means in retrained if (measure, None) in means]
    runs = counted(len(retrained), "retraining")
    if len(values) < len(retrained):
        raise ConfigError(f"{flag(name)} auto: {runs} without a {measure} of each: say a number")
    found, worse = limit(measure, values, level), MEASURES[measure].worse
    if worse * found >= worse * useless:
        raise ConfigError(f"{flag(name)} auto: {runs} make it {found:.3g}, and {why}: name more, or say a number")
    return found


def _other_samples(apart: dict[str, int]) -> str:
    reasons = (Apart.REMOVED.text, Apart.ADDED.text, Apart.CHANGED_INPUT.text)
    return ", ".join(f"{apart[reason]} {reason}" for reason in reasons if apart.get(reason))


def means_of(totals: Totals | SigmoidTotals, classes: Sequence[ClassMovement | SigmoidMovement]) -> Means:
    """Return the means of what moved, of all samples and of classes with enough of them."""
    found: Means = {(name, None): value for name, value in _of_all(totals)}
    found |= {(name, c.name): value for c in classes for name, value in _of_class(c, totals.compared)}
    worst = [value for (name, of), value in found.items() if name == "spearman" and of is not None]
    if worst:
        found["worst_class_spearman", None] = min(worst, key=lambda each: each.value)
    return found


def _of_all(t: Totals | SigmoidTotals) -> Iterator[tuple[str, Value]]:
    if t.flips_percent is not None:
        yield "flips_percent", Value(t.flips_percent, t.compared)
    if isinstance(t, SigmoidTotals):
        if "auroc" in t.macro:
            yield "auroc", Value(t.macro["auroc"].new, t.compared)
    elif t.new_accuracy is not None:
        yield "accuracy", Value(t.new_accuracy, t.labelled)
    yield from _of_maps(t, t.maps)


def _of_class(c: ClassMovement | SigmoidMovement, compared: int) -> Iterator[tuple[str, Value]]:
    if isinstance(c, SigmoidMovement):
        flips, predicted = c.flips, compared
        if c.is_judged and c.new.auroc is not None:
            yield "auroc", Value(c.new.auroc, c.fewest)
    else:
        flips, predicted = c.left, c.old_predicted
        if c.labelled >= FEWEST_OF_CLASS:
            yield "accuracy", Value(c.new_correct / c.labelled, c.labelled)
    if predicted >= FEWEST_OF_CLASS:
        yield "flips_percent", Value(100 * flips / predicted, predicted)
    if c.maps >= FEWEST_OF_CLASS:
        yield from _of_maps(c, c.maps)


def _of_maps(moved: Totals | SigmoidTotals | ClassMovement | SigmoidMovement, maps: int) -> Iterator[tuple[str, Value]]:
    yield from ((name, Value(mean, maps)) for name in CAMS if (mean := getattr(moved, name)) is not None)


def sourced(gate: Gate, noise: Noise) -> Gate:
    """Return a gate that tells where its limit is from, if that is the noise."""
    for name in noise.limits:
        if gate.option == flag(name):
            spreads = [each for each in noise.spreads if each.measure == LIMITS[name][0] and not each.class_name]
            told = f" ({_range(spreads[0])})" if spreads else ""
            passing = 100 - (100 - noise.confidence) / len(noise.limits)
            source = f"limit by {len(noise.runs)} retrainings{told}: {passing:.4g} % of such pass"
            return dataclasses.replace(gate, reason=f"{gate.reason}; {source}")
    return gate


def noise_lines(noise: Noise | None) -> Iterator[str]:
    """Yield whether NEW moves more than retraining does, a sentence each for predictions, scores, maps and classes."""
    if noise is None:
        return
    chance, runs = 1 - noise.confidence / 100, counted(len(noise.runs), "retraining")
    clear = []
    for s in (each for each in noise.spreads if each.measure in TOLD):
        what, moves, does_not, label = TOLD[s.measure]
        numbers = f"{label} {_range(s)}, NEW {s.new:.3g}"
        if s.class_name is None:
            verb = moves if s.p <= chance else does_not
            yield f"NEW's {what} {verb} more than retraining does (p {s.p:.2g}; {runs}: {numbers})"
        elif s.corrected_p <= chance:
            clear.append((s.corrected_p, f"{s.class_name} (p {s.corrected_p:.2g}: {numbers})"))
    classes = len({each.class_name for each in noise.spreads if each.class_name is not None})
    if clear:
        more = f" and {len(clear) - CLASSES_SHOWN} more" if len(clear) > CLASSES_SHOWN else ""
        told = ", ".join(text for _, text in sorted(clear)[:CLASSES_SHOWN])
        yield f"of {counted(classes, 'class')}, by Holm, these move more than retraining moves them: {told}{more}"
    elif classes:
        yield f"of {counted(classes, 'class')}, by Holm, none clearly moves more than retraining moves it"


def _range(s: Spread) -> str:
    return f"{min(s.retrained):.3g} to {max(s.retrained):.3g}"
