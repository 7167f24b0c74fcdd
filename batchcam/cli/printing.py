"""What the commands returned, as text for people."""

from __future__ import annotations

import collections
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchcam.errors import one_line
from batchcam.job.console import counted, readable_size, readable_time
from batchcam.record.groups import GroupScore, group_name
from batchcam.record.intervals import LEVEL, METHODS, Interval, wilson
from batchcam.record.metrics import bounded_rate, brackets, rate_text
from batchcam.record.sigmoid_scores import COLUMNS, METHOD_OF
from batchcam.record.study import class_lines
from batchcam.record.totals import intervals_of
from batchcam.rules import CONTROLS, EXACT, MULTI_LABEL, TORCH, identity_words

if TYPE_CHECKING:
    from batchcam.commands.demo.demo import DemoSummary
    from batchcam.commands.evaluate.evaluate import EvaluateSummary, SigmoidEvaluation
    from batchcam.commands.explain.explain import ExplainSummary
    from batchcam.commands.export.export import ExportSummary
    from batchcam.commands.info.info import RunInfo, RunOfSeries
    from batchcam.commands.info.watch import ShardUnderWay, Watch
    from batchcam.commands.jobs.jobs import JobsSummary
    from batchcam.commands.merge import MergeSummary
    from batchcam.commands.nightly.nightly import NightSummary
    from batchcam.commands.promote.decision import DecisionSummary
    from batchcam.commands.render.render import RenderSummary
    from batchcam.commands.report.report import ReportSummary, SigmoidReport
    from batchcam.commands.sample.sample import SampleSummary
    from batchcam.commands.train.train import SigmoidTraining, TrainSummary
    from batchcam.commands.verify.verify import VerifySummary
    from batchcam.commands.view.view import ViewSummary
    from batchcam.record.metrics import ClassScore
    from batchcam.record.sigmoid_groups import SigmoidGroup
    from batchcam.record.sigmoid_scores import Pair, SigmoidScore

FINDINGS_SHOWN = 50
UNKNOWN_LEAK = "not known: the checkpoint does not say it of such images"
UNWELL_SHOWN = 15
SILENCE_TOLD_S = 60


def explain_text(summary: ExplainSummary) -> str:
    """Return the result of `explain`."""
    run = one_line(summary.run)
    if not summary.run_id:
        return f"{run}: nothing is new, all {counted(summary.left_out, 'sample')} are held already; no run is made"
    if summary.dry_run:
        to_do = f"{counted(summary.to_do_samples, 'sample')} in {counted(summary.to_do_shards, 'shard')}"
        return f"{run}: would explain {to_do}, at most {readable_size(summary.to_do_bytes)}; nothing written"
    if summary.merged:
        state = f"complete: {_complete_text(summary.merged)}"
        if not summary.to_do_shards:
            state += f"; finished shards were not checked: batchcam verify {shlex.quote(run)}"
    elif summary.samples:
        state = "not complete yet"
    else:
        state = "nothing written"
    if summary.task != "0/1":
        state = f"{_share_done(summary)}; {state}"
    if summary.trained_on and not summary.merged:
        state = f"{_trained_on(summary.trained_on, summary.samples)}; {state}"
    rate = f", {summary.samples / summary.seconds:.1f} images/s" if summary.samples and summary.seconds else ""
    done = f"{counted(summary.samples, 'sample')} in {counted(summary.shards, 'shard')}"
    return f"{run}: {done} explained{rate}; {state}"


def _share_done(summary: ExplainSummary) -> str:
    """Return which part of the run a call was for, and whether others have work left."""
    left = summary.left_to_others
    told = f"did {summary.shards} of {summary.run_shards} shards: "
    if summary.done_for_others:
        told += f"{summary.shards - summary.done_for_others} of its own and {summary.done_for_others} of others, "
    told += f"share {summary.task} from {summary.task_from}"
    return f"{told}; {left} {'is' if left == 1 else 'are'} left to others" if left else told


def merge_text(summary: MergeSummary) -> str:
    """Return the result of `merge`."""
    kept = "; complete already: run.h5 and manifest.json stay as they are" if summary.kept else ""
    return _complete_text(summary) + kept


