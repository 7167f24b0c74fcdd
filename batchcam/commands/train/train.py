"""train: fine-tune a classifier; the seed's recipe as defaults; resumes after the last whole epoch."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from batchcam.commands.train import epochs, history
from batchcam.commands.train.config import TrainConfig
from batchcam.data.findings import LabelReading, notes_of, own_findings, read_findings
from batchcam.data.labels import NAMED_CLASSES, match_classes, own_classes
from batchcam.data.loader import BatchStream, SampleDataset
from batchcam.data.preprocessing import PRESETS, Preprocessing, chosen_preprocessing
from batchcam.data.sources import Source, dataset_folder, open_source, reading_of
from batchcam.data.timed_source import timed
from batchcam.errors import CheckpointError, ConfigError, DatasetError
from batchcam.job.console import Progress, note
from batchcam.job.cpus import loader_processes, warn_of_workers
from batchcam.network.checkpoint import pack_checkpoint, trained_on
from batchcam.network.device import gpu_count, pick_device
from batchcam.network.forward import USUAL_CHANNELS
from batchcam.network.precision import set_precision
from batchcam.network.training_images import TrainingImages
from batchcam.network.weights_file import FORMAT_KEY, load_raw
from batchcam.record.metrics import rate_text
from batchcam.rules import DEFAULT_THRESHOLD, MULTI_LABEL, SINGLE_LABEL
from batchcam.store import landing
from batchcam.store.ours import ADVICE
from batchcam.store.plan import dataset_fingerprint, label_words

SHAPING = ("val_fraction", "arch", "weights", "batch_size", "learning_rate", "weight_decay", "flip", "seed")
"""Settings that decide what an epoch gives; a resumed training must have the same."""

IMPLIED = {"flip": False, "one_output": False, "problem_type": SINGLE_LABEL}
"""What such settings are where a checkpoint does not say them."""

COUNTS = ("train_samples", "train_left_out", "val_samples", "val_left_out", "val_trained_on")
"""What the history of an epoch says of its scores, but for those of versions before this one."""


@dataclasses.dataclass(frozen=True)
class TrainSummary:
    """What a training of one label a sample gave.

    Attributes:
        checkpoint: the best one.
        epochs: trained in all.
        best_epoch: of the checkpoint, from 1; the next seven are of this epoch.
        train_accuracy: on the training samples, while learning from them.
        train_samples: how many these are; None where a version before this one trained the epoch.
        train_left_out: images to learn from that are not among them: unreadable, or alone in a batch.
        val_accuracy: on the validation samples; None without any.
        val_samples: how many these are.
        val_left_out: images to validate on that are not among them: unreadable, or without a label.
        val_trained_on: validation samples that are training images too, by their digests; None where these are of other
            things, or not known.
        learned_by_heart: whether it knows its training images and little that holds for others, as
            `is_learned_by_heart` has it; None without validation.
        unreadable: images that could not be read in the last epoch.
        history: loss and accuracy of every epoch on both, and the same counts.
    """

    checkpoint: str
    epochs: int
    best_epoch: int
    train_accuracy: float
    train_samples: int | None
    train_left_out: int | None
    val_accuracy: float | None
    val_samples: int | None
    val_left_out: int | None
    val_trained_on: int | None
    learned_by_heart: bool | None
    unreadable: int
    history: list[dict[str, Any]]
    problem_type: Literal["single-label"] = SINGLE_LABEL

    @property
    def findings(self) -> int:
        """Images that need a look."""
        return self.unreadable


@dataclasses.dataclass(frozen=True)
class SigmoidTraining:
    """What a training of several labels a sample gave.

    Attributes:
        checkpoint, epochs, best_epoch, train_samples, val_samples, val_trained_on, unreadable: as in `TrainSummary`.
        train_left_out, val_left_out: likewise; without a label is where nothing is known of any class.
        train_auroc: on the training samples, while learning, the mean over classes with both a yes and a no.
        val_auroc: the same of the validation samples, by which the best epoch is chosen; None without any.
        classes: of each class its AUROC on the validation samples; None without a yes or a no.
        history: loss, score and counts of every epoch.
    """

    checkpoint: str
    epochs: int
    best_epoch: int
    train_auroc: float | None
    train_samples: int
    train_left_out: int
    val_auroc: float | None
    val_samples: int | None
    val_left_out: int | None
    val_trained_on: int | None
    classes: dict[str, float | None]
    unreadable: int
    history: list[dict[str, Any]]
    problem_type: Literal["multi-label"] = MULTI_LABEL

    @property
    def findings(self) -> int:
        """Images that need a look."""
        return self.unreadable


@dataclasses.dataclass(frozen=True)
class _Samples:
    """Some positions of a dataset, with labels as `train_epoch` takes them."""

    dataset: SampleDataset
    labels: np.ndarray
    positions: np.ndarray

    @property
    def is_multi_label(self) -> bool:
        """Whether each class of a sample is true or not by itself."""
        return self.labels.ndim == 2

    @property
    def known(self) -> np.ndarray:
        """The positions with a label."""
        known = self.labels[self.positions] >= 0
        return np.asarray(self.positions[known.any(1) if self.is_multi_label else known])

    @property
    def chance(self) -> float:
        """Accuracy of saying always the most frequent class."""
        return float(np.bincount(self.labels[self.known]).max() / len(self.known))


def train(config: TrainConfig) -> TrainSummary | SigmoidTraining:
    """Train until the last epoch, starting after the last one that is on disk.

    Raises:
        StoppedEarlyError: a signal came; the same command resumes after the last whole epoch.
        ConfigError: the checkpoint's folder would be one of the dataset's class folders.
        CheckpointError: the checkpoint beside `out` was trained otherwise; the message names what differs.
        DatasetError: no labels, or the validation dataset has other classes.
    """
    _require_outside_classes(config)
    if config.out.is_dir():
        raise ConfigError(f"--out {config.out}: a folder; give the checkpoint's file name")
    device = pick_device(config.device)
    warn_of_workers(config.workers)
    set_precision("fp32", device, config.threads)
    preprocessing = _preprocessing(config)
    names, training, validation = _data(config, preprocessing)
    if len(training.known) < 2:
        raise DatasetError(f"{config.data}: has one image to learn from; training needs two")
    state = _State.start(config, names, preprocessing, training, validation, device)
    note(
        f"{config.arch}, {len(names)} classes, {len(training.positions)} images to learn from, "
        f"{len(validation.positions) if validation else 0} to validate on; {device}, "
        f"starting at epoch {len(state.history) + 1}",
        config.quiet,
    )
    if training.is_multi_label:
        note(
            "multi-label: binary cross-entropy of each class, over the labels that are known; the best epoch has the "
            "largest mean AUROC over classes; no thresholds are learned: explain and evaluate count from "
            f"{DEFAULT_THRESHOLD}, or as --threshold or --thresholds-from say",
            config.quiet,
        )
    if config.one_output:
        note(f"one output z: {names[0]} has logit -z/2 and {names[1]} has logit z/2", config.quiet)
    if state.validates_on_itself:
        what = f"validation {state.score} does not tell how well other images are predicted"
        note(f"warning: --val {config.val} is the dataset to learn from: {what}", quiet=False)
    landing.make_folder(config.out.parent)
    for epoch in range(len(state.history) + 1, config.epochs + 1):
        started = time.monotonic()
        batches = epochs.shuffled_batches(training.known, config.batch_size, config.seed, epoch)
        torch.manual_seed(config.seed * 1_000_003 + epoch)  # dropout: the same after a resume
        flipped = epochs.flipped_samples(len(training.labels), config.seed, epoch) if config.flip else None
        with (
            _stream(config, training, batches, device) as stream,
            Progress(f"epoch {epoch}/{config.epochs}", len(training.known), "images", config.quiet) as progress,
        ):
            learned = epochs.train_epoch(
                state.network, state.optimizer, preprocessing, training.labels,
                stream, device, progress.advance, flipped,
            )  # fmt: skip
        if learned.unreadable >= sum(map(len, batches)) - 1:  # no step was taken
            raise DatasetError(_too_few_readable(config, training))
        validated = _validate(config, state.network, preprocessing, validation, device)
        state.finish_epoch(epoch, learned, validated, time.monotonic() - started)
    places = (config.out, _last_path(config.out), history.table_path(config.out))
    landing.remove_stale_partials(config.out.parent, [path.name for path in places])
    return state.summary()


class _State:
    """A training under way: what the last checkpoint holds."""

    def __init__(
        self, config: TrainConfig, names: tuple[str, ...], preprocessing: Preprocessing, settings: dict[str, Any]
    ) -> None:
        self.history: list[dict[str, Any]] = []
        self._best: history.Epoch | None = None
        self._chance: float | None = None
        self.score = history.ACCURACY
        self._seconds: dict[int, str] = {}
        self.trained_on: TrainingImages | None
        self._kinds: list[str]  # what digests of training and of validation images are of
        self.network: nn.Module
        self.optimizer: torch.optim.Optimizer
        self._config, self._names, self._preprocessing, self._settings = config, names, preprocessing, settings

    @classmethod
    def start(
        cls,
        config: TrainConfig,
        names: tuple[str, ...],
        preprocessing: Preprocessing,
        training: _Samples,
        validation: _Samples | None,
        device: torch.device,
    ) -> _State:
        """Return the state after the last whole epoch on disk, or a new one."""
        settings = {name: getattr(config, name) for name in SHAPING}
        if config.one_output:
            settings["one_output"] = True
        if training.is_multi_label:
            settings["problem_type"] = MULTI_LABEL
        settings["dataset_fingerprint"] = _fingerprint(training)
        settings["validation_fingerprint"] = _fingerprint(validation) if validation else None
        settings["training_samples"] = len(training.positions)
        settings["validation_samples"] = len(validation.positions) if validation else 0
        settings["preprocessing"] = preprocessing.to_dict()
        state = cls(config, names, preprocessing, settings)
        state._kinds = [s.dataset.source.digests_of for s in (training, validation or training)]
        if training.is_multi_label:
            state.score = history.AUROC
        elif validation:
            state._chance = validation.chance
        saved, best_epoch = state._saved()
        network, state.trained_on = epochs.initial_network(
            config.arch, 1 if config.one_output else len(names), None if saved else config.weights, config.seed
        )
        if saved:
            network.load_state_dict(saved["model"])
            state.trained_on = trained_on(_last_path(config.out), saved[FORMAT_KEY])
        state.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        state.optimizer = torch.optim.Adam(
            state.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        if saved:
            state.optimizer.load_state_dict(saved["optimizer"])
            state.history = saved[FORMAT_KEY]["training"]["history"]
            # older versions kept the first of equal accuracy; after a kill the file may be an epoch ahead
            kept = (entry for entry in state.history if entry["epoch"] == best_epoch)
            state._best = next(kept, history.best_of(state.history))
        return state

    def _saved(self) -> tuple[dict[str, Any] | None, int]:
        """Return the last checkpoint of this training, None for a new one, and which epoch the best is of."""
        best, last = self._config.out, _last_path(self._config.out)
        try:
            self._seconds = history.read_seconds(history.table_path(best))
            read = {path: self._read(path) for path in (best, last) if os.path.lexists(path)}
            # a kill between the first two landings leaves the best one of a single epoch alone
            if last not in read and best in read and len(read[best][FORMAT_KEY]["training"]["history"]) > 1:
                raise CheckpointError(f"{best}: is there, and no {last.name} to go on from lies beside it")
            if best not in read and last in read:
                raise CheckpointError(f"{last}: is there, and no {best.name} lies beside it, its best epoch")
        except CheckpointError as error:
            if self._config.overwrite:
                return None, 0
            raise CheckpointError(f"{error}; {ADVICE}") from error
        return read.get(last), read[best][FORMAT_KEY]["training"]["epoch"] if last in read else 0

    def _read(self, path: Path) -> dict[str, Any]:
        """Return a checkpoint, after the check that it was trained as we are asked to."""
        try:
            saved: dict[str, Any] = load_raw(path, path.read_bytes()) if path.is_file() else {}
            about = saved[FORMAT_KEY]
            theirs, names = IMPLIED | about["training"]["settings"], tuple(about["class_names"])
            done = len(about["training"]["history"])
        except (KeyError, TypeError, OSError) as error:
            raise CheckpointError(f"{path}: not a checkpoint to resume from") from error
        ours = IMPLIED | self._settings
        differing = [k for k, v in ours.items() if theirs.get(k) != v]
        if names != self._names:
            differing.append("class_names")
        if differing:
            told = ", ".join(f"{k.replace('_', ' ')} ({theirs.get(k)} there, {ours.get(k)} here)" for k in differing)
            raise CheckpointError(f"{path}: was trained otherwise: {told}")
        if done > self._config.epochs:
            raise CheckpointError(f"{path}: was trained for {done} epochs, more than --epochs {self._config.epochs}")
        return saved

    @property
    def validates_on_itself(self) -> bool:
        """Whether --val lists the images to learn from, by ids, labels and sizes."""
        listed = (self._settings["dataset_fingerprint"], self._settings["validation_fingerprint"])
        return self._config.val is not None and listed[0] == listed[1]

    def finish_epoch(self, epoch: int, learned: epochs.Score, validated: epochs.Score | None, seconds: float) -> None:
        """Record an epoch; land the checkpoint if it is the best, then table and last: a kill in between repeats it."""
        if self.trained_on is not None:
            self.trained_on |= TrainingImages.of(learned.digests, self._kinds[0])
        entry = self._entry(epoch, learned, validated)
        self.history.append(entry)
        val = f", validation {_told(validated, self.score)}" if validated else ""
        leaked = f", {entry['val_trained_on']} of which are trained on" if entry["val_trained_on"] else ""
        note(f"epoch {epoch}: training {_told(learned, self.score)}{val}{leaked}", self._config.quiet)
        if history.is_better(entry, self._best):
            self._best = entry
            landing.land(self._config.out, self._pack(entry))
        self._seconds[epoch] = f"{seconds:.1f}"
        history.land_table(history.table_path(self._config.out), self.history, self._seconds, self.score)
        landing.land(_last_path(self._config.out), self._pack(entry, optimizer=self.optimizer.state_dict()))

    def _entry(self, epoch: int, learned: epochs.Score, validated: epochs.Score | None) -> dict[str, Any]:
        """Return what the history says of an epoch."""
        leaked = None
        if validated and self.trained_on is not None and self.trained_on.tell_of(self._kinds[1]):
            leaked = int(self.trained_on.hold(validated.digests).sum())
        return {
            "epoch": epoch,
            "train_loss": learned.loss,
            f"train_{self.score}": learned.score,
            "train_samples": learned.samples,
            "train_left_out": self._settings["training_samples"] - learned.samples,
            "val_loss": validated.loss if validated else None,
            f"val_{self.score}": validated.score if validated else None,
            **({"val_aurocs": list(validated.aurocs)} if validated and self.score == history.AUROC else {}),
            "val_samples": validated.samples if validated else None,
            "val_left_out": self._settings["validation_samples"] - validated.samples if validated else None,
            "val_trained_on": leaked,
            "unreadable": learned.unreadable + (validated.unreadable if validated else 0),
        }

    def summary(self) -> TrainSummary | SigmoidTraining:
        """Return the result."""
        assert self._best is not None  # after an epoch
        best = self._best
        common: dict[str, Any] = {
            "checkpoint": str(self._config.out),
            "epochs": len(self.history),
            "best_epoch": best["epoch"],
            **{name: best.get(name) for name in (f"train_{self.score}", f"val_{self.score}", *COUNTS)},
            "unreadable": self.history[-1]["unreadable"],
            "history": self.history,
        }
        if self.score == history.AUROC:
            aurocs = best.get("val_aurocs") or [None] * len(self._names)
            return SigmoidTraining(**common, classes=dict(zip(self._names, aurocs, strict=True)))
        return TrainSummary(**common, learned_by_heart=history.is_learned_by_heart(self.history, best, self._chance))

    def _pack(self, epoch: dict[str, Any], **more: Any) -> bytes:
        scores = (f"train_{self.score}", f"val_{self.score}")
        training = {name: epoch[name] for name in ("epoch", *scores)}
        return pack_checkpoint(
            self.network.state_dict(),
            self._config.arch,
            self._names,
            self._preprocessing.to_dict(),
            {**training, "settings": self._settings, "history": self.history},
            self.trained_on,
            MULTI_LABEL if self.score == history.AUROC else SINGLE_LABEL,
            **more,
        )


def _told(score: epochs.Score, kind: str) -> str:
    """Return loss and score of a pass, and over how many samples."""
    if score.loss is None:
        return "of nothing: no image could be read"
    name = "mean AUROC" if kind == history.AUROC else kind
    told = "-" if score.score is None else rate_text(score.score)
    return f"loss {score.loss:.4f} {name} {told} of {score.samples}"


def _require_outside_classes(config: TrainConfig) -> None:
    for data in filter(None, (config.data, config.val)):
        folder = dataset_folder(data)
        if folder is not None and Path(os.path.realpath(folder)) in Path(os.path.realpath(config.out)).parent.parents:
            raise ConfigError(f"--out {config.out}: its folder is, or becomes, a class of {data}; choose another --out")


def _preprocessing(config: TrainConfig) -> Preprocessing:
    return (chosen_preprocessing(config) or PRESETS["stl10"]).by(config.pixels).of_channels(USUAL_CHANNELS)


def _source(config: TrainConfig, data: str, preprocessing: Preprocessing) -> Source:
    source = open_source(data, reading=reading_of(config))
    source.decoding = dataclasses.replace(source.decoding, bits=config.bits, least=preprocessing.least)
    return timed(source, config.sample_timeout)


def _data(config: TrainConfig, preprocessing: Preprocessing) -> tuple[tuple[str, ...], _Samples, _Samples | None]:
    source = _source(config, config.data, preprocessing)
    names, labels = _own_labels(config, source)
    is_multi_label = labels.ndim == 2
    if not is_multi_label and (labels < 0).any():
        raise DatasetError(
            f"{config.data}: {int((labels < 0).sum())} samples have no label; training needs one for each"
        )
    if len(names) < 2:
        advice = ": --columns label=COLUMN takes one of 1 and 0 as two classes" if is_multi_label else ""
        raise DatasetError(f"{config.data}: has one class; a classifier needs two{advice}")
    if config.one_output and (len(names) > 2 or is_multi_label):
        which = "several labels a sample" if is_multi_label else f"{len(names)} classes"
        raise DatasetError(f"{config.data}: has {which}; --one-output is for two: leave it out for one output a class")
    _require_images(source, labels, names)
    dataset = SampleDataset(source, preprocessing, preprocessing.image_size)
    validation: _Samples | None
    if config.val:
        other = _source(config, config.val, preprocessing)
        samples = SampleDataset(other, preprocessing, preprocessing.image_size)
        known = _labels_of(config, other, names, is_multi_label)
        learn, validation = np.arange(len(source)), _Samples(samples, known, np.arange(len(other)))
        if not len(validation.known):
            raise DatasetError(f"{config.val}: no sample has a label; validation needs labels")
    else:
        strata = epochs.rarest_classes(labels) if is_multi_label else labels
        learn, hold = epochs.split_by_class(strata, config.val_fraction, config.seed)
        validation = _Samples(dataset, labels, hold) if len(hold) else None
    if is_multi_label and validation and not _both_kinds(validation.labels[validation.positions]).any():
        where = config.val or config.data
        raise DatasetError(f"{where}: validation needs a class with both a yes and a no: see --val, --val-fraction")
    return names, _Samples(dataset, labels, learn), validation


def _own_labels(config: TrainConfig, source: Source) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the classes that a dataset itself has, and its labels as `train_epoch` takes them."""
    reading = LabelReading.of(config.problem_type, config.label_separator, config.findings)
    several = own_findings(source, reading)
    if several is not None:
        names, found = several
        _tell(config, (f"classes: {', '.join(names)}", *found.remarks, *notes_of(source, is_labelled=True)))
        if reading.problem_type == SINGLE_LABEL:
            return names, found.one_each(source.spec)
        return names, np.asarray(found.values)
    own, doubts = own_classes(source, config.label_kind)
    _tell(config, (*doubts, *source.notes))
    own = own or tuple(str(k) for k in range(int(np.asarray(source.labels).max()) + 1))
    return own, match_classes(source, own, config.label_kind).indices


