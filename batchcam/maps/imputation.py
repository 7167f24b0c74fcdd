"""What stands in for pixels that are taken away, and the order in which: deletion, insertion and ROAD curves.

Deletion and insertion as in Petsiuk et al. 2018 (RISE, arXiv 1806.07421): pixels change in order of the map's value,
and the class's probability is followed. The area that is emptied has a shape, and the picture is of a kind that the
network never saw; both move the probability too. ROAD (Rong et al. 2022, arXiv 2202.00449) removes pixels by noisy
linear imputation, which hides the shape and keeps the picture plausible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

BLUR: Final = 10 / 224
"""Standard deviation of the blur, as a share of the shorter side: 10 pixels at 224, as Fong & Vedaldi 2017."""

NOISE: Final = 0.01
"""Standard deviation of what ROAD adds to imputed pixels, in units of the normalised input."""

RESIDUAL: Final = 3e-4
"""Share of the right side at which the system counts as solved: errors stay below `NOISE`."""

MOST_ITERATIONS: Final = 1000


def centre_map(size: tuple[int, int]) -> Tensor:
    """Return a map that has seen no image, float32 (H, W): largest in the middle.

    The logarithm of a Gaussian whose deviation is a share of each side, so ordered as any such Gaussian is.
    """
    v, u = ((torch.arange(n, dtype=torch.float32) + 0.5) / n - 0.5 for n in size)
    return -(v[:, None] ** 2 + u**2)


def ranks(maps: Tensor, permutations: Tensor) -> Tensor:
    """Return each pixel's place in the order of falling values, 0 for the largest; int64 (n, H, W).

    Args:
        maps: (n, H, W).
        permutations: pixels in random order, int64 (n, H * W): equal values keep this order, not that of the rows,
            which would favour the upper part of the picture.
    """
    shuffled = maps.flatten(1).gather(1, permutations)
    order = permutations.gather(1, shuffled.argsort(dim=1, descending=True, stable=True))
    places = torch.arange(order.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view_as(maps)


def step_counts(pixels: int, steps: int) -> Tensor:
    """Return how many of `pixels` have changed after 0, 1, …, `steps` equal steps, int64 (steps + 1)."""
    return torch.tensor([(2 * i * pixels + steps) // (2 * steps) for i in range(steps + 1)])


def mean_colour(images: Tensor) -> Tensor:
    """Return images (n, C, H, W) whose pixels all have the image's own mean, channel by channel."""
    return images.mean((2, 3), keepdim=True).expand_as(images)


def blurred(images: Tensor, share: float = BLUR) -> Tensor:
    """Return images (n, C, H, W) under a Gaussian of deviation `share` * shorter side, cut at three deviations.

    Edges are extended.
    """
    deviation = share * min(images.shape[2:])
    radius = math.ceil(3 * deviation)
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-((offsets / deviation) ** 2) / 2)
    kernel = (kernel / kernel.sum())[None, None]
    flat = images.flatten(0, 1)[:, None]
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), kernel[..., None])
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), kernel[:, :, None])
    return flat.view_as(images)


def impute(images: Tensor, removed: Tensor) -> Tensor:
    """Return images whose removed pixels are the weighted mean of their neighbours, without noise.

    ROAD's linear system, one equation a removed pixel: u = sum of w * neighbour / sum of w over the neighbours inside
    of the picture, w = 1/6 for the four nearest, 1/12 for the four diagonal ones. It is symmetric and positive
    definite: solved by conjugate gradients, from the solution of a coarser picture.

    Args:
        images: (n, C, H, W).
        removed: bool (n, H, W); at least one pixel of each image is kept.
    """
    if not removed.any():
        return images
    inside = removed[:, None].to(images.dtype)
    known = images * (1 - inside)
    total = _neighbours(torch.ones_like(images[:1, :1]))
    solution = _coarse_solution(known, removed) * inside
    right = _neighbours(known) * inside
    residual = right - (total * solution - _neighbours(solution)) * inside
    direction, energy = residual.clone(), _dot(residual, residual)
    enough = _dot(right, right) * RESIDUAL**2
    for _ in range(MOST_ITERATIONS):
        going = energy > enough  # an image that is done stays as it is, whichever ones share its batch
        if not going.any():
            break
        image = (total * direction - _neighbours(direction)).mul_(inside)
        step = torch.where(going, energy / _dot(direction, image).clamp(min=1e-30), 0)
        solution.addcmul_(step, direction)
        residual.addcmul_(step, image, value=-1)
        before, energy = energy, torch.where(going, _dot(residual, residual), energy)
        direction.mul_(energy / before.clamp(min=1e-30)).add_(residual)
    return known + solution


def _coarse_solution(known: Tensor, removed: Tensor) -> Tensor:
    """Return a first guess (n, C, H, W): the same problem with a quarter of the pixels, solved and enlarged."""
    kept = F.avg_pool2d((~removed)[:, None].to(known.dtype), 2, ceil_mode=True)
    means = F.avg_pool2d(known, 2, ceil_mode=True) / kept.clamp(min=1e-6)
    coarse = impute(means, kept[:, 0] == 0)
    return F.interpolate(coarse, known.shape[2:], mode="bilinear", align_corners=False)


def _neighbours(images: Tensor) -> Tensor:
    """Return the sum of each pixel's eight neighbours, 1/6 of the nearest and 1/12 of the others; none outside."""
    return (_one_two_one(_one_two_one(images, 2), 3) - 4 * images) / 12


def _one_two_one(images: Tensor, axis: int) -> Tensor:
    """Return 2 * each pixel + the pixels before and after it along `axis`."""
    inner = images.shape[axis] - 1
    result = 2 * images
    result.narrow(axis, 1, inner).add_(images.narrow(axis, 0, inner))
    result.narrow(axis, 0, inner).add_(images.narrow(axis, 1, inner))
    return result


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((2, 3), keepdim=True)


def area(curves: Tensor, fractions: Tensor) -> Tensor:
    """Return the area under curves (…, S) over `fractions` (S) by the trapezoidal rule, divided by their range."""
    return torch.trapezoid(curves, fractions, dim=-1) / (fractions[-1] - fractions[0])


SUBSTRATES: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "mean": mean_colour,
    "zero": torch.zeros_like,
    "blur": blurred,
}
"""What stands in for the pixels that are taken away, by name; `zero` is of the normalised input."""
