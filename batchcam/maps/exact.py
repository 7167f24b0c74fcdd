"""Networks with exact CAMs: logits and maps of a batch from one forward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from batchcam.maps import cam
from batchcam.maps.capture import ActivationCapture, LedgerCapture, Maps
from batchcam.network.forward import forward
from batchcam.network.proof import ExactNetwork
from batchcam.network.terms import Term


class ExactMaps:
    """Logits and CAMs of one network, with its hooks; use it with `with`.

    Args:
        proved: what `prove` returned.
        with_features: whether to tell what the classifier takes.
    """

    grad_mode = torch.inference_mode
    """What `forward` and the maps run in: quicker than `no_grad`, and nothing in it can ever have a gradient."""

    def __init__(self, proved: ExactNetwork, with_features: bool = False) -> None:
        self._proved, self._with_features = proved, with_features
        self._capture: ActivationCapture | LedgerCapture = (
            LedgerCapture(proved.network, proved.ledger) if proved.ledger else ActivationCapture(proved.layer)
        )

    def __enter__(self) -> ExactMaps:
        self._capture.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.__exit__(*_)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, K), float32, for normalised images, and keep what `cams` needs."""
        with self._capture.listening(pixels):
            return forward(self._proved.network, pixels).float()

    def all_cams(self) -> Maps:
        """Return the raw CAMs of all classes (N, K, h, w), float32, of the latest forward pass."""
        return self._sums(None)

    def cams(self, classes: Tensor) -> Maps:
        """Return raw CAMs (N, M, h, w), float32, for classes (N, M) of the latest forward pass; NaN for class -1."""
        return self._sums(classes)

    def residual(self, maps: Maps, classes: Tensor, logits: Tensor) -> Tensor:
        """Return how far the maps are from adding up to the logits, see `cam.identity_residual`."""
        return cam.identity_residual(maps.cams, classes, self._proved.bias, logits, maps.offset)

    def _sums(self, classes: Tensor | None) -> Maps:
        def of(term: Term) -> Tensor:
            if classes is None:
                return term.scaled(cam.class_activation_maps(term.values, term.weight))
            return term.scaled(cam.selected_class_activation_maps(term.values, term.weight, classes))

        captured = self._capture.take()
        terms = self._proved.terms(captured)
        first, *more = terms.cells
        cams = of(first)
        for term in more:
            cams += of(term)
        offset = torch.stack([of(term)[:, :, 0, 0] for term in terms.rest]).sum(0) if terms.rest else None
        return Maps(cams, offset, self._proved.features(captured) if self._with_features else None)
