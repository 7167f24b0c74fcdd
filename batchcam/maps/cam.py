"""Class activation maps: pure mathematics on tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from batchcam.rules import CONSTANT_RELATIVE_RANGE


def class_activation_maps(activations: Tensor, weight: Tensor) -> Tensor:
    """Return the raw class activation map of every class for every sample.

    M[n, k, y, x] = sum_c W[k, c] * A[n, c, y, x], Zhou et al. 2016, eq. 2, https://arxiv.org/abs/1512.04150
    No ReLU, no scaling: after average pooling, the mean of a map plus the bias is the class's logit.

    Args:
        activations: A, output of the target layer, (N, C, h, w).
        weight: W, weight of the final linear layer, (K, C), same dtype and device.

    Returns:
        Raw maps, (N, K, h, w), in units of the logit.

    Raises:
        ValueError: the target layer's channels are not the classifier's.
    """
    _require_channels(activations, weight)
    return torch.einsum("nchw,kc->nkhw", activations, weight)


def selected_class_activation_maps(activations: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """Return the raw class activation maps of chosen classes, other ones for each sample.

    The same sum as `class_activation_maps`, for the classes asked for only.

    Args:
        activations: A, (N, C, h, w).
        weight: W, (K, C), same dtype and device.
        classes: which classes, int64 (N, M); -1 gives a map of NaN.

    Returns:
        Raw maps, (N, M, h, w), in units of the logit.

    Raises:
        ValueError: the target layer's channels are not the classifier's.
    """
    _require_channels(activations, weight)
    maps = torch.einsum("nchw,nmc->nmhw", activations, weight[classes.clamp(min=0)])
    return maps.masked_fill((classes < 0)[:, :, None, None], float("nan"))


def identity_residual(
    cams: Tensor, classes: Tensor, bias: Tensor, logits: Tensor, offset: Tensor | None = None
) -> Tensor:
    """Return, per sample, the largest abs(mean of CAM + offset + bias - logit) over its maps.

    Zero up to rounding exactly when the maps explain the logits: global average pooling and the linear layer commute.

    Args:
        cams: raw maps, (N, M, h, w).
        classes: class of each map, int64 (N, M); maps of class -1 do not count.
        bias: bias of the final linear layer, (K,).
        logits: network output, (N, K).
        offset: what of each logit lies in no cell, (N, M); None: nothing.

    Returns:
        (N,), in units of the logit; NaN where maps or logits are not finite.
    """
    known = classes.clamp(min=0)
    sums = cams.mean((2, 3)) + bias[known] + (0 if offset is None else offset)
    differences = sums - logits.gather(1, known)
    return differences.abs().masked_fill(classes < 0, 0).amax(1)


def first_argmax(logits: Tensor) -> Tensor:
    """Return the index of each row's largest value, the first of equal ones; int64 (N,).

    torch.argmax may return any of them, numpy.argmax the first: an auditor has to find the same.
    """
    positions = torch.arange(logits.shape[1], device=logits.device)
    return torch.where(logits == logits.amax(1, keepdim=True), positions, logits.shape[1] - 1).amin(1)


def upsample(cams: Tensor, size: tuple[int, int]) -> Tensor:
    """Return raw maps (N, h, w) interpolated to `size` (H, W): bilinear between cell centres, edges extended."""
    return F.interpolate(cams[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def normalise(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return maps scaled by their own smallest and largest value to 0…255, rounded, and these two values.

    Args:
        maps: raw upsampled maps, float32 (N, H, W).

    Returns:
        uint8 (N, H, W), and float32 (N, 2). Not meaningful where a map is constant or not finite.
    """
    low, high = maps.amin((1, 2)), maps.amax((1, 2))
    scaled = (maps - low[:, None, None]) / (high - low)[:, None, None] * 255
    return scaled.nan_to_num(0).round().clamp(0, 255).to(torch.uint8), torch.stack([low, high], 1)


def is_constant(cams: Tensor) -> Tensor:
    """Return which maps of (N, h, w) say nothing about where: their range is rounding; bool (N,)."""
    low, high = cams.amin((1, 2)), cams.amax((1, 2))
    return high - low <= CONSTANT_RELATIVE_RANGE * torch.maximum(low.abs(), high.abs())


def _require_channels(activations: Tensor, weight: Tensor) -> None:
    if activations.shape[1] != weight.shape[1]:
        raise ValueError(f"target layer has {activations.shape[1]} channels, classifier expects {weight.shape[1]}")
