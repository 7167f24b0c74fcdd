"""The target layer's output, caught by one forward hook."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Listener = TypeVar("Listener", bound="ActivationCapture")


class ActivationCapture:
    """Keeps the latest output of one layer while a `with` block runs; leaves no hook on the network, whatever happens.

    Args:
        layer: the module to listen to.
        differentiable: keep a leaf of autograd's graph, from which the rest of the network goes on.

    Example:
        >>> with ActivationCapture(network.layer4) as capture:
        ...     logits = network(images)
        ...     activations = capture.take()
    """

    def __init__(self, layer: nn.Module, differentiable: bool = False) -> None:
        self._layer, self._differentiable = layer, differentiable
        self._handle: RemovableHandle | None = None
        self._latest: Tensor | None = None

    def __enter__(self: Listener) -> Listener:
        if self._handle:
            raise RuntimeError("already listening to the layer")
        self._handle = self._layer.register_forward_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            self._handle.remove()
        self._handle = self._latest = None

    def take(self) -> Tensor:
        """Return the output of the latest forward pass, (N, C, h, w), and forget it, so that its memory can go.

        Raises:
            RuntimeError: the layer did not run since the last call.
        """
        if self._latest is None:
            raise RuntimeError("the target layer did not run in this forward pass")
        latest, self._latest = self._latest, None
        return latest

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        # copied: later in-place operations (ResNet's `out += identity`, ReLU) would change it under our hands
        self._latest = output.clone()
        if not self._differentiable:
            return None
        self._latest = self._latest.detach().requires_grad_()
        return self._latest.clone()
