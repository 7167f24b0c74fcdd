"""The curves of drawn samples: what is left out, the orders of pixels, all steps of several images in one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from batchcam.commands.explain.assembly import Assembly
from batchcam.commands.explain.drawn import LeftOut, left_out, require_consistent
from batchcam.commands.explain.probing import normalised
from batchcam.data.loader import LoadedBatch, collate
from batchcam.maps import cam
from batchcam.maps.imputation import NOISE, area, centre_map, impute, ranks, step_counts
from batchcam.network.forward import forward
from batchcam.network.precision import in_precision
from batchcam.record.window import image_window
from batchcam.store.run import Run
from batchcam.store.stored_cams import predicted_cams

CURVES: Final = ("deletion", "insertion", "road")
FALLING: Final = ("deletion", "road")
"""Curves whose area is small for a faithful map; the other's is large."""

ORDERS: Final = ("map", "centre", "random_map", "random_pixels")
"""Whose order pixels change in: the map's, then baselines that know nothing of the network."""

_Window: TypeAlias = "tuple[int, int, int, int]"
"""First row, end of the rows, first column and end of the columns of an image in the network's input."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """How the network is asked.

    Attributes:
        network: takes normalised images, gives logits.
        device: where it is.
        batch_size: changed images of one forward pass.
        steps: of each curve.
        seed: of everything random; each sample has its own stream, whatever the others are.
        deleted: gives from images what their deleted pixels become.
        blank: gives from images what their pixels are inserted into.
        by_sigmoid: whether each class has a probability of its own.
    """

    network: nn.Module
    device: torch.device
    precision: str
    batch_size: int
    steps: int
    seed: int
    deleted: Callable[[Tensor], Tensor]
    blank: Callable[[Tensor], Tensor]
    by_sigmoid: bool = False

    def probabilities(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return the softmax, or sigmoid, of each image (n, C, H, W) at its class (n,), float32 (n,)."""
        with in_precision(self.precision, self.device):
            logits = forward(self.network, images.contiguous(memory_format=torch.channels_last))
        chances = torch.sigmoid(logits.float()) if self.by_sigmoid else torch.softmax(logits.float(), 1)
        return chances.gather(1, classes[:, None])[:, 0]


@dataclasses.dataclass(frozen=True)
class Curves:
    """What was measured of the drawn samples.

    Attributes:
        rows: drawn, int64 (n,).
        reasons: why each is not judged, `LeftOut`, uint8 (n,).
        errors: of unreadable images, a line each.
        fractions: of the image's pixels, changed at each step, float64 (steps + 1,); rounded as for an unpadded one.
        values: probability by curve, order and step, float64 (n, 3, 4, steps + 1); NaN where not judged, and at the
            last step of ROAD, which has no pixel left to impute from.
    """

    rows: np.ndarray
    reasons: np.ndarray
    errors: list[str]
    fractions: np.ndarray
    values: np.ndarray

    @property
    def judged(self) -> np.ndarray:
        """Which drawn samples are judged, bool (n,)."""
        return np.asarray(self.reasons == LeftOut.JUDGED)

    @property
    def probability(self) -> np.ndarray:
        """Probability of the predicted class before any change, float64 (n,)."""
        return np.asarray(self.values[:, 0, 0, 0])

    @property
    def reach(self) -> float:
        """Largest minus smallest probability on any curve of a sample, mean over the judged samples."""
        values = self.values[self.judged].reshape(int(self.judged.sum()), -1)
        return float((np.nanmax(values, 1) - np.nanmin(values, 1)).mean())

    @property
    def areas(self) -> np.ndarray:
        """Area under each curve, float64 (n, 3, 4)."""
        return areas(self.values, self.fractions)


