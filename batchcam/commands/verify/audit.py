"""Is what a shard says about each sample true? Numbers recomputed from the file alone, without a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from batchcam.pictures import heatmap
from batchcam.rules import CONSTANT_RELATIVE_RANGE, FEATURE_TOLERANCE, IDENTITY_TOLERANCE, Status
from batchcam.store.features import missed
from batchcam.store.plan import Plan
from batchcam.store.schema import FEATURES, LABELS, OFFSET
from batchcam.store.stored_cams import predicted_cams

Block = Mapping[str, np.ndarray]

GREY_LEVELS = 1
"""uint8 maps may differ by this much: the auditor's interpolation rounds otherwise than the worker's."""

ROUNDING = 1e-4
"""float32 results of the same formula differ by less than this times their scale."""

INTERPOLATION_ROUNDING = 1e-6
"""Upsampled values of two implementations differ by less than this times the map's largest magnitude."""

KNOWN_FLAGS = int(sum(Status))


@dataclasses.dataclass(frozen=True)
class Wrong:
    """Rows of a block that contradict a rule: name of the rule, the array, which rows, and the rule in words."""

    rule: str
    array: str
    rows: np.ndarray
    message: str


def audit(block: Block, plan: Plan, bias: np.ndarray, weight: np.ndarray | None = None) -> Iterator[Wrong]:
    """Yield the rules that rows of `block` break.

    Args:
        block: arrays of the schema by name, n rows each.
        bias: of the classifier (K,).
        weight: likewise (K, C); of a run with features.
    """
    known = block["status"] <= KNOWN_FLAGS
    with np.errstate(all="ignore"):  # NaN is data here
        for wrong in _rules(block, plan, bias, weight):
            rows = wrong.rows & known
            if rows.any():
                yield dataclasses.replace(wrong, rows=rows)
    if not known.all():  # the other rules go by the flags
        yield Wrong("status", "status", ~known, "not a sum of known flags")


def _rules(block: Block, plan: Plan, bias: np.ndarray, weight: np.ndarray | None) -> Iterator[Wrong]:
    status, label = block["status"], block["label"]
    unreadable = (status & Status.UNREADABLE) > 0
    if plan.is_multi_label:
        yield Wrong("label", "label", label != -1, "not -1, where each class has a label of its own")
        unknown = np.asarray((~np.isin(block[LABELS], (-1, 0, 1))).any(1))
        yield Wrong("label", LABELS, unknown, "not 1, 0 or -1")
    else:
        yield Wrong("label", "label", (label < -1) | (label >= len(plan.class_names)), "not a class, and not -1")
    for name in ("sample_id", "error"):
        yield Wrong("text", name, ~np.array([_is_utf8(text) for text in block[name].tolist()], bool), "not UTF-8")
    yield Wrong("status", "error", unreadable != (block["error"] != b""), "error text and status do not agree")
    alone = (status & (Status.UNREADABLE | Status.NON_FINITE)) > 0
    several = alone & (status != Status.UNREADABLE) & (status != Status.NON_FINITE)
    yield Wrong("status", "status", several, "flags that exclude each other")
    yield Wrong("status", "logits", unreadable & ~_blank(block, plan), "numbers in the row of an unreadable sample")
    yield from _predictions(block, ~unreadable, plan)
    yield from _cams(block, ~unreadable, plan, bias)
    if weight is not None:
        message = f"W f + b is not the logits: by more than {FEATURE_TOLERANCE[plan.precision]:g} of the largest"
        rounding = ", and what float16 rounds" if plan.features == "float16" else ""
        yield Wrong("identity", FEATURES, ~alone & missed(block, weight, bias, plan.precision), message + rounding)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _blank(block: Block, plan: Plan) -> np.ndarray:
    """Return which rows hold, but for their map, only what an unreadable sample's row may hold."""
    rows = len(block["status"])
    names = ("logits", "cams", "confidence", "identity_residual", OFFSET, FEATURES, "map_range")
    blank = np.logical_and.reduce([np.isnan(block[n]).reshape(rows, -1).all(1) for n in names if n in block])
    if not plan.cams.is_all:
        blank &= (block["cam_class"] == -1).all(1)
    return blank & (block["prediction"] == -1)  # type: ignore[no-any-return]


def _predictions(block: Block, readable: np.ndarray, plan: Plan) -> Iterator[Wrong]:
    logits, prediction = block["logits"], block["prediction"]
    finite = readable & np.isfinite(logits).all(1)
    expected = np.where(finite, np.argmax(np.nan_to_num(_heights(logits, plan)), 1), -1)
    above = " above those of the thresholds" if plan.is_multi_label else ""
    yield Wrong("prediction", "prediction", prediction != expected, f"not the argmax of the logits{above}")
    if plan.is_multi_label:
        top = np.take_along_axis(logits, np.maximum(expected, 0)[:, None], 1)[:, 0].astype(np.float64)
        kind, confidence = "sigmoid", 1 / (1 + np.exp(-top))
    else:
        shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        kind, confidence = "softmax", (shifted.max(1) / shifted.sum(1)).astype(np.float32)
    off = ~(np.abs(block["confidence"] - confidence) <= ROUNDING)
    yield Wrong("confidence", "confidence", finite & off, f"not the {kind} of the logits at the predicted class")


def _heights(logits: np.ndarray, plan: Plan) -> np.ndarray:
    """Return by what classes are ranked: their logits, in a multi-label run above those of their thresholds."""
    above = plan.threshold_logits
    return logits if above is None else logits - above


