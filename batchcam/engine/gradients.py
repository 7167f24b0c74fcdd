"""Networks without exact CAMs: which layer to look at, and one backward pass for a batch."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor, nn

from batchcam.engine.capture import ActivationCapture
from batchcam.engine.proof import ExplainableNetwork
from batchcam.engine.tracing import Trace, finite_trace, grid_output
from batchcam.errors import ModelError
from batchcam.gradient_maps import METHODS


def with_gradients(
    network: nn.Module, probe: Tensor, method: str, target_layer: str | None = None
) -> ExplainableNetwork:
    """Return the network with the layer that a gradient method looks at.

    Args:
        network: in evaluation mode, on the probe's device; its parameters stop recording gradients.
        probe: normalised images, (N, C, H, W).
        method: name in `gradient_maps.METHODS`.
        target_layer: name of the layer; None: the last one with weights that gives a grid of several cells.

    Raises:
        ModelError: there is no such layer, or the logits do not depend on it differentiably.
    """
    trace = finite_trace(network, probe)
    name = target_layer or _last_grid(network, trace)
    output = grid_output(network, trace, name)
    class_count, channels = trace.logits.shape[1], output.shape[1]
    explainable = ExplainableNetwork(
        network=network.requires_grad_(False),
        target_layer=name,
        weight=torch.full((class_count, channels), torch.nan, device=output.device),
        bias=torch.full((class_count,), torch.nan, device=output.device),
        grid_size=(output.shape[2], output.shape[3]),
        residual=float("nan"),
        method=method,
    )
    with GradientMaps(explainable) as maps:  # refused now, not in the first batch
        logits = maps.forward(probe[:1])
        maps.cams(logits.argmax(1, keepdim=True))
    return explainable


def _last_grid(network: nn.Module, trace: Trace) -> str:
    """Return the last layer to run that has weights and gives several cells; of several at once, the outermost."""
    grids = [
        name
        for name, output in trace.outputs.items()
        if output.ndim == 4 and output[0, 0].numel() > 1 and any(True for _ in network.get_submodule(name).parameters())
    ]
    if not grids:
        raise ModelError(
            "no layer gives activations of shape (N, C, h, w) with several cells; transformers of tokens, such as ViT, "
            "have none"
        )
    return grids[-1]


class GradientMaps:
    """Logits, and maps from activations and gradients, of one network; use it with `with`.

    Args:
        explainable: what `with_gradients` returned.
    """

    def __init__(self, explainable: ExplainableNetwork) -> None:
        self._explainable = explainable
        layer = explainable.network.get_submodule(explainable.target_layer)
        self._capture = ActivationCapture(layer, differentiable=True)
        self._pass: tuple[Tensor, Tensor] | None = None

    def __enter__(self) -> GradientMaps:
        self._capture.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._capture.__exit__(kind, error, trace)
        self._pass = None

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, K), float32, for normalised images, and keep what `cams` needs."""
        with torch.enable_grad():
            logits = self._explainable.network(pixels).float()
        self._pass = logits, self._capture.take()
        detached: Tensor = logits.detach()
        return detached

    def cams(self, classes: Tensor) -> Tensor:
        """Return raw maps (N, M, h, w), float32, for classes (N, M) of the latest forward pass; NaN for class -1.

        One backward pass for each of the M columns, whatever N is: a sample's logits depend on no other sample.

        Raises:
            ModelError: the logits do not depend on the layer differentiably.
            RuntimeError: there was no forward pass since the last call.
        """
        if self._pass is None:
            raise RuntimeError("no forward pass to explain")
        (logits, activations), self._pass = self._pass, None
        method = METHODS[self._explainable.method]
        maps = []
        for column in classes.T:
            gradients = self._gradients(logits, activations, column)
            maps.append(method(activations.detach().float(), gradients.float()))
        return torch.stack(maps, 1).masked_fill((classes < 0)[:, :, None, None], torch.nan)

    def _gradients(self, logits: Tensor, activations: Tensor, column: Tensor) -> Tensor:
        chosen = torch.arange(logits.shape[1], device=logits.device) == column[:, None]
        gradients: Tensor
        try:
            gradients = torch.autograd.grad(logits, activations, chosen.to(logits.dtype), retain_graph=True)[0]
        except RuntimeError as error:
            layer = self._explainable.target_layer
            raise ModelError(f"target layer {layer!r}: the logits have no gradient there: {error}") from error
        return gradients
