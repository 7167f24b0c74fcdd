"""The network: build it, and load a checkpoint into it."""

from __future__ import annotations

import difflib
import json
import math
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from batchcam.errors import CheckpointError, ConfigError, ModelError, one_line
from batchcam.network.fitting import Fitted, Shapes, fit
from batchcam.network.libraries import TIMM, TRANSFORMERS, timm_head, timm_network

TRANSFORM_INPUT: Final = "transform_input"
WITH_AUXILIARY: Final = ("googlenet", "inception_v3")
"""They have side exits, warn unless told how to initialise, and may take ImageNet's scale of colours back.

torchvision switches that on (transform_input) for the weights that it publishes; no state dict says it.
"""

_OWN_OPTIONS: Final = ("num_classes", "num_labels", "weights", "progress")
"""Which the checkpoint decides."""

_RANDOM: Final = ("normal_", "uniform_")
"""Ends of the names of torch's functions that fill a tensor with random numbers."""

_SIDE_EXIT: Final = re.compile(r"(.*\.)?(aux[12]|AuxLogits)\.")  # whose logits only training looks at

_OLD_NAMES: Final = (
    (re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)"), r"\1\2"),  # DenseNet of torchvision's own files
    (re.compile(r"(.*\.mlp)\.linear_1\.(.*)"), r"\1.0.\2"),  # ViT and Swin before torchvision 0.12
    (re.compile(r"(.*\.mlp)\.linear_2\.(.*)"), r"\1.3.\2"),
)


