"""Networks with exact CAMs: logits and maps of a batch from one forward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from batchcam.maps import cam
from batchcam.maps.capture import ActivationCapture
from batchcam.network.forward import forward
from batchcam.network.proof import ExactNetwork


class ExactMaps(ActivationCapture):
    """Logits and CAMs of one network, with its one hook; use it with `with`.

    Args:
        proved: what `prove` returned.
    """

    grad_mode = torch.inference_mode
    """What `forward` and the maps run in: quicker than `no_grad`, and nothing in it can ever have a gradient."""

    def __init__(self, proved: ExactNetwork) -> None:
        super().__init__(proved.layer)
        self._proved = proved

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, K), float32, for normalised images, and keep what `cams` needs."""
        return forward(self._proved.network, pixels).float()

    def all_cams(self) -> Tensor:
        """Return the raw CAMs of all classes (N, K, h, w), float32, of the latest forward pass."""
        return cam.class_activation_maps(self._proved.activations(self.take()), self._proved.weight)

    def cams(self, classes: Tensor) -> Tensor:
        """Return raw CAMs (N, M, h, w), float32, for classes (N, M) of the latest forward pass; NaN for class -1."""
        activations = self._proved.activations(self.take())
        return cam.selected_class_activation_maps(activations, self._proved.weight, classes)

    def residual(self, cams: Tensor, classes: Tensor, logits: Tensor) -> Tensor:
        """Return how far the maps are from adding up to the logits, see `cam.identity_residual`."""
        return cam.identity_residual(cams, classes, self._proved.bias, logits)
