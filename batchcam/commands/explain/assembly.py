"""A job's classifier and dataset, put together from what the user, the checkpoint and the dataset say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from batchcam.commands.explain.class_names import class_names_of
from batchcam.commands.explain.network import Built, built_network, opened_checkpoint, with_classes
from batchcam.commands.explain.probing import normalised, preprocessing_of, probe_of
from batchcam.config.shared import Classifier, Compute, MapDataset
from batchcam.data.findings import AS_THE_DATA_SAYS, Findings, LabelReading, notes_of, read_findings
from batchcam.data.labels import match_classes
from batchcam.data.loader import SampleDataset
from batchcam.data.map_source import MapSource
from batchcam.data.own_transform import OwnTransform
from batchcam.data.planned import Listing, Planned, Since, part, planned, since
from batchcam.data.preprocessing import Preprocessing
from batchcam.data.samples import UNKNOWN_LABEL, Numbers
from batchcam.data.sources import Source, open_planned, open_source, reading_of
from batchcam.data.timed_source import TimedSource, rest, timed
from batchcam.errors import ConfigError, DatasetError
from batchcam.images.planes import Decoding
from batchcam.images.tables import Reading
from batchcam.network.checkpoint import Checkpoint
from batchcam.network.forward import USUAL_CHANNELS
from batchcam.network.libraries import is_of_a_library
from batchcam.network.training_images import TrainingImages
from batchcam.rules import IN_MEMORY, MULTI_LABEL, SINGLE_LABEL, in_memory
from batchcam.store.plan import label_words


@dataclasses.dataclass(frozen=True)
class Assembly:
    """What a job works with.

    Attributes:
        checkpoint: what the file of the weights says; its state is gone, the network has it.
        network: with the weights loaded, in evaluation mode, on the CPU.
        architecture: its name: torchvision's, `module:callable`, or the class of a network in memory.
        class_names: K names, by class index.
        labels: the dataset's labels as indices into `class_names`, -1 unknown, int64 (n,).
        preprocessing: None when the dataset gives preprocessed tensors.
        probe: the first readable samples as the loader gives them, (m, C, H, W), uint8 or float.
        names_from: who names the classes: the checkpoint, --class-names, the dataset, or nobody.
        label_kind: what labels that are whole numbers were read as, names or indices; None: they are none.
        remarks: what the user should know of how classes, labels and samples were read, a line each.
        architecture_options: what torchvision's function was told, NAME=VALUE, where the checkpoint does not decide it.
        since: what has become of the samples of a listing; None where there is none, or where it is not known.
        left_out: how many samples of the dataset were taken away by `without`.
        findings: of a multi-label run, whose `labels` are -1: whether each class of a sample is true; else None.
    """

    checkpoint: Checkpoint
    network: nn.Module
    architecture: str
    class_names: tuple[str, ...]
    source: Source
    labels: Numbers
    preprocessing: Preprocessing | OwnTransform | None
    probe: Tensor
    names_from: str
    label_kind: str | None
    remarks: tuple[str, ...]
    architecture_options: tuple[str, ...] = ()
    since: Since | None = None
    left_out: int = 0
    findings: Findings | None = None

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) of the network's input."""
        return (self.probe.shape[2], self.probe.shape[3])

    @property
    def planned_preprocessing(self) -> dict[str, Any]:
        """Return how an image becomes the network's input, from its stored bits on."""
        if self.preprocessing is None:
            return {"preprocessed": "by the dataset"}
        decoding = self.source.decoding
        said = {"bits": decoding.bits, "range": decoding.range and [*map(float, decoding.range)]}
        return {**self.preprocessing.to_dict(), **{key: value for key, value in said.items() if value is not None}}

    @property
    def library_source(self) -> tuple[str, ...] | None:
        """What the network was built from, where its code is a library's."""
        if self.architecture.startswith(IN_MEMORY):
            return None
        if ":" in self.architecture and not is_of_a_library(self.architecture):
            return None
        return (self.checkpoint.sha256, self.checkpoint.weights_key, self.architecture, *self.architecture_options)

    @property
    def fingerprinted_labels(self) -> list[int] | list[bytes]:
        """What the dataset's fingerprint takes of each sample's labels."""
        if self.findings is not None:
            return label_words(np.asarray(self.findings.values))
        numbers: list[int] = np.asarray(self.labels).tolist()
        return numbers

    @property
    def trained_on(self) -> TrainingImages | None:
        """The images that the network was trained on, None where these can't be told among the dataset's."""
        known = self.checkpoint.trained_on
        return known if known is not None and known.tell_of(self.source.digests_of) else None

    @property
    def dataset(self) -> SampleDataset:
        """The samples, decoded and preprocessed."""
        return SampleDataset(self.source, self.preprocessing, self.input_size, self.probe.shape[1])

    def without(self, rows: np.ndarray) -> Assembly:
        """Return the same with some samples less; those to leave out are given as bool (n,)."""
        kept, whole, seconds = np.flatnonzero(~rows), self.source, 0.0
        if isinstance(whole, TimedSource):
            seconds, whole = whole.seconds, whole.inner
        some = part(whole, self.labels, kept)
        some.decoding = whole.decoding
        findings = self.findings and dataclasses.replace(self.findings, values=self.findings.values[kept])
        return dataclasses.replace(
            self, source=timed(some, seconds), labels=self.labels[kept], left_out=int(rows.sum()), findings=findings
        )

    def normalised_probe(self, device: torch.device) -> Tensor:
        """Return the probe as the network takes it."""
        return normalised(self.probe.to(device), self.preprocessing)


