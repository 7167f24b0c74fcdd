"""review: what several people said of samples that were drawn, and what follows for all of them. No torch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from batchcam.commands.review.config import ReviewConfig
from batchcam.errors import ConfigError
from batchcam.record.intervals import Interval
from batchcam.record.review import Review, read_review
from batchcam.store.opening import open_run


@dataclasses.dataclass(frozen=True)
class ReviewGate:
    """A limit that was asked for.

    Attributes:
        option: that set it.
        value: found, in its units; None: there is none, which does not pass.
        interval: of that.
    """

    option: str
    limit: float
    value: float | None
    interval: Interval | None
    passed: bool


@dataclasses.dataclass(frozen=True)
class ReviewSummary(Review):
    """What reviewers said, and the limits that were asked for."""

    gates: tuple[ReviewGate, ...] = ()

    @property
    def findings(self) -> int:
        """How many limits are not kept."""
        return sum(not gate.passed for gate in self.gates)


def review(config: ReviewConfig) -> ReviewSummary:
    """Sum up what people said of samples.

    Raises:
        ConfigError: there are no such files, or no such verdict.
        BatchcamError: a file can't be read, or a line of it does not fit the draw or the run.
    """
    with contextlib.ExitStack() as opened:
        run = None if config.run is None else opened.enter_context(open_run(config.run))
        found = read_review(config.files, run, config.draw, config.verdicts, config.confidence / 100)
    return ReviewSummary(**vars(found), gates=tuple(_gates(config, found)))


def _gates(config: ReviewConfig, found: Review) -> Iterator[ReviewGate]:
    shares = {share.verdict: share for share in found.shares}
    for word, limit in config.limits.items():
        if word not in shares:
            raise ConfigError(f"--max {word}: verdicts are {', '.join(shares)}")
        most, ends = shares[word].most, shares[word].most_interval
        value = None if most is None else 100 * most
        interval = ends and (100 * ends[0], 100 * ends[1])
        yield ReviewGate(f"--max {word}", limit, value, interval, value is not None and value <= limit)
    if config.min_kappa is not None:
        kappa, ends = (found.agreement.kappa, found.agreement.interval) if found.agreement else (None, None)
        passed = kappa is not None and kappa >= config.min_kappa
        yield ReviewGate("--min-kappa", config.min_kappa, kappa, ends, passed)
