"""Batches in, arrays out: forward pass, all CAMs in one contraction, upsampling, statuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from batchcam.data.own_transform import OwnTransform
from batchcam.data.preprocessing import Preprocessing
from batchcam.errors import ModelError
from batchcam.maps import cam
from batchcam.maps.capture import Maps
from batchcam.maps.parts import parts
from batchcam.maps.preparation import ExplainableNetwork, maps_of
from batchcam.maps.transfer import Arriving, Transfer
from batchcam.network.precision import in_precision
from batchcam.rules import IDENTITY_TOLERANCE, CamSelection, Status


@dataclasses.dataclass(frozen=True)
class Request:
    """What to compute for each sample.

    Attributes:
        cams: which classes.
        maps: upsampled map of the predicted class: uint8, float32 or none.
        input_size: (H, W) of the network's input, and so of the upsampled map.
        precision: fp32, tf32, bf16 or fp16, for the forward pass; CAMs are float32 always.
        identity: whether a batch that breaks the identity stops the run.
        threshold_logits: from which logit each class of a multi-label run counts, float32 (K,); None: single-label.
        features: type of the array of features, "" for none.
    """

    cams: CamSelection
    maps: str
    input_size: tuple[int, int]
    precision: str
    identity: bool
    threshold_logits: np.ndarray | None = None
    features: str = ""


@dataclasses.dataclass(frozen=True)
class ExplainedBatch:
    """Arrays of the schema, by its names, for n samples on the host."""

    prediction: np.ndarray
    confidence: np.ndarray
    logits: np.ndarray
    cam_class: np.ndarray
    cams: np.ndarray
    identity_residual: np.ndarray
    status: np.ndarray
    offset: np.ndarray | None = None
    features: np.ndarray | None = None
    maps: np.ndarray | None = None
    map_range: np.ndarray | None = None

    def columns(self) -> dict[str, np.ndarray]:
        """Return the arrays that there are, by name."""
        return {k: v for k, v in vars(self).items() if v is not None}


class Submitted:
    """A batch that is being explained."""

    def __init__(self, arriving: Arriving, unreadable: np.ndarray, request: Request) -> None:
        self._arriving, self._unreadable, self._request = arriving, unreadable, request

    def result(self) -> ExplainedBatch:
        """Wait for the arrays, and return them.

        Raises:
            ModelError: a readable sample's CAMs do not add up to its logits.
        """
        batch = ExplainedBatch(**self._arriving.arrays())
        _blank_rows(batch, self._unreadable, self._request)
        if self._request.identity:
            _require_identity(batch, self._request.precision)
        return batch


class Explainer:
    """A network with its one hook, ready to explain batches; use it with `with`.

    Args:
        preprocessing: how to normalise uint8 pixels; None when the dataset gives normalised tensors.
    """

    def __init__(
        self,
        explainable: ExplainableNetwork,
        preprocessing: Preprocessing | OwnTransform | None,
        request: Request,
        device: torch.device,
    ) -> None:
        self._preprocessing, self._request, self._device = preprocessing, request, device
        self._explainable, self._maps = explainable, maps_of(explainable, bool(request.features))
        self._transfer = Transfer(device)
        above = request.threshold_logits
        self._above = None if above is None else torch.from_numpy(above).to(device)

    def __enter__(self) -> Explainer:
        self._maps.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._maps.__exit__(*_)

    def __call__(self, pixels: Tensor, labels: np.ndarray, unreadable: np.ndarray) -> ExplainedBatch:
        """Explain one batch; see `submit`, and `Submitted.result`."""
        return self.submit(pixels, labels, unreadable).result()

    def submit(self, pixels: Tensor, labels: np.ndarray, unreadable: np.ndarray) -> Submitted:
        """Begin to explain one batch: a GPU goes on with it while the host does something else.

        Args:
            pixels: uint8 (n, 3, H, W), or normalised float (n, C, H, W).
            labels: int64 (n,), -1 where not known.
            unreadable: bool (n,), samples whose pixels are only there to keep the batch's shape.
        """
        if not len(pixels):
            return Submitted(Arriving(self._blank(len(labels))), unreadable, self._request)
        with self._maps.grad_mode():
            pieces = [
                self._explain(pixels[part], labels[part])
                for part in parts(pixels, self._device, self._explainable.network)
            ]
            return Submitted(self._transfer.to_host(_joined(pieces)), unreadable, self._request)

    def _explain(self, pixels: Tensor, labels: np.ndarray) -> dict[str, Tensor]:
        """Return what ExplainedBatch has, on the device.

        Nothing here may wait for the device, as `item` would; but torch does for the eigenvectors of Eigen-CAM.
        """
        logits = self._forward(pixels)
        finite = torch.isfinite(logits).all(1)
        heights = logits if self._above is None else logits - self._above
        prediction = cam.first_argmax(heights).masked_fill(~finite, -1)
        classes = self._classes(heights, prediction, labels)
        maps = self._cams(classes)
        cams, offset, features = maps
        residual = self._maps.residual(maps, classes, logits)
        known = (classes >= 0)[:, :, None, None]
        finite &= (torch.isfinite(cams) | ~known).flatten(1).all(1)
        predicted = self._predicted_cams(cams, classes, prediction)
        constant = cam.is_constant(predicted) & finite
        negative = (predicted.amax((1, 2)) <= 0) & finite
        flags = ((Status.NON_FINITE, ~finite), (Status.CONSTANT_MAP, constant), (Status.NO_POSITIVE_EVIDENCE, negative))
        status = torch.stack([int(flag) * rows for flag, rows in flags]).sum(0)
        return {
            "prediction": prediction,
            "confidence": self._confidence(logits, prediction),
            "logits": logits,
            "cam_class": classes,
            "cams": cams,
            "identity_residual": residual,
            "status": status.to(torch.uint8),
            **({} if offset is None else {"offset": offset}),
            **({} if features is None else {"features": features.to(getattr(torch, self._request.features))}),
            **self._upsampled(predicted, finite, constant),
        }

    def _forward(self, pixels: Tensor) -> Tensor:
        """Return logits (n, K), float32."""
        pixels = self._transfer.to_device(pixels)
        if self._preprocessing is not None:
            pixels = self._preprocessing.normalise(pixels)
        elif pixels.dtype == torch.uint8:
            raise ModelError("uint8 pixels, but no preprocessing to normalise them with")
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with in_precision(self._request.precision, self._device):
            return self._maps.forward(pixels)

    def _confidence(self, logits: Tensor, prediction: Tensor) -> Tensor:
        """Return the probability of each sample's predicted class, (n,); NaN where there is none."""
        if self._above is None:
            return torch.softmax(logits, 1).amax(1)
        picked = logits.gather(1, prediction.clamp(min=0)[:, None])[:, 0]
        return torch.sigmoid(picked).masked_fill(prediction < 0, float("nan"))

    def _classes(self, heights: Tensor, prediction: Tensor, labels: np.ndarray) -> Tensor:
        """Return the class of each stored map, int64 (n, M); -1 where there is none."""
        selection = self._request.cams
        if selection.is_all:
            return torch.arange(heights.shape[1], device=heights.device).expand(len(heights), -1)
        if selection.top or selection.is_positive:
            height, ranked = torch.sort(heights, dim=1, descending=True, stable=True)
            stored = (prediction >= 0)[:, None]
            if selection.is_positive:
                stored = stored & ((height >= 0) | (torch.arange(height.shape[1], device=height.device) == 0))
            return torch.where(stored, ranked, -1)[:, : selection.top]
        if selection.has_label:
            return torch.stack([prediction, self._transfer.to_device(torch.from_numpy(labels))], 1)
        return prediction[:, None]

    def _cams(self, classes: Tensor) -> Maps:
        """Return the raw CAMs (n, M, h, w) of the stored classes; NaN where there is none."""
        if not (self._request.cams.is_all or self._request.cams.is_positive):
            return self._maps.cams(classes)
        maps = self._maps.all_cams()
        if self._request.cams.is_all:
            return maps
        known, none = classes.clamp(min=0), classes < 0
        cams = maps.cams.gather(1, known[:, :, None, None].expand(-1, -1, *maps.cams.shape[2:]))
        offset = None if maps.offset is None else maps.offset.gather(1, known).masked_fill(none, float("nan"))
        return Maps(cams.masked_fill(none[:, :, None, None], float("nan")), offset, maps.features)

    def _predicted_cams(self, cams: Tensor, classes: Tensor, prediction: Tensor) -> Tensor:
        """Return the predicted class's CAM of each sample, (n, h, w); NaN where no class is predicted."""
        rank = prediction.clamp(min=0) if self._request.cams.is_all else torch.zeros_like(prediction)
        chosen = cams[torch.arange(len(cams), device=cams.device), rank]
        return chosen.masked_fill((prediction < 0)[:, None, None], float("nan"))

    def _upsampled(self, predicted: Tensor, finite: Tensor, constant: Tensor) -> dict[str, Tensor]:
        if self._request.maps == "none":
            return {}
        raw = cam.upsample(predicted, self._request.input_size)
        maps, ranges = cam.normalise(raw)
        if self._request.maps == "uint8":
            return {"maps": maps * (finite & ~constant)[:, None, None], "map_range": ranges}
        return {"maps": raw, "map_range": ranges}

    def _blank(self, rows: int) -> dict[str, Tensor]:
        """Return arrays for a batch in which no sample is readable, to be overwritten as such."""
        class_count = self._explainable.class_count
        count = self._request.cams.count(class_count)
        blank = {
            "prediction": torch.empty(rows, dtype=torch.int64),
            "confidence": torch.empty(rows),
            "logits": torch.empty(rows, class_count),
            "cam_class": torch.arange(count).repeat(rows, 1),
            "cams": torch.empty(rows, count, *self._explainable.grid_size),
            "identity_residual": torch.empty(rows),
            "status": torch.empty(rows, dtype=torch.uint8),
            **({"offset": torch.empty(rows, count)} if self._explainable.has_offset else {}),
        }
        if self._request.features:
            kind = getattr(torch, self._request.features)
            blank["features"] = torch.empty(rows, self._explainable.channels, dtype=kind)
        if self._request.maps == "none":
            return blank
        kind = torch.uint8 if self._request.maps == "uint8" else torch.float32
        maps = torch.empty(rows, *self._request.input_size, dtype=kind)
        return {**blank, "maps": maps, "map_range": torch.empty(rows, 2)}