def _complete_text(summary: MergeSummary) -> str:
    totals = summary.totals
    size = summary.bytes / max(1, totals["samples"])
    samples = counted(totals["samples"], "sample")
    parts = [f"{samples} in {counted(summary.shards, 'shard')}, {size:.0f} bytes each"]
    leaked = [_trained_on(totals["trained_on"], totals["samples"])] if totals.get("trained_on") else []
    return "; ".join([*parts, *_accuracy(totals, intervals_of(totals, LEVEL)), *leaked, *_status(totals)])


def _trained_on(leaked: int, samples: int) -> str:
    return f"the network was trained on {leaked} of {counted(samples, 'sample')}"


def verify_text(summary: VerifySummary) -> str:
    """Return the result of `verify`: every finding, then a summary."""
    found = summary.told
    lines = [one_line(f) for f in found[:FINDINGS_SHOWN]]
    if len(found) > FINDINGS_SHOWN:
        lines.append(f"… and {len(found) - FINDINGS_SHOWN} more; --json lists all")
    unreadable = f" ({summary.unreadable} unreadable, as recorded)" if summary.unreadable else ""
    again = f", {summary.recomputed} explained again" if summary.recomputed else ""
    lines.append(
        f"{one_line(summary.run)}: {counted(len(summary.found), 'finding') if summary.found else 'no findings'}; "
        f"{counted(summary.samples, 'sample')}{unreadable} in {counted(summary.shards, 'shard')}, "
        f"{readable_size(summary.bytes)} checked{again}"
    )
    lines += [f"not checked: {each}" for each in summary.unchecked]
    if summary.unconfined:
        lines.append(f"not confined on this system: files were read without limits on {', '.join(summary.unconfined)}")
    lines += _notes(summary.notes)
    for run in summary.runs:
        lines.append(f"{one_line(Path(run.run).name)}: manifest.json SHA-256 {run.manifest_sha256 or 'not known'}")
    if summary.manifest_sha256:
        signed = f", signed by {one_line(summary.signed_by)}" if summary.signed_by else ""
        lines.append(f"manifest.json SHA-256 {summary.manifest_sha256}{signed}")
    return "\n".join(lines)


def info_text(run: RunInfo) -> str:
    """Return what `info` shows."""
    plan, totals = run.plan, run.totals
    state = "complete" if run.complete else f"{run.shards_landed} of {run.shards} shards so far"
    if run.lost_shards:
        state = f"NOT complete any more: {run.lost_shards} of {run.shards} shards are gone or cut short"
    about = _origin(run.origin)
    head = [
        ("run", f"{run.run} ({counted(len(run.runs), 'complete run') if run.runs else state})"),
        ("run id", run.run_id),
        ("checkpoint", about and f"{about['checkpoint']} sha256 {plan['checkpoint_sha256']}"),
        (
            "network",
            f"{plan['architecture']}, {plan['target_layer']}, grid {_size(plan['grid_size'])}, {plan['precision']} by "
            f"{plan.get('engine', TORCH)}",
        ),
        ("problem", plan.get("problem_type", "")),
        ("maps", plan["method"] if plan["control"] == CONTROLS[0] else f"{plan['method']}, control {plan['control']}"),
        ("identity", _identity(plan, totals)),
        ("in cells", run.spatial and str(run.spatial)),
        ("dataset", about and f"{about['data']} fingerprint {plan['dataset_fingerprint'][:16]}…"),
        ("input", f"{_size(plan['input_size'])}, {_preprocessing(plan['preprocessing'])}"),
        ("features", plan.get("features", "")),
        ("stored", f"cams {plan['cams']}, maps {plan['maps']}, batch {plan['batch_size']}, shard {plan['shard_size']}"),
        ("created", about and about["created"]),
        ("samples", _counts(totals, run.intervals, run.needed)),
        ("trained on", UNKNOWN_LEAK if run.trained_on is None else f"{run.trained_on} of {totals['samples']} samples"),
        *(("run", _run_of_series(each)) for each in run.runs),
    ]
    lines = [f"{name:<11} {one_line(value)}" for name, value in head if value]
    lines += [f"{'task':<11} {one_line(_task(t))}" for t in run.tasks if not run.runs]
    lines += [f"{'note':<11} {one_line(n)}" for n in run.notes]
    lines += [f"{'unreadable':<11} {one_line(u)}" for u in run.unreadable]
    if (count := totals["status"]["unreadable"]) > len(run.unreadable):
        lines.append(f"{'unreadable':<11} … and {count - len(run.unreadable)} more: status and error in run.h5")
    table = class_table(run.classes, run.level)
    if run.sigmoids:
        readable = totals["samples"] - totals["status"]["unreadable"]
        table = sigmoid_table(run.sigmoids, run.pairs, readable, run.level)
    return "\n".join([*lines, "", *table, *group_table(run.group_by, run.groups, run.level)])