def _labels_of(config: TrainConfig, source: Source, names: tuple[str, ...], is_multi_label: bool) -> np.ndarray:
    """Return another dataset's labels of these classes."""
    reading = LabelReading.of(config.problem_type, config.label_separator, config.findings)
    if is_multi_label or reading.problem_type == SINGLE_LABEL:
        reading = dataclasses.replace(reading, problem_type=MULTI_LABEL if is_multi_label else SINGLE_LABEL)
        found = read_findings(source, names, reading)
        if found is not None:
            _tell(config, (*found.remarks, *notes_of(source, is_labelled=True)))
            return np.asarray(found.values) if is_multi_label else found.one_each(source.spec)
    known = match_classes(source, names, config.label_kind)
    _tell(config, (*known.remarks, *source.notes))
    return known.indices


def _both_kinds(labels: np.ndarray) -> np.ndarray:
    """Return which classes have a yes and a no, bool (K,)."""
    return np.asarray((labels == 1).any(0) & (labels == 0).any(0))


def _tell(config: TrainConfig, remarks: Sequence[str]) -> None:
    for remark in remarks:
        note(remark, config.quiet)


def _require_images(source: Source, labels: np.ndarray, names: Sequence[str]) -> None:
    """Refuse to learn classes of which there is no image; of several labels a sample, or nothing but such."""
    if labels.ndim == 2:
        alike = [name for name, both in zip(names, _both_kinds(labels).tolist(), strict=True) if not both]
        if alike:
            listed = ", ".join(alike[:NAMED_CLASSES])
            raise DatasetError(f"{source.spec}: no yes, or no no, of {len(alike)} classes: {listed}; see --findings")
        return
    counts = np.bincount(labels, minlength=len(names))
    missing = [*source.empty_classes, *(names[k] for k in np.flatnonzero(counts == 0).tolist())]
    if missing:
        listed = ", ".join(missing[:NAMED_CLASSES]) + ", …" * (len(missing) > NAMED_CLASSES)
        why = (
            "; its labels are whole numbers and count as class indices from 0, unless --label-kind names"
            if source.numeric
            else ""
        )
        raise DatasetError(
            f"{source.spec}: no image of these classes: {listed}{why}; add images, or take the classes out"
        )


