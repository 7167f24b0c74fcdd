"""Gates: whether what moved between two runs may go on to production, and how sure that is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from batchcam.commands.compare.movement import Totals
from batchcam.commands.compare.sigmoids import SigmoidMovement, SigmoidTotals
from batchcam.commands.compare.values import ABSENT, FOUND, Found, Moved, Value, because, count_texts, named
from batchcam.config.gates import ESTIMATE, PROVEN_BEYOND, PROVEN_WITHIN, Gates
from batchcam.config.options import flag
from batchcam.job.console import counted
from batchcam.rules import FEWEST_IN_GROUP

PASSED: Final = "passed"
UNDECIDED: Final = "undecided"
BEYOND: Final = {"max": "exceeded", "min": "missed"}

ACCURACY: Final = ("max_accuracy_drop", "max_accuracy_rise", "min_accuracy")
OF_CLASSES: Final = ("max_class_auroc_drop", "min_class_similarity", "max_count_shift")

SLACK: Final = 1e-9  # a gate is exceeded by more than the rounding of its percentage


@dataclasses.dataclass(frozen=True)
class Gate:
    """A limit that was asked for.

    Attributes:
        option: that set it.
        limit: the largest, or smallest, value that passes.
        value: what was found, of several the worst; None: there is nothing to judge by, which does not pass.
        verdict: passed, exceeded (of a minimum missed), or undecided: the interval holds the limit.
        passed: whether the new run may go on, as `--decide` says.
        reason: why or why not, in one line.
        low, high: the value's interval, corrected for how many values there are; None where none is known.
        needed: about how many samples would decide; None where it is decided, or stands at the limit itself.
        not_judged: how many samples, classes or groups did not count, and why, such as "2 removed".
    """

    option: str
    limit: float
    value: float | None
    verdict: str
    passed: bool
    reason: str
    low: float | None = None
    high: float | None = None
    needed: int | None = None
    not_judged: tuple[str, ...] = ()

    @property
    def needs_a_look(self) -> bool:
        """Whether it stops the run, or is undecided."""
        return not self.passed or self.verdict == UNDECIDED

    @property
    def parts(self) -> tuple[str, str, str]:
        """What `reason` says: option and limit, the verdict in words, what was found."""
        asked, told, found = self.reason.split(": ", 2)
        return asked, told, found


def judge_gates(moved: Moved, asked: Gates) -> tuple[Gate, ...]:
    """Return the gates that were asked for, and whether enough was compared for them to mean anything."""
    limits = {name: limit for name, limit in asked.limits.items() if isinstance(limit, float | int)}
    gates = [_judge(name, limit, FOUND[name](moved), asked) for name, limit in limits.items()]
    if asked.same_setup:
        gates.append(_same_setup(moved.setup))
    if asked.evidence:
        gates += (_evidence(asked.evidence, *each) for each in _covered(moved, limits))
    return tuple(gates)


def _judge(name: str, limit: float, found: Found, asked: Gates) -> Gate:
    option, side = flag(name), name[:3]
    if not found.values:
        reason = f"{option} {limit:g}: {BEYOND[side]}: no sample is {found.missing}, so that nothing can be judged"
        return Gate(option, limit, None, BEYOND[side], False, reason, not_judged=count_texts(found.not_judged))
    sign = 1 if side == "max" else -1
    worst = max(found.values, key=lambda each: sign * each.value)
    # of several values the first step of Holm's correction, which tells whether any is beyond the limit
    level = 1 - (1 - asked.confidence / 100) / len(found.values)
    ends = [sorted(sign * end for end in each.interval(level)) for each in found.values]
    verdict = UNDECIDED
    if any(near > sign * limit + SLACK for near, _ in ends):
        verdict = BEYOND[side]
    elif all(far <= sign * limit + SLACK for _, far in ends):
        verdict = PASSED
    passed = {
        ESTIMATE: sign * worst.value <= sign * limit + SLACK,
        PROVEN_WITHIN: verdict == PASSED,
        PROVEN_BEYOND: verdict != BEYOND[side],
    }[asked.decide]
    low, high = worst.interval(level)
    head, needed, text = verdict, None, [worst.text(low, high)]
    if verdict == UNDECIDED:
        head = f"UNDECIDED, {PASSED if passed else BEYOND[side]} by the estimate"
        if asked.decide != ESTIMATE:
            head = f"UNDECIDED, {PASSED if passed else f'not {PASSED}'}: not {asked.decide.replace('-', ' to be ')}"
        needed = _needed(worst, limit, low, high)
        text.append(f"about {needed} would decide" if needed else "no number of samples decides at the limit itself")
    if len(found.values) > 1:
        text.append(f"the worst of {len(found.values)}, corrected for that by Holm")
    if left_out := count_texts(found.not_judged):
        text.append("not judged: " + ", ".join(left_out))
    reason = f"{option} {limit:g}: {head}: {'; '.join(text)}"
    known_low, known_high = (end if math.isfinite(end) else None for end in (low, high))
    return Gate(option, limit, worst.value, verdict, passed, reason, known_low, known_high, needed, left_out)


def _needed(worst: Value, limit: float, low: float, high: float) -> int | None:
    """Return about how many samples would make the interval so narrow that the limit is outside, to two digits."""
    distance = abs(worst.value - limit)
    half = (high if worst.value < limit else low) - worst.value
    if distance <= SLACK or not math.isfinite(half):
        return None
    count = worst.count * (half / distance) ** 2
    step = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return int(math.ceil(count / step) * step)


def _same_setup(differing: Sequence[str]) -> Gate:
    verdict = BEYOND["max"] if differing else PASSED
    text = "; ".join(differing) or "preprocessing, precision, engine, class names and their order are the same"
    return Gate("--same-setup", 0, len(differing), verdict, not differing, f"--same-setup: {verdict}: {text}")


def _evidence(limit: float, count: int, of: int, text: str) -> Gate:
    """Return whether `count` is enough of what there is to judge, in per cent."""
    share = 100 * count / of if of else 0.0
    passed = share >= limit - SLACK
    verdict = PASSED if passed else BEYOND["min"]
    return Gate("--min-compared", limit, share, verdict, passed, f"--min-compared {limit:g}: {verdict}: {text}")


def _covered(moved: Moved, limits: Mapping[str, float]) -> Iterator[tuple[int, int, str]]:
    """Yield how much of what there is the gates could judge: samples, labels, maps, classes."""
    t = moved.totals
    yield t.compared, moved.samples, moved.compared_text
    if isinstance(t, Totals) and any(name in limits for name in (*ACCURACY, "max_group_drop")):
        # one label, or a few, are no evidence, however few OLD has
        of = max(moved.labelled, min(FEWEST_IN_GROUP, moved.samples))
        whose = "that OLD labels" if of == moved.labelled else "that are needed at least"
        yield t.labelled, of, f"{t.labelled} of {of} samples {whose} are labelled in both and compared"
    if any(name in limits for name in ("min_cam_similarity", "min_class_similarity")):
        text = f"{t.maps} of {moved.samples} samples have a pair of maps{because(named(t.without_maps))}"
        yield t.maps, moved.samples, text
    if isinstance(t, SigmoidTotals) and "max_auroc_drop" in limits:
        judged = t.macro["auroc"].classes if "auroc" in t.macro else 0
        of = sum(c.old.known > 0 for c in moved.classes if isinstance(c, SigmoidMovement))
        yield judged, of, f"{judged} of {counted(of, 'class')} with labels have an AUROC in both"
    for name in OF_CLASSES:
        if name in limits:
            found = FOUND[name](moved)
            few = {reason: count for reason, count in found.not_judged.items() if reason != ABSENT}
            judged, of = len(found.values), len(found.values) + sum(few.values())
            yield judged, of, f"{judged} of {counted(of, 'class')} could be judged by {flag(name)}{because(few)}"
