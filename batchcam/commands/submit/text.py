"""What submit and its jobs tell people."""

from __future__ import annotations

from batchcam.commands.submit.finish import FinishSummary
from batchcam.commands.submit.gpus import GpusSummary
from batchcam.commands.submit.submit import SubmitSummary
from batchcam.commands.submit.task import TaskSummary
from batchcam.errors import one_line


def submit_text(summary: SubmitSummary) -> str:
    """Return the ids of the jobs, or the lines of a dry run."""
    return "\n".join(summary.lines or (f"explain {summary.explain}", f"finish {summary.finish}"))


def slurm_task_text(summary: TaskSummary) -> str:
    """Return how a task ended."""
    return f"batchcam: {one_line(summary.told)}"


def explain_gpus_text(summary: GpusSummary) -> str:
    """Return nothing: the workers have told."""
    return ""


def finish_text(summary: FinishSummary) -> str:
    """Return what became of a run."""
    return f"batchcam: {one_line(summary.run)}: {one_line(summary.told)}"
