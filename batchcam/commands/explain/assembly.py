"""A job's classifier and dataset, put together from what the user, the checkpoint and the dataset say."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from batchcam.config import Classifier, Compute, MapDataset, read_option_file
from batchcam.data.findings import AS_THE_DATA_SAYS, Findings, LabelReading, notes_of, read_findings
from batchcam.data.labels import match_classes, own_classes
from batchcam.data.loader import SampleDataset, prepare
from batchcam.data.map_source import MapSource
from batchcam.data.own_transform import OwnTransform
from batchcam.data.planned import Listing, Planned, Since, part, planned, since
from batchcam.data.preprocessing import UNSAID, Preprocessing, chosen_preprocessing
from batchcam.data.samples import UNKNOWN_LABEL, Numbers
from batchcam.data.sources import Source, open_planned, open_source, reading_of
from batchcam.data.timed_source import TimedSource, rest, timed
from batchcam.errors import CheckpointError, ClassesError, ConfigError, DatasetError, ModelError, StoppedEarlyError
from batchcam.images.callables import load_callable
from batchcam.images.decoding import UnreadableImageError, UnsupportedImageError
from batchcam.images.planes import TOLD, Decoding, planes
from batchcam.images.tables import Reading
from batchcam.job.console import counted
from batchcam.network.checkpoint import Checkpoint, load_checkpoint
from batchcam.network.directory import described
from batchcam.network.forward import USUAL_CHANNELS, forward, image_channels
from batchcam.network.in_memory import as_checkpoint, copied, unwrapped
from batchcam.network.libraries import (
    TIMM,
    TRANSFORMERS,
    fitted_transformers_network,
    is_of_a_library,
    timm_has,
    transformers_network,
)
from batchcam.network.model import (
    TRANSFORM_INPUT,
    WITH_AUXILIARY,
    format_options,
    load_network,
    load_state,
    parse_options,
    torchvision_has,
)
from batchcam.network.one_output import as_two_classes
from batchcam.network.training_images import TrainingImages
from batchcam.rules import IN_MEMORY, MULTI_LABEL, SINGLE_LABEL, composed, in_memory
from batchcam.store.plan import label_words

CONFIG_OPTION = "config"
"""Among the options of a network of transformers': the digest of its config.json."""

PROBE_SAMPLES = 4
PROBE_ATTEMPTS = 64  # first samples looked at for readable ones


@dataclasses.dataclass(frozen=True)
class Assembly:
    """What a job works with.

    Attributes:
        checkpoint: what the file of the weights says; its state is gone, the network has it.
        network: with the weights loaded, in evaluation mode, on the CPU.
        architecture: its name: torchvision's, `module:callable`, or the class of a network in memory.
        class_names: K names, by class index.
        source: the dataset.
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


def normalised(probe: Tensor, preprocessing: Preprocessing | OwnTransform | None) -> Tensor:
    """Return pixels as a network takes them, float32; tensors of the dataset's own making stay as they are."""
    return preprocessing.normalise(probe) if preprocessing else probe.float()


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
    checkpoint = _checkpoint(classifier)
    built = _network(classifier, checkpoint)
    checkpoint = dataclasses.replace(checkpoint, state={})  # the network has it: not a second time in memory
    if checkpoint.is_multi_label:
        if reading.problem_type == SINGLE_LABEL:
            raise ConfigError(f"--problem-type {SINGLE_LABEL}: {checkpoint.path} learned each class by itself")
        reading = dataclasses.replace(reading, problem_type=MULTI_LABEL)
    preprocessing = _preprocessing(classifier, checkpoint, built.network) or fallback
    channels = preprocessing.channels if isinstance(preprocessing, Preprocessing) else USUAL_CHANNELS
    decoding = Decoding(classifier.bits, channels, classifier.range)
    opened = _opened(data, listing, look, reading_of(classifier))
    for source in filter(None, (opened.source, opened.now)):
        source.decoding = decoding
    source = timed(opened.source, sample_timeout)
    probe, preprocessing, told = _probe(source, preprocessing, may_be_unreadable, checkpoint.unsaid)
    rest(source)
    if listing is not None:
        fallback_names = fallback_names or listing.class_names
    built = _with_classes(built, normalised(probe[:2], preprocessing), fallback_names)
    names, names_from, doubts = _class_names(classifier, checkpoint, source, built, fallback_names)
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
    source: Source, checkpoint: Checkpoint, built: _Built, names: Sequence[str], reading: LabelReading
) -> Findings | None:
    """Return several labels a sample, None where each has one; that the data says it is told.

    Raises:
        ConfigError, DatasetError: as `read_findings`; or the network gives one answer, by softmax.
    """
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
    """Return what has become of a listing whose labels are classes of these names, None where that is not known.

    Raises:
        DatasetError: labels are none of the model's; or samples without ids of their own are others now.
    """
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


