"""Batches in, arrays out: forward pass, all CAMs in one contraction, upsampling, statuses."""

from __future__ import annotations

import contextlib
import dataclasses
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchcam import cam
from batchcam.cpus import available_cpus
from batchcam.engine.exact import ExactMaps
from batchcam.engine.gradients import GradientMaps
from batchcam.engine.parts import parts
from batchcam.engine.preprocessing import Preprocessing
from batchcam.engine.proof import ExplainableNetwork
from batchcam.errors import DeviceError, ModelError
from batchcam.rules import EXACT, IDENTITY_TOLERANCE, Status

AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass(frozen=True)
class Request:
    """What to compute for each sample.

    Attributes:
        cams: which classes: all, predicted, predicted+label, or topk:N.
        maps: upsampled map of the predicted class: uint8, float32 or none.
        input_size: (H, W) of the network's input, and so of the upsampled map.
        precision: fp32, tf32, bf16 or fp16, for the forward pass; CAMs are float32 always.
        identity: whether a batch that breaks the identity stops the run.
    """

    cams: str
    maps: str
    input_size: tuple[int, int]
    precision: str
    identity: bool


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
    maps: np.ndarray | None
    map_range: np.ndarray | None

    def columns(self) -> dict[str, np.ndarray]:
        """Return the arrays that there are, by name."""
        return {k: v for k, v in vars(self).items() if v is not None}