def assemble(
    classifier: Classifier,
    data: str | MapDataset,
    fallback: Preprocessing | None = None,
    fallback_names: tuple[str, ...] | None = None,
    sample_timeout: float = Compute().sample_timeout,
    may_be_unreadable: bool = False,
    listing: Listing | None = None,
    look: bool = True,
    reading: LabelReading = AS_THE_DATA_SAYS,
) -> Assembly:
    """Load the checkpoint, list the dataset, and check that they fit.

    Args:
        classifier: the network, as the options say.
        data: the dataset, as given, or itself.
        fallback: the preprocessing where neither the checkpoint nor an option says one.
        fallback_names: likewise the class names.
        sample_timeout: seconds after which reading a sample is given up; 0: never.
        may_be_unreadable: go on where none of the first samples can be read.
        listing: the samples that were planned, with their labels; None: those that the dataset has now.
        look: whether to find out what has become of a listing, where the work does not need it.
        reading: how labels are to be read, as far as it was said.

    Raises:
        StoppedEarlyError: none of the first samples can be read, now at least.
        CheckpointError: it can't be read, or its keys are not the network's.
        DatasetError: it can't be listed, its first images are all of a kind that is refused, or its classes are not the
            checkpoint's.
        ConfigError: something that neither file says has to be said by an option.
    """
    checkpoint = opened_checkpoint(classifier)
    built = built_network(classifier, checkpoint)
    checkpoint = dataclasses.replace(checkpoint, state={})  # the network has it: not a second time in memory
    if checkpoint.is_multi_label:
        if reading.problem_type == SINGLE_LABEL:
            raise ConfigError(f"--problem-type {SINGLE_LABEL}: {checkpoint.path} learned each class by itself")
        reading = dataclasses.replace(reading, problem_type=MULTI_LABEL)
    preprocessing = preprocessing_of(classifier, checkpoint, built.network) or fallback
    decoding = Decoding(classifier.bits, USUAL_CHANNELS, classifier.range)
    if isinstance(preprocessing, Preprocessing):
        decoding = dataclasses.replace(decoding, channels=preprocessing.channels, least=preprocessing.least)
    opened = _opened(data, listing, look, reading_of(classifier))
    for source in filter(None, (opened.source, opened.now)):
        source.decoding = decoding
    source = timed(opened.source, sample_timeout)
    probe, preprocessing, told = probe_of(source, preprocessing, may_be_unreadable, checkpoint.unsaid)
    rest(source)
    if listing is not None:
        fallback_names = fallback_names or listing.class_names
    built = with_classes(built, normalised(probe[:2], preprocessing), fallback_names)
    names, names_from, doubts = class_names_of(classifier, checkpoint, source, built, fallback_names)
    if built.one_output:
        doubts += (f"one output z: explained as two classes, {names[0]} with logit -z/2 and {names[1]} with logit z/2",)
    if checkpoint.is_multi_label:
        doubts += ("problem type: multi-label: the checkpoint learned each class by itself, by sigmoid",)
    kind = classifier.label_kind
    labels: Numbers = source.labels
    changes: Since | None = None
    read_as: tuple[str, ...] = ()
    findings: Findings | None = None
    if listing is None:
        findings = _findings(source, checkpoint, built, names, reading)
        if findings is None:
            labels, kind, read_as = match_classes(source, names, kind)
        else:
            read_as, kind = findings.remarks, None
            labels = np.full(len(source), UNKNOWN_LABEL)
            columns = () if findings.separator else findings.columns.values()
            opened.source.meta = source.meta = {n: texts for n, texts in source.meta.items() if n not in columns}
        if findings is not None and reading.problem_type == SINGLE_LABEL:
            labels, findings = findings.one_each(source.spec), None
    else:
        kind = kind if listing.label_kind else None
        if listing.findings is not None:
            findings = Findings(listing.findings, (), reading.separator, reading.columns)
        changes = _changes(opened, names, classifier.label_kind, reading)
    is_labelled = bool(findings and findings.columns) or bool((np.asarray(labels) >= 0).any())
    return Assembly(
        checkpoint=checkpoint,
        network=built.network,
        architecture=built.name,
        class_names=names,
        source=source,
        labels=labels,
        preprocessing=preprocessing,
        probe=probe,
        names_from=names_from,
        label_kind=kind,
        remarks=(
            *(*checkpoint.remarks, *built.remarks, *doubts, *told, *read_as, *notes_of(source, is_labelled)),
            *(changes.remarks if changes else ()),
        ),
        architecture_options=built.options,
        since=changes,
        findings=findings,
    )