def _origin(origin: dict[str, Any]) -> dict[str, str]:
    """Return where a run comes from, as text; empty where each run of a series has its own."""
    return origin and {
        "checkpoint": origin["options"]["classifier"]["checkpoint"],
        "data": origin["options"]["data"],
        "created": f"{origin['created']} by {origin['user']} on {origin['host']}",
    }


def _counts(totals: dict[str, Any], intervals: Mapping[str, Interval | None], needed: int | None = None) -> str:
    return "; ".join([str(totals["samples"]), *_accuracy(totals, intervals, needed), *_status(totals)])


def _run_of_series(run: RunOfSeries) -> str:
    about = _origin(run.origin)
    of = f"{about['checkpoint']} sha256 {run.checkpoint_sha256[:16]}…, {about['data']}, {about['created']}"
    return f"{run.run}: {_counts(run.totals, run.intervals)}; {of}"


def render_text(summary: RenderSummary) -> str:
    """Return the result of `render`."""
    counts = {
        "unreadable when explained": summary.unreadable,
        "without a map": summary.without_map,
        "originals missing": summary.missing_originals - summary.misplaced,
        "originals not readable here": summary.unread_originals,
        "ORIGINALS CHANGED since they were explained": summary.changed_originals,
    }
    if not summary.selected:
        return f"{one_line(summary.run)}: no sample fits this selection; nothing was drawn"
    told = [f"{count} {what}" for what, count in counts.items() if count]
    if summary.misplaced:
        told.append(
            f"{summary.misplaced} of {summary.misplaced} originals are not in {one_line(summary.data)}: "
            "is --data right?"
        )
    head = (
        f"{one_line(summary.out)}: {summary.pictures} of {summary.selected} selected samples in "
        f"{counted(summary.files, 'file')}"
    )
    return "; ".join([head, *told])


def sample_text(summary: SampleSummary) -> str:
    """Return the result of `sample`."""
    counts = {"without their image": summary.without_image, "IMAGES CHANGED since they were explained": summary.changed}
    told = [f"{count} {what}" for what, count in counts.items() if count]
    of = f" of {one_line(summary.pool)}" if summary.pool else ""
    head = f"{one_line(summary.out)}: {summary.drawn} of {counted(summary.size, 'sample')}{of} drawn"
    if len(summary.strata) > 1:
        head += f" in {len(summary.strata)} strata"
    fill = "fill in copies of verdicts.csv, looking at sheet.html; then batchcam review"
    return "\n".join(["; ".join([head, *told, fill]), *_notes(summary.notes)])


def view_text(summary: ViewSummary) -> str:
    """Return the result of `view`."""
    told = [f"{one_line(summary.run)}: {counted(summary.samples, 'sample')} could be seen"]
    if summary.verdicts_file is not None:
        told.append(f"{counted(summary.verdicts, 'verdict')} added to {one_line(summary.verdicts_file)}")
    if summary.failed:
        told.append(f"not all columns could be read: {one_line(summary.failed)}")
    return "; ".join(told)


