"""A job's network, built from what the user and the checkpoint say, with its weights."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from batchcam.config.shared import Classifier
from batchcam.errors import CheckpointError, ConfigError, ModelError
from batchcam.images.callables import load_callable
from batchcam.network.checkpoint import Checkpoint, load_checkpoint
from batchcam.network.directory import described
from batchcam.network.forward import forward
from batchcam.network.in_memory import as_checkpoint, copied, unwrapped
from batchcam.network.libraries import TIMM, TRANSFORMERS, fitted_transformers_network, timm_has, transformers_network
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

CONFIG_OPTION = "config"
"""Among the options of a network of transformers': the digest of its config.json."""


@dataclasses.dataclass(frozen=True)
class Built:
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


def with_classes(built: Built, images: Tensor, fallback_names: tuple[str, ...] | None) -> Built:
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


def opened_checkpoint(classifier: Classifier) -> Checkpoint:
    given = classifier.checkpoint
    if isinstance(given, nn.Module):
        return as_checkpoint(given)
    if isinstance(given, Path):
        return load_checkpoint(given, classifier.weights_key)
    raise ModelError(f"a {type(given).__name__} is given as the network: expected a checkpoint's path or an nn.Module")


def built_network(classifier: Classifier, checkpoint: Checkpoint) -> Built:
    where = str(checkpoint.path)
    if isinstance(classifier.checkpoint, nn.Module):
        return Built(copied(classifier.checkpoint).eval(), where)
    if classifier.model:
        network = _call(classifier.model)
        if not isinstance(network, nn.Module):
            raise ModelError(f"--model {classifier.model}: returned {type(network).__name__}, not a torch.nn.Module")
        network = unwrapped(network).eval()
        return Built(network, classifier.model, remarks=load_state(network, checkpoint.state, where))
    said = checkpoint.architecture
    if said and classifier.arch and said != classifier.arch:
        raise ConfigError(f"--arch {classifier.arch}: the checkpoint says {said}; leave the option out")
    if said and said.startswith(TRANSFORMERS):
        network, class_count = transformers_network(checkpoint.config, checkpoint.state, where)
        return Built(network.eval(), said, class_count)
    architecture = said or classifier.arch
    if architecture:
        return _built(architecture, classifier, checkpoint)
    return _as_carried(classifier, checkpoint)


def _built(architecture: str, classifier: Classifier, checkpoint: Checkpoint) -> Built:
    given = parse_options(classifier.arch_option)
    if architecture.startswith(TRANSFORMERS):
        return _of_transformers(architecture, checkpoint, given)
    chosen, told = _chosen_options(architecture, checkpoint, given)
    options = {**chosen, **given}
    network, class_count, remarks = load_network(
        architecture, checkpoint.state, str(checkpoint.path), {**checkpoint.options, **options}
    )
    return Built(network.eval(), architecture, class_count, options=format_options(options), remarks=(*told, *remarks))


def _of_transformers(architecture: str, checkpoint: Checkpoint, given: Mapping[str, Any]) -> Built:
    """Return transformers' network that --arch names; the digest of its config.json is among the options."""
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
    return Built(
        network.eval(),
        architecture,
        class_count,
        options=format_options({**changes, **of_config}),
        remarks=(told, *remarks),
    )


def _as_carried(classifier: Classifier, checkpoint: Checkpoint) -> Built:
    """Return the network that another program's checkpoint names: torchvision's, or else timm's."""
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


def _told(built: Built, key: str) -> Built:
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
