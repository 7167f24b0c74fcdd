"""Networks with exact CAMs: logits and maps of a batch from one forward pass."""

from __future__ import annotations

from types import TracebackType

from torch import Tensor

from batchcam.maps import cam
from batchcam.maps.capture import ActivationCapture
from batchcam.network.forward import forward
from batchcam.network.proof import ExplainableNetwork


class ExactMaps:
    """Logits and CAMs of one network, with its one hook; use it with `with`.

    Args:
        proved: what `prove` returned.
    """

    def __init__(self, proved: ExplainableNetwork) -> None:
        self._proved = proved
        self._capture = ActivationCapture(proved.network.get_submodule(proved.module_name))

    def __enter__(self) -> ExactMaps:
        self._capture.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._capture.__exit__(kind, error, trace)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, K), float32, for normalised images, and keep what `cams` needs."""
        return forward(self._proved.network, pixels).float()

    def all_cams(self) -> Tensor:
        """Return the raw CAMs of all classes (N, K, h, w), float32, of the latest forward pass."""
        return cam.class_activation_maps(self._proved.activations(self._capture.take()), self._proved.weight)

    def cams(self, classes: Tensor) -> Tensor:
        """Return raw CAMs (N, M, h, w), float32, for classes (N, M) of the latest forward pass; NaN for class -1."""
        activations = self._proved.activations(self._capture.take())
        return cam.selected_class_activation_maps(activations, self._proved.weight, classes)