class Explainer:
    """A network with its one hook, ready to explain batches; use it with `with`.

    Args:
        proved: the network, its target layer, and the method.
        preprocessing: how to normalise uint8 pixels; None when the dataset gives normalised tensors.
        request: what to compute.
        device: where.
    """

    def __init__(
        self, proved: ExplainableNetwork, preprocessing: Preprocessing | None, request: Request, device: torch.device
    ) -> None:
        self._proved, self._preprocessing, self._request, self._device = proved, preprocessing, request, device
        self._exact = proved.method == EXACT
        self._method: ExactMaps | GradientMaps = ExactMaps(proved) if self._exact else GradientMaps(proved)

    def __enter__(self) -> Explainer:
        self._method.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._method.__exit__(kind, error, trace)

    def __call__(self, pixels: Tensor, labels: np.ndarray, unreadable: np.ndarray) -> ExplainedBatch:
        """Explain one batch.

        Args:
            pixels: uint8 (n, 3, H, W), or normalised float (n, C, H, W).
            labels: int64 (n,), -1 where not known.
            unreadable: bool (n,), samples whose pixels are only there to keep the batch's shape.

        Raises:
            ModelError: a readable sample's CAMs do not add up to its logits.
        """
        if not len(pixels):
            return self._blank(len(labels))
        # inference mode is quicker, and nothing in it can ever have a gradient
        with torch.inference_mode() if self._exact else torch.no_grad():
            batch = _joined([self._explain(pixels[part], labels[part]) for part in parts(pixels, self._device)])
        self._blank_rows(batch, unreadable)
        self._require_identity(batch)
        return batch

    def _explain(self, pixels: Tensor, labels: np.ndarray) -> ExplainedBatch:
        logits = self._forward(pixels)
        finite = torch.isfinite(logits).all(1)
        prediction = cam.first_argmax(logits).masked_fill(~finite, -1)
        classes = self._classes(logits, prediction, labels)
        if isinstance(self._method, ExactMaps) and self._request.cams == "all":
            cams = self._method.all_cams()
        else:
            cams = self._method.cams(classes)
        residual = cam.identity_residual(cams, classes, self._proved.bias, logits)  # NaN without an identity
        known = (classes >= 0)[:, :, None, None]
        finite &= (torch.isfinite(cams) | ~known).flatten(1).all(1)
        predicted = self._predicted_cams(cams, classes, prediction)
        constant = cam.is_constant(predicted) & finite
        negative = (predicted.amax((1, 2)) <= 0) & finite
        flags = ((Status.NON_FINITE, ~finite), (Status.CONSTANT_MAP, constant), (Status.NO_POSITIVE_EVIDENCE, negative))
        status = torch.stack([int(flag) * rows for flag, rows in flags]).sum(0)
        maps, ranges = self._maps(predicted, finite, constant)
        return ExplainedBatch(
            prediction=_host(prediction),
            confidence=_host(torch.softmax(logits, 1).amax(1)),
            logits=_host(logits),
            cam_class=_host(classes),
            cams=_host(cams),
            identity_residual=_host(residual),
            status=_host(status.to(torch.uint8)),
            maps=_host(maps),
            map_range=_host(ranges),
        )

    def _forward(self, pixels: Tensor) -> Tensor:
        """Return logits (n, K), float32."""
        pixels = pixels.to(self._device, non_blocking=True)
        if pixels.dtype == torch.uint8:
            if self._preprocessing is None:
                raise ModelError("uint8 pixels, but no preprocessing to normalise them with")
            pixels = self._preprocessing.normalise(pixels)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            return self._method.forward(pixels)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = AUTOCAST_TYPES.get(self._request.precision)
        return torch.autocast(self._device.type, dtype) if dtype else contextlib.nullcontext()

    def _classes(self, logits: Tensor, prediction: Tensor, labels: np.ndarray) -> Tensor:
        """Return the class of each stored map, int64 (n, M); -1 where there is none."""
        selection = self._request.cams
        if selection == "all":
            return torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
        if selection.startswith("topk:"):
            ranked = torch.sort(logits, dim=1, descending=True, stable=True).indices
            return torch.where((prediction >= 0)[:, None], ranked[:, : int(selection[5:])], -1)
        if selection == "predicted":
            return prediction[:, None]
        return torch.stack([prediction, torch.from_numpy(labels).to(prediction.device)], 1)

    def _predicted_cams(self, cams: Tensor, classes: Tensor, prediction: Tensor) -> Tensor:
        """Return the predicted class's CAM of each sample, (n, h, w); NaN where no class is predicted."""
        rank = prediction.clamp(min=0) if self._request.cams == "all" else torch.zeros_like(prediction)
        chosen = cams[torch.arange(len(cams), device=cams.device), rank]
        return chosen.masked_fill((prediction < 0)[:, None, None], float("nan"))

    def _maps(self, predicted: Tensor, finite: Tensor, constant: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if self._request.maps == "none":
            return None, None
        raw = cam.upsample(predicted, self._request.input_size)
        maps, ranges = cam.normalise(raw)
        if self._request.maps == "float32":
            return raw, ranges
        return maps * (finite & ~constant)[:, None, None], ranges

    def _blank(self, rows: int) -> ExplainedBatch:
        """Return a batch in which no sample is readable."""
        class_count = len(self._proved.weight)
        count = {"all": class_count, "predicted": 1, "predicted+label": 2}.get(self._request.cams)
        count = int(self._request.cams[5:]) if count is None else count
        height, width = self._request.input_size
        kind = None if self._request.maps == "none" else self._request.maps
        batch = ExplainedBatch(
            prediction=np.empty(rows, np.int64),
            confidence=np.empty(rows, np.float32),
            logits=np.empty((rows, class_count), np.float32),
            cam_class=np.tile(np.arange(count), (rows, 1)),
            cams=np.empty((rows, count, *self._proved.grid_size), np.float32),
            identity_residual=np.empty(rows, np.float32),
            status=np.empty(rows, np.uint8),
            maps=np.empty((rows, height, width), kind) if kind else None,
            map_range=np.empty((rows, 2), np.float32) if kind else None,
        )
        self._blank_rows(batch, np.ones(rows, bool))
        return batch

    def _blank_rows(self, batch: ExplainedBatch, rows: np.ndarray) -> None:
        """Overwrite what the network made of placeholders by what the schema says of unreadable samples."""
        for values in (batch.logits, batch.cams, batch.confidence, batch.identity_residual, batch.map_range):
            if values is not None:
                values[rows] = np.nan
        batch.prediction[rows] = -1
        if self._request.cams != "all":
            batch.cam_class[rows] = -1
        if batch.maps is not None:
            batch.maps[rows] = 0 if batch.maps.dtype == np.uint8 else np.nan
        batch.status[rows] = Status.UNREADABLE

    def _require_identity(self, batch: ExplainedBatch) -> None:
        if not self._request.identity:
            return
        sound = batch.status & (Status.UNREADABLE | Status.NON_FINITE) == 0
        scale = np.maximum(1, np.abs(batch.logits).max(1))
        beyond = sound & (batch.identity_residual > IDENTITY_TOLERANCE[self._request.precision] * scale)
        if beyond.any():
            row = int(beyond.argmax())
            raise ModelError(
                f"row {row} of a batch: mean(CAM) + bias misses the logit by {batch.identity_residual[row]:.3g} "
                f"(precision {self._request.precision}); use a higher --precision, or the network is not deterministic"
            )


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device called `name`; `auto` is a CUDA device, or the CPU.

    Args:
        name: torch's name of a device, or auto.
        local_rank: which of the workers on this machine asks; several CUDA devices are shared out among them.

    Raises:
        DeviceError: there is no such device here.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    try:
        device = torch.device(name)
        torch.ones(1, device=device).cpu()  # a meta device holds no values
    except Exception as error:  # torch raises RuntimeError, AssertionError, NotImplementedError by device and build
        found = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise DeviceError(f"--device {name}: not on this machine; there are: {found}") from error
    return device


def set_precision(precision: str, device: torch.device, threads: int | None = None) -> None:
    """Fix the arithmetic of this process: TF32 only when asked for, deterministic kernels, the number of CPU threads.

    Args:
        precision: fp32, tf32, bf16 or fp16.
        device: where the network runs.
        threads: of the network on CPUs; None: one for each available CPU.
    """
    torch.set_num_threads(threads or available_cpus())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _joined(batches: list[ExplainedBatch]) -> ExplainedBatch:
    columns: dict[str, Any] = {name: [vars(batch)[name] for batch in batches] for name in vars(batches[0])}
    joined: dict[str, Any] = {k: None if v[0] is None else np.concatenate(v) for k, v in columns.items()}
    return ExplainedBatch(**joined)


def _host(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.contiguous().cpu().numpy()
