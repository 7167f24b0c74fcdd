"""Networks without exact CAMs: which layer to look at, and one backward pass for a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from batchcam.errors import ModelError
from batchcam.maps.capture import ActivationCapture, Maps
from batchcam.maps.gradient_maps import METHODS
from batchcam.maps.legrad import Layers, LeGradMaps, find_layers
from batchcam.network.forward import forward
from batchcam.network.target_layer import TargetLayer
from batchcam.network.tokens import TokenGrids
from batchcam.network.tracing import Trace, finite_trace, grid_output, output_of
from batchcam.rules import LEGRAD, Tokens

NAN = np.float32(np.nan)


@dataclasses.dataclass(frozen=True)
class GradientNetwork:
    """A network in evaluation mode with the layer that a gradient method looks at.

    Attributes:
        network: images (N, C, H, W) to logits (N, K).
        target_layer: the activations that are explained, see TargetLayer.
        method: name in `gradient_maps.METHODS`, or LEGRAD.
        class_count: K.
        channels: C of the activations.
        grid_size: (h, w) of the activations.
        layers: those of LEGRAD.
    """

    network: nn.Module
    target_layer: str
    method: str
    class_count: int
    channels: int
    grid_size: tuple[int, int]
    layers: Layers | None = None

    engine = engine_choice = ""
    """torch, which has gradients."""

    has_offset = False
    """No identity, and nothing that it lacks."""

    def classifier(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what a record holds for W and b, of which there are none: NaN."""
        return np.full((self.class_count, self.channels), NAN), np.full(self.class_count, NAN)


def with_gradients(
    network: nn.Module, probe: Tensor, method: str, target_layer: str | None = None, tokens: Tokens | None = None
) -> GradientNetwork:
    """Return the network with the layer that a gradient method looks at.

    Args:
        network: in evaluation mode, on the probe's device; its parameters stop recording gradients.
        probe: normalised images, (N, C, H, W).
        method: name in `gradient_maps.METHODS`, or LEGRAD.
        target_layer: name of the layer; None: the last one with weights that gives a grid of several cells, of a
            network of tokens the last tokens that the logits depend on in several cells.
        tokens: which tokens are cells; None: to be found.

    Raises:
        ModelError: there is no such layer, or the logits do not depend on it differentiably.
    """
    trace = finite_trace(network.requires_grad_(False), probe)
    grids = TokenGrids(network, probe, trace, tokens)
    layers = find_layers(network, trace, grids) if method == LEGRAD else None
    if layers and target_layer not in (None, layers.target_layer):
        raise ModelError(f"target layer {target_layer!r}: --method legrad takes {layers.target_layer}; leave it out")
    if layers:
        layer = TargetLayer.parse(layers.target_layer)
    elif target_layer:
        layer = _named_grid(network, trace, target_layer, grids)
    else:
        layer = (None if tokens else _last_grid(network, trace)) or _last_tokens(network, probe, trace, grids)
    grid = layer.grid(trace.outputs[layer.name])
    found = GradientNetwork(
        network=network,
        target_layer=str(layer),
        method=method,
        class_count=trace.logits.shape[1],
        channels=grid.shape[1],
        grid_size=(grid.shape[2], grid.shape[3]),
        layers=layers,
    )
    with gradient_maps_of(found) as maps:  # refused now, not in the first batch
        logits = maps.forward(probe[:1])
        maps.cams(logits.argmax(1, keepdim=True))
    return found


def _named_grid(network: nn.Module, trace: Trace, text: str, grids: TokenGrids) -> TargetLayer:
    layer = TargetLayer.parse(text)
    output = trace.outputs.get(layer.name)
    if output is not None and output.ndim == 3 and (tokens := layer.tokens or grids.of(output.shape[1])):
        layer = TargetLayer(layer.name, tokens=tokens)
        output_of(network, trace, layer.name, layer.takes)
        return layer
    if layer.rectified or layer.normed:
        layer = TargetLayer(text)  # gradients are those of a module's output, which no module of this name has
    output = grid_output(network, trace, layer.name)
    return layer if layer.channels_last else _as_grid(network, trace, layer.name, output)


def _learned(network: nn.Module, trace: Trace) -> list[str]:
    return [name for name in trace.outputs if any(True for _ in network.get_submodule(name).parameters())]


def _last_grid(network: nn.Module, trace: Trace) -> TargetLayer | None:
    """Return the last layer to run that has weights and gives several cells; of several at once, the outermost."""
    learned = _learned(network, trace)
    layers = list(_grids(network, trace, learned))
    return None if not layers or _tokens_follow(trace, learned, layers[-1].name) else layers[-1]


def _last_tokens(network: nn.Module, probe: Tensor, trace: Trace, grids: TokenGrids) -> TargetLayer:
    """Return the last tokens that the logits depend on in their cells: behind the last attention, only one may count.

    What a linear layer gives, or what changes the tokens' shape, are parts of a block: queries, keys, values.
    """
    for name in reversed(_learned(network, trace)):
        output, module = trace.outputs[name], network.get_submodule(name)
        if output.ndim != 3 or output.shape != trace.inputs[name].shape or isinstance(module, nn.Linear):
            continue
        if (tokens := grids.of(output.shape[1])) is None:
            continue
        layer = TargetLayer(name, tokens=tokens)
        with ActivationCapture(module, differentiable=True) as capture, torch.enable_grad():
            score = forward(network, probe[:1])[:, 0].sum()
            (gradients,) = torch.autograd.grad(score, capture.take()) if score.requires_grad else (output[:0],)
        if layer.grid(gradients).any():
            return layer
    raise ModelError(
        "no layer that the logits depend on gives activations of shape (N, C, h, w) with several cells, nor tokens "
        "whose grid is found: --tokens says which are cells"
    )


