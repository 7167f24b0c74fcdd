"""What is caught of a forward pass: the target layer's output by one hook, or vectors and calls of attention."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from batchcam.network.attention import AttentionCalls
from batchcam.network.ledger import Heard, Ledger, Place

Listener = TypeVar("Listener", bound="ActivationCapture")


class Maps(NamedTuple):
    """Raw maps (N, M, h, w) and what belongs to them.

    Attributes:
        offset: what of the logits, besides their bias, lies in no cell: (N, M), None for nothing.
        features: what the classifier takes, (N, C), None where that was not asked for.
    """

    cams: Tensor
    offset: Tensor | None = None
    features: Tensor | None = None


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

    def listening(self, images: Tensor) -> contextlib.AbstractContextManager[object]:
        """Return what the forward pass of these images has to run in: nothing besides the hook."""
        return contextlib.nullcontext()

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


class LedgerCapture:
    """Keeps what a ledger needs of the latest forward pass, as `ActivationCapture` does of a layer."""

    def __init__(self, network: nn.Module, ledger: Ledger) -> None:
        self._network, self._ledger = network, ledger
        self._handles: list[RemovableHandle] = []
        self._vectors: dict[Place, Tensor] = {}
        self._runs: Counter[Place] = Counter()
        self._calls: AttentionCalls | None = None

    def __enter__(self) -> LedgerCapture:
        for place in self._ledger.places:
            module = self._network.get_submodule(place.module)
            listen = module.register_forward_pre_hook if place.is_input else module.register_forward_hook
            self._handles.append(listen(self._keeps(place)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._vectors, self._calls = [], {}, None

    @contextlib.contextmanager
    def listening(self, images: Tensor) -> Iterator[None]:
        """Listen to attention while a forward pass of these images runs."""
        self._vectors = {}
        self._runs.clear()
        with AttentionCalls(len(images), self._ledger.place.row, self._ledger.calls) as self._calls:
            yield

    def take(self) -> Heard:
        """Return what was heard of the latest forward pass, and forget it.

        Raises:
            RuntimeError: not all of it ran since the last call.
        """
        vectors, calls = self._vectors, self._calls.calls if self._calls else {}
        if vectors.keys() != self._ledger.places or calls.keys() != self._ledger.calls:
            raise RuntimeError("some layers of attention did not run in this forward pass")
        self._vectors, self._calls = {}, None
        return Heard(vectors, calls)

    def _keeps(self, place: Place) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], *output: Tensor) -> None:
            vector = place.of(output[0] if output else args[0])
            if vector is not None and self._runs[place] == place.run:
                self._vectors[place] = vector.clone()
            self._runs[place] += 1

        return keep
