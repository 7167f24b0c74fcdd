"""evaluate: accuracy of a checkpoint on a dataset, without maps."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import numpy as np
import torch

from batchcam.commands.evaluate.config import EvaluateConfig
from batchcam.commands.explain.assembly import assemble
from batchcam.commands.explain.inputs import leak_remarks, trained_on
from batchcam.commands.explain.planning import label_reading
from batchcam.commands.explain.thresholds import thresholds_for
from batchcam.commands.train.epochs import predict
from batchcam.config import DEFAULT_BATCH_SIZE
from batchcam.data.loader import BatchStream, RangeBatches
from batchcam.job.console import Progress, note
from batchcam.job.cpus import loader_processes, warn_of_workers
from batchcam.network.compiled import on_engine
from batchcam.network.device import gpu_count, pick_device
from batchcam.network.folding import fold_batch_norms
from batchcam.network.independence import independent_logits
from batchcam.network.precision import set_precision
from batchcam.record import metrics
from batchcam.record.groups import GroupCounts, GroupScore, RowGroups, grouped_by
from batchcam.record.intervals import Interval, needed, wilson
from batchcam.record.sigmoid_groups import SigmoidGroup, sigmoid_groups
from batchcam.record.sigmoid_scores import Pair, SigmoidScore, SigmoidScores
from batchcam.rules import AUTO, MULTI_LABEL, SINGLE_LABEL


@dataclasses.dataclass(frozen=True)
class EvaluateSummary:
    """How well a checkpoint predicts a dataset.

    Attributes:
        labelled: with a label, and predicted.
        unreadable: samples whose image could not be read.
        non_finite: samples with a NaN or an infinity among their logits, as --precision fp16 may give.
        accuracy: over the labelled ones, None without any.
        trained_on: samples that the network was trained on, by their bytes; None where the checkpoint does not say.
        unseen_labelled: labelled ones that it was not trained on; None where that is not known.
        unseen_accuracy: over these, None without any.
        classes: score of each class.
        group_by: columns of the manifest by which `groups` are told.
        groups: score of each group, the least accurate first.
        intervals: of accuracy and unseen accuracy, None where there is none.
        needed: how many labelled samples would make that of the accuracy ± 1 point, None likewise.
        level: of confidence of all intervals.
    """

    samples: int
    labelled: int
    unreadable: int
    non_finite: int
    accuracy: float | None
    trained_on: int | None
    unseen_labelled: int | None
    unseen_accuracy: float | None
    classes: list[metrics.ClassScore]
    group_by: tuple[str, ...] = ()
    groups: list[GroupScore] = dataclasses.field(default_factory=list)
    problem_type: Literal["single-label"] = SINGLE_LABEL
    _: dataclasses.KW_ONLY
    intervals: dict[str, Interval | None]
    needed: int | None
    level: float

    @property
    def findings(self) -> int:
        """Samples that need a look."""
        return self.unreadable + self.non_finite


@dataclasses.dataclass(frozen=True)
class SigmoidEvaluation:
    """How well a checkpoint predicts a dataset of several labels a sample.

    Attributes:
        samples, unreadable, non_finite, trained_on: as in `EvaluateSummary`.
        classes: score of each class.
        pairs: the classes that come together most.
        group_by: as in `EvaluateSummary`.
        groups: score of each class in each group, the least AUROC first.
        level: of confidence of all intervals.
    """

    samples: int
    unreadable: int
    non_finite: int
    trained_on: int | None
    classes: list[SigmoidScore]
    pairs: list[Pair]
    group_by: tuple[str, ...]
    groups: list[SigmoidGroup]
    level: float
    problem_type: Literal["multi-label"] = MULTI_LABEL

    @property
    def findings(self) -> int:
        """Samples that need a look."""
        return self.unreadable + self.non_finite


def evaluate(config: EvaluateConfig) -> EvaluateSummary | SigmoidEvaluation:
    """Predict every sample and count.

    Raises:
        BatchcamError: the checkpoint or the dataset can't be used, or do not fit; or it has no column to group by.
    """
    device = pick_device(config.compute.device)
    warn_of_workers(config.compute.workers)
    precision = config.compute.precision or "fp32"
    set_precision(precision, device, config.compute.threads)
    assembly = assemble(
        config.classifier,
        config.data,
        sample_timeout=config.compute.sample_timeout,
        reading=label_reading(config, None),
    )
    thresholds, assembly = thresholds_for(config, None, assembly)
    for remark in (*assembly.remarks, *leak_remarks(assembly)):
        note(remark, config.quiet)
    group_by = grouped_by(config.group_by, assembly.source.meta, config.data)
    network = assembly.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    probe = assembly.normalised_probe(device)
    independent_logits(network, probe)
    fold_batch_norms(network, probe)  # as explain does: the same numbers
    engine = config.compute.engine or AUTO
    tell = functools.partial(note, quiet=config.quiet)
    network = on_engine(engine, network, None, probe, precision, assembly.library_source, tell)
    samples, level = len(assembly.source), config.confidence / 100
    batches = RangeBatches([(0, samples)], config.compute.batch_size or DEFAULT_BATCH_SIZE)
    processes = loader_processes(config.compute.workers, gpu_count(device))
    stream = BatchStream(assembly.dataset, batches, processes, device, config.compute.start_method)
    predictions, unreadable = np.full(samples, -1, np.int64), np.zeros(samples, bool)
    sigmoids = SigmoidScores(assembly.class_names, thresholds, level=level) if assembly.findings else None
    columns, sigmoid_rows = [assembly.source.meta[name] for name in group_by], RowGroups()
    leaked = np.full(samples, -1, np.int8)
    with stream, Progress("evaluate", samples, "images", config.quiet) as progress:
        for batch in stream:
            indices = batch.indices.numpy()
            logits = predict(network, assembly.preprocessing, batch, len(assembly.class_names), device, precision)
            predictions[indices] = np.where(np.isfinite(logits).all(1), np.nan_to_num(logits).argmax(1), -1)
            if sigmoids and assembly.findings:
                sigmoids.add(assembly.findings.values[indices], logits)
                sigmoid_rows.add([[texts[row] for row in indices.tolist()] for texts in columns])
            leaked[indices] = trained_on(assembly, batch.sha256.numpy())
            unreadable[indices] = batch.unreadable
            progress.advance(len(batch.indices))
    labels, known = np.asarray(assembly.labels), assembly.trained_on is not None
    unseen = np.where(leaked == 0, labels, -1)
    bad = int(unreadable.sum())
    non_finite = int((predictions < 0).sum()) - bad
    if sigmoids:
        seen = int((leaked == 1).sum()) if known else None
        scores = sigmoids.scores()
        by_group = sigmoid_groups(sigmoids, scores, sigmoid_rows)
        pairs = sigmoids.pairs()
        return SigmoidEvaluation(samples, bad, non_finite, seen, scores, pairs, config.group_by, by_group, level)
    groups = GroupCounts()
    if columns:
        groups.add(columns, {"label": labels, "prediction": predictions, "unreadable": unreadable})
    labelled, of_unseen = _judged(labels, predictions), _judged(unseen, predictions)
    accuracy, unseen_accuracy = (metrics.accuracy(truth, predictions) for truth in (labels, unseen))
    return EvaluateSummary(
        samples=samples,
        labelled=labelled,
        unreadable=bad,
        non_finite=non_finite,
        accuracy=accuracy,
        trained_on=int((leaked == 1).sum()) if known else None,
        unseen_labelled=of_unseen if known else None,
        unseen_accuracy=unseen_accuracy if known else None,
        classes=metrics.class_scores(labels, predictions, assembly.class_names, level),
        group_by=config.group_by,
        groups=groups.scores(level),
        intervals={
            "accuracy": _interval(accuracy, labelled, level),
            "unseen_accuracy": _interval(unseen_accuracy, of_unseen, level) if known else None,
        },
        needed=None if accuracy is None else needed(accuracy, level=level),
        level=level,
    )


def _interval(rate: float | None, count: int, level: float) -> Interval | None:
    return wilson(round((rate or 0) * count), count, level)


def _judged(labels: np.ndarray, predictions: np.ndarray) -> int:
    return int(((labels >= 0) & (predictions >= 0)).sum())
