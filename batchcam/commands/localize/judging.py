"""What `localize` reads and judges: a CAM of each annotated sample, upsampled, against where the object is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from batchcam.commands.localize.annotations import Annotations, Objects, read_mask
from batchcam.commands.localize.contours import boxes_at
from batchcam.commands.localize.frames import Frame
from batchcam.commands.localize.protocol import (
    Evidence,
    Tally,
    Truth,
    Verdict,
    box_ious,
    centre_evidence,
    energy_inside,
    evidence,
    judge,
    on_image,
)
from batchcam.errors import DatasetError
from batchcam.pictures import heatmap
from batchcam.pictures.protocol import relative_boxes, score_map, view_values
from batchcam.record.clusters import dealt
from batchcam.record.rows import cam_blocks
from batchcam.record.similarity import says_nothing
from batchcam.record.study import Reason, first_reasons
from batchcam.record.window import image_window
from batchcam.rules import Status
from batchcam.store.run import Run
from batchcam.store.stored_cams import stored_ranks

SAME_SHAPE: Final = 1.05
"""Ratios of height to width that differ by less are one: a mask may be smaller than its image, and rounded."""

PIXEL_BYTES: Final = 8
"""Held for each pixel of an upsampled map until it is judged."""

Advance = Callable[[int], None]


class LeftOut(Reason):
    """Why a sample is not judged."""

    JUDGED = 0
    UNREADABLE = 1, "unreadable images"
    NOT_ANNOTATED = 2
    NO_CLASS = 3, "no class to explain"
    NOT_STORED = 4, "no CAM of the class in the run"
    BROKEN_MASK = 5, "mask cannot be read"
    OUT_OF_VIEW = 6, "object outside of the network's view"
    TURNED_MASK = 7, "mask drawn on the image before its EXIF turn"


@dataclasses.dataclass(frozen=True)
class Method:
    """How maps are judged.

    Attributes:
        target: whose CAM: of the `label`, or of the `predicted` class; in a multi-label run each annotated `finding`.
        frame: `view`: bilinear, over the network's view at its input size; `image`: as the protocol, over the whole
            image at 224 x 224, bicubic.
        size: (H, W) of the maps.
        tolerance: of the pointing game, in pixels of the map.
    """

    target: str
    frame: str
    size: tuple[int, int]
    tolerance: float


@dataclasses.dataclass
class Judged:
    """What was found, a row for each case of the annotations, and counts over the judged ones.

    Attributes:
        samples: row of each case in the run, int64 (n).
        reason: why a case is not judged, `LeftOut`, uint8 (n).
        error: why its masks can't be read, by row.
        classes: class whose CAM is judged, int64 (n); -1: none.
        right: whether the predicted class is the label, or this class stands at or above its threshold, bool (n).
        stretched: whether a mask has another shape than the image that it is laid over, bool (n).
        without_map: whether the CAM is constant or not finite, so that it finds nothing, bool (n).
        columns: numbers by name, float64 (n), NaN where there is none: `seen`, `object_share`, `peak_inside`, `points`,
            `energy`, `centre_inside`, `centre_points`, `centre_energy`.
        on_padding: share of the map's positive evidence that lies on padding, float64 (n); NaN where there is none.
        clusters: number of the cluster of each case, such as of its patient, int64 (n); None: they are independent.
        groups: number of each case's group, into which clusters are dealt, int64 (n).
        tallies: by class, of the maps and of the centre.
        group_tallies: by group, of the maps.
        box_counts: boxes of the object in pixels of the map, of each case, int64 (n).
        boxes: all of them, in the order of the cases, int64 (R, 4).
    """

    samples: np.ndarray
    reason: np.ndarray
    error: dict[int, str]
    classes: np.ndarray
    right: np.ndarray
    stretched: np.ndarray
    without_map: np.ndarray
    columns: dict[str, np.ndarray]
    on_padding: np.ndarray
    clusters: np.ndarray | None
    groups: np.ndarray
    tallies: dict[int, tuple[Tally, Tally]]
    group_tallies: dict[int, Tally]
    box_counts: np.ndarray
    boxes: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """Which cases are judged."""
        return np.flatnonzero(self.reason == LeftOut.JUDGED)

    def total(self) -> tuple[Tally, Tally]:
        """Return the counts over all classes, of the maps and of the centre."""
        return sum((m for m, _ in self.tallies.values()), Tally()), sum((c for _, c in self.tallies.values()), Tally())


COLUMNS: Final = (
    *("seen", "object_share", "peak_inside", "points", "energy"),
    *("centre_inside", "centre_points", "centre_energy"),
)


@dataclasses.dataclass(frozen=True)
class _Map:
    """One CAM and what it covers."""

    case: int
    cam: np.ndarray
    upsampled: np.ndarray
    view: tuple[float, float, float, float]
    share: tuple[float, ...]
    image_size: tuple[int, int]
    says_nothing: bool
    padding: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class _Result:
    reason: LeftOut
    error: str = ""
    seen: float = float("nan")
    stretched: bool = False
    truth: Truth | None = None
    verdicts: tuple[Verdict, Verdict] | None = None


def start(run: Run, annotations: Annotations, method: Method, clusters: np.ndarray | None = None) -> Judged:
    """Return which cases can be judged, before any map is read."""
    samples = annotations.samples
    status, prediction, label = (each[:][samples] for each in (run.status, run.prediction, run.label))
    classes = label if method.target == "label" else prediction
    right = (prediction == label) & (label >= 0)
    if (limits := run.plan.threshold_logits) is not None:
        classes, right = annotations.labels, _reach(run, annotations, limits)
    conditions: dict[Reason, np.ndarray] = {
        LeftOut.UNREADABLE: (status & Status.UNREADABLE) > 0,
        LeftOut.NOT_ANNOTATED: ~annotations.annotated,
        LeftOut.NO_CLASS: classes < 0,
    }
    if not run.plan.cams.is_all:
        conditions[LeftOut.NOT_STORED] = stored_ranks(run.cam_class[:][samples], classes) < 0
    count = len(samples)
    return Judged(
        samples=samples,
        reason=first_reasons(conditions),
        error={},
        classes=classes,
        right=right,
        stretched=np.zeros(count, bool),
        without_map=np.zeros(count, bool),
        columns={name: np.full(count, np.nan) for name in COLUMNS},
        on_padding=np.full(count, np.nan),
        clusters=clusters,
        groups=dealt(np.arange(count) if clusters is None else clusters),
        tallies={},
        group_tallies={},
        box_counts=np.zeros(count, np.int64),
        boxes=np.zeros((0, 4), np.int64),
    )


def _reach(run: Run, annotations: Annotations, limits: np.ndarray) -> np.ndarray:
    """Return whether each case's class stands at or above its limit, bool (n)."""
    reached, first = np.zeros(len(annotations.samples), bool), 0
    for rows, block in run.blocks(("logits",), annotations.samples):
        part = slice(first, first := first + len(rows))
        classes = annotations.labels[part]
        reached[part] = block["logits"][np.arange(len(rows)), classes] >= limits[classes]
    return reached