def report_text(summary: ReportSummary | SigmoidReport) -> str:
    """Return the result of `report`."""
    counts = {"without their image": summary.without_image, "IMAGES CHANGED since they were explained": summary.changed}
    told = [f"{count} {what}" for what, count in counts.items() if count]
    if summary.flips is not None:
        otherwise = "predictions are another class" if hasattr(summary, "accuracy") else "samples flipped in some class"
        told.insert(0, f"{summary.flips} {otherwise} than in the older run")
    parts = {True: "", False: ", of a run that is not complete"}
    state = ", of what is left of a damaged run" if summary.lost_files else parts[summary.complete]
    if summary.gatherings:
        told.append("peaks gather in one place: see the top of the page")
    told += [one_line(gate.reason) for gate in summary.gates if gate.needs_a_look]
    sizes = f"{counted(summary.pictures, 'picture')}, {readable_size(summary.bytes)}"
    head = f"{one_line(summary.out)}: {counted(summary.samples, 'sample')}{state}, {sizes}"
    return "\n".join(["; ".join([head, *told]), *_notes(summary.notes)])


def export_text(summary: ExportSummary) -> str:
    """Return the result of `export`."""
    kept = f" ({summary.kept} of them were there already)" if summary.kept else ""
    skipped = f", {summary.skipped} left out" if summary.skipped else ""
    files = f"{counted(summary.files, 'file')}{kept}"
    head = f"{one_line(summary.out)}: {counted(summary.samples, 'sample')}{skipped} as {summary.format} in {files}"
    return "; ".join([head, *map(one_line, summary.notes)])


def jobs_text(summary: JobsSummary) -> str:
    """Return the result of `jobs`."""
    folder = one_line(summary.folder)
    copied = f"copied {', '.join(summary.copied)}" if summary.copied else "nothing to copy"
    kept = f"; {counted(len(summary.kept), 'script')} there already" if summary.kept else ""
    step = f"next: each begins with how to use it; {shlex.quote(f'{folder}/nightly.sh')} --help for a run every night"
    return f"{folder}: {copied}{kept}\n{step}"


def nightly_text(summary: NightSummary) -> str:
    """Return what a night has to tell, nothing after a good one."""
    return "\n".join(summary.mails)


def promote_text(summary: DecisionSummary) -> str:
    """Return what became of a version."""
    told = f"{summary.version}: {summary.decision}; promoted: {summary.promoted or 'none'}"
    return f"batchcam: {one_line(told)}"


retrain_text = promote_text


def watch_text(seen: Watch) -> str:
    """Return a look at a run in progress: how far it is, how many tasks it has, and those that are not well."""
    tasks = [f"{count} {state}" for state, count in sorted(seen.tasks.items())]
    lines = [seen.run, watch_line(seen), f"{counted(sum(seen.tasks.values()), 'task')}: {', '.join(tasks) or '-'}"]
    lines += [
        f"{each.state}: {each.task} on {each.host}, last heard of {readable_time(each.silent_s)} ago"
        + (f": {each.reason}" if each.reason else "")
        for each in seen.unwell[:UNWELL_SHOWN]
    ]
    if len(seen.unwell) > UNWELL_SHOWN:
        lines.append(f"… and {len(seen.unwell) - UNWELL_SHOWN} more; --json lists all")
    return "\n".join(map(one_line, lines))


def watch_line(seen: Watch) -> str:
    """Return a look at a run in progress in one line."""
    parts = [
        f"{seen.shards_landed} of {seen.shards} shards, {seen.samples_landed} of {seen.samples} samples",
        f"{seen.samples_per_s:.3g} samples/s" if seen.samples_per_s else "rate not known yet",
    ]
    if seen.complete:
        parts.append("complete")
    elif seen.shards_landed == seen.shards:
        parts.append("not merged yet")
    elif seen.seconds_left is not None:
        parts.append(_done_at(seen.seconds_left))
    if seen.silent_s >= SILENCE_TOLD_S:
        parts.append(f"no shard for {readable_time(seen.silent_s)}")
    parts += _under_way(seen.under_way)
    if seen.unwell:
        states = collections.Counter(each.state for each in seen.unwell)
        parts.append(", ".join(f"{counted(count, 'task')} {state}" for state, count in sorted(states.items())))
    if seen.unreadable:
        parts.append(f"{seen.unreadable} unreadable so far")
    return "; ".join(parts)


