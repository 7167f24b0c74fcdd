"""A job's classifier and dataset, put together from what the user, the checkpoint and the dataset say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from batchcam.config import Classifier, Compute, MapDataset, read_option_file
from batchcam.data.callables import load_callable
from batchcam.data.labels import match_classes, own_classes
from batchcam.data.loader import SampleDataset, prepare
from batchcam.data.map_source import MapSource
from batchcam.data.preprocessing import Preprocessing, chosen_preprocessing
from batchcam.data.sources import Source, open_source
from batchcam.data.timed_source import rest, timed
from batchcam.errors import CheckpointError, ConfigError, DatasetError, ModelError, StoppedEarlyError
from batchcam.images.decoding import UnreadableImageError
from batchcam.network.checkpoint import Checkpoint, load_checkpoint
from batchcam.network.in_memory import as_checkpoint, copied
from batchcam.network.model import class_count_of, load_state, network_for
from batchcam.rules import composed, in_memory

PROBE_SAMPLES = 4
PROBE_ATTEMPTS = 64  # first samples looked at for readable ones


@dataclasses.dataclass(frozen=True)
class Assembly:
    """What a job works with.

    Attributes:
        checkpoint: the weights and what their file says.
        network: with the weights loaded, in evaluation mode, on the CPU.
        architecture: its name: torchvision's, `module:callable`, or the class of a network in memory.
        class_names: K names, by class index.
        source: the dataset.
        labels: the dataset's labels as indices into `class_names`, -1 unknown, int64 (n,).
        preprocessing: None when the dataset gives preprocessed tensors.
        probe: the first readable samples as the loader gives them: uint8 (m, 3, H, W) or float (m, C, H, W).
        names_from: who names the classes: the checkpoint, --class-names, the dataset, or nobody.
        remarks: what the user should know of how classes, labels and samples were read, a line each.
    """

    checkpoint: Checkpoint
    network: nn.Module
    architecture: str
    class_names: tuple[str, ...]
    source: Source
    labels: np.ndarray
    preprocessing: Preprocessing | None
    probe: Tensor
    names_from: str
    remarks: tuple[str, ...]

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) of the network's input."""
        return (self.probe.shape[2], self.probe.shape[3])

    @property
    def dataset(self) -> SampleDataset:
        """The samples, decoded and preprocessed."""
        return SampleDataset(self.source, self.preprocessing, self.input_size, self.probe.shape[1])

    def normalised_probe(self, device: torch.device) -> Tensor:
        """Return the probe as the network takes it."""
        probe = self.probe.to(device)
        return (
            self.preprocessing.normalise(probe) if self.preprocessing and probe.dtype == torch.uint8 else probe.float()
        )


def assemble(
    classifier: Classifier,
    data: str | MapDataset,
    fallback: Preprocessing | None = None,
    sample_timeout: float = Compute().sample_timeout,
    may_be_unreadable: bool = False,
) -> Assembly:
    """Load the checkpoint, list the dataset, and check that they fit.

    Args:
        classifier: the network, as the options say.
        data: the dataset, as given, or itself.
        fallback: the preprocessing where neither the checkpoint nor an option says one.
        sample_timeout: seconds after which reading a sample is given up; 0: never.
        may_be_unreadable: go on where none of the first samples can be read.

    Raises:
        StoppedEarlyError: none of the first samples can be read.
        CheckpointError: it can't be read, or its keys are not the network's.
        DatasetError: it can't be listed, or its classes are not the checkpoint's.
        ConfigError: something that neither file says has to be said by an option.
    """
    checkpoint = _checkpoint(classifier)
    network, architecture, class_count = _network(classifier, checkpoint)
    source = timed(open_source(data) if isinstance(data, str) else MapSource(in_memory(data), data), sample_timeout)
    names, names_from, doubts = _class_names(classifier, checkpoint, source, class_count)
    matched = match_classes(source, names, classifier.label_kind)
    preprocessing = _preprocessing(classifier, checkpoint) or fallback
    probe = _probe(source, preprocessing, may_be_unreadable)
    rest(source)
    return Assembly(
        checkpoint=checkpoint,
        network=network.eval(),
        architecture=architecture,
        class_names=names,
        source=source,
        labels=matched.indices,
        preprocessing=preprocessing if probe.dtype == torch.uint8 else None,
        probe=probe,
        names_from=names_from,
        remarks=(*doubts, *matched.remarks, *source.notes),
    )


def _checkpoint(classifier: Classifier) -> Checkpoint:
    given = classifier.checkpoint
    if isinstance(given, nn.Module):
        return as_checkpoint(given)
    if isinstance(given, Path):
        return load_checkpoint(given)
    raise ModelError(f"a {type(given).__name__} is given as the network: expected a checkpoint's path or an nn.Module")


