"""What the network says of changed images: a region pasted into other images, taken away, or kept alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from batchcam.commands.discover.regions import (
    SHARE,
    centre_window,
    peak_windows,
    pixels,
    window_apart,
    window_size,
)
from batchcam.commands.explain.assembly import Assembly
from batchcam.commands.explain.drawn import LeftOut, left_out, require_consistent
from batchcam.commands.explain.probing import normalised
from batchcam.data.loader import collate
from batchcam.maps.imputation import NOISE, blurred, impute, mean_colour
from batchcam.network.forward import forward
from batchcam.network.precision import in_precision
from batchcam.pictures import sheet
from batchcam.store.run import Run
from batchcam.store.stored_cams import predicted_cams

TRIALS: Final = ("peak", "moved", "random", "centre", "border", "removed", "random_removed", "kept")
"""One forward pass each; what the network says of the images as they are stands in the record."""

FILLS: Final = ("mean", "blur", "road")
"""What a region that is taken away becomes: of one sample always the same, of the samples in turn."""

BORDER: Final = 1 / 16
"""Width of the picture's border, which a frame, a band or burnt-in text lies on, as a share of each side."""

GROUP: Final = 64
"""Samples that are held at a time, and find the images among each other that their regions are pasted into."""


SHOWN: Final = 8
"""Samples of each class that are shown."""

VIEW: Final = 128
"""Pixels of a shown view's longer side."""

MARK: Final = (255, 0, 255)


@dataclasses.dataclass(frozen=True)
class Asked:
    """How the network is asked.

    Attributes:
        limits: logits from which each class of a multi-label run is told, (K,); None: the largest one tells it.
    """

    network: nn.Module
    device: torch.device
    precision: str
    batch_size: int
    seed: int
    limits: np.ndarray | None

    def logits(self, images: Tensor) -> np.ndarray:
        """Return the logits of normalised images (n, C, H, W), float32 (n, K)."""
        parts = []
        for some in torch.split(images, self.batch_size):
            with in_precision(self.precision, self.device):
                parts.append(forward(self.network, some.contiguous(memory_format=torch.channels_last)).float())
        return torch.cat(parts).cpu().numpy()

    def said(self, logits: np.ndarray) -> np.ndarray:
        """Return which classes the network says by these logits (n, K), bool (n, K)."""
        if self.limits is not None:
            return np.asarray(logits >= self.limits)
        return np.asarray(np.arange(logits.shape[1]) == logits.argmax(1)[:, None])


class Pictures:
    """Views, and the regions around their peaks, of a few samples of each class, those first that carry it.

    Attributes:
        shown: by class, at most SHOWN of: whether the region carries the class, place among the drawn samples, view
            with its region marked and the region, RGB uint8.
    """

    def __init__(self) -> None:
        self.shown: dict[int, list[tuple[bool, int, np.ndarray, np.ndarray]]] = {}

    def add(self, place: int, class_: int, carries: bool, pixels: Tensor, box: tuple[slice, slice]) -> None:
        """Keep a sample, by its pixels (C, H, W), if there is room or it carries where one that is kept does not."""
        kept = self.shown.setdefault(class_, [])
        if len(kept) == SHOWN:
            idle = next((i for i, each in enumerate(kept) if not each[0]), None)
            if idle is None or not carries:
                return
            del kept[idle]
        view = _rgb(pixels)
        marked = sheet.resized(view, sheet.fitted_size(view.shape[:2], (VIEW, VIEW)))
        scale = [small / whole for small, whole in zip(marked.shape[:2], view.shape[:2], strict=True)]
        (top, bottom), (left, right) = (
            (round(s.start * f), round(s.stop * f) - 1) for s, f in zip(box, scale, strict=True)
        )
        marked[[top, bottom], left : right + 1] = marked[top : bottom + 1, [left, right]] = MARK
        kept.append((carries, place, marked, view[box].copy()))


