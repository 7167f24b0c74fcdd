"""The user's own transform of an image into the network's input, and which part of the image it shows."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from batchcam.errors import ConfigError, one_line
from batchcam.images.callables import load_callable, module_digest
from batchcam.images.decoding import UnreadableImageError, UnsupportedImageError, describe
from batchcam.images.planes import Decoded, planes

_Box: TypeAlias = "tuple[float, float, float, float]"

_REPEATS: Final = 8
_LONGEST_REPR: Final = 2000

_STRAIGHT: Final = 0.02
"""Share of a ramp by which coordinates may miss a straight line; bytes have steps of 1/255."""

_SMALL: Final = 8
_LEFT, _MOST_LEFT = 0.1, 0.5
"""Share of the variance of what is seen, made small, that need not be that of the image's part, made as small: of the
first images, and of any."""

_FLAT: Final = 1e-2
"""Such variance of an image in which nothing is seen."""

CHANCE: Final = "draws random numbers, or gives something else another time: name one that does not"


class OwnTransform:
    """What `--transform` names, in place of a `Preprocessing`.

    Attributes:
        spec: module:callable.
        traced: whether the part of an image that is shown follows from the image's size, and is what `apply` tells;
            else the view stands for the image.
    """

    def __init__(self, spec: str, traced: bool = False) -> None:
        """Load the transform.

        Raises:
            ConfigError: there is none of this name.
        """
        self.spec, self.traced = spec, traced
        self._given = load_callable(spec, ConfigError, "--transform ")
        if inspect.isclass(self._given) or not callable(self._given):
            raise ConfigError(f"--transform {spec}: is a {type(self._given).__name__}: name what takes an image")
        self._call = _as_function(self._given)
        is_array = type(self._given).__module__.startswith("albumentations")
        self._takes = "an array (H, W, 3)" if is_array else "a Pillow image"
        self._boxes: dict[tuple[int, int], _Box | None] = {}

    def __reduce__(self) -> Any:
        return OwnTransform, (self.spec, self.traced)

    def try_on(self, images: Sequence[Image.Image]) -> None:
        """Find out, for images like these, whether what is shown can be traced.

        Raises:
            ConfigError: the transform depends on chance.
        """
        if _is_random(self._tensor, images[0]):
            raise ConfigError(f"--transform {self.spec}: {CHANCE}")
        self.traced = all(map(self._is_traced, images))

    def to_dict(self) -> dict[str, Any]:
        """Return what the plan says of it."""
        about = re.sub(r" at 0x[0-9a-fA-F]+", "", one_line(repr(self._given)))[:_LONGEST_REPR]
        return {
            "transform": self.spec,
            "transform_repr": about,
            "transform_sha256": module_digest(self.spec),
            "traced": self.traced,
        }

    def apply(self, image: Decoded) -> tuple[Tensor, _Box]:
        """Return what the transform makes of an image, float32 (C, H, W), and the box of the image that this shows.

        Raises:
            UnsupportedImageError: it raises something, or gives no such tensor; or the box can't be traced, or is not
                what is seen.
            ConfigError: it draws random numbers.
        """
        drawn = _generators()
        pixels = self._tensor(image)
        if _generators() != drawn:
            raise ConfigError(f"--transform {self.spec}: {CHANCE}")
        if not torch.isfinite(pixels).all():
            raise UnsupportedImageError("--transform gave NaN or infinite pixels")
        if not self.traced:
            return pixels, (0.0, 0.0, float(pixels.shape[2]), float(pixels.shape[1]))
        if (box := self._box(image)) is None:
            raise UnsupportedImageError("which part of an image of this size --transform shows can't be traced")
        left, seen = _unlike(planes(image)[0], box, pixels)
        if left > _MOST_LEFT * seen and seen > _FLAT:
            raise UnsupportedImageError("--transform shows another part of this image than of others of its size")
        return pixels, box

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return `pixels` as they are."""
        return pixels

    def _tensor(self, image: Decoded) -> Tensor:
        try:
            made = self._call(image)
        except Exception as error:  # whatever the user's code raises is about this image
            told = f"--transform raised {type(error).__name__}: {describe(error)}"
            raise UnsupportedImageError(f"{told}; it is given {self._takes}") from error
        made = torch.from_numpy(made) if isinstance(made, np.ndarray) else made
        if not isinstance(made, Tensor) or made.ndim != 3 or not made.is_floating_point():
            told = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
            raise UnsupportedImageError(f"--transform gave {told}: expected a tensor (C, H, W) of floats")
        return made.detach().as_subclass(Tensor).to("cpu", torch.float32).contiguous()

    def _is_traced(self, image: Image.Image) -> bool:
        """Return whether the box that is traced for an image's size is what is shown of this one."""
        box = self._box(image)
        if box is None:
            return False
        left, seen = _unlike(image, box, self._tensor(image))
        return left <= _LEFT * seen + 1e-9

    def _box(self, image: Decoded) -> _Box | None:
        """Return what is shown of an image of this size; None where it is no upright part of it."""
        size = (image if isinstance(image, Image.Image) else image[0]).size
        if size not in self._boxes:
            self._boxes[size] = self._traced_box(*size)
        return self._boxes[size]

    def _traced_box(self, width: int, height: int) -> _Box | None:
        across, down = (np.linspace(0.5, side - 0.5, side) / side * 255 for side in (width, height))
        ramps = (np.zeros(1), np.full(1, 255), across, down[:, None])
        try:
            black, white, *seen = (self._of_grey(np.broadcast_to(ramp, (height, width))) for ramp in ramps)
        except UnreadableImageError:
            return None
        columns, rows = (_line(black, white, ramp, axis) for ramp, axis in zip(seen, (1, 0), strict=True))
        if columns is None or rows is None:
            return None
        (x0, x1), (y0, y1) = columns, rows
        return x0 * width, y0 * height, x1 * width, y1 * height

    def _of_grey(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return what is made of a grey image, mean over channels, (H, W)."""
        image = Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")
        return np.asarray(self._tensor(image).double().mean(0).numpy())


def _unlike(image: Image.Image, box: _Box, pixels: Tensor) -> tuple[float, float]:
    """Return the variance of what is seen, made small, that is not the image's part, made as small; and all of it."""
    part = np.asarray(image.resize((_SMALL, _SMALL), Image.Resampling.BOX, box), np.float64).reshape(_SMALL**2, -1)
    seen = functional.adaptive_avg_pool2d(pixels, _SMALL).flatten(1).T.double().numpy()
    part, seen = part - part.mean(0), seen - seen.mean(0)
    left = seen - part @ np.linalg.lstsq(part, seen)[0]  # each channel may be any mixture of the image's
    return float(np.square(left).sum()), float(np.square(seen).sum())


def _line(
    black: NDArray[np.float64], white: NDArray[np.float64], ramp: NDArray[np.float64], axis: int
) -> tuple[float, float] | None:
    """Return the shares of a ramp at the edges of a view, 0 to 1; None where it does not run straight along the axis.

    Args:
        black: what is made of a black image, (H, W).
        white: what is made of a white one.
        ramp: what is made of one that runs from black to white.
        axis: along which it runs.
    """
    if {black.shape, white.shape} != {ramp.shape}:
        return None
    span = white - black
    if not np.abs(span).min() > 1e-3 * np.abs(span).max():  # also where it is NaN
        return None
    places = (ramp - black) / span
    along = (np.arange(ramp.shape[axis]) + 0.5) / ramp.shape[axis]
    slope, first = np.polyfit(along, places.mean(1 - axis), 1)
    line = np.expand_dims(first + slope * along, 1 - axis)
    last = first + slope
    if slope <= 0 or np.abs(places - line).max() > _STRAIGHT or first < -_STRAIGHT or last > 1 + _STRAIGHT:
        return None
    return max(0.0, float(first)), min(1.0, float(last))


def _as_function(given: Any) -> Callable[[Any], Any]:
    """Return a transform of any library's as a function of a Pillow image."""
    library = type(given).__module__.partition(".")[0]
    if library == "albumentations":
        return lambda image: given(image=np.asarray(image))["image"]
    if library == "transformers":
        return lambda image: given(images=image, return_tensors="pt")["pixel_values"][0]
    return lambda image: given(image)


def _is_random(call: Callable[[Any], Tensor], image: Image.Image) -> bool:
    """Return whether a transform draws a number, or gives something else another time."""
    drawn = _generators()
    first = call(image)
    return _generators() != drawn or not all(torch.equal(call(image), first) for _ in range(_REPEATS))


def _generators() -> tuple[Any, ...]:
    """Return the states of the generators of random numbers that libraries share."""
    numpys: Any = np.random.get_state()
    return random.getstate(), torch.get_rng_state().numpy().tobytes(), numpys[1].tobytes(), numpys[2:]
