"""When a class's evidence is claimed to be a shortcut's: portable, or in a fixed place. Few claims, each on a cause.

The limits were set on seeds 0 of benchmarks/shortcuts.py and stay: regions of one honest class of five carried it into
up to 0.26 more images than control regions did, and a single inner cell held up to 0.54 of its peaks.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np

from batchcam.commands.discover.trials import TRIALS, Outcomes
from batchcam.record.intervals import LEVEL, holm, mcnemar, paired, wilson
from batchcam.rules import FEWEST_IN_GROUP

LEAST_CARRIED: Final = 0.25
"""Of other classes' images, beyond those that control regions turn: what a part of an object does not reach."""

LEAST_NEEDED: Final = 0.25
"""Of predictions, beyond those that fall when a random region is taken away."""

LEAST_CROWDED: Final = 0.25
"""Of peaks in a place at the picture's edge, beyond its share of the cells: objects are seldom cut off there."""

CARRIERS: Final = ("peak", "border")
"""What of an image may carry its class into others."""

PLACES: Final = ("corners", "top", "bottom", "left", "right")

LEAST_CELLS: Final = 3
"""Of a side of the grid, for it to have an inside."""

NOT_SEEN: Final = (
    "a colour cast, blur, noise, or anything else spread over the whole picture",
    "cues that nobody sees: frequencies, traces of compression, the scanner",
    "a cue that speaks against other classes: no region holds the evidence for its own",
    "a cue inside of the picture at a fixed place that does not carry its class by itself",
    "whether what carries a class is a tag or an honest object as small as a region: look at the pictures",
)
"""What no verdict of these tests means anything about."""


@dataclasses.dataclass(frozen=True)
class Effect:
    """By how much one share of samples is above another, of the same samples.

    Attributes:
        share: of the samples.
        control: the other share.
        effect: share - control.
        low, high: its interval, corrected for all classes, carriers and places.
        p: exact, two-sided, that both shares are the same; corrected by Holm for all classes and kinds.
    """

    share: float
    control: float
    effect: float
    low: float
    high: float
    p: float


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a class's peaks crowd at the picture's edge.

    Attributes:
        name: corners, top, bottom, left or right.
        share: of the class's peaks; `low` and `high` are their interval, corrected as `Effect`'s.
        even: share of the cells.
        needed: by how much more often the class is lost if the region of such a peak is taken away than a random one.
    """

    name: str
    share: float
    low: float
    high: float
    even: float
    needed: Effect


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found of a class, or of all samples.

    Attributes:
        name: of the class; None: all samples.
        judged: samples.
        verdict: portable evidence, fixed place, both, none, or too few samples.
        carrier: which of CARRIERS carries the class into more images.
        carried: share of other classes' images that it turns into this one; control: a random region, or the
            centre's where the peak is elsewhere.
        needed: share of predictions that the peak's region brings to fall; control: a random region.
        holds: share of the images of which the network says the class, by trial.
        place: the most crowded one.
    """

    name: str | None
    judged: int
    verdict: str
    carrier: str | None
    carried: Effect | None
    needed: Effect | None
    holds: dict[str, float]
    place: Place | None

    @property
    def is_claim(self) -> bool:
        """Whether something was found."""
        return self.verdict not in (NONE, TOO_FEW)


PORTABLE: Final = "portable evidence"
FIXED: Final = "fixed place"
BOTH: Final = "both"
NONE: Final = "none"
TOO_FEW: Final = "too few samples"


def verdicts(found: Outcomes, names: tuple[str, ...], grid: tuple[int, int], apart: np.ndarray) -> list[Verdict]:
    """Return what was found of all samples, then of each class that samples were judged of, the largest effect first.

    Args:
        names: of the classes.
        grid: cells of a map.
        apart: of which samples the region around the peak shares no cell with the centre's, bool (n,).
    """
    classes = [k for k in range(len(names)) if (found.judged & (found.classes == k)).any()]
    groups = [(None, found.judged), *((names[k], found.judged & (found.classes == k)) for k in classes)]
    tests = (len(CARRIERS) + len(PLACES)) * sum(int(which.sum()) >= FEWEST_IN_GROUP for _, which in groups)
    level = 1 - (1 - LEVEL) / max(1, tests)
    whole, *rest = _corrected([_verdict(found, name, which, grid, apart, level) for name, which in groups])
    return [whole, *sorted(rest, key=lambda v: -1.0 if v.carried is None else -1 - v.carried.effect)]