def _rgb(pixels: Tensor) -> np.ndarray:
    """Return pixels (C, H, W) as a picture, RGB uint8; other than bytes over their range, the first channels alone."""
    if pixels.dtype != torch.uint8:
        pixels = pixels.float()
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()).clamp(min=1e-12) * 255
    channels = pixels[:3] if len(pixels) >= len(MARK) else pixels[:1].expand(3, -1, -1)
    return np.ascontiguousarray(channels.permute(1, 2, 0).to(torch.uint8).numpy())


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What was found of the drawn samples.

    Attributes:
        rows: drawn, int64 (n,), in the order in which they were asked.
        reasons: why each is not judged, `LeftOut`, uint8 (n,).
        errors: of unreadable images, a line each.
        classes: that the record says the network predicts, int64 (n,).
        peaks: cell of the map's largest value, int64 (n, 2).
        windows: first row and column, in cells, of the regions: around the peak, where it was moved to, a random one;
            int64 (n, 3, 2).
        partners: row of the image that the regions were pasted into, -1 where not judged, int64 (n,).
        fills: index of what took the region's place, int64 (n,).
        holds: whether the network says the sample's class of the changed image, bool (n, trials).
        pictures: of some of each class.
    """

    rows: np.ndarray
    reasons: np.ndarray
    errors: list[str]
    classes: np.ndarray
    peaks: np.ndarray
    windows: np.ndarray
    partners: np.ndarray
    fills: np.ndarray
    holds: np.ndarray
    pictures: Pictures

    @property
    def judged(self) -> np.ndarray:
        """Which drawn samples are judged, bool (n,)."""
        return np.asarray(self.reasons == LeftOut.JUDGED)

    def of(self, trial: str) -> np.ndarray:
        """Return whether the network says the sample's class after one kind of change, bool (n,)."""
        return np.asarray(self.holds[:, TRIALS.index(trial)])


def draw(predictions: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Return up to `samples` rows in random order, int64: of each predicted class as many as of any other, or all."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(np.flatnonzero(predictions >= 0))
    classes = predictions[shuffled]
    order = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[order], classes[order])
    turn = np.empty(len(order), np.int64)
    turn[order] = np.arange(len(order)) - starts  # the how manieth of its class
    return rng.permutation(shuffled[np.argsort(turn, kind="stable")[:samples]])


def measure(run: Run, assembly: Assembly, rows: np.ndarray, asked: Asked, advance: Callable[[int], None]) -> Outcomes:
    """Return what the network says of changed images of the drawn `rows` of an open run.

    Args:
        advance: called with how many samples were done.
    """
    count = len(rows)
    found = Outcomes(
        rows=rows,
        reasons=np.zeros(count, np.uint8),
        errors=[""] * count,
        classes=np.full(count, -1),
        peaks=np.full((count, 2), -1),
        windows=np.full((count, 3, 2), -1),
        partners=np.full(count, -1),
        fills=np.arange(count) % len(FILLS),
        holds=np.zeros((count, len(TRIALS)), bool),
        pictures=Pictures(),
    )
    for part in np.array_split(np.arange(count), math.ceil(count / GROUP)):  # of like sizes: each needs partners
        with torch.inference_mode():
            _judge(run, assembly, found, part, asked)
        advance(len(part))
    return found


def _judge(run: Run, assembly: Assembly, found: Outcomes, part: np.ndarray, asked: Asked) -> None:
    """Fill in what is found of one group."""
    rows = np.sort(found.rows[part])
    part = part[np.argsort(found.rows[part])]  # a run is read in its order
    require_consistent(run, rows, len(assembly.dataset))
    batch = collate([assembly.dataset[i] for i in run.sample_index[rows].tolist()])
    for place, error in zip(part.tolist(), batch.errors, strict=True):
        found.errors[place] = error
    found.reasons[part] = left_out(run, rows, batch)
    found.classes[part] = run.prediction[rows]
    # an image of a constant map has no peak, and takes others' regions
    kept = np.flatnonzero(np.isin(found.reasons[part], (LeftOut.JUDGED, LeftOut.CONSTANT)))
    if not len(kept):
        return
    said, classes = asked.said(run.logits[rows[kept]]), found.classes[part[kept]]
    rngs = [np.random.default_rng([asked.seed, int(row)]) for row in rows[kept]]
    partners = np.array([_partner(rng, ~said[:, class_]) for rng, class_ in zip(rngs, classes, strict=True)])
    says = said[np.arange(len(kept)), classes]
    reasons = found.reasons[part[kept]]
    reasons = np.select([reasons > 0, ~says, partners < 0], [reasons, LeftOut.OTHERWISE, LeftOut.ALONE])
    found.reasons[part[kept]] = reasons
    usable = np.flatnonzero(reasons == LeftOut.JUDGED)
    if not len(usable):
        return
    own, others = torch.from_numpy(usable), torch.from_numpy(partners[usable])
    found.partners[part[kept][usable]] = rows[kept][others]
    stored = batch.pixels[torch.from_numpy(kept)]
    images = normalised(stored.to(asked.device), assembly.preprocessing)
    places = part[kept][usable]
    group = _Group(images[own], images[others], found.fills[places], [rngs[i] for i in usable])
    _ask(run, found, places, group, stored[own], asked)