def _grids(network: nn.Module, trace: Trace, learned: list[str]) -> Iterator[TargetLayer]:
    """Yield the layers that give several cells, without attention's (N, heads, L, L) and the like.

    Of the three signs of those, a grid may have one: channels last, other proportions than the image, and more cells
    than an earlier grid.
    """
    image_height, image_width = trace.image_size
    fewest = image_height * image_width
    for name in learned:
        output = trace.outputs[name]
        if output.ndim != 4 or len(output) != len(trace.logits):
            continue
        layer = _as_grid(network, trace, name, output)
        height, width = layer.grid(output).shape[2:]
        distorted = abs(height * image_width / image_height - width) > max(1, image_width / image_height)
        if height * width > 1 and layer.channels_last + distorted + (height * width > fewest) < 2:
            fewest = min(fewest, height * width)
            yield layer


def _tokens_follow(trace: Trace, learned: list[str], name: str) -> bool:
    """Return whether most of the network lies behind layer `name` and gives tokens (N, L, C), which are no grid."""
    place = learned.index(name) + 1
    return sum(trace.outputs[later].ndim == 3 for later in learned[place:]) > place


def _as_grid(network: nn.Module, trace: Trace, name: str, output: Tensor) -> TargetLayer:
    """Return layer `name` with the order of its axes, which its last linear layer, layer norm or convolution tells."""
    channels_last = False
    for inner, values in trace.outputs.items():
        if values.shape == output.shape and (inner == name or inner.startswith(f"{name}.")):
            module = network.get_submodule(inner)
            if isinstance(module, nn.LayerNorm):
                # ConvNeXt's turns (N, C, h, w) to (N, h, w, C) and back
                channels_last = module.normalized_shape == output.shape[3:] and output.shape[1] != output.shape[3]
            elif isinstance(module, (nn.Linear, nn.Conv2d)):
                channels_last = isinstance(module, nn.Linear)
    return TargetLayer(name, channels_last=channels_last)


def gradient_maps_of(explained: GradientNetwork) -> GradientMaps | LeGradMaps:
    """Return what makes the network's maps; use it with `with`."""
    return LeGradMaps(explained.network, explained.layers) if explained.layers else GradientMaps(explained)


class GradientMaps(ActivationCapture):
    """Logits, and maps from activations and gradients, of one network; use it with `with`.

    Args:
        explained: what `with_gradients` returned.
    """

    grad_mode = torch.no_grad
    """What `forward` and the maps run in; inference mode could not be left for the backward pass."""

    def __init__(self, explained: GradientNetwork) -> None:
        self._explained, self._target = explained, TargetLayer.parse(explained.target_layer)
        super().__init__(explained.network.get_submodule(self._target.name), differentiable=True)
        self._pass: tuple[Tensor, Tensor] | None = None

    def __exit__(self, *_: object) -> None:
        super().__exit__(*_)
        self._pass = None

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, K), float32, for normalised images, and keep what `cams` needs."""
        with torch.enable_grad():
            logits = forward(self._explained.network, pixels).float()
        self._pass = logits, self.take()
        detached: Tensor = logits.detach()
        return detached

    def all_cams(self) -> Maps:
        """Return the raw maps of all classes (N, K, h, w), float32, as `cams` does: by K backward passes."""
        if self._pass is None:
            raise RuntimeError("no forward pass to explain")
        logits = self._pass[0]
        return self.cams(torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1))

    def cams(self, classes: Tensor) -> Maps:
        """Return raw maps (N, M, h, w), float32, for classes (N, M) of the latest forward pass; NaN for class -1.

        One backward pass for each of the M columns, whatever N is: a sample's logits depend on no other sample.

        Raises:
            ModelError: the logits do not depend on the layer differentiably.
            RuntimeError: there was no forward pass since the last call.
        """
        if self._pass is None:
            raise RuntimeError("no forward pass to explain")
        (logits, activations), self._pass = self._pass, None
        method, layer = METHODS[self._explained.method], self._target
        maps = []
        for column in classes.T:
            gradients = self._gradients(logits, activations, column)
            maps.append(method(layer.grid(activations.detach().float()), layer.grid(gradients.float())))
        return Maps(torch.stack(maps, 1).masked_fill((classes < 0)[:, :, None, None], torch.nan))

    def residual(self, maps: Maps, classes: Tensor, logits: Tensor) -> Tensor:
        """Return NaN (N,): no identity covers these maps."""
        return torch.full((len(logits),), torch.nan, device=logits.device)

    def _gradients(self, logits: Tensor, activations: Tensor, column: Tensor) -> Tensor:
        chosen = torch.arange(logits.shape[1], device=logits.device) == column[:, None]
        gradients: Tensor
        try:
            gradients = torch.autograd.grad(logits, activations, chosen.to(logits.dtype), retain_graph=True)[0]
        except RuntimeError as error:
            layer = self._explained.target_layer
            raise ModelError(f"target layer {layer!r}: the logits have no gradient there: {error}") from error
        return gradients
