"""What `review` found, as text for people."""

from __future__ import annotations

from batchcam.commands.review.review import ReviewGate, ReviewSummary
from batchcam.errors import one_line
from batchcam.job.console import counted
from batchcam.record.agreement import Agreement
from batchcam.record.intervals import Interval
from batchcam.record.metrics import brackets, rate_text
from batchcam.record.review import Review
from batchcam.record.study import class_lines


def review_text(summary: ReviewSummary) -> str:
    """Return the result of `review`."""
    people = ", ".join(f"{name} {count}" for name, count in summary.reviewers.items()) or "nobody yet"
    head = [("run", f"{summary.run_id[:12]}: {drawn_text(summary)}"), ("judged by", people)]
    if summary.agreement:
        head.append(("agreement", agreement_text(summary.agreement)))
    head += [("note", note) for note in summary.notes]
    lines = [f"{name:<11} {one_line(value)}" for name, value in head]
    shares = [
        (s.verdict, f"{s.samples:>7}" + ("" if s.share is None else f"  {share_text(s.share, s.interval)}"))
        for s in summary.shares
    ]
    of_all = "" if summary.size is None else f"  share of {summary.size:,}, {100 * summary.level:g}% interval"
    lines += ["", *class_lines(f"samples{of_all}", shares, "verdict")]
    if summary.cases:
        cases = [(case.sample_id, one_line(case_text(case.state, case.verdicts))) for case in summary.cases]
        lines += ["", *class_lines("to settle", cases, "sample", "; --json lists all")]
    return "\n".join([*lines, *map(_gate_text, summary.gates)])


def drawn_text(found: Review) -> str:
    """Return how many samples stand for how many, in one line."""
    if found.size is None:
        return f"{counted(found.samples, 'sample')}, not drawn"
    return f"{found.samples:,} drawn of {found.size:,} samples" + (f" of {found.pool}" if found.pool else "")


def agreement_text(found: Agreement) -> str:
    """Return how far people agree, in one line."""
    share = f"{found.agreed:,} of {found.samples:,} the same ({share_text(found.share, found.share_interval)})"
    if found.kappa is None:
        return f"{share}; {found.statistic}: none, as all say one and the same"
    return f"{share}; {found.statistic} {found.kappa:.3f} {brackets(found.interval)}".rstrip()


def share_text(share: float, interval: Interval | None) -> str:
    """Return a share and its interval: "0.800 (0.68–0.88)"."""
    return f"{rate_text(share)} {brackets(interval)}".rstrip()


def case_text(state: str, verdicts: dict[str, str]) -> str:
    """Return what a case is in one line."""
    return state + (": " if verdicts else "") + ", ".join(f"{name} {word}" for name, word in verdicts.items())


def _gate_text(gate: ReviewGate) -> str:
    told = "nothing to judge by" if gate.value is None else f"{gate.value:.4g}"
    ends = "" if gate.interval is None else f" [{gate.interval[0]:.4g}, {gate.interval[1]:.4g}]"
    return f"{'passed' if gate.passed else 'STOPS'}: {gate.option} {gate.limit:g}: {told}{ends}"