def _findings(
    source: Source, checkpoint: Checkpoint, built: Built, names: Sequence[str], reading: LabelReading
) -> Findings | None:
    """Return several labels a sample, None where each has one; that the data says it is told."""
    found = read_findings(source, names, reading)
    if found is None or reading.problem_type == SINGLE_LABEL:
        return found
    if built.one_output:
        raise ConfigError(
            f"{source.spec}: {'options ask for' if reading.is_said else 'has'} several labels a sample; the network's "
            "one output is for one of two classes; --columns label=COLUMN takes a column of 0 and 1"
        )
    if reading.is_said:
        return found
    several = source.several or f"{source.spec}: labels are several a sample (multi-label)"
    if checkpoint.training:
        raise DatasetError(f"{several}; {checkpoint.path} learned one class a sample")
    told = "problem type: multi-label, as the labels say: sigmoid of each class"
    return dataclasses.replace(found, remarks=(told, *found.remarks))


def _opened(data: str | MapDataset, listing: Listing | None, look: bool, reading: Reading) -> Planned:
    """Return the samples to work with."""
    if listing is not None and isinstance(data, str):
        return open_planned(data, listing, look, reading)
    now = open_source(data, reading=reading) if isinstance(data, str) else MapSource(in_memory(data), data)
    return Planned(now) if listing is None else planned(listing, now)


def _changes(opened: Planned, names: Sequence[str], kind: str | None, reading: LabelReading) -> Since | None:
    """Return what has become of a listing whose labels are classes of these names, None where that is not known."""
    listing, now, positions = opened.listing, opened.now, opened.positions
    if listing is None or now is None or positions is None:
        return None
    found = since(listing, now, positions)
    try:
        several = read_findings(now, names, reading)
        labels = match_classes(now, names, kind).indices if several is None else np.asarray(several.values)
        if several is not None and reading.problem_type == SINGLE_LABEL:
            labels = several.one_each(now.spec)
        found = found.relabelled_by(listing, positions, labels)
    except DatasetError as error:
        if not found.came:
            raise
        found = dataclasses.replace(found, uncompared=str(error))  # it may be about a sample that came
    if now.numbered and found.relabelled.any():
        raise DatasetError(
            f"{now.spec}: {found.relabelled.sum()} of {len(positions)} samples have another label than was planned, "
            "and no ids of their own: these are others now: choose another --out"
        )
    return found