def _too_few_readable(config: TrainConfig, training: _Samples) -> str:
    errors = [training.dataset[position].error for position in training.positions.tolist()]
    reasons = [error for error in errors if error]
    count = "only one" if len(reasons) < len(errors) else "no"
    return f"{config.data}: {count} image to learn from could be read; one that could not: {reasons[0]}"


def _fingerprint(samples: _Samples) -> str:
    source = samples.dataset.source
    labels = label_words(samples.labels) if samples.is_multi_label else samples.labels.tolist()
    return dataset_fingerprint(source.sample_ids, labels, np.asarray(source.sizes).tolist())


def _stream(config: TrainConfig, samples: _Samples, batches: Sequence[list[int]], device: torch.device) -> BatchStream:
    processes = loader_processes(config.workers, gpu_count(device))
    return BatchStream(samples.dataset, batches, processes, device, config.start_method)


def _validate(
    config: TrainConfig,
    network: nn.Module,
    preprocessing: Preprocessing,
    samples: _Samples | None,
    device: torch.device,
) -> epochs.Score | None:
    if samples is None:
        return None
    known = samples.known.tolist()
    batches = [known[i : i + config.batch_size] for i in range(0, len(known), config.batch_size)]
    with _stream(config, samples, batches, device) as stream:
        return epochs.validate(network, preprocessing, samples.labels, stream, device)


def _last_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}.last{out.suffix or '.pth'}")
