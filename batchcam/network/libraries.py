"""Networks of timm and of transformers, built by these libraries; nothing is downloaded."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from batchcam.errors import CheckpointError, ConfigError, ModelError, one_line

TIMM: Final = "timm:"
TRANSFORMERS: Final = "hf:"
"""What names of their networks begin with."""


def is_of_a_library(architecture: str) -> bool:
    """Return whether it is a name of timm's or of transformers'."""
    return architecture.startswith((TIMM, TRANSFORMERS))


def timm_has(name: str) -> bool:
    """Return whether timm is here and has a network of that name."""
    try:
        return bool(_timm().is_model(name))
    except ModelError:
        return False


def timm_network(architecture: str, class_count: int, options: Mapping[str, Any]) -> nn.Module:
    """Return the network that timm has under the name after `timm:`, untrained.

    Args:
        architecture: of `timm.list_models`, a tag behind it counts for nothing.
        class_count: K.
        options: further arguments of `timm.create_model`.

    Raises:
        ModelError: timm is not installed, or has none of that name.
        ConfigError: the network has no such option, or not this value of it.
    """
    timm = _timm()
    name = architecture.removeprefix(TIMM).partition(".")[0]
    if not timm.is_model(name):  # never a name that timm would load from elsewhere
        close = ", ".join(difflib.get_close_matches(name, timm.list_models(), 3)) or "see timm.list_models()"
        raise ModelError(f"architecture {architecture!r}: timm has no such network; did you mean: {close}")
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=class_count, **options)
    except (TypeError, ValueError, AttributeError, AssertionError) as error:
        if not options:
            raise
        raise ConfigError(f"{architecture} can't be built with options {dict(options)}: {one_line(error)}") from error
    return network


def timm_head(network: Any, architecture: str) -> str:
    """Return the name of the layer that gives the logits.

    Raises:
        ModelError: there are several, or none.
    """
    head = network.get_classifier()
    if not isinstance(head, (nn.Linear, nn.Conv2d)):
        raise ModelError(f"{architecture}: its logits are not one layer's: build the network with --model")
    return next(str(name) for name, module in network.named_modules() if module is head)


def transformers_network(config: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> tuple[nn.Module, int]:
    """Return the classifier of images that a config.json of transformers describes, with its weights, and K.

    Names that older versions of the library wrote are read as it reads them.

    Args:
        config: what the file says.
        state: the weights.
        where: the directory, for messages.

    Raises:
        ModelError: transformers is not installed.
        CheckpointError: it describes something else, or the weights are another network's.
    """
    transformers = _transformers()
    kind = str(config.get("model_type"))
    if kind not in transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        raise CheckpointError(f"{where}: {kind}: transformers {transformers.__version__} has no such image classifier")
    said = {key: value for key, value in config.items() if key not in ("model_type", "auto_map")}
    try:
        settings = transformers.AutoConfig.for_model(kind, **said)
        of_kind = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(settings)]
        network, found = (of_kind[0] if isinstance(of_kind, tuple) else of_kind).from_pretrained(
            None, config=settings, state_dict=dict(state), output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # whatever the library makes of a file of another version, or of nonsense
        raise CheckpointError(f"{where}: can't be built: {one_line(error)[:200]}") from error
    problems = [
        f"{len(names)} {what} ({', '.join(map(str, sorted(names)[:3]))})"
        for what, names in (("missing", found["missing_keys"]), ("unexpected", found["unexpected_keys"]))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{where}: its weights are not those of its {type(network).__name__}: {'; '.join(problems)}"
        )
    return network, int(network.num_labels)


def _missing(package: str, extra: str, error: ImportError) -> ModelError:
    return ModelError(
        f"this network is built by {package}, which is not here: pip install 'batchcam[{extra}]' "
        f"({one_line(error)[:100]})"
    )


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise _missing("timm", "timm", error) from error
    return timm


def _transformers() -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when it is imported
    try:
        import transformers
        import transformers.models.auto.modeling_auto
    except ImportError as error:
        raise _missing("transformers", "hf", error) from error
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    return transformers