def _joined(pieces: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    if len(pieces) == 1:
        return pieces[0]
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


def _blank_rows(batch: ExplainedBatch, rows: np.ndarray, request: Request) -> None:
    """Overwrite what the network made of placeholders by what the schema says of unreadable samples."""
    for values in (
        *(batch.logits, batch.cams, batch.confidence, batch.identity_residual, batch.offset, batch.features),
        batch.map_range,
    ):
        if values is not None:
            values[rows] = np.nan
    batch.prediction[rows] = -1
    if not request.cams.is_all:
        batch.cam_class[rows] = -1
    if batch.maps is not None:
        batch.maps[rows] = 0 if batch.maps.dtype == np.uint8 else np.nan
    batch.status[rows] = Status.UNREADABLE


def _require_identity(batch: ExplainedBatch, precision: str) -> None:
    sound = batch.status & (Status.UNREADABLE | Status.NON_FINITE) == 0
    scale = np.maximum(1, np.abs(batch.logits).max(1))
    beyond = sound & (batch.identity_residual > IDENTITY_TOLERANCE[precision] * scale)
    if beyond.any():
        row = int(beyond.argmax())
        offset = "" if batch.offset is None else " + offset"
        raise ModelError(
            f"row {row} of a batch: mean(CAM) + bias{offset} misses the logit by {batch.identity_residual[row]:.3g} "
            f"(precision {precision}); use a higher --precision, or the network is not deterministic"
        )
