"""What trend tells people: the alarms, what changed, and the newest night beside what is usual."""

from __future__ import annotations

from typing import Final

from batchcam.commands.trend.series import Alarm
from batchcam.commands.trend.summary import PAGE, TrendSummary
from batchcam.errors import one_line
from batchcam.job.console import counted

MOST_PAST: Final = 5
"""Alarms that have ended, the newest ones; the page and `--json` have all."""


def trend_text(summary: TrendSummary) -> str:
    """Return a trend as text; of `--alarm` the alarms alone."""
    alarms = [one_line(alarm_line(alarm)) for alarm in summary.alarms]
    if summary.alarm_only:
        return "\n".join(alarms)
    nights = summary.nights
    lines = [
        f"{counted(len(nights), 'night')}: {nights[0]} to {nights[-1]}, against {summary.reference}",
        *(f"{night}: another checkpoint, {checkpoint[:12]}" for night, checkpoint in summary.events.items()),
        *(f"ended: {alarm_line(alarm)}" for alarm in summary.past[-MOST_PAST:]),
        *alarms,
        f"{summary.judged} series judged in {nights[-1]}: {counted(len(alarms), 'alarm') if alarms else 'no alarm'}",
        *([f"{summary.waiting} not judged yet: too few nights before"] if summary.waiting else []),
        *([f"left out: {counted(len(summary.left_out), 'run')}"] if summary.left_out else []),
        *([f"written: {summary.out}/{PAGE}"] if summary.out else []),
    ]
    return "\n".join(one_line(line) for line in lines)


def alarm_line(alarm: Alarm) -> str:
    """Return an alarm in a line."""
    moved = "fell" if alarm.level < alarm.centre else "rose"
    return (
        f"ALARM {alarm.night}: {alarm.series} {moved} to {alarm.level:.4g}, usual {alarm.centre:.4g} "
        f"({alarm.low:.4g} to {alarm.high:.4g}), since {alarm.since}, p {alarm.p:.2g}"
    )