def _under_way(shards: Sequence[ShardUnderWay]) -> Iterator[str]:
    """Yield what to tell of the shards that are being made, longest silent first."""
    alive = [each for each in shards if not each.is_left]
    if alive:
        which = f"shard {alive[0].shard}" if len(alive) == 1 else f"{len(alive)} shards"
        ages = dict.fromkeys(readable_time(each.silent_s) for each in (alive[-1], alive[0]))
        yield f"{which} under way, last sign {' to '.join(ages)} ago"
    if left := shards[: len(shards) - len(alive)]:
        yield f"{counted(len(left), 'shard')} left by workers without a sign of life"


def _done_at(seconds_left: float) -> str:
    """Return when a run will be complete; at a rate that means days, how many."""
    if seconds_left > 6 * 86400:  # a weekday says no more
        return f"{readable_time(seconds_left)} left"
    return time.strftime("done at about %a %H:%M", time.localtime(time.time() + seconds_left))


def evaluate_text(summary: EvaluateSummary | SigmoidEvaluation) -> str:
    """Return the result of `evaluate`."""
    bad = f", {summary.unreadable} unreadable" if summary.unreadable else ""
    bad += f", {summary.non_finite} with logits that are not finite" if summary.non_finite else ""
    if summary.problem_type == MULTI_LABEL:
        leaked = [_trained_on(summary.trained_on, summary.samples)] if summary.trained_on else []
        lines = [f"multi-label: {counted(summary.samples, 'sample')}{bad}", *leaked, *_notes(summary.notes), ""]
        groups = group_table(summary.group_by, summary.groups, summary.level)
        table = sigmoid_table(summary.classes, summary.pairs, summary.samples - summary.unreadable, summary.level)
        return "\n".join([*lines, *table, *groups])
    if summary.labelled or summary.findings == summary.samples:
        told = bounded_rate(summary.accuracy, summary.labelled, summary.intervals["accuracy"], _needs(summary.needed))
        head = f"accuracy {told} of {summary.samples} samples{bad}"
    else:
        head = f"no labels; {summary.samples} samples{bad}"
    lines = [head]
    if summary.trained_on:
        interval = summary.intervals["unseen_accuracy"]
        others = (
            f"accuracy {bounded_rate(summary.unseen_accuracy, summary.unseen_labelled or 0, interval)} on the others"
        )
        lines.append(f"{_trained_on(summary.trained_on, summary.samples)}; {others}")
    groups = group_table(summary.group_by, summary.groups, summary.level)
    return "\n".join([*lines, *_notes(summary.notes), "", *class_table(summary.classes, summary.level), *groups])


def train_text(summary: TrainSummary | SigmoidTraining) -> str:
    """Return the result of `train`."""
    s = summary
    if s.problem_type == MULTI_LABEL:
        score, learned, judged = "mean AUROC", s.train_auroc, s.val_auroc
    else:
        score, learned, judged = "accuracy", s.train_accuracy, s.val_accuracy
    trained = _score_of(_share(learned), s.train_samples, s.train_left_out, "while learning")
    leaked = f"{s.val_trained_on} trained on: this says nothing of other images" if s.val_trained_on else ""
    held = _share(judged)
    if s.problem_type != MULTI_LABEL and judged is not None and s.val_samples and not leaked:
        held = _rate_of(judged, s.val_samples)
    validated = _score_of(held, s.val_samples, s.val_left_out, leaked)
    bad = f"; {counted(s.unreadable, 'image')} could not be read in the last epoch" if s.unreadable else ""
    text = (
        f"{one_line(s.checkpoint)}: epoch {s.best_epoch} of {s.epochs}, training {score} {trained}, "
        f"validation {score} {validated}{bad}"
    )
    if s.problem_type == MULTI_LABEL:
        ranked = sorted(s.classes.items(), key=lambda each: (each[1] is None, each[1]))
        rows = [(name, f"{_share(value):>5}") for name, value in ranked]
        return "\n".join([text, "", *class_lines("AUROC", rows)])
    if not s.learned_by_heart:
        return text
    reached = _share(max(epoch["train_accuracy"] for epoch in s.history))
    return f"{text}\ntraining {reached}, validation {_share(s.val_accuracy)}: learned by heart"


