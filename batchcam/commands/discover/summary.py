"""What discover found."""

from __future__ import annotations

import dataclasses

from batchcam.commands.discover.rule import Verdict
from batchcam.errors import EXIT_DONE, EXIT_FINDINGS


@dataclasses.dataclass(frozen=True)
class PortableGate:
    """Whether the largest effect is within the limit.

    Attributes:
        limit: per cent.
        value: largest of all samples' and of each class's; None: no class could be judged, which does not pass.
        worst: class that it is of, None: of all samples.
    """

    limit: float
    value: float | None
    worst: str | None
    passed: bool


@dataclasses.dataclass(frozen=True)
class DiscoverSummary:
    """Which classes a region carries by itself.

    Attributes:
        method: how the run's maps were made.
        region: rows and columns of a region, in cells of the map.
        grid: cells of a map.
        samples: rows of the run.
        drawn: of them, as many as possible of each predicted class.
        judged: of the drawn ones.
        left_out: the others, by reason.
        overall: of all samples.
        classes: of each class, the largest effect first.
        claims: classes of which something is claimed, by what it is.
        not_seen: what the verdicts say nothing about.
        gate: None where none was asked for.
        findings: drawn samples whose images are not those of the run any more.
        notes: what a reader should know, a line each.
        out: folder of the files, None where none were asked for.
    """

    run: str
    run_id: str
    method: str
    control: str
    region: tuple[int, int]
    grid: tuple[int, int]
    samples: int
    drawn: int
    judged: int
    left_out: dict[str, int]
    seed: int
    overall: Verdict
    classes: list[Verdict]
    claims: dict[str, str]
    not_seen: tuple[str, ...]
    gate: PortableGate | None
    findings: int
    notes: tuple[str, ...]
    out: str | None

    @property
    def exit_code(self) -> int:
        """3 where images changed or the gate is not passed, else 0."""
        stopped = self.findings or (self.gate is not None and not self.gate.passed)
        return EXIT_FINDINGS if stopped else EXIT_DONE