def _ask(run: Run, found: Outcomes, places: np.ndarray, group: _Group, stored: Tensor, asked: Asked) -> None:
    """Fill in what the network says of the changed images of drawn samples, whose views are `stored`."""
    rows, classes = found.rows[places], found.classes[places]
    cams = predicted_cams({name: getattr(run, name)[rows] for name in ("cams", "cam_class", "prediction")})
    grid, view = run.plan.grid_size, run.plan.input_size
    size = window_size(grid)
    found.peaks[places], peak = peak_windows(cams, size)
    others = [[window_apart(rng, w, grid, size) for _ in range(2)] for rng, w in zip(group.rngs, peak, strict=True)]
    found.windows[places] = np.concatenate([peak[:, None], np.array(others)], 1)
    boxes = [[pixels(window, grid, view) for window in of_one] for of_one in found.windows[places]]
    middle = pixels(np.array(centre_window(grid, size)), grid, view)
    for trial, changed in enumerate(group.changed(boxes, middle)):
        logits = asked.logits(changed)
        found.holds[places, trial] = asked.said(logits)[np.arange(len(places)), classes]
        found.reasons[places[~np.isfinite(logits).all(1)]] = LeftOut.OVERFLOWN
    carries = found.holds[places, TRIALS.index("peak")]
    for place, class_, carried, pixels_of_view, (box, *_) in zip(places, classes, carries, stored, boxes, strict=True):
        found.pictures.add(int(place), int(class_), bool(carried), pixels_of_view, box)


def _partner(rng: np.random.Generator, others: np.ndarray) -> int:
    """Return the place of a random one of the images that are of another class, -1 where there is none."""
    places = np.flatnonzero(others)
    return int(rng.choice(places)) if len(places) else -1


_Box = tuple[slice, slice]


@dataclasses.dataclass(frozen=True)
class _Group:
    """Images whose regions are changed, those that the regions are pasted into, and what is random of each."""

    images: Tensor
    targets: Tensor
    fills: np.ndarray
    rngs: list[np.random.Generator]

    def changed(self, boxes: list[list[_Box]], middle: _Box) -> Iterator[Tensor]:
        """Yield the images of each of TRIALS.

        Args:
            boxes: of each image the region around the peak, where it is moved to, and a random one.
            middle: the region in the centre.
        """
        peak, moved, other = (list(of_all) for of_all in zip(*boxes, strict=True))
        yield self._pasted(peak, peak)
        yield self._pasted(peak, moved)
        yield self._pasted(other, other)
        yield self._pasted([middle] * len(boxes), [middle] * len(boxes))
        yield self._bordered()
        yield self._removed(peak)
        yield self._removed(other)
        kept = mean_colour(self.images).clone()
        for i, (rows, columns) in enumerate(peak):
            kept[i, :, rows, columns] = self.images[i, :, rows, columns]
        yield kept

    def _pasted(self, sources: list[_Box], places: list[_Box]) -> Tensor:
        pasted = self.targets.clone()
        for i, ((top, left), (rows, columns)) in enumerate(zip(sources, places, strict=True)):
            region, size = self.images[i, :, top, left], pasted[i, 0, rows, columns].shape
            if region.shape[1:] != size:  # cells that are no whole pixels
                region = torch.nn.functional.interpolate(region[None], tuple(size))[0]
            pasted[i, :, rows, columns] = region
        return pasted

    def _bordered(self) -> Tensor:
        pasted = self.images.clone()
        edges = [max(1, round(BORDER * side)) for side in pasted.shape[2:]]
        rows, columns = (slice(edge, -edge) for edge in edges)
        pasted[..., rows, columns] = self.targets[..., rows, columns]
        return pasted

    def _removed(self, boxes: list[_Box]) -> Tensor:
        filled = self.images.clone()
        means, soft = mean_colour(self.images), blurred(self.images, 1 / SHARE)
        for i, box in enumerate(boxes):
            region, fill = (i, slice(None), box[0], box[1]), FILLS[self.fills[i]]
            filled[region] = self._imputed(i, box) if fill == "road" else (means if fill == "mean" else soft)[region]
        return filled

    def _imputed(self, i: int, box: _Box) -> Tensor:
        """Return a region by noisy linear imputation, which needs the pixels around it alone."""
        around = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
        inside = tuple(slice(s.start - a.start, s.stop - a.start) for s, a in zip(box, around, strict=True))
        image = self.images[(slice(i, i + 1), slice(None), around[0], around[1])]
        gone = torch.zeros(1, *image.shape[2:], dtype=torch.bool, device=image.device)
        gone[(0, inside[0], inside[1])] = True
        filled = impute(image, gone)[(0, slice(None), inside[0], inside[1])]
        noise = self.rngs[i].standard_normal(tuple(filled.shape), np.float32) * np.float32(NOISE)
        return filled + torch.from_numpy(noise).to(filled.device)