def measure(run: Run, annotations: Annotations, judged: Judged, method: Method, workers: int, advance: Advance) -> None:
    """Judge the map of each case that can be, and fill in `judged`."""
    centre = centre_evidence(method.size)
    boxes = [judged.boxes]

    def work(sample: _Map) -> _Result:
        return _judge(sample, annotations.of(sample.case), method, centre)

    with _mapper(workers) as mapped:
        for maps in _maps(run, judged, judged.rows, method):
            results = list(mapped(work, maps))
            for sample, result in zip(maps, results, strict=True):
                _note(judged, sample, result)
            boxes.append(np.concatenate([judged.boxes, *(r.truth.boxes for r in results if r.truth is not None)]))
            advance(len(maps))
    judged.boxes = np.concatenate(boxes)


def overlaps(run: Run, judged: Judged, method: Method, threshold: float, workers: int, advance: Advance) -> np.ndarray:
    """Return each case's best overlap of a box at one threshold with one of its object, float64 (n); NaN for none."""
    ious = np.full(len(judged.reason), np.nan)
    ends = np.cumsum(judged.box_counts)

    def work(sample: _Map) -> float:
        truth = judged.boxes[ends[sample.case] - judged.box_counts[sample.case] : ends[sample.case]]
        return float(box_ious(boxes_at(_scored(sample, method)[1], threshold), truth).max())

    with _mapper(workers) as mapped:
        for maps in _maps(run, judged, np.flatnonzero(judged.box_counts), method):
            ious[[sample.case for sample in maps]] = list(mapped(work, maps))
            advance(len(maps))
    return ious