def areas(values: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Return the areas under curves as `Curves` has them, float64 (n, 3, 4); NaN where a probability is."""
    curves, shares = torch.from_numpy(values), torch.from_numpy(fractions)
    whole, road = area(curves[:, :2], shares), area(curves[:, 2:, :, :-1], shares[:-1])
    return torch.cat([whole, road], 1).numpy()


def measure(run: Run, assembly: Assembly, rows: np.ndarray, probe: Probe, advance: Callable[[int], None]) -> Curves:
    """Return the curves of the drawn `rows` of an open run.

    Args:
        rows: sorted, int64 (n,).
        advance: called with how many samples were done.
    """
    require_consistent(run, rows, len(assembly.dataset))
    pixels = int(np.prod(run.plan.input_size))
    counts = step_counts(pixels, probe.steps)
    found = Curves(
        rows=rows,
        reasons=np.zeros(len(rows), np.uint8),
        errors=[""] * len(rows),
        fractions=counts.numpy() / pixels,
        values=np.full((len(rows), len(CURVES), len(ORDERS), len(counts)), np.nan),
    )
    group = max(1, probe.batch_size // len(counts))
    for start in range(0, len(rows), group):
        part = np.arange(start, min(start + group, len(rows)))
        batch = collate([assembly.dataset[i] for i in run.sample_index[rows[part]].tolist()])
        found.errors[start : start + len(part)] = batch.errors
        found.reasons[part] = left_out(run, rows[part], batch)
        kept = np.flatnonzero(found.reasons[part] == LeftOut.JUDGED)
        if len(kept):
            images = normalised(batch.pixels[torch.from_numpy(kept)].to(probe.device), assembly.preprocessing)
            for window, own in _windows(batch, kept, run.plan.input_size).items():
                with torch.inference_mode():
                    found.values[part[kept[own]]] = _curves(run, rows[part[kept[own]]], images[own], window, probe)
            overflown = ~np.isfinite(areas(found.values[part[kept]], found.fractions)).all((1, 2))
            found.reasons[part[kept][overflown]] = LeftOut.OVERFLOWN
        advance(len(part))
    return found


def _windows(batch: LoadedBatch, kept: np.ndarray, size: tuple[int, int]) -> dict[_Window, list[int]]:
    """Return where in the network's input the images lie, each place with those of the kept samples that lie there."""
    windows: dict[_Window, list[int]] = {}
    placed = zip(batch.crop_box[kept].tolist(), batch.image_size[kept].tolist(), strict=True)
    for i, (view, image_size) in enumerate(placed):
        rows, columns = image_window(view, image_size, size)
        windows.setdefault((rows.start, rows.stop, columns.start, columns.stop), []).append(i)
    return windows


def _curves(run: Run, rows: np.ndarray, inputs: Tensor, window: _Window, probe: Probe) -> np.ndarray:
    """Return the curves of judged samples whose images lie in one window of the input, float64 (n, 3, 4, steps + 1)."""
    top, bottom, left, right = window
    images = inputs[..., top:bottom, left:right]

    def surrounded(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a change of the network's inputs, whose padding stays as it is."""

        def changed_inputs(i: Tensor, changed: Tensor) -> Tensor:
            whole = inputs[i]
            whole[..., top:bottom, left:right] = change(i, changed)
            return whole

        return changed_inputs

    drawn = [_Drawn.of(int(index), probe.seed, run, tuple(images.shape[1:])) for index in run.sample_index[rows]]
    noise = torch.stack([d.noise for d in drawn]).to(probe.device)
    classes = torch.from_numpy(run.prediction[rows]).to(probe.device)
    cams = predicted_cams({name: getattr(run, name)[rows] for name in ("cams", "cam_class", "prediction")})
    orders = _orders(torch.from_numpy(cams), drawn, run.plan.input_size, window, probe.device)
    counts = step_counts(images.shape[2] * images.shape[3], probe.steps).to(probe.device)
    deleted, blank = probe.deleted(images), probe.blank(images)
    changes: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "deletion": lambda i, changed: torch.where(changed[:, None], deleted[i], images[i]),
        "insertion": lambda i, changed: torch.where(changed[:, None], images[i], blank[i]),
        "road": lambda i, changed: impute(images[i], changed) + noise[i] * changed[:, None],
    }
    values = np.full((len(rows), len(CURVES), len(ORDERS), len(counts)), np.nan)
    for c, curve in enumerate(CURVES):
        steps = counts[:-1] if curve == "road" else counts
        for o, order in enumerate(ORDERS):
            change = surrounded(changes[curve])
            values[:, c, o, : len(steps)] = follow(change, orders[order], steps, classes, probe)
    return values


def follow(
    change: Callable[[Tensor, Tensor], Tensor], places: Tensor, counts: Tensor, classes: Tensor, probe: Probe
) -> np.ndarray:
    """Return the probability (n, S) when the first `counts` (S) pixels in the order `places` (n, H, W) are changed."""
    pairs = torch.arange(len(places) * len(counts), device=places.device)
    probabilities = []
    for some in torch.split(pairs, probe.batch_size):
        image, step = some // len(counts), some % len(counts)
        changed = places[image] < counts[step][:, None, None]
        probabilities.append(probe.probabilities(change(image, changed), classes[image]))
    return torch.cat(probabilities).view(len(places), len(counts)).double().cpu().numpy()


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """What is random about one sample.

    Attributes:
        permutation: of the image's pixels in the input, int64 (height * width).
        grid: a map of independent cells, float32 (h, w).
        noise: of imputed pixels, float32 (C, height, width).
    """

    permutation: Tensor
    grid: Tensor
    noise: Tensor

    @classmethod
    def of(cls, index: int, seed: int, run: Run, shape: tuple[int, ...]) -> _Drawn:
        rng = np.random.default_rng([seed, index])
        return cls(
            permutation=torch.from_numpy(rng.permutation(shape[1] * shape[2])),
            grid=torch.from_numpy(rng.standard_normal(run.plan.grid_size, np.float32)),
            noise=torch.from_numpy(rng.standard_normal(shape, np.float32) * np.float32(NOISE)),
        )


def _orders(
    cams: Tensor, drawn: list[_Drawn], size: tuple[int, int], window: _Window, device: torch.device
) -> dict[str, Tensor]:
    """Return each pixel's place in each order, int64 (n, height, width of the window) by name of the order."""
    top, bottom, left, right = window
    height, width = bottom - top, right - left
    permutations = torch.stack([d.permutation for d in drawn])
    grids = torch.stack([d.grid for d in drawn])
    maps = {
        "map": cam.upsample(cams, size)[:, top:bottom, left:right],
        "centre": centre_map((height, width)).expand(len(cams), -1, -1),
        "random_map": cam.upsample(grids, size)[:, top:bottom, left:right],
        "random_pixels": torch.zeros(len(cams), height, width),
    }
    # on the CPU: the same order on every device
    return {order: ranks(maps[order], permutations).to(device) for order in ORDERS}