def _verdict(
    found: Outcomes, name: str | None, which: np.ndarray, grid: tuple[int, int], apart: np.ndarray, level: float
) -> Verdict:
    count = int(which.sum())
    if count < FEWEST_IN_GROUP:
        return Verdict(name, count, TOO_FEW, None, None, None, {}, None)
    control = found.of("random") | (found.of("centre") & apart)
    carried = {carrier: _effect(found.of(carrier), control, which, level) for carrier in CARRIERS}
    carrier = max(CARRIERS, key=lambda each: carried[each].effect)
    lost, random_lost = ~found.of("removed"), ~found.of("random_removed")
    place = _place(found, lost, random_lost, which, grid, level)
    is_portable = carried[carrier].low > LEAST_CARRIED
    is_fixed = place is not None and place.low > place.even + LEAST_CROWDED and place.needed.low > LEAST_NEEDED
    said = {(True, True): BOTH, (True, False): PORTABLE, (False, True): FIXED}.get((is_portable, is_fixed), NONE)
    needed = _effect(lost, random_lost, which, level)
    holds = {trial: float(found.of(trial)[which].mean()) for trial in TRIALS}
    return Verdict(name, count, said, carrier, carried[carrier], needed, holds, place)


def _effect(more: np.ndarray, less: np.ndarray, which: np.ndarray, level: float) -> Effect:
    more, less = more[which], less[which]
    won, lost = int((more & ~less).sum()), int((less & ~more).sum())
    low, high = paired(won, lost, len(more), level) or (-1.0, 1.0)
    return Effect(float(more.mean()), float(less.mean()), (won - lost) / len(more), low, high, mcnemar(lost, won))


def places(grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return places at a picture's edge by name, bool (h, w) each; none where all cells lie at the edge."""
    if min(grid) < LEAST_CELLS:
        return {}
    masks = {name: np.zeros(grid, bool) for name in PLACES}
    masks["corners"][np.ix_([0, -1], [0, -1])] = True
    masks["top"][0] = masks["bottom"][-1] = masks["left"][:, 0] = masks["right"][:, -1] = True
    return masks


def _place(
    found: Outcomes, lost: np.ndarray, random_lost: np.ndarray, which: np.ndarray, grid: tuple[int, int], level: float
) -> Place | None:
    """Return the place that holds more of the peaks, beyond its share of the cells, than any other."""
    crowds = []
    for name, mask in places(grid).items():
        there = which & mask[tuple(found.peaks.T)]
        crowds.append((there[which].mean() - mask.mean(), name, there, float(mask.mean())))
    crowds = [crowd for crowd in crowds if crowd[2].sum() >= FEWEST_IN_GROUP]
    if not crowds:
        return None
    _, name, there, even = max(crowds, key=lambda crowd: crowd[0])
    low, high = wilson(int(there.sum()), int(which.sum()), level) or (0.0, 1.0)
    share = float(there[which].mean())
    return Place(name, share, low, high, even, _effect(lost, random_lost, there, level))


def _corrected(found: list[Verdict]) -> list[Verdict]:
    """Return the same with p-values corrected for all of them."""
    effects = [e for v in found for e in _effects(v)]
    corrected = iter([dataclasses.replace(e, p=p) for e, p in zip(effects, holm([e.p for e in effects]), strict=True)])
    result = []
    for v in found:
        changed: dict[str, Any] = {name: next(corrected) for name in ("carried", "needed") if getattr(v, name)}
        if v.place is not None:
            changed["place"] = dataclasses.replace(v.place, needed=next(corrected))
        result.append(dataclasses.replace(v, **changed))
    return result


def _effects(verdict: Verdict) -> list[Effect]:
    own = (verdict.carried, verdict.needed, None if verdict.place is None else verdict.place.needed)
    return [effect for effect in own if effect is not None]