def _network(classifier: Classifier, checkpoint: Checkpoint) -> tuple[nn.Module, str, int]:
    where = str(checkpoint.path)
    if isinstance(classifier.checkpoint, nn.Module):
        return copied(classifier.checkpoint), where, class_count_of(checkpoint.state, where)
    if classifier.model:
        network = _call(classifier.model)
        if not isinstance(network, nn.Module):
            raise ModelError(f"--model {classifier.model}: returned {type(network).__name__}, not a torch.nn.Module")
        architecture = classifier.model
    else:
        said = checkpoint.architecture
        if said and classifier.arch and said != classifier.arch:
            raise ConfigError(f"--arch {classifier.arch}: the checkpoint says {said}; leave the option out")
        architecture = said or classifier.arch or ""
        if not architecture:
            raise ConfigError(
                f"{where}: does not say its architecture; name it with --arch, such as resnet18, or --model"
            )
        network = network_for(architecture, checkpoint.state, where)
    load_state(network, checkpoint.state, where)
    # in the network's order: safetensors sorts its keys
    return network, architecture, class_count_of(network.state_dict(), where)


def _call(model: str) -> object:
    factory = load_callable(model, ModelError, "--model ")
    try:
        return factory()
    except Exception as error:  # whatever the user's callable raises
        raise ModelError(f"--model {model}: raised {type(error).__name__}: {error}") from error


def _class_names(
    classifier: Classifier, checkpoint: Checkpoint, source: Source, class_count: int
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Return the class names by index, who says them, and what to tell about that."""
    remarks: tuple[str, ...] = ()
    names, names_from = checkpoint.class_names, "the checkpoint"
    if classifier.class_names is not None:
        given = _given_class_names(classifier.class_names)
        if names and tuple(map(composed, given)) != tuple(map(composed, names)):
            raise ConfigError(f"{classifier.class_names}: these are not the class names that the checkpoint says")
        names, names_from = (names, names_from) if names else (given, "--class-names")
    if names is None:
        names, remarks = own_classes(source, classifier.label_kind)
        if names is None:
            return tuple(str(k) for k in range(class_count)), "nobody", ()
        if len(names) != class_count:
            empty = f", and no image of {', '.join(source.empty_classes)}" if source.empty_classes else ""
            raise DatasetError(
                f"{source.spec}: has {len(names)} classes{empty}, the checkpoint {class_count}; "
                "name them all with --class-names FILE"
            )
        order = f"0 {names[0]} … {len(names) - 1} {names[-1]}"
        told = f"class names: from the dataset, in its order, {order}; the checkpoint has none"
        names_from, remarks = "the dataset", (told, *remarks)
    if len(names) != class_count:
        raise CheckpointError(f"{checkpoint.path}: {len(names)} class names for {class_count} classes")
    return names, names_from, remarks


def _given_class_names(given: Path | Sequence[str]) -> tuple[str, ...]:
    lines = read_option_file(given, "--class-names").splitlines() if isinstance(given, Path) else given
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"--class-names {given}: expected one name a line, each once")
    return names


def _preprocessing(classifier: Classifier, checkpoint: Checkpoint) -> Preprocessing | None:
    asked = chosen_preprocessing(
        classifier.preprocess, classifier.image_size, classifier.resize, classifier.mean, classifier.std
    )
    if checkpoint.preprocessing is None:
        return asked
    said = Preprocessing.from_dict(checkpoint.preprocessing)
    if asked and asked != said:
        raise ConfigError(
            f"the checkpoint was trained with other preprocessing: {said.to_dict()}; leave the options out"
        )
    return said


def _probe(source: Source, preprocessing: Preprocessing | None, may_be_unreadable: bool) -> Tensor:
    """Return up to PROBE_SAMPLES readable samples; noise if there are none among the first ones, and need not be."""
    probe: list[Tensor] = []
    reason = "no sample"
    attempts = min(len(source), PROBE_ATTEMPTS)
    for index in range(attempts):
        try:
            image = source.read(index).image
            if preprocessing is None and not isinstance(image, Tensor):
                raise ConfigError("the checkpoint does not say its preprocessing; say --preprocess imagenet or seed")
            pixels = prepare(image, preprocessing)[0]
            if not torch.isfinite(pixels).all():
                raise UnreadableImageError("NaN or infinite pixels")
        except UnreadableImageError as error:
            reason = str(error)
            continue
        if not probe or (pixels.shape, pixels.dtype) == (probe[0].shape, probe[0].dtype):
            probe.append(pixels)
        if len(probe) == PROBE_SAMPLES:
            break
    if probe:
        return torch.stack(probe)
    if preprocessing is None or not may_be_unreadable:
        told = "".join(f" ({remark})" for remark in source.notes)
        raise StoppedEarlyError(
            f"{source.spec}: none of the first {attempts} images can be read: {reason}{told}: is the storage there? "
            "Run the same command again when it is"
        )
    height, width = preprocessing.image_size
    return torch.randint(
        0, 256, (PROBE_SAMPLES, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
