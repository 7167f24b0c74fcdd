"""Is what a shard says about each sample true? Numbers recomputed from the file alone, without a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from batchcam import heatmap
from batchcam.rules import CONSTANT_RELATIVE_RANGE, IDENTITY_TOLERANCE, Status

Block = Mapping[str, np.ndarray]

GREY_LEVELS = 1
"""uint8 maps may differ by this much: the auditor's interpolation rounds otherwise than the worker's."""

ROUNDING = 1e-4
"""float32 results of the same formula differ by less than this times their scale."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the plan says that the numbers of a shard depend on.

    Attributes:
        class_count: K.
        cams: which classes' CAMs are stored.
        maps: kind of upsampled map.
        input_size: (H, W) of the network's input.
        precision: of the network's arithmetic.
        identity: False when the identity was waived.
        bias: classifier bias (K,).
    """

    class_count: int
    cams: str
    maps: str
    input_size: tuple[int, int]
    precision: str
    identity: bool
    bias: np.ndarray


@dataclasses.dataclass(frozen=True)
class Wrong:
    """Rows of a block that contradict a rule: name of the rule, the array, which rows, and the rule in words."""

    rule: str
    array: str
    rows: np.ndarray
    message: str


def audit(block: Block, facts: Facts) -> Iterator[Wrong]:
    """Yield the rules that rows of `block` break.

    Args:
        block: arrays of the schema by name, n rows each.
        facts: what the plan says.
    """
    with np.errstate(all="ignore"):  # NaN is data here
        for wrong in _rules(block, facts):
            if wrong.rows.any():
                yield wrong


def _rules(block: Block, facts: Facts) -> Iterator[Wrong]:
    status = block["status"]
    unreadable = (status & Status.UNREADABLE) > 0
    readable = ~unreadable
    yield Wrong("status", "status", status > sum(Status), "not a sum of known flags")
    yield Wrong(
        "label", "label", (block["label"] < -1) | (block["label"] >= facts.class_count), "not a class, and not -1"
    )
    yield Wrong("status", "error", unreadable != (block["error"] != b""), "error text and status do not agree")
    yield Wrong("status", "logits", unreadable & ~_blank(block), "numbers in the row of an unreadable sample")
    yield from _predictions(block, readable)
    yield from _cams(block, readable, facts)


def _blank(block: Block) -> np.ndarray:
    """Return which rows hold only what an unreadable sample's row may hold."""
    rows = len(block["status"])
    nan = [block[n] for n in ("logits", "cams", "confidence", "identity_residual")]
    blank = np.logical_and.reduce([np.isnan(a).reshape(rows, -1).all(1) for a in nan])
    if "maps" in block:
        maps = block["maps"].reshape(rows, -1)
        blank &= (np.isnan(maps) if maps.dtype.kind == "f" else maps == 0).all(1)
    return blank & (block["prediction"] == -1)  # type: ignore[no-any-return]


def _predictions(block: Block, readable: np.ndarray) -> Iterator[Wrong]:
    logits, prediction = block["logits"], block["prediction"]
    finite = readable & np.isfinite(logits).all(1)
    expected = np.where(finite, np.argmax(np.nan_to_num(logits), 1), -1)
    yield Wrong("prediction", "prediction", prediction != expected, "not the argmax of the logits")
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    confidence = (shifted.max(1) / shifted.sum(1)).astype(np.float32)
    off = ~(np.abs(block["confidence"] - confidence) <= ROUNDING)
    yield Wrong("confidence", "confidence", finite & off, "not the softmax of the logits at the predicted class")


def _cams(block: Block, readable: np.ndarray, facts: Facts) -> Iterator[Wrong]:
    cams, logits, classes = block["cams"], block["logits"], block["cam_class"]
    known = classes >= 0
    yield Wrong(
        "cam-class", "cam_class", readable & _wrong_classes(block, facts), f"not the classes that {facts.cams!r} stores"
    )
    safe = np.clip(classes, 0, facts.class_count - 1)
    chosen = np.take_along_axis(logits, safe, 1)
    sums = cams.astype(np.float64).mean((2, 3)) + facts.bias[safe]
    residual = np.where(known, np.abs(sums - chosen), 0).max(1)
    finite = np.isfinite(logits).all(1) & (np.isfinite(cams) | ~known[..., None, None]).all((1, 2, 3))
    sound = readable & finite
    scale = np.maximum(1, np.abs(np.nan_to_num(logits)).max(1))
    off = ~(np.abs(block["identity_residual"] - residual) <= ROUNDING * np.maximum(scale, residual))
    yield Wrong("identity", "identity_residual", sound & off, "not what CAMs, bias and logits give")
    if facts.identity:
        beyond = residual > IDENTITY_TOLERANCE[facts.precision] * scale
        yield Wrong("identity", "cams", sound & beyond, "mean of a CAM + bias is not the class's logit")
    flagged = (block["status"] & Status.NON_FINITE) > 0
    yield Wrong("status", "status", readable & (flagged == finite), "non-finite numbers and status do not agree")
    yield from _maps(block, sound, facts)