def _cams(block: Block, readable: np.ndarray, plan: Plan, bias: np.ndarray) -> Iterator[Wrong]:
    cams, logits, classes = block["cams"], block["logits"], block["cam_class"]
    known = classes >= 0
    yield Wrong(
        "cam-class", "cam_class", readable & _wrong_classes(block, plan), f"not the classes that '{plan.cams}' stores"
    )
    unknown = readable & (~known & ~(np.isnan(cams).all((2, 3)) & np.isnan(block.get(OFFSET, np.nan)))).any(1)
    yield Wrong("cam-class", "cams", unknown, "numbers in a CAM that has no class")
    finite = np.isfinite(logits).all(1) & (np.isfinite(cams) | ~known[..., None, None]).all((1, 2, 3))
    sound = readable & finite
    if plan.exact:
        safe = np.clip(classes, 0, len(bias) - 1)
        sums = cams.astype(np.float64).mean((2, 3)) + bias[safe] + block.get(OFFSET, 0)
        residual = np.where(known, np.abs(sums - np.take_along_axis(logits, safe, 1)), 0).max(1)
        yield from _identity(block, residual, sound, plan)
    else:
        claimed = ~np.isnan(block["identity_residual"])
        yield Wrong("identity", "identity_residual", claimed, f"a residual, where {plan.method} has no identity")
    flagged = (block["status"] & Status.NON_FINITE) > 0
    yield Wrong("status", "status", readable & (flagged == finite), "non-finite numbers and status do not agree")
    yield from _maps(block, readable, sound, plan)


def _identity(block: Block, residual: np.ndarray, sound: np.ndarray, plan: Plan) -> Iterator[Wrong]:
    scale = np.maximum(1, np.abs(np.nan_to_num(block["logits"])).max(1))
    off = ~(np.abs(block["identity_residual"] - residual) <= ROUNDING * np.maximum(scale, residual))
    yield Wrong("identity", "identity_residual", sound & off, "not what CAMs, bias and logits give")
    if plan.identity:
        beyond = residual > IDENTITY_TOLERANCE[plan.precision] * scale
        offset = " + offset" if plan.has_offset else ""
        yield Wrong("identity", "cams", sound & beyond, f"mean of a CAM + bias{offset} is not the class's logit")


def _wrong_classes(block: Block, plan: Plan) -> np.ndarray:
    """Return which rows store CAMs of other classes than the plan asks for."""
    classes, prediction, logits = block["cam_class"], block["prediction"], block["logits"]
    if plan.cams.is_all:
        return (classes != np.arange(len(plan.class_names))).any(1)  # type: ignore[no-any-return]
    if plan.cams.top or plan.cams.is_positive:
        # equal ones may come in either order: compare their values
        heights = _heights(logits, plan)
        ranked = -np.sort(-heights, axis=1)[:, : classes.shape[1]]
        stored = (ranked >= 0) | (np.arange(classes.shape[1]) == 0) | bool(plan.cams.top)
        picked = np.take_along_axis(heights, np.clip(classes, 0, len(plan.class_names) - 1), 1)
        ordered = np.sort(classes, 1)
        twice = ((np.diff(ordered, axis=1) == 0) & (ordered[:, 1:] >= 0)).any(1)
        wrong = (classes[:, 0] != prediction) | ((classes >= 0) != stored).any(1) | twice
        wrong |= (stored & (picked != ranked)).any(1)
        return np.where(prediction < 0, (classes != -1).any(1), wrong)  # type: ignore[no-any-return]
    expected = prediction[:, None]
    if plan.cams.has_label:
        expected = np.stack([prediction, block["label"]], 1)
    return (classes != expected).any(1)  # type: ignore[no-any-return]


def _maps(block: Block, readable: np.ndarray, sound: np.ndarray, plan: Plan) -> Iterator[Wrong]:
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
    if plan.maps == "none":
        return
    upsampled = heatmap.upsample(cams, plan.input_size)
    low, high = upsampled.min((1, 2)), upsampled.max((1, 2))
    near = ROUNDING * np.maximum(np.abs(low), np.abs(high))[:, None]
    off = ~(np.abs(block["map_range"] - np.stack([low, high], 1)) <= near).all(1)
    yield Wrong("map-range", "map_range", sound & off, "not the smallest and largest value of the upsampled CAM")
    if block["maps"].dtype.kind == "f":
        wrong = np.where(readable, sound & _off(block["maps"], upsampled), ~np.isnan(block["maps"]).all((1, 2)))
    else:
        shown = sound & ~constant
        wrong = np.where(shown, _off_grey(block, upsampled), (block["maps"] != 0).any((1, 2)))
    yield Wrong("map", "maps", wrong, "not the predicted class's upsampled CAM")


def _off(maps: np.ndarray, upsampled: np.ndarray) -> np.ndarray:
    near = ROUNDING * np.abs(upsampled).max((1, 2))[:, None, None]
    close = np.abs(maps - upsampled) <= near
    return ~np.asarray(close.all((1, 2)))


def _off_grey(block: Block, upsampled: np.ndarray) -> np.ndarray:
    low, high = (block["map_range"][:, end, None, None].astype(np.float64) for end in (0, 1))
    span = np.where(high > low, high - low, np.inf)
    # where the range is small against the values, their rounding alone is worth several grey levels
    near = GREY_LEVELS + 255 * INTERPOLATION_ROUNDING * np.maximum(np.abs(low), np.abs(high)) / span
    close = np.abs(block["maps"] - 255 * (upsampled - low) / span) <= near
    return ~np.asarray(close.all((1, 2)))