def _rate_of(rate: float, count: int) -> str:
    return bounded_rate(rate, count, wilson(round(rate * count), count))


def _score_of(score: str, samples: int | None, left_out: int | None, remark: str) -> str:
    """Return a score, of how many images, and what was left out of it; these are None where nobody counted."""
    of = "" if samples is None else f" of {counted(samples, 'image')}"
    remarks = "; ".join(filter(None, [f"{left_out} left out" if left_out else "", remark]))
    return f"{score}{of}" + (f" ({remarks})" if remarks else "")


def demo_text(summary: DemoSummary) -> str:
    """Return the result of `demo`."""
    s = summary
    judged = f"{s.samples} test images" if s.judged == s.samples else f"{s.judged} of {s.samples} test images"
    seen = f"of which training saw {s.trained_on}" if s.trained_on else "that training never saw"
    return "\n".join(
        [
            f"accuracy        {_rate_of(s.accuracy, s.judged)} on {judged} {seen}",
            f"CAM peak        {_rate_of(s.peak_in_object, s.judged)} on the object; "
            f"the image's centre: {_rate_of(s.centre_in_object, s.judged)}",
            f"run             {one_line(summary.run)}: verified, {summary.findings} findings",
            f"picture         {one_line(summary.picture)}",
            f"took            {summary.seconds:.0f} s",
        ]
    )


def class_table(scores: Sequence[ClassScore], level: float) -> list[str]:
    """Return a table of classes, the least accurate first, and those without labels by how often they are predicted."""
    ranked = sorted(scores, key=lambda s: (s.accuracy is None, s.accuracy or 0, 0 if s.labelled else -s.predicted))
    columns = {"labelled": "labelled", "predicted": "predicted", "left out": "left_out"}
    if not any(s.left_out for s in scores):
        del columns["left out"]

    def cells(score: ClassScore) -> str:
        counts = (f"{getattr(score, field):>{len(name)}}" for name, field in columns.items())
        return "  ".join([f"{_bounded(score.accuracy, score.intervals['accuracy']):<17}", *counts])

    rows = class_lines("  ".join([f"{'accuracy':<17}", *columns]), [(s.name, cells(s)) for s in ranked])
    return rows + [_how(level, "rates")] * any(s.labelled for s in scores)


def sigmoid_table(scores: Sequence[SigmoidScore], pairs: Sequence[Pair], readable: int, level: float) -> list[str]:
    """Return a table of the classes of a multi-label run, the least AUROC first, and which of them come together."""
    ranked = sorted(scores, key=lambda s: s.rank)
    columns = {name: max(11 if field in METHOD_OF else 7, len(name)) for name, field in COLUMNS.items()}
    if not any(s.left_out for s in scores):
        del columns["left out"]

    def line(values: Mapping[str, str]) -> str:
        return "  ".join(f"{values.get(name, ''):>{width}}" for name, width in columns.items())

    def cells(score: SigmoidScore) -> str:
        rates = {name: str(v) if isinstance(v, int) else _share(v) for name, v in score.cells.items()}
        return f"{line(rates)}\n{line(score.brackets)}".rstrip()

    rows = class_lines(line({name: name for name in COLUMNS}), [(s.name, cells(s)) for s in ranked])
    rows.append(_how(level, *dict.fromkeys(METHOD_OF.values())))
    together = [
        f"{one_line(p.first)} and {one_line(p.second)}: {p.labelled} labelled, {p.predicted} predicted" for p in pairs
    ]
    counted_over = f"predicted: of all {readable} readable; the others: of those whose label is known"
    return [counted_over, *rows, *(["", "together", *together] if together else [])]


