"""evaluate: accuracy of a checkpoint on a dataset, without maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from batchcam.commands.evaluate.config import EvaluateConfig
from batchcam.commands.explain.assembly import assemble
from batchcam.commands.explain.inputs import leak_remarks, trained_on
from batchcam.commands.explain.planning import label_reading
from batchcam.commands.explain.thresholds import thresholds_for
from batchcam.commands.train.epochs import predict
from batchcam.config.shared import DEFAULT_BATCH_SIZE
from batchcam.data.loader import BatchStream, RangeBatches
from batchcam.job.console import Progress, note
from batchcam.job.cpus import loader_processes, warn_of_workers
from batchcam.network.compiled import on_engine
from batchcam.network.device import gpu_count, pick_device
from batchcam.network.folding import fold_batch_norms
from batchcam.network.independence import independent_logits
from batchcam.network.precision import set_precision
from batchcam.record.clusters import Clusters, stored_cluster
from batchcam.record.groups import GroupCounts, GroupScore, RowGroups, grouped_by
from batchcam.record.intervals import Interval
from batchcam.record.metrics import ClassCounts, ClassScore
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
        cluster: column of the manifest whose values the intervals are over, None: over samples.
        clusters: how many of them there are.
        notes: what a reader of the intervals should know.
    """

    samples: int
    labelled: int
    unreadable: int
    non_finite: int
    accuracy: float | None
    trained_on: int | None
    unseen_labelled: int | None
    unseen_accuracy: float | None
    classes: list[ClassScore]
    group_by: tuple[str, ...] = ()
    groups: list[GroupScore] = dataclasses.field(default_factory=list)
    problem_type: Literal["single-label"] = SINGLE_LABEL
    _: dataclasses.KW_ONLY
    intervals: dict[str, Interval | None]
    needed: int | None
    level: float
    cluster: str | None
    clusters: int | None
    notes: list[str]

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
        group_by, cluster, clusters, notes: as in `EvaluateSummary`.
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
    cluster: str | None
    clusters: int | None
    notes: list[str]
    problem_type: Literal["multi-label"] = MULTI_LABEL

    @property
    def findings(self) -> int:
        """Samples that need a look."""
        return self.unreadable + self.non_finite


def evaluate(config: EvaluateConfig) -> EvaluateSummary | SigmoidEvaluation:
    """Predict every sample and count.

    Raises:
        BatchcamError: the checkpoint or the dataset can't be used, or do not fit; or it has no column to group by, or
            of clusters.
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
    clusters, numbers = _clusters(config, assembly.source.meta)
    told: dict[str, Any] = {"cluster": config.cluster, "clusters": None if clusters is None else len(clusters)}
    network = assembly.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    probe = assembly.normalised_probe(device)
    independent_logits(network, probe)
    fold_batch_norms(network, probe)  # as explain does: the same numbers
    engine = config.compute.engine or AUTO
    network, choice = on_engine(engine, network, None, probe, precision, assembly.library_source)
    if choice:
        note(choice, config.quiet)
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
                of = None if numbers is None else numbers[indices]
                sigmoids.add(assembly.findings.values[indices], logits, of)
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
        told["notes"] = [*clusters.notes({"labels told right": sigmoids.design})] if clusters else []
        counts = (samples, bad, non_finite, seen)
        return SigmoidEvaluation(*counts, scores, pairs, config.group_by, by_group, level, **told)
    groups = GroupCounts()
    if columns:
        rows = {"label": labels, "prediction": predictions, "unreadable": unreadable}
        groups.add(columns, rows, numbers)
    counted, of_unseen = (ClassCounts(len(assembly.class_names)) for _ in range(2))
    counted.add(labels, predictions, numbers)
    of_unseen.add(unseen, predictions, numbers)
    told["notes"] = [*clusters.notes({"accuracy": counted.design})] if clusters else []
    return EvaluateSummary(
        samples=samples,
        labelled=counted.labelled,
        unreadable=bad,
        non_finite=non_finite,
        accuracy=counted.accuracy,
        trained_on=int((leaked == 1).sum()) if known else None,
        unseen_labelled=of_unseen.labelled if known else None,
        unseen_accuracy=of_unseen.accuracy if known else None,
        classes=counted.scores(assembly.class_names, level),
        group_by=config.group_by,
        groups=groups.scores(level),
        intervals={
            "accuracy": counted.interval(level),
            "unseen_accuracy": of_unseen.interval(level) if known else None,
        },
        needed=None if counted.accuracy is None else counted.design.needed(counted.accuracy, level),
        level=level,
        **told,
    )


def _clusters(config: EvaluateConfig, meta: Mapping[str, Sequence[str]]) -> tuple[Clusters | None, np.ndarray | None]:
    """Return the clusters of the samples, and the number of each one's, int64 (n,)."""
    if config.cluster is None:
        return None, None
    clusters = Clusters(config.cluster)
    numbers = clusters.of(meta[stored_cluster(config.cluster, meta, config.data)])
    clusters.require_several()
    return clusters, numbers
