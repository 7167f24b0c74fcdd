"""The network and the dataset of a run, put together again and proved to be the run's."""

from __future__ import annotations

import contextlib
import dataclasses

import torch
from torch import nn

from batchcam.commands.explain.assembly import Assembly, assemble
from batchcam.commands.explain.listing import read_listing
from batchcam.commands.explain.planning import fingerprint, require_same_kind
from batchcam.config.shared import LABEL_KINDS, Classifier, MapDataset, NetworkConfig
from batchcam.data.findings import LabelReading
from batchcam.data.labels import match_classes
from batchcam.data.planned import Listing
from batchcam.data.preprocessing import Preprocessing
from batchcam.errors import CheckpointError, ConfigError, DatasetError
from batchcam.job.console import note
from batchcam.maps.preparation import ExplainableNetwork, prepare
from batchcam.network.compiled import on_engine
from batchcam.network.device import pick_device
from batchcam.network.libraries import is_of_a_library
from batchcam.network.precision import set_precision
from batchcam.rules import AUTO, SINGLE_LABEL, TORCH
from batchcam.store.plan import Plan


def opened_network(config: NetworkConfig, plan: Plan) -> tuple[Assembly, nn.Module, torch.device]:
    """Return what the run of this plan worked with, its network as it computed, and where that is.

    Raises:
        CheckpointError: the checkpoint is not the run's.
        DatasetError: the dataset is not the run's.
    """
    device = pick_device(config.device)
    set_precision(plan.precision, device, config.threads)
    listing = read_listing(config.run, plan) if config.run.is_dir() else None
    assembly, explainable = reassemble(plan, config.classifier, config.data, device, listing)
    require_dataset(plan, assembly)
    images, engine = assembly.normalised_probe(device), AUTO if plan.engine else TORCH
    network, choice = on_engine(engine, explainable.network, None, images, plan.precision, assembly.library_source, 0)
    if choice:
        note(choice, config.quiet)
    return assembly, network, device


def reassemble(
    plan: Plan, classifier: Classifier, data: str | MapDataset, device: torch.device, listing: Listing | None
) -> tuple[Assembly, ExplainableNetwork]:
    """Return what the run worked with, and the network as the run explained it; `require_dataset` proves the dataset.

    Args:
        plan: of the run; says architecture, class names and preprocessing where checkpoint and options do not.
        classifier: the run's checkpoint.
        device: where the network is to run.
        listing: the samples that the run was planned with; None: those that the dataset has now.

    Raises:
        CheckpointError: the checkpoint is not the run's.
        ConfigError: an option says otherwise than the run, or its --model is not given again.
        DatasetError: the dataset has none of the samples that the run was planned with.
    """
    require_same_kind(plan, classifier)
    if not (classifier.arch or classifier.model or classifier.is_in_memory):
        if ":" in plan.architecture and not is_of_a_library(plan.architecture):  # never code that a run names
            raise ConfigError(f"this run was made with --model {plan.architecture}: give it again")
        classifier = dataclasses.replace(classifier, arch=plan.architecture)
    if classifier.arch and not classifier.arch_option:
        classifier = dataclasses.replace(classifier, arch_option=plan.architecture_options)
    if plan.weights_key and not classifier.weights_key:
        classifier = dataclasses.replace(classifier, weights_key=plan.weights_key)
    if plan.label_kind and classifier.label_kind not in (None, plan.label_kind):
        raise ConfigError(
            f"--label-kind {classifier.label_kind}: this run's labels are {plan.label_kind}: leave it out"
        )
    classifier = dataclasses.replace(classifier, label_kind=classifier.label_kind or plan.label_kind or None)
    # a run over preprocessed tensors has none
    said = {key: value for key, value in plan.preprocessing.items() if key not in ("bits", "range")}
    preprocessing = Preprocessing.from_dict(said) if "image_size" in said else None
    if said.get("transform") != classifier.transform:
        own = said.get("transform")
        advice = f"with --transform {own}: give it again" if own else "without --transform: leave it out"
        raise ConfigError(f"this run was made {advice}")  # never code that a run names
    pixels = preprocessing.pixels if preprocessing else None
    asked = ((classifier.bits, plan.bits), (classifier.range, plan.value_range), (classifier.pixels, pixels))
    classifier = dataclasses.replace(classifier, bits=plan.bits, range=plan.value_range, pixels=pixels)
    assembly = assemble(
        classifier,
        data,
        preprocessing,
        plan.class_names,
        may_be_unreadable=True,
        listing=listing,
        reading=LabelReading(plan.problem_type or SINGLE_LABEL, plan.label_separator, plan.label_columns),
    )
    if assembly.checkpoint.sha256 != plan.checkpoint_sha256:
        raise CheckpointError(f"{assembly.checkpoint.path}: not the checkpoint of this run: its SHA-256 differs")
    if (assembly.checkpoint.weights_key, assembly.architecture_options) != (
        plan.weights_key,
        plan.architecture_options,
    ):
        raise ConfigError("this run was made with other --weights-key or --arch-option: leave the options out")
    assembly = _labelled_as_planned(assembly, plan)
    other = assembly.preprocessing is not None and assembly.preprocessing.to_dict() != said
    if other or assembly.input_size != plan.input_size or any(each not in (None, planned) for each, planned in asked):
        raise ConfigError(f"the run's preprocessing is another one: {dict(plan.preprocessing)}; leave the options out")
    images = assembly.normalised_probe(device)
    return assembly, prepare(assembly.network, images, plan.method, plan.control, plan.target_layer)


def _labelled_as_planned(assembly: Assembly, plan: Plan) -> Assembly:
    """Return the dataset with its labels read as the run read them, where an older one does not say how.

    They are names or class indices, if either fits.
    """
    if fingerprint(assembly, plan.meta) == plan.dataset_fingerprint:
        return assembly
    for kind in LABEL_KINDS if assembly.source.numeric else ():
        with contextlib.suppress(DatasetError):
            labels = match_classes(assembly.source, plan.class_names, kind).indices
            labelled = dataclasses.replace(assembly, labels=labels)
            if fingerprint(labelled, plan.meta) == plan.dataset_fingerprint:
                return labelled
    return assembly


def require_dataset(plan: Plan, assembly: Assembly) -> None:
    """Raise CheckpointError or DatasetError unless class names and dataset are the run's."""
    if assembly.class_names != plan.class_names:
        raise CheckpointError(f"{assembly.checkpoint.path}: its class names are not those of this run")
    if fingerprint(assembly, plan.meta) != plan.dataset_fingerprint:
        raise DatasetError(
            f"{assembly.source.spec}: not the dataset of this run: its sample ids, labels or sizes differ"
        )