def _with_classes(built: _Built, images: Tensor, fallback_names: tuple[str, ...] | None) -> _Built:
    """Return the network with its K, and with two logits if it has one output and no older run explains that as one."""
    # as the network itself returns it: its last matrix may be part of something else
    class_count = built.class_count or _class_count(built.network, images)
    if class_count != 1 or len(fallback_names or ()) == 1:
        return dataclasses.replace(built, class_count=class_count)
    tail = as_two_classes(built.network, images)
    remarks = (*built.remarks, tail) if tail else built.remarks
    return dataclasses.replace(built, class_count=2, one_output=True, remarks=remarks)


def _class_count(network: nn.Module, images: Tensor) -> int:
    with torch.inference_mode():
        return forward(network, images).shape[1]


def _checkpoint(classifier: Classifier) -> Checkpoint:
    given = classifier.checkpoint
    if isinstance(given, nn.Module):
        return as_checkpoint(given)
    if isinstance(given, Path):
        return load_checkpoint(given, classifier.weights_key)
    raise ModelError(f"a {type(given).__name__} is given as the network: expected a checkpoint's path or an nn.Module")


@dataclasses.dataclass(frozen=True)
class _Built:
    """A network with its weights, in evaluation mode.

    Attributes:
        network: on the CPU.
        name: see `Assembly.architecture`.
        class_count: K, 0 where only the network itself says it.
        one_output: whether its two logits are made of one output.
        options: see `Assembly.architecture_options`.
        remarks: see `Assembly.remarks`.
    """

    network: nn.Module
    name: str
    class_count: int = 0
    one_output: bool = False
    options: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def _network(classifier: Classifier, checkpoint: Checkpoint) -> _Built:
    where = str(checkpoint.path)
    if isinstance(classifier.checkpoint, nn.Module):
        return _Built(copied(classifier.checkpoint).eval(), where)
    if classifier.model:
        network = _call(classifier.model)
        if not isinstance(network, nn.Module):
            raise ModelError(f"--model {classifier.model}: returned {type(network).__name__}, not a torch.nn.Module")
        network = unwrapped(network).eval()
        return _Built(network, classifier.model, remarks=load_state(network, checkpoint.state, where))
    said = checkpoint.architecture
    if said and classifier.arch and said != classifier.arch:
        raise ConfigError(f"--arch {classifier.arch}: the checkpoint says {said}; leave the option out")
    if said and said.startswith(TRANSFORMERS):
        network, class_count = transformers_network(checkpoint.config, checkpoint.state, where)
        return _Built(network.eval(), said, class_count)
    architecture = said or classifier.arch
    if architecture:
        return _built(architecture, classifier, checkpoint)
    return _as_carried(classifier, checkpoint)


def _built(architecture: str, classifier: Classifier, checkpoint: Checkpoint) -> _Built:
    given = parse_options(classifier.arch_option)
    if architecture.startswith(TRANSFORMERS):
        return _of_transformers(architecture, checkpoint, given)
    chosen, told = _chosen_options(architecture, checkpoint, given)
    options = {**chosen, **given}
    network, class_count, remarks = load_network(
        architecture, checkpoint.state, str(checkpoint.path), {**checkpoint.options, **options}
    )
    return _Built(network.eval(), architecture, class_count, options=format_options(options), remarks=(*told, *remarks))


def _of_transformers(architecture: str, checkpoint: Checkpoint, given: Mapping[str, Any]) -> _Built:
    """Return transformers' network that --arch names; the digest of its config.json is among the options.

    Raises:
        ConfigError: the config.json is not the one that the run has.
        CheckpointError: the weights are another network's.
    """
    config, path, digest = described(architecture)
    of_config = {CONFIG_OPTION: f"sha256:{digest}"} if digest else {}
    changes = dict(given)
    if (asked := changes.pop(CONFIG_OPTION, None)) not in (None, of_config.get(CONFIG_OPTION)):
        raise ConfigError(
            f"--arch {architecture}: {path or 'no config.json'} is not the run's, whose digest is {asked}"
        )
    network, class_count, remarks = fitted_transformers_network(
        config, changes, checkpoint.state, str(checkpoint.path), architecture
    )
    told = f"architecture: {architecture}, as {path or 'transformers builds it where nothing else is said'}"
    return _Built(
        network.eval(),
        architecture,
        class_count,
        options=format_options({**changes, **of_config}),
        remarks=(told, *remarks),
    )


