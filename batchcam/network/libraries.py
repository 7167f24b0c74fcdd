"""Networks of timm and of transformers, built by these libraries; nothing is downloaded."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from batchcam.errors import CheckpointError, ConfigError, ModelError, one_line
from batchcam.network.fitting import Shapes, fit

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

    Raises:
        ModelError: transformers is not installed.
        CheckpointError: it describes something else, or the weights are another network's.
    """
    network_class, settings = _transformers_class(config, where)
    with _building(where):
        network, found = network_class.from_pretrained(
            None, config=settings, state_dict=dict(state), output_loading_info=True, dtype=torch.float32
        )
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


def fitted_transformers_network(
    config: Mapping[str, Any], options: Mapping[str, Any], state: Mapping[str, Tensor], where: str, architecture: str
) -> tuple[nn.Module, int, tuple[str, ...]]:
    """Return the classifier that a config.json describes, with weights that lie elsewhere, of as many classes as these.

    Args:
        options: what is to be otherwise.
        state: the weights, whatever stands before their names.
        architecture: the network's name, for messages.

    Returns:
        The network, K, and what was done to the names.

    Raises:
        ModelError: transformers is not installed, or the logits are not one layer's.
        ConfigError: the network has no such option.
        CheckpointError: it describes something else, or the weights are another network's.
    """
    known = _transformers_class({"model_type": config.get("model_type")}, architecture)[1].to_dict()
    if unknown := [name for name in options if name not in known]:
        raise ConfigError(f"--arch-option {unknown[0]}: {architecture} has none of that name")
    said = {k: v for k, v in {**config, **options}.items() if k not in ("id2label", "label2id")}
    two, three = (_transformers_shapes({**said, "num_labels": count}, architecture) for count in (2, 3))
    heads = {name.rpartition(".")[0] for name in two if two[name] != three[name]}
    if len(heads) != 1:
        raise ModelError(f"{architecture}: its logits are not one layer's: build the network with --model")
    head = heads.pop()
    fitted = fit(state, two, where, head, architecture)
    count = len(fitted.state[f"{head}.weight"])
    return *transformers_network({**said, "num_labels": count}, fitted.state, where), fitted.remarks


def is_kind_of_transformers(name: str) -> bool:
    """Return whether transformers has classifiers of images of that kind, as a config.json says it."""
    return name in _transformers().models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES


def cached_on_hub(name: str, file: str) -> str | None:
    """Return where the cache of Hugging Face has a file of a model; None where it has not."""
    _transformers()
    import huggingface_hub

    try:
        found = huggingface_hub.try_to_load_from_cache(name, file)
    except ValueError:  # what can be no model's name
        return None
    return found if isinstance(found, str) else None


def _transformers_class(config: Mapping[str, Any], where: str) -> tuple[Any, Any]:
    """Return the class of a classifier of images, and what it is built with."""
    transformers = _transformers()
    kind = str(config.get("model_type"))
    if not is_kind_of_transformers(kind):
        raise CheckpointError(f"{where}: {kind}: transformers {transformers.__version__} has no such image classifier")
    said = {key: value for key, value in config.items() if key not in ("model_type", "auto_map")}
    with _building(where):
        settings = transformers.AutoConfig.for_model(kind, **said)
        of_kind = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(settings)]
    return of_kind[0] if isinstance(of_kind, tuple) else of_kind, settings


def _transformers_shapes(config: Mapping[str, Any], where: str) -> Shapes:
    network_class, settings = _transformers_class(config, where)
    with _building(where), torch.device("meta"):
        network = network_class(settings)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@contextlib.contextmanager
def _building(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever the library makes of a file of another version, or of nonsense
        raise CheckpointError(f"{where}: can't be built: {one_line(error)[:200]}") from error


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