@contextlib.contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Hand out a function like `map` that keeps the order and works in threads."""
    if workers == 1:
        yield map
        return
    with ThreadPoolExecutor(workers) as pool:
        yield pool.map


def _maps(run: Run, judged: Judged, cases: np.ndarray, method: Method) -> Iterator[list[_Map]]:
    """Yield the maps of cases in lists, each small enough to be held in memory while it is judged."""
    names, held = ("crop_box", "image_size"), PIXEL_BYTES * method.size[0] * method.size[1]
    for part, cams, block in cam_blocks(run, judged.samples[cases], judged.classes[cases], names, held):
        views, sizes = block["crop_box"], block["image_size"]
        without, shares = says_nothing(cams), relative_boxes(views, sizes)
        upsampled = heatmap.upsample(cams, method.size) if method.frame == "view" else cams
        yield [
            _Map(
                case=case,
                cam=cams[i],
                upsampled=upsampled[i],
                view=tuple(views[i].tolist()),
                share=tuple(shares[i].tolist()),
                image_size=tuple(sizes[i].tolist()),
                says_nothing=bool(without[i]),
                padding=_padding(views[i], sizes[i], method),
            )
            for i, case in enumerate(cases[part].tolist())
        ]


def _padding(view: np.ndarray, image_size: np.ndarray, method: Method) -> np.ndarray | None:
    """Return which pixels of a map lie outside of the image, bool (H, W); None where none does."""
    if method.frame != "view":
        return None
    padding = np.ones(method.size, bool)
    padding[image_window(view.tolist(), image_size.tolist(), method.size)] = False
    return padding if padding.any() else None


def _judge(sample: _Map, objects: Objects, method: Method, centre: Evidence) -> _Result:
    frame = Frame(method.size, sample.image_size, sample.view if method.frame == "view" else None)
    view = Frame(method.size, sample.image_size, sample.view)
    try:
        masks = [read_mask(path) for path in objects.masks]
        ignored = None if objects.ignored is None else read_mask(objects.ignored)
    except DatasetError as error:
        return _Result(LeftOut.BROKEN_MASK, str(error))
    drawn = masks if ignored is None else [*masks, ignored]
    if any(_is_turned(mask, sample.image_size) for mask in drawn):
        return _Result(LeftOut.TURNED_MASK)
    seen = _seen(view, objects, masks)
    if method.frame == "view" and seen == 0:
        return _Result(LeftOut.OUT_OF_VIEW, seen=seen)
    truth = dataclasses.replace(_truth(frame, objects, masks, ignored, method), padding=sample.padding)
    found = evidence(*_scored(sample, method))
    if sample.padding is not None:
        centre = centre_evidence(method.size, sample.padding)
    return _Result(
        LeftOut.JUDGED,
        seen=seen,
        stretched=any(_is_stretched(mask, sample.image_size) for mask in drawn),
        truth=truth,
        verdicts=(judge(found, truth, method.tolerance), judge(centre, truth, method.tolerance)),
    )


def _scored(sample: _Map, method: Method) -> tuple[np.ndarray, np.ndarray]:
    """Return a map's raw values, -inf outside of view or image, and the same scaled to 0…1, both (H, W)."""
    zeros = np.zeros(method.size)
    if not np.isfinite(sample.cam).all():
        return np.full(method.size, np.nan), zeros
    if method.frame == "view":
        values, scores = on_image(sample.upsampled, sample.padding)
        return values, zeros if sample.says_nothing else scores
    values = np.full(method.size, -np.inf)
    seen, window = view_values(sample.cam, sample.share, method.size)
    values[window] = seen
    return values, zeros if sample.says_nothing else score_map(sample.cam, sample.share, method.size)


