"""What trend found."""

from __future__ import annotations

import dataclasses
from typing import Final

from batchcam.commands.trend.series import Alarm

PAGE: Final = "trend.html"


@dataclasses.dataclass(frozen=True)
class TrendSummary:
    """What moved over the nights.

    Attributes:
        events: checkpoints by the nights in which they are other ones than in the night before.
        judged: series that were judged in the newest night.
        waiting: series that have a value in it, but too few nights before it.
        alarms: of the newest night, the least probable first.
        past: alarms before it that have ended, each as it was in its last night.
        left_out: why runs are left out, by their paths.
        findings: alarms of the newest night, and runs that are damaged.
    """

    nights: list[str]
    reference: str
    events: dict[str, str]
    judged: int
    waiting: int
    alarms: list[Alarm]
    past: list[Alarm]
    left_out: dict[str, str]
    findings: int
    alarm_only: bool
    out: str | None