def _as_carried(classifier: Classifier, checkpoint: Checkpoint) -> _Built:
    """Return the network that another program's checkpoint names: torchvision's, or else timm's.

    Raises:
        ConfigError: it names none.
        CheckpointError: the weights are another network's.
    """
    key, name = checkpoint.carried_architecture or ("", "")
    known = [*([name] if torchvision_has(name) else []), *([f"{TIMM}{name}"] if name and timm_has(name) else [])]
    if not known:
        where = f"{checkpoint.path}: does not say its architecture"
        other = f" (its {key}, {name}, is none of torchvision's)" if name else ""
        such = f"{TRANSFORMERS}{name}" if "/" in name else "resnet18"
        raise ConfigError(f"{where}{other}; name it with --arch, such as {such}, or --model")
    for architecture in known[:-1]:
        with contextlib.suppress(CheckpointError):
            return _told(_built(architecture, classifier, checkpoint), key)
    return _told(_built(known[-1], classifier, checkpoint), key)


def _told(built: _Built, key: str) -> _Built:
    return dataclasses.replace(built, remarks=(f"architecture: {built.name}, the checkpoint's {key}", *built.remarks))


def _chosen_options(
    architecture: str, checkpoint: Checkpoint, given: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what torchvision's function is told where neither the file nor the user says it, and how that is told."""
    # networks of train are built without
    if architecture not in WITH_AUXILIARY or checkpoint.architecture or TRANSFORM_INPUT in given:
        return {}, ()
    remark = (
        f"{architecture}: {TRANSFORM_INPUT}=true, as torchvision's own weights need and those that were trained from "
        f"them; --arch-option {TRANSFORM_INPUT}=false for a network that was built without"
    )
    return {TRANSFORM_INPUT: True}, (remark,)


def _call(model: str) -> object:
    factory = load_callable(model, ModelError, "--model ")
    try:
        return factory()
    except Exception as error:  # whatever the user's callable raises
        raise ModelError(f"--model {model}: raised {type(error).__name__}: {error}") from error


def _class_names(
    classifier: Classifier,
    checkpoint: Checkpoint,
    source: Source,
    built: _Built,
    fallback: tuple[str, ...] | None,
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Return the class names by index, who says them, and what to tell about that."""
    given = None if classifier.class_names is None else _given_class_names(classifier.class_names)
    class_count = built.class_count
    hint = " (one output is two classes: name both, first the one for which it is negative)" if built.one_output else ""
    names, names_from, remarks = _said_names(checkpoint, class_count, given)
    if given is not None:
        if names and tuple(map(composed, given)) != tuple(map(composed, names)):
            raise ConfigError(
                f"--class-names {classifier.class_names}: not the class names that the checkpoint says, in their "
                "order; leave the option out"
            )
        if names and (differing := sum(own != name for own, name in zip(names, given, strict=True))):
            form = f"class names: {differing} of --class-names are the checkpoint's in another Unicode form"
            remarks += (f"{form}, and count as the checkpoint's",)
        names, names_from = (names, names_from) if names else (given, "--class-names")
    if names is None and fallback is not None:
        names, names_from = fallback, "the run"
    if names is None:
        names, doubts = own_classes(source, classifier.label_kind)
        remarks += doubts
        if names is None:
            return tuple(str(k) for k in range(class_count)), "nobody", ()
        if len(names) != class_count:
            empty = f", and no image of {', '.join(source.empty_classes)}" if source.empty_classes else ""
            raise ClassesError(
                f"{source.spec}: has {len(names)} classes{empty}, the checkpoint {class_count}{hint}; "
                "name them all with --class-names FILE"
            )
        order = f"0 {names[0]} … {len(names) - 1} {names[-1]}"
        told = f"class names: from the dataset, in its order, {order}; the checkpoint has none"
        names_from, remarks = "the dataset", (told, *remarks)
    if len(names) != class_count:
        raise CheckpointError(f"{checkpoint.path}: {counted(len(names), 'class name')} for {class_count} classes{hint}")
    return names, names_from, remarks


def _said_names(
    checkpoint: Checkpoint, class_count: int, given: tuple[str, ...] | None
) -> tuple[tuple[str, ...] | None, str, tuple[str, ...]]:
    """Return the class names that the checkpoint's file says, who says them, and what to tell about that.

    Raises:
        CheckpointError: it says several, and `given` is none of them.
    """
    if checkpoint.class_names:
        return checkpoint.class_names, "the checkpoint", ()
    carried = checkpoint.carried_names
    others = tuple(
        f"class names: the checkpoint's {key} names {len(names)}, not {class_count}: passed over"
        for key, names in carried.items()
        if len(names) != class_count
    )
    fitting = {names: key for key, names in carried.items() if len(names) == class_count}
    if given in fitting:
        fitting = {given: fitting[given]}
    if len(fitting) > 1:
        raise CheckpointError(
            f"{checkpoint.path}: its {' and '.join(fitting.values())} name other classes, or in another order; "
            "say --class-names FILE with the ones that are meant"
        )
    for names, key in fitting.items():
        told = f"class names: the checkpoint's {key}, 0 {names[0]} … {len(names) - 1} {names[-1]}"
        return names, f"the checkpoint's {key}", (told, *others)
    return None, "nobody", others


def _given_class_names(given: Path | Sequence[str]) -> tuple[str, ...]:
    lines = read_option_file(given, "--class-names").splitlines() if isinstance(given, Path) else given
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"--class-names {given}: expected one name a line, each once")
    return names


def _preprocessing(
    classifier: Classifier, checkpoint: Checkpoint, network: nn.Module
) -> Preprocessing | OwnTransform | None:
    if classifier.transform:
        if checkpoint.preprocessing is not None:
            raise ConfigError(f"--transform: the checkpoint says its preprocessing: {dict(checkpoint.preprocessing)}")
        return OwnTransform(classifier.transform)
    asked = chosen_preprocessing(classifier)
    chosen = asked
    if checkpoint.preprocessing is not None:
        chosen = Preprocessing.from_dict(checkpoint.preprocessing)
        if asked and asked.of_channels(chosen.channels) != chosen:
            raise ConfigError(
                f"the checkpoint was trained with other preprocessing: {chosen.to_dict()}; leave the options out"
            )
    return chosen and chosen.of_channels(image_channels(network, chosen.image_size))


def _probe(
    source: Source, preprocessing: Preprocessing | OwnTransform | None, may_be_unreadable: bool, unsaid: str
) -> tuple[Tensor, Preprocessing | OwnTransform | None, tuple[str, ...]]:
    """Return up to PROBE_SAMPLES readable samples, their preprocessing, and what to tell of how images are read.

    They are noise if there are none among the first ones, and need not be. Tensors have no preprocessing.
    """
    probe: list[Tensor] = []
    kinds: list[tuple[object, ...]] = []
    images: list[Image.Image] = []
    reason, refused = "no sample", 0
    attempts = min(len(source), PROBE_ATTEMPTS)
    for index in range(attempts):
        try:
            image = source.read(index).image
            if preprocessing is None and not isinstance(image, Tensor):
                why = f": {unsaid}" if unsaid else ""
                raise ConfigError(f"the checkpoint does not say its preprocessing{why}; {UNSAID}")
            pixels = prepare(image, preprocessing)[0]
            if not torch.isfinite(pixels).all():
                raise UnreadableImageError("NaN or infinite pixels")
        except UnreadableImageError as error:
            reason = str(error)
            refused += isinstance(error, UnsupportedImageError)
            continue
        kinds.append((isinstance(image, Tensor), pixels.shape, pixels.dtype))
        if kinds[-1] == kinds[0]:
            probe.append(pixels)
            images += [] if isinstance(image, Tensor) else planes(image)[:1]
        if len(probe) == PROBE_SAMPLES:
            break
    if probe:
        if not images:
            if isinstance(preprocessing, OwnTransform) or source.decoding.range is not None:
                raise ConfigError(
                    f"{source.spec}: gives tensors, which are taken as they are: no --transform or --range"
                )
            return torch.stack(probe), None, ()
        if isinstance(preprocessing, OwnTransform):
            preprocessing.try_on(images)
        return torch.stack(probe), preprocessing, tuple(_as_told(source.decoding, preprocessing, images))
    if not isinstance(preprocessing, Preprocessing) or not may_be_unreadable:
        passed_over = "".join(f" ({remark})" for remark in source.notes)
        none = f"{source.spec}: none of the first {attempts} images can be read: {reason}{passed_over}"
        if refused == attempts:
            raise DatasetError(none)
        raise StoppedEarlyError(f"{none}: is the storage there? Run the same command again when it is")
    shape = (PROBE_SAMPLES, preprocessing.channels, *preprocessing.image_size)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return noise if source.decoding.range is None else noise / 255, preprocessing, ()


def _as_told(
    decoding: Decoding, preprocessing: Preprocessing | OwnTransform | None, images: Sequence[Image.Image]
) -> Iterator[str]:
    """Yield what to tell of how stored values become the network's input."""
    yield from dict.fromkeys(filter(None, (image.info.get(TOLD) for image in images)))
    if isinstance(preprocessing, OwnTransform):
        shown = (
            "the part of an image that it shows is traced by coordinates"
            if preprocessing.traced
            else "which part of an image it shows can't be traced: maps are of its own view, pictures show them alone"
        )
        yield f"transform: {preprocessing.spec}, as it is; {shown}"
    count = decoding.channels
    if count == 1:
        yield "channels: the network takes 1: images in grey, colours as 0.299 R + 0.587 G + 0.114 B"
    elif count != USUAL_CHANNELS:
        first = "first" if count < USUAL_CHANNELS else "first three"
        yield f"channels: the network takes {count}, as stored; pictures show the {first}"
    if decoding.range is not None:
        low, high = decoding.range
        yield f"range: stored values from {low:g} to {high:g} become 0 to 1, and others the nearer of these"
