"""How other libraries write down what becomes of an image, in the words of `Preprocessing`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

_RESAMPLING: Final = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By Pillow's number."""

_PROCESSORS: Final = ("bit", "clip", "convnext", "deit", "efficientnet", "mobilenetv1", "mobilenetv2", "vit")
"""Those of transformers whose keys mean what is done with them here."""

_WITHOUT_EFFECT: Final = (
    "auto_map", "backend", "crop_pct", "crop_size", "data_format", "default_to_square", "device", "disable_grouping",
    "do_center_crop", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize", "feature_extractor_type",
    "image_mean", "image_processor_type", "image_std", "include_top", "input_data_format", "processor_class",
    "resample", "rescale_factor", "rescale_offset", "return_tensors", "size", "_valid_processor_keys",
)  # fmt: skip
"""Keys that are read here, or change no pixel; any other one may."""


class UnknownRecipeError(ValueError):
    """A recipe that asks for something that `Preprocessing` does not do; the message says what."""


def timm_recipe(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `timm.data.create_transform` does for evaluation, as `Preprocessing.to_dict` has it.

    Args:
        said: timm's pretrained_cfg.

    Raises:
        UnknownRecipeError: it is incomplete, or asks for something else.
    """
    size = _sides(_said(said, "input_size")[1:])
    share, mode = float(said.get("crop_pct") or 0.875), said.get("crop_mode") or "center"
    mean = _said(said, "mean")
    whole = {"center": [math.floor(size[0] / share)], "squash": [math.floor(s / share) for s in size], "border": size}
    if mode not in whole or (mode == "center" and size[0] != size[1]) or (mode == "border" and share != 1):
        raise UnknownRecipeError(f"crop_mode {mode} at crop_pct {share} of {size[0]}x{size[1]}")
    padding = {"pad": [min(255, max(0, round(255 * value))) for value in mean]} if mode == "border" else {}
    return {
        "resize": whole[mode],
        "image_size": size,
        "mean": list(mean),
        "std": list(_said(said, "std")),
        "interpolation": _said(said, "interpolation"),
        **padding,
    }


def transformers_recipe(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an image processor of transformers does, as `Preprocessing.to_dict` has it.

    Images are resized by Pillow, as transformers before 5 does; later ones round otherwise, by 2 of 255 at most, and
    choose other pixels for "nearest".

    Args:
        said: preprocessor_config.json.

    Raises:
        UnknownRecipeError: it is incomplete, or asks for something else.
    """
    name = str(said.get("image_processor_type") or said.get("feature_extractor_type"))
    kind = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", name).lower()
    if kind not in _PROCESSORS:
        raise UnknownRecipeError(f"a {name}, which is not known here")
    if unknown := [key for key, value in said.items() if value and key not in _WITHOUT_EFFECT]:
        raise UnknownRecipeError(f"{unknown[0]} of a {name}, which is not known here")
    resize, size = _transformers_sizes(said, kind)
    mean, std = _scale(said, kind)
    return {
        "resize": resize,
        "image_size": size,
        "mean": mean,
        "std": std,
        "interpolation": _interpolation(said),
        **({} if resize == size else {"cut_floor": True}),
    }


def _transformers_sizes(said: Mapping[str, Any], kind: str) -> tuple[list[int] | None, list[int]]:
    """Return what an image is resized to, and the size of what is cut from it."""
    resize = None
    if said.get("do_resize", True):
        given = _said(said, "size")
        by_shorter_side = (
            "shortest_edge" in given if isinstance(given, Mapping) else kind not in ("deit", "efficientnet", "vit")
        )
        resize = [_shorter_side(given)] if by_shorter_side else _sides(given)
    if kind == "convnext" and resize:  # cuts by its own rule: crop_pct, and from 384 pixels not at all
        side = resize[0]
        return ([int(side / _said(said, "crop_pct"))] if side < 384 else [side, side]), [side, side]
    cuts = said.get("do_center_crop", kind not in ("efficientnet", "vit"))
    size = _sides(_said(said, "crop_size")) if cuts else resize
    if size is None or len(size) != 2:
        raise UnknownRecipeError("size and crop_size, which leave inputs of several sizes")
    return resize, size


def _scale(said: Mapping[str, Any], kind: str) -> tuple[list[float], list[float]]:
    """Return mean and std of values in 0…1, of which (value - mean) / std is the network's input."""
    factor = float(said.get("rescale_factor") or 1 / 255) if said.get("do_rescale", True) else 1.0
    offset = 1.0 if said.get("rescale_offset") else 0.0
    normalises = said.get("do_normalize", True)
    mean = _numbers(_said(said, "image_mean")) if normalises else [0.0] * 3
    std = _numbers(_said(said, "image_std")) if normalises else [1.0] * 3
    again = std if kind == "efficientnet" and said.get("include_top", True) else [1.0] * 3
    unit = 255 * factor
    means = [(value + offset) / unit for value in mean]
    return means, [value * more / unit for value, more in zip(std, again, strict=True)]


def _interpolation(said: Mapping[str, Any]) -> str:
    if not said.get("do_resize", True):
        return "bilinear"
    number = _said(said, "resample")
    if type(number) is not int or not 0 <= number < len(_RESAMPLING):
        raise UnknownRecipeError(f"resample {number}")
    return _RESAMPLING[number]


def _said(said: Mapping[str, Any], key: str) -> Any:
    if said.get(key) is None:
        raise UnknownRecipeError(f"no {key}")
    return said[key]


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, (list, tuple)) else [value] * 3
    return [float(each) for each in values]


def _shorter_side(size: Any) -> int:
    return int(size["shortest_edge"] if isinstance(size, Mapping) else size)


def _sides(size: Any) -> list[int]:
    """Return height and width of what is written as a table, as both, or as one number."""
    if isinstance(size, Mapping):
        size = [size.get("height"), size.get("width")]
    sides = list(size) if isinstance(size, (list, tuple)) else [size, size]
    if len(sides) != 2 or not all(type(side) is int for side in sides):
        raise UnknownRecipeError(f"a size of {size}")
    return sides