def group_table(columns: Sequence[str], scores: Sequence[GroupScore | SigmoidGroup], level: float) -> list[str]:
    """Return a table of groups, the worst first, none if nobody asked for groups."""
    if not scores:
        return []
    head, told, judged_by = columns, f"{'accuracy':<17}  labelled  samples", "group"
    if not isinstance(scores[0], GroupScore):
        head, judged_by = (*columns, "class"), "row"
        rates = "  ".join(f"{name:<17}" for name in ("AUROC", "sensitivity", "specificity", "prevalence"))
        told = f"{rates}    known      yes"
    rows = [(group_name(score.named), _group(score)) for score in scores]
    judged = sum(score.p is not None for score in scores)
    kinds = ["rates"] if isinstance(scores[0], GroupScore) else ["rates", "AUROC"]
    how = f"p by Fisher's exact test against all, by Holm for {counted(judged, judged_by)}"
    return ["", *class_lines(told, rows, ", ".join(head), "; --json lists all"), _how(level, *kinds), how]


def _group(score: GroupScore | SigmoidGroup) -> str:
    remark = f"FALLS BEHIND, p {score.p:.2g}" if score.falls_behind else ""
    if isinstance(score, GroupScore):
        rate = _bounded(score.accuracy, score.interval)
        numbers = f"{rate:<17}  {score.labelled:>8}  {score.samples:>7}"
    else:
        s = score.score
        names = ("auroc", "sensitivity", "specificity", "prevalence")
        rates = "  ".join(f"{_bounded(getattr(s, name), s.intervals[name]):<17}" for name in names)
        numbers = f"{rates}  {s.known:>7}  {s.yes:>7}"
    return f"{numbers}  {remark if score.is_judged else 'too few to judge'}"


def _bounded(value: float | None, interval: Interval | None) -> str:
    return f"{_share(value)} {brackets(interval)}".rstrip()


def _how(level: float, *kinds: str) -> str:
    """Return how the intervals of some kinds of numbers are made."""
    methods = ", ".join(f"of {kind} by {METHODS[kind]}" for kind in kinds)
    return f"in brackets: {100 * level:g}% intervals, {methods}"


def _task(task: dict[str, Any]) -> str:
    rate = f", {task['images_per_s']} images/s" if task.get("images_per_s") else ""
    return (
        f"{task.get('task')} on {task.get('host')} ({task.get('device')}): {task.get('outcome')}, "
        f"{task.get('samples')} samples in {task.get('seconds')} s{rate}{_stages(task)}, "
        f"restarts {task.get('restarts')}"
    )


def _stages(task: dict[str, Any]) -> str:
    """Return where a task's time went, such as " (91% explaining, 2% waiting for images, 1% storing)"."""
    seconds, names = task.get("seconds"), ("explaining", "waiting_for_images", "storing")
    spent = {name.replace("_", " "): task.get(f"seconds_{name}") for name in names}
    if not seconds or not all(isinstance(each, float) for each in (seconds, *spent.values())):
        return ""
    return " (" + ", ".join(f"{each / seconds:.0%} {name}" for name, each in spent.items()) + ")"


def _identity(plan: dict[str, Any], totals: dict[str, Any]) -> str:
    largest = totals["largest_identity_residual"]
    state = identity_words(plan["method"], plan["identity"])
    return f"{state}; largest residual {largest:.2g}" if plan["method"] == EXACT and largest is not None else state


def _accuracy(
    totals: dict[str, Any], intervals: Mapping[str, Interval | None], needed: int | None = None
) -> Iterator[str]:
    """Yield how many predictions are right, nothing of a multi-label run."""
    if "labelled" not in totals:
        return
    if not totals["labelled"] and totals["status"]["unreadable"] < totals["samples"]:
        yield "no labels"
        return
    left_out = totals["samples"] - totals["labelled"]
    without = f", {left_out} of {totals['samples']} samples without label or prediction" if left_out else ""
    told = bounded_rate(totals["accuracy"], totals["labelled"], intervals["accuracy"], _needs(needed))
    yield f"accuracy {told}{without}"


def _needs(needed: int | None) -> str:
    """Return how many samples there would have to be for ± 1 point."""
    return f"; ± 0.01 needs n {needed}" if needed else ""


def _notes(notes: Iterable[str]) -> list[str]:
    return [f"note: {one_line(each)}" for each in notes]


def _status(totals: dict[str, Any]) -> Iterable[str]:
    return [f"{count} {name}" for name, count in totals["status"].items() if count]


def _preprocessing(content: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in content.items())


def _size(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _share(value: float | None) -> str:
    return "-" if value is None else rate_text(value)