def build_network(
    architecture: str,
    class_count: int,
    options: Mapping[str, Any] | None = None,
    like: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Return the network of that name, untrained, with `class_count` outputs.

    Args:
        architecture: torchvision's name, or timm's after `timm:`.
        class_count: K.
        options: further arguments of the library's function.
        like: a state dict, under the network's names, that says which of its variants it is.

    Raises:
        ModelError: the library has no classifier of that name, or is not installed.
        ConfigError: the network has no such option, or not this value of it.
    """
    if architecture.startswith(TIMM):
        return timm_network(architecture, class_count, options or {})
    if architecture.startswith(TRANSFORMERS):
        raise ModelError(f"architecture {architecture!r}: transformers' networks are not trained here")
    if not torchvision_has(architecture):
        known = torchvision.models.list_models(module=torchvision.models)
        close = ", ".join(difflib.get_close_matches(architecture, known, 3)) or "see torchvision.models.list_models()"
        raise ModelError(f"architecture {architecture!r}: torchvision has no such classifier; did you mean: {close}")
    extra: dict[str, Any] = {"init_weights": False} if architecture in WITH_AUXILIARY else {}
    extra |= _variant(architecture, like or {}) | dict(options or {})
    try:
        network: nn.Module = torchvision.models.get_model(architecture, weights=None, num_classes=class_count, **extra)
    except (TypeError, ValueError, AttributeError) as error:
        if not options:
            raise
        raise ConfigError(
            f"--arch-option {' '.join(format_options(options))}: {architecture} can't be built so: {one_line(error)}"
        ) from error
    if architecture.startswith("mnasnet") and like:
        _as_first_version(network, like)
    return network


def torchvision_has(name: str) -> bool:
    """Return whether torchvision has a classifier of that name."""
    return name in torchvision.models.list_models(module=torchvision.models)


def parse_options(texts: Iterable[str]) -> dict[str, Any]:
    """Return options by name from NAME=VALUE: true, false and numbers are what they look like, anything else is a text.

    Raises:
        ConfigError: a text has no name, or not one that a keyword can have; or a name comes twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier() or name in (*options, *_OWN_OPTIONS):
            raise ConfigError(
                f"--arch-option {text}: expected NAME=VALUE, such as transform_input=true, each name once"
            )
        try:
            options[name] = json.loads(value.lower())
        except ValueError:
            options[name] = value
    return options


def format_options(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return options as `parse_options` reads them, in order of name."""
    return tuple(f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in sorted(options.items()))


def load_network(
    architecture: str, state: Mapping[str, Tensor], where: str, options: Mapping[str, Any] | None = None
) -> tuple[nn.Module, int, tuple[str, ...]]:
    """Return the network of that name with the checkpoint's weights, K, and what was done to their names.

    Args:
        architecture: torchvision's name, or timm's after `timm:`.
        state: the checkpoint's.
        options: further arguments of the library's function.

    Raises:
        CheckpointError: the state dict is not this network's.
        ModelError: the library has no classifier of that name, or is not installed.
        ConfigError: the network has no such option.
    """
    renamed = {_new_name(name): tensor for name, tensor in state.items() if not _SIDE_EXIT.match(name)}
    outline, head = _outline(architecture, options, renamed)
    fitted = fit(renamed, outline, where, head, architecture)
    # only now, when the file is seen to hold as much as the network that it claims
    class_count = len(fitted.state[f"{head}.weight"])
    network = build_network(architecture, class_count, options, fitted.state)
    if f"{head}.bias" not in fitted.state:
        setattr(network.get_submodule(head), "bias", None)  # noqa: B010 - mypy knows no attribute of a module to be None
    _copy(network, fitted, where)
    return network, class_count, fitted.remarks


def load_state(network: nn.Module, state: Mapping[str, Tensor], where: str) -> tuple[str, ...]:
    """Load `state` into `network`, strictly, and return what was done to its names.

    Raises:
        CheckpointError: keys are missing or unexpected, or shapes differ; all kinds are named.
    """
    fitted = fit(state, _shapes(network), where)
    _copy(network, fitted, where)
    return fitted.remarks


class _Unfilled(TorchFunctionMode):
    """Leaves out the random numbers of an outline, which has no memory: for these torch would import its compiler.

    Those of a network are drawn: torch draws some until they suit, and would never end.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if getattr(function, "__name__", "").endswith(_RANDOM):
            tensor = args[0] if args else named["tensor"]
            if tensor.is_meta:
                return tensor
        return function(*args, **named)


def _copy(network: nn.Module, fitted: Fitted, where: str) -> None:
    # with the versions of the network's own modules, whose names the tensors have
    content = OrderedDict(fitted.state)
    vars(content)["_metadata"] = getattr(network.state_dict(), "_metadata", None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a version is old
            network.load_state_dict(content)
    except RuntimeError as error:  # tensors without data, or of a layout that can't be copied
        reason = str(error).rpartition("occurred :")[2].strip() or "no reason given"
        raise CheckpointError(f"{where}: its tensors cannot be copied into the network: {reason}") from error


def _outline(architecture: str, options: Mapping[str, Any] | None, state: Mapping[str, Tensor]) -> tuple[Shapes, str]:
    """Return the names and shapes of the network's tensors, and the name of its last layer, without its memory."""
    try:
        with torch.device("meta"), _Unfilled():
            network = build_network(architecture, 2, options, state)
    except (NotImplementedError, RuntimeError):  # RegNet computes its widths by tensors
        network = build_network(architecture, 2, options, state)
    if architecture.startswith(TIMM):
        return _shapes(network), timm_head(network, architecture)
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    linear = [n for n, m in layers if isinstance(m, nn.Linear)]
    # SqueezeNet ends in a convolution; the linear layers of squeeze-and-excitation, if any, are convolutions here
    return _shapes(network), (linear or [n for n, _ in layers])[-1]


def _shapes(network: nn.Module) -> Shapes:
    return {n: tuple(t.shape) for n, t in network.state_dict().items()}


def _new_name(name: str) -> str:
    return next((pattern.sub(new, name) for pattern, new in _OLD_NAMES if pattern.fullmatch(name)), name)


def _variant(architecture: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of torchvision's function that the file's tensors decide."""
    if architecture in WITH_AUXILIARY and state:
        return {"aux_logits": False}
    if architecture.startswith("vit_"):
        cells = [t.shape[1] - 1 for n, t in state.items() if n.endswith("encoder.pos_embedding") and t.ndim == 3]
        patches = [t.shape[2] for n, t in state.items() if n.endswith("conv_proj.weight") and t.ndim == 4]
        if cells and patches and math.isqrt(max(0, cells[0])) ** 2 == cells[0]:
            return {"image_size": math.isqrt(cells[0]) * patches[0]}
    return {}


def _as_first_version(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give an MNASNet the stem that torchvision 0.3 built, of 32 channels at any width, where the file has it."""
    own = network.state_dict()["layers.0.weight"]
    stem = next((t for n, t in state.items() if n.endswith("layers.0.weight")), own)
    if len(stem) == 32 != len(own):
        content: OrderedDict[str, Tensor] = OrderedDict()
        vars(content)["_metadata"] = {"": {"version": 1}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network.load_state_dict(content, strict=False)