def _seen(view: Frame, objects: Objects, masks: list[np.ndarray]) -> float:
    """Return the share of the objects' area in the network's view; NaN where they have none."""
    if not masks:
        return view.seen_of_boxes(objects.boxes, objects.size)
    areas = np.array([mask.mean() for mask in masks])
    shares = np.array([view.seen_of_mask(mask) for mask in masks])
    return float(np.nansum(areas * shares) / areas.sum()) if areas.any() else float("nan")


def _truth(
    frame: Frame, objects: Objects, masks: list[np.ndarray], ignored: np.ndarray | None, method: Method
) -> Truth:
    place = frame.mask if method.frame == "view" else frame.resized
    boxes = frame.boxes(objects.boxes, objects.size)
    if not masks:
        return Truth(boxes, frame.box_mask(objects.boxes, objects.size), exact=False)
    if not len(objects.boxes):
        around = [frame.boxes(_extent(mask), mask.shape[:2]) for mask in masks if mask.any()]
        boxes = np.concatenate([boxes, *around])
    inside = np.logical_or.reduce([place(mask) for mask in masks])
    return Truth(boxes, inside, exact=True, ignored=None if ignored is None else place(ignored))


def _is_turned(mask: np.ndarray, image_size: tuple[int, int]) -> bool:
    """Return whether a mask has the shape of the image turned by 90 degrees, and not the image's own."""
    return _is_stretched(mask, image_size) and not _is_stretched(mask.T, image_size)


def _is_stretched(mask: np.ndarray, image_size: tuple[int, int]) -> bool:
    """Return whether a mask has another shape than the image that it is laid over."""
    ratio = float(mask.shape[0] / mask.shape[1] / (image_size[0] / image_size[1]))
    return max(ratio, 1 / ratio) > SAME_SHAPE


def _extent(mask: np.ndarray) -> np.ndarray:
    """Return the box around a mask's pixels, float64 (1, 4)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float64)


def _note(judged: Judged, sample: _Map, result: _Result) -> None:
    row, columns = sample.case, judged.columns
    judged.reason[row] = result.reason
    columns["seen"][row] = result.seen
    judged.stretched[row] = result.stretched
    if result.error:
        judged.error[row] = result.error
    if result.truth is None or result.verdicts is None:
        return
    judged.without_map[row] = sample.says_nothing
    judged.box_counts[row] = len(result.truth.boxes)
    shown, centre = result.verdicts
    values = {
        "object_share": result.truth.object_share if result.truth.object.any() else None,
        "peak_inside": shown.peak_inside,
        "points": shown.points,
        "energy": shown.energy,
        "centre_inside": centre.peak_inside,
        "centre_points": centre.points,
        # where the map has no evidence that could be inside, neither has what it is compared with
        "centre_energy": centre.energy if np.isfinite(shown.energy) else None,
    }
    if sample.padding is not None:
        judged.on_padding[row] = energy_inside(np.maximum(sample.upsampled.astype(np.float64), 0), sample.padding)
    for name, value in values.items():
        columns[name][row] = np.nan if value is None else value
    tallies = judged.tallies.setdefault(int(judged.classes[row]), (Tally(), Tally()))
    for tally, verdict in zip(tallies, result.verdicts, strict=True):
        tally.add(verdict, bool(judged.right[row]))
    judged.group_tallies.setdefault(int(judged.groups[row]), Tally()).add(shown, bool(judged.right[row]))