def _wrong_classes(block: Block, facts: Facts) -> np.ndarray:
    """Return which rows store CAMs of other classes than the plan asks for."""
    classes, prediction, logits = block["cam_class"], block["prediction"], block["logits"]
    if facts.cams == "all":
        return (classes != np.arange(facts.class_count)).any(1)  # type: ignore[no-any-return]
    if facts.cams.startswith("topk:"):
        # equal logits may come in either order: compare their values
        ranked = -np.sort(-logits, axis=1)[:, : classes.shape[1]]
        picked = np.take_along_axis(logits, np.clip(classes, 0, facts.class_count - 1), 1)
        wrong = (classes[:, 0] != prediction) | (picked != ranked).any(1)
        return np.where(prediction < 0, (classes != -1).any(1), wrong)  # type: ignore[no-any-return]
    expected = prediction[:, None]
    if facts.cams == "predicted+label":
        expected = np.stack([prediction, block["label"]], 1)
    return (classes != expected).any(1)  # type: ignore[no-any-return]


def predicted_cams(block: Block) -> np.ndarray:
    """Return the predicted class's CAM of each row, (n, h, w); NaN where there is none."""
    match = (block["cam_class"] == block["prediction"][:, None]) & (block["prediction"] >= 0)[:, None]
    cams: np.ndarray = block["cams"][np.arange(len(match)), match.argmax(1)].copy()
    cams[~match.any(1)] = np.nan
    return cams


def _maps(block: Block, sound: np.ndarray, facts: Facts) -> Iterator[Wrong]:
    cams = predicted_cams(block)
    low, high = cams.min((1, 2)), cams.max((1, 2))
    # within rounding of the rule's edge either answer is right
    ratio = (high - low) / np.maximum(np.abs(low), np.abs(high))
    constant = (block["status"] & Status.CONSTANT_MAP) > 0
    wrong = np.where(constant, ratio > 2 * CONSTANT_RELATIVE_RANGE, ratio < 0.5 * CONSTANT_RELATIVE_RANGE)
    wrong |= ~constant & (high == 0) & (low == 0)
    yield Wrong("status", "status", sound & wrong, "constant map and status do not agree")
    negative = (block["status"] & Status.NO_POSITIVE_EVIDENCE) > 0
    yield Wrong("status", "status", sound & (negative != (high <= 0)), "sign of the evidence and status do not agree")
    if facts.maps == "none":
        return
    upsampled = heatmap.upsample(cams, facts.input_size)
    low, high = upsampled.min((1, 2)), upsampled.max((1, 2))
    near = ROUNDING * np.maximum(np.abs(low), np.abs(high))[:, None]
    off = ~(np.abs(block["map_range"] - np.stack([low, high], 1)) <= near).all(1)
    yield Wrong("map-range", "map_range", sound & off, "not the smallest and largest value of the upsampled CAM")
    yield Wrong(
        "map", "maps", _wrong_maps(block, upsampled, sound, constant), "not the predicted class's upsampled CAM"
    )


def _wrong_maps(block: Block, upsampled: np.ndarray, sound: np.ndarray, constant: np.ndarray) -> np.ndarray:
    maps = block["maps"]
    rows = len(maps)
    if maps.dtype.kind == "f":
        near = ROUNDING * np.abs(upsampled).max((1, 2))[:, None, None]
        return sound & ~(np.abs(maps - upsampled) <= near).all((1, 2))  # type: ignore[no-any-return]
    low, high = block["map_range"][:, 0, None, None], block["map_range"][:, 1, None, None]
    expected = 255 * (upsampled - low) / (high - low)
    off = ~(np.abs(maps - expected) <= GREY_LEVELS).reshape(rows, -1).all(1)
    blank = (maps == 0).reshape(rows, -1).all(1)
    return np.where(sound & ~constant, off, ~blank)  # type: ignore[no-any-return]
